/**
 * Log recovery: segments whose bytes are damaged, and logs whose records say other things under checksums that are right,
 * opened by the disk engine over the simulated disk. It refuses with a code, or opens and serves: everything can be
 * counted and read, stored and acknowledged, time goes on, and after closing it opens again and says the same. One in four
 * is opened by a broker, which reads what a server keeps in it.
 */
import { Broker } from '../../../src/broker/broker.js';
import { resolveServerConfig } from '../../../src/config.js';
import { appendTo } from '../../../src/engine/conformance/batches.js';
import { SEGMENT_HEADER } from '../../../src/engine/disk/header.js';
import { RECORD } from '../../../src/engine/disk/record.js';
import { segmentName } from '../../../src/engine/disk/segment.js';
import { diskEngine, type Engine, type EngineHost, type EngineState } from '../../../src/engine/index.js';
import { TestClock } from '../../../src/testing/test-clock.js';
import { Inode, SimulatedDisk } from '../../helpers/simulated-files.js';
import type { Target } from './fuzz.js';
import { layOut, LOGS, type Log, type LogSegment } from './logs.js';
import type { Mutator } from './mutator.js';

export interface Directory {
  readonly files: readonly { readonly name: string; readonly bytes: Buffer }[];
  /** Opened by a broker, as a server does. */
  readonly byBroker: boolean;
}

const FOLDER = '/d';
const PAYLOADS = LOGS.flatMap(log => log.flatMap(({ payloads }) => payloads));
const SEGMENTS = LOGS.flatMap(log => log.map(layOut));
const NUMBERS = [0, -1, 1.5, NaN, Infinity, 2 ** 31, 2 ** 53, 2 ** 60];

// ---- inputs --------------------------------------------------------------------------------------------------------------

/** Records that say other things, are missing, repeated or in another order; the checksums are right. */
function hostileLog(mutator: Mutator, log: Log): LogSegment[] {
  const segments = log.map(({ header, payloads, spare }) => ({
    header: { ...header },
    payloads: [...payloads],
    spare,
  }));
  for (let edits = 1 + mutator.below(3); edits > 0; edits--) {
    const { header, payloads } = mutator.pick(segments);
    const at = mutator.below(payloads.length + 1);
    const kind = mutator.below(16);
    if (kind === 0) payloads.splice(at, 1);
    else if (kind === 1) payloads.splice(at, 0, mutator.pick(PAYLOADS));
    else if (kind === 2) header.nextHandle = mutator.pick(NUMBERS);
    else if (kind === 3) header.number = mutator.onceIn(2) ? mutator.pick(NUMBERS) : 1 + mutator.below(4);
    else if (payloads[at] !== undefined) payloads[at] = hostilePayload(mutator, payloads[at]);
  }
  return segments;
}

function hostilePayload(mutator: Mutator, payload: Buffer): Buffer {
  // A record of no known type is none: its type is left, mostly.
  if (mutator.onceIn(16)) return mutator.bytes(payload, PAYLOADS);
  const type = mutator.onceIn(16) ? 1 + mutator.below(RECORD.COMMIT) : (payload[0] as number);
  return Buffer.concat([Buffer.from([type]), mutator.bytes(payload.subarray(1), PAYLOADS)]);
}

function hostileBytes(mutator: Mutator, bytes: Buffer): Buffer {
  if (mutator.onceIn(4)) return mutator.bytes(bytes, SEGMENTS, 1);
  // Most of a segment is its first bytes, which are the same for all.
  const header = bytes.subarray(0, SEGMENT_HEADER);
  if (mutator.onceIn(8)) return Buffer.concat([mutator.bytes(header, SEGMENTS, 2), bytes.subarray(SEGMENT_HEADER)]);
  return Buffer.concat([header, mutator.bytes(bytes.subarray(SEGMENT_HEADER), SEGMENTS)]);
}

function make(mutator: Mutator): Directory {
  const log = mutator.pick(LOGS);
  const behind = !mutator.onceIn(4);
  const segments = (behind ? hostileLog(mutator, log) : log).map(layOut);
  if (!behind) {
    const at = mutator.below(segments.length);
    segments[at] = hostileBytes(mutator, segments[at] as Buffer);
  }
  const files = segments.map((bytes, i) => ({ name: segmentName(i + 1), bytes }));
  if (mutator.onceIn(32)) files.splice(mutator.below(files.length), 1);
  if (mutator.onceIn(64))
    files.push({ name: mutator.text(segmentName(4), ['log', 'lock', 'damaged']), bytes: Buffer.alloc(9) });
  return { files, byBroker: mutator.onceIn(4) };
}

// ---- opening -------------------------------------------------------------------------------------------------------------

const LIMITS = resolveServerConfig({}).limits;

async function run({ files, byBroker }: Directory): Promise<string> {
  const disk = new SimulatedDisk();
  for (const { name, bytes } of files) {
    if (name === '' || name.includes('/')) continue;
    const inode = new Inode();
    inode.data = Buffer.from(bytes);
    disk.addFile(`${FOLDER}/${name}`, inode);
  }
  try {
    return byBroker ? await openBroker(disk) : await openTwice(disk);
  } catch (error) {
    // The engine says of whatever happens when it is opened that the store cannot be read; only a disk's error is one.
    const { cause } = error as Error & { cause?: Error & { code?: string } };
    throw cause instanceof Error && !/^E[A-Z]+$/.test(cause.code ?? '') ? cause : error;
  } finally {
    if (disk.openFiles > 0) throw new Error(`${String(disk.openFiles)} files are left open`);
  }
}

function engineOn(disk: SimulatedDisk): Engine {
  return diskEngine({ directory: FOLDER, files: disk, segmentBytes: 4096, reserveBytes: 0 });
}

class Host implements EngineHost {
  readonly clock = new TestClock();
  readonly storeBytes = undefined;
  failure: Error | undefined;
  failed(error: Error): void {
    this.failure ??= error;
  }
  roomAgain(): void {
    // nobody waits for it
  }
  arrived(): void {
    // never called by this engine
  }
  damaged(): void {
    // it has left its queue
  }
  warn(): void {
    // for the log
  }
}

async function openTwice(disk: SimulatedDisk): Promise<string> {
  const host = new Host();
  const engine = engineOn(disk);
  const state = await engine.open(host);
  const word = state.damage.length > 0 ? 'opened, damage named' : 'opened';
  let before: string;
  try {
    check(state);
    await readAll(engine, state);
    before = describe(engine);
    engine.append([appendTo(['fresh'], ['new'], { first: 2 ** 40 })]);
    await engine.commit();
    const [run] = await engine.read('fresh', 0, 10, 1e6);
    if (run?.batch.count !== 1) throw new Error('what was stored is not there');
    host.clock.tick(1000);
    engine.drop('fresh');
  } finally {
    await engine.close();
  }
  if (host.failure !== undefined) throw host.failure;
  const again = engineOn(disk);
  await again.open(host);
  const after = describe(again);
  await again.close();
  if (after !== before) throw new Error(`it was ${before} and is ${after} when it is opened again`);
  return word;
}

/** What the host builds on. */
function check(state: EngineState): void {
  const numbers = [state.time, state.nextHandle];
  for (const { messages, bytes } of state.queues) numbers.push(messages, bytes);
  for (const { handle, count, expiresAt } of state.expiring) numbers.push(handle, count, expiresAt / 2);
  for (const { floor, taken } of state.senders)
    numbers.push(floor, ...taken.flatMap(({ first, count }) => [first, count]));
  const wrong = numbers.find(value => !(value >= 0 && value <= Number.MAX_SAFE_INTEGER));
  if (wrong !== undefined) throw new Error(`a number is ${String(wrong)}`);
}

async function readAll(engine: Engine, { queues }: EngineState): Promise<void> {
  for (const { queue } of queues) {
    let from = 0;
    for (;;) {
      const runs = await engine.read(queue, from, 7, 2000);
      const last = runs[runs.length - 1];
      if (last === undefined) break;
      if (last.handle < from) throw new Error('a queue runs backwards');
      from = last.handle + last.batch.count;
    }
  }
}

function describe(engine: Engine): string {
  const queues = [...engine.queues('')].filter(queue => queue !== 'fresh').sort();
  return JSON.stringify(queues.map(queue => [queue, engine.usage(queue)]));
}

async function openBroker(disk: SimulatedDisk): Promise<string> {
  const clock = new TestClock();
  let failure: unknown;
  const fail = (error: unknown): void => void (failure ??= error);
  const pass = (): void => undefined;
  const broker = new Broker({
    engine: engineOn(disk),
    clock,
    limits: LIMITS,
    ...{ storeAfter: 20, instanceGrace: 30_000, deadAfter: 25_000 },
    isRunning: () => false,
    logger: { debug: pass, info: pass, warn: pass, error: pass },
    events: {
      ...{ subscribed: pass, unsubscribed: pass, failure: pass, restored: pass, senderGone: pass },
      engineFailed: fail,
    },
  });
  try {
    await broker.open();
    for (const { name } of broker.sessions()) await broker.listDeadLetters(name);
    broker.stats();
    for (const step of [1000, 60_000, 120_000]) {
      clock.tick(step);
      await broker.flush();
    }
  } finally {
    await broker.close();
  }
  if (failure !== undefined) throw failure as Error;
  return 'opened by a broker';
}

export const recoveryTarget: Target<Directory> = {
  name: 'recovery',
  measuredEvery: 10,
  codes: ['store-foreign', 'store-incomplete', 'store-newer', 'store-unreadable'],
  make,
  run,
  sizeOf: ({ files }) => files.reduce((sum, { bytes }) => sum + bytes.length, 0),
  toText: ({ files, byBroker }) =>
    JSON.stringify({ byBroker, files: files.map(({ name, bytes }) => [name, bytes.toString('base64')]) }),
  fromText: text => {
    const { byBroker, files } = JSON.parse(text) as { byBroker: boolean; files: [string, string][] };
    return { byBroker, files: files.map(([name, base64]) => ({ name, bytes: Buffer.from(base64, 'base64') })) };
  },
};
