/**
 * A data directory with every kind of record, as a kill leaves it, and what is in it: for the fixtures of
 * versions.test.ts. `writeStore` makes it, by peers that speak the protocol by hand, so that nothing of the machine gets
 * into it; `readStore` says all that the engine finds in one.
 */
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeBody, encodeBody } from '../../src/body/index.js';
import { stringifyTagged } from '../../src/body/tagged.js';
import { itemOffsets } from '../../src/batch.js';
import { decodeSegmentHeader, encodeSegmentHeader, SEGMENT_HEADER } from '../../src/engine/disk/header.js';
import { RECORD, RECORD_HEADER } from '../../src/engine/disk/record.js';
import { scan, zeroTail } from '../../src/engine/disk/scan.js';
import { newSegment } from '../../src/engine/disk/segment.js';
import { diskEngine, type EngineState, type StoredRun } from '../../src/engine/index.js';
import { BroadcastTcpServer, type BroadcastServer } from '../../src/index.js';
import { FRAME } from '../../src/protocol/constants.js';
import * as frames from '../../src/protocol/frames.js';
import { TestClock } from '../../src/testing/index.js';
import { RawPeer } from '../helpers/raw-peer.js';
import { recordingLogger } from '../helpers/scene.js';
import { QuietFiles } from './quiet-files.js';

const MINUTE = 60 * 1000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** Segments so small that a few are filled and given back. */
const SEGMENT_BYTES = 8 * 1024;
/** When the store of a fixture was left, by the wall clock. */
export const LEFT_AT = Date.UTC(2026, 0, 1, 12);

/** An instance id that is easily told. */
const instance = (digit: string): string => digit.repeat(32);

/** Everything that is in a store, as JSON has it. */
export async function readStore(directory: string): Promise<unknown> {
  const engine = diskEngine({ directory, segmentBytes: SEGMENT_BYTES, reserveBytes: 0 });
  const nothing = (): void => undefined;
  const failed = (error: Error): void => {
    throw error;
  };
  // Opened a minute after it was left.
  const clock = new TestClock(LEFT_AT + MINUTE);
  const host = { clock, storeBytes: undefined, failed, roomAgain: nothing, arrived: nothing, damaged: failed as never };
  const state = await engine.open({ ...host, warn: nothing });
  const contents: Record<string, unknown> = {};
  for (const { queue } of sorted(state.queues, one => one.queue)) {
    const runs: StoredRun[] = [];
    for (let from = 0; ;) {
      const found = await engine.read(queue, from, 1000, 1024 * 1024);
      const last = found.at(-1);
      if (last === undefined) break;
      runs.push(...found);
      from = last.handle + last.batch.count;
    }
    contents[queue] = runs.flatMap(messagesOf);
  }
  await engine.close();
  return JSON.parse(JSON.stringify({ ...plain(state), contents }));
}

function plain(state: EngineState): object {
  return {
    ...state,
    entries: Object.fromEntries(sorted([...state.entries], ([key]) => key)),
    queues: sorted(state.queues, ({ queue }) => queue),
    expiring: sorted(state.expiring, ({ queue, handle }) => `${queue} ${String(handle)}`),
    senders: sorted(state.senders, sender => sender.instance),
    tracked: sorted(state.tracked, ({ handle }) => String(handle)),
  };
}

function sorted<T>(all: readonly T[], key: (one: T) => string): T[] {
  return [...all].sort((a, b) => (key(a) < key(b) ? -1 : 1));
}

/** One by one, since how they share runs is not part of what is promised. */
function messagesOf({ handle, batch, expiresAt, attempts, note }: StoredRun): unknown[] {
  const { items, envelope, sender, first, timestamp } = batch;
  const { wire: _wire, ...rest } = { wire: undefined, ...envelope };
  return [...itemOffsets(items, batch.count).subarray(0, batch.count)].map((at, i) => {
    const size = items.readUInt32LE(at);
    // Behind the size and the one byte of the id's delta, which is 0 here.
    const data = size === 1 ? 'no body, as in notices' : decodeBody(items, at + 5, at + 4 + size);
    const text =
      typeof data === 'string' && data.length > 100
        ? `${data.slice(0, 10)}… ${data.length}`
        : (JSON.parse(stringifyTagged(data)) as unknown);
    return {
      handle: handle + i,
      position: first + i,
      sender,
      envelope: rest,
      timestamp,
      expiresAt,
      attempts,
      note,
      data: text,
    };
  });
}

/** By type, how many records lie in the segments of a folder. */
export function countRecords(directory: string): Map<string, number> {
  const names = new Map(Object.entries(RECORD).map(([name, type]) => [type as number, name]));
  const counts = new Map<string, number>([...names.values()].map(name => [name, 0]));
  for (const name of readdirSync(directory)) {
    const bytes = readFileSync(join(directory, name));
    const found = decodeSegmentHeader(bytes.subarray(0, SEGMENT_HEADER));
    if (typeof found !== 'object') throw new Error(`${name} has no header`);
    const { records } = scan(newSegment(found.header, name, undefined as never, bytes.length), bytes);
    for (let i = 0; i < records.length; i += 2) {
      const type = names.get(bytes[(records[i] as number) + RECORD_HEADER] as number) as string;
      counts.set(type, (counts.get(type) ?? 0) + 1);
    }
  }
  return counts;
}

/** What `fill` has made, in the words of those who come for it: not read from a store, but known. */
export const PROMISED = {
  subscriptions: { pair: ['both'], subscriber: ['early'], worker: ['orders'] },
  deadLetters: { worker: [{ data: 'never', reason: 'not an order', attempts: 1 }] },
  /** By name and subscription, in order. */
  waiting: {
    worker: {
      '': [
        { data: 'tried once', attempt: 2, redelivered: true },
        { data: 'with everything', name: 'event', headers: { trace: 'ü' } },
        { data: 'expires late' },
        { data: 'for both' },
      ],
      orders: [
        { data: 'behind' },
        {
          data: { nested: [{ $bigint: '1' }, { $date: '1970-01-01T00:00:00.000Z' }, { $map: [['k', { $set: [1] }]] }] },
        },
      ],
    },
    keeps: {
      '': [{ data: 'waits from the beginning' }, { data: 'for both' }, { data: 'a' }, { data: 'b' }, { data: 'c' }],
    },
    pair: { both: [{ data: 'for the one that was lost' }] },
    'comes-first': { 'nobody-listens': [{ data: 'first' }, { data: 'second' }] },
  },
  senders: {
    sender: { instance: instance('a'), taken: [{ first: 1, count: 75 }] },
    settled: {
      instance: instance('2'),
      taken: [
        { first: 2, count: 1 },
        { first: 5, count: 1 },
      ],
    },
  },
  /** By the positions of `sender`. */
  notices: { 63: 'rejected', 69: 'expired', 72: 'rejected', 75: 'dropped' },
};

/** Makes a data directory, in a folder that is empty; what is promised to be in it is in versions.test.ts. */
export async function writeStore(work: string, target: string): Promise<void> {
  const directory = join(work, 'data');
  const clock = new TestClock(LEFT_AT - 2 * HOUR);
  const files = new QuietFiles();
  const engine = diskEngine({ directory, files: files.files, segmentBytes: SEGMENT_BYTES, reserveBytes: 0 });
  const logger = recordingLogger();
  const patient = { pingInterval: 2 * DAY, deadAfter: 4 * DAY, instanceGrace: 2 * DAY };
  const server = new BroadcastTcpServer({ host: '127.0.0.1', port: 0, clock, engine, logger, ...patient });
  await server.start();
  const { port } = server.address as { port: number };
  await fill(server, port, clock);
  // Everything that waits for a while is written; then it is what a kill leaves.
  clock.tick(LEFT_AT - clock.now());
  await files.quiet();
  mkdirSync(target, { recursive: true });
  for (const name of readdirSync(directory)) {
    if (!name.endsWith('.log')) continue;
    const bytes = readFileSync(join(directory, name));
    // The zeros of a segment are not kept: it is cut as a recovery would cut it.
    const end = endOf(bytes);
    const found = decodeSegmentHeader(bytes.subarray(0, SEGMENT_HEADER));
    if (typeof found === 'string') throw new Error(`${name} has no header: ${found}`);
    encodeSegmentHeader({ ...found.header, capacity: end }).copy(bytes);
    writeFileSync(join(target, name), bytes.subarray(0, end));
  }
  // Peers that do not say goodbye are not waited for for ever.
  const ticking = setInterval(() => clock.tick(1000), 5);
  await server.stop().finally(() => clearInterval(ticking));
}

/** Where the records end: they are padded to multiples of 8. */
function endOf(bytes: Buffer): number {
  return Math.max(SEGMENT_HEADER, Math.ceil(zeroTail(bytes) / 8) * 8);
}

async function fill(server: BroadcastServer, port: number, clock: TestClock): Promise<void> {
  const open = (name: string, id: string): Promise<RawPeer> =>
    RawPeer.open(port, { name, instance: instance(id), idPrefix: `prefix-of-${id.repeat(6)}` });
  const sender = await open('sender', 'a');
  let position = 1;
  const send = async (to: Parameters<RawPeer['message']>[1], ...data: unknown[]): Promise<void> => {
    for (const one of data) {
      const envelope = { idPrefix: 'prefix-of-aaaaaa', ...to };
      sender.write(sender.message(position++, envelope, encodeBody(one), { floor: 1 }));
    }
    await sender.flush();
    // What its recipients hold is stored after a while without progress, and written with the next commit.
    for (let tick = 0; tick < 4; tick++) {
      clock.tick(20);
      await new Promise(setImmediate);
    }
    await sender.flush();
  };
  /** In good order: the server has seen the connection end. */
  const leave = async (peer: RawPeer): Promise<void> => {
    const gone = new Promise(resolve => server.once('disconnect', resolve));
    peer.write(frames.encodeGoodbye({ finished: false, text: '' }));
    await peer.until(() => peer.hasEnded);
    peer.socket.end();
    await gone;
  };
  const deliveries = (peer: RawPeer, count: number): Promise<void> =>
    peer.until(() => peer.frames.filter(({ type }) => type === FRAME.MESSAGES).length >= count);

  // A name that comes, gets much, and acknowledges it all, so that the oldest segments are written anew and given back.
  await send({ clients: ['keeps'] }, 'waits from the beginning');
  const subscriber = await open('subscriber', 'b');
  await subscriber.subscribe('early');
  for (let n = 0; n < 60; n++) await send({ clients: ['busy'] }, String(n % 10).repeat(1000));
  const busy = await open('busy', 'c');
  await busy.subscribe('');
  await deliveries(busy, 60);
  busy.write(frames.encodeRanges(FRAME.ACK, [{ first: 1, count: 60 }]));
  await busy.flush();
  clock.tick(100);
  await sender.flush();

  // A worker that fails at one message, rejects another, and is lost with both.
  const worker = await open('worker', 'd');
  await worker.subscribe('orders');
  worker.write(frames.encodeSubscribe({ request: 2, channel: '', concurrency: 1, window: 0, maxAttempts: 5 }));
  await worker.flush();
  await send({ channels: ['orders'] }, 'done', 'never');
  await send({ clients: ['worker'] }, 'tried once');
  await deliveries(worker, 3);
  worker.write(
    frames.encodeRanges(FRAME.ACK, [{ first: 1, count: 1 }]),
    frames.encodeReject({ delivery: 2, channel: 'orders', kind: 'rejected', attempts: 1, reason: 'not an order' }),
    frames.encodeRanges(FRAME.ACK, [{ first: 2, count: 1 }]),
    frames.encodeFail({ delivery: 3, channel: '', attempt: 1, reason: 'later' }),
  );
  await worker.flush();
  worker.socket.destroy();
  await worker.until(() => worker.isClosed);
  await send({ channels: ['orders'] }, 'behind', { nested: [1n, new Date(0), new Map([['k', new Set([1])]])] });
  await send({ clients: ['worker'], headers: { trace: 'ü' }, name: 'event', tracked: true }, 'with everything');
  await send({ clients: ['worker'], ttl: 30 * DAY }, 'expires late');
  await send({ clients: ['worker'], ttl: HOUR }, 'expires before it is opened');
  await send({ clients: ['worker', 'keeps'] }, 'for both');

  // Two instances of one name, of which one is lost: what comes meanwhile waits for it, and for it alone.
  const pair = [await open('pair', 'e'), await open('pair', 'f')] as const;
  for (const peer of pair) await peer.subscribe('both');
  pair[1].socket.destroy();
  await pair[1].until(() => pair[1].isClosed);
  await send({ channels: ['both'] }, 'for the one that was lost');
  await deliveries(pair[0], 1);
  pair[0].write(frames.encodeRanges(FRAME.ACK, [{ first: 1, count: 1 }]));
  await pair[0].flush();

  // A name that is forgotten, with a dead letter.
  const forgotten = await open('forgotten', '3');
  await forgotten.subscribe('');
  await send({ clients: ['forgotten'] }, 'dropped with its session');
  await deliveries(forgotten, 1);
  forgotten.write(frames.encodeReject({ delivery: 1, channel: '', kind: 'rejected', attempts: 1, reason: 'no' }));
  forgotten.write(frames.encodeRanges(FRAME.ACK, [{ first: 1, count: 1 }]));
  await forgotten.flush();
  await leave(forgotten);
  await server.forget('forgotten');

  // A backlog, a subscription that has ended with what waited, and senders' floors.
  await send({ channels: ['nobody-listens'] }, 'first', 'second');
  const fickle = await open('fickle', '1');
  await fickle.subscribe('short');
  fickle.write(frames.encodeUnhandle({ request: 3, channel: 'short' }));
  await fickle.flush();
  await send({ channels: ['short'] }, 'gone with its subscription');
  fickle.write(frames.encodeUnsubscribe({ request: 4, channel: 'short' }));
  await fickle.flush();
  const settled = await open('settled', '2');
  settled.write(settled.message(1, { clients: ['keeps'], idPrefix: 'prefix-of-222222' }, encodeBody('a')));
  settled.write(settled.message(2, { clients: ['keeps'], idPrefix: 'prefix-of-222222' }, encodeBody('b')));
  settled.write(settled.message(5, { clients: ['keeps'], idPrefix: 'prefix-of-222222' }, encodeBody('c')));
  await settled.flush();
  settled.write(frames.encodeSettled(2));
  await settled.flush();
  // It is lost: an instance that said goodbye is forgotten after a while.
  settled.socket.destroy();
  await settled.until(() => settled.isClosed);
  await leave(fickle);
  await sender.flush();
}

/** A copy of a fixture's data directory, which the store may then change. */
export function copyStore(fixture: string, folder: string, name: string): string {
  const target = join(folder, name);
  cpSync(join(fixture, 'log'), target, { recursive: true });
  return target;
}
