/**
 * One damage to a log that was whole: a bit flipped, a file cut off. The store must open with exactly what the records say
 * that were not hit, name what was, put it aside, and delete nothing.
 */
import assert from 'node:assert/strict';
import type { EngineState } from '../../src/engine/index.js';
import { Inode, seededRandom, type SimulatedDisk } from '../helpers/simulated-files.js';
import { naming } from './crash-points.js';
import { observe, QUEUES, type Model } from './log-model.js';
import { FOLDER, LogBench, LogWork } from './log-work.js';
import { diskOf, RECORDS_FROM, SEGMENT_BYTES, stateWithout } from './sample-log.js';
import type { LogRecord, LogSegment, SampleLog } from './sample-log.js';

/** What was done and seen. */
export interface DamageSeen {
  flips: number;
  truncations: number;
  /** Starts that were refused, by a name. */
  refused: number;
  /** Starts that served what was left. */
  recovered: number;
  /** Damaged places that were named. */
  named: number;
  /** Of these, those of which a copy was put aside. */
  putAside: number;
  /** Stores that were worked with and started again behind the damage. */
  wentOn: number;
  wrongBodies: number;
  lostUndamaged: number;
}

export function nothingSeen(): DamageSeen {
  return {
    flips: 0,
    truncations: 0,
    refused: 0,
    recovered: 0,
    named: 0,
    putAside: 0,
    wentOn: 0,
    wrongBodies: 0,
    lostUndamaged: 0,
  };
}

/** The start is refused with this code, says the folder, and changes nothing. */
export async function assertRefused(disk: SimulatedDisk, code: string, seen: { refused: number }): Promise<string> {
  const before = new Map([...disk.names].map(([name, { data }]) => [name, data]));
  let text = '';
  await assert.rejects(new LogBench(disk, SEGMENT_BYTES).open(), (error: { code?: string; message: string }) => {
    assert.equal(error.code, code);
    text = error.message;
    assert.ok(text.includes(FOLDER), text);
    return true;
  });
  assert.deepEqual([...disk.names.keys()], [...before.keys()], 'files came or went');
  for (const [name, { data }] of disk.names) assert.ok(data.equals(before.get(name) as Buffer), `${name} was changed`);
  assert.equal(disk.openFiles, 0);
  seen.refused++;
  return text;
}

/** The start is refused without what this segment held, says it, and says how to go on without it; that is done then. */
export async function giveUp(disk: SimulatedDisk, { name }: LogSegment, seen: { refused: number }): Promise<void> {
  const text = await assertRefused(disk, 'store-incomplete', seen);
  const lost = name.replace('.log', '.lost');
  assert.ok(text.includes(name) && text.includes(lost), text);
  disk.addFile(`${FOLDER}/${lost}`, new Inode());
}

/** The bytes of a log that were written: headers and records. */
export function writtenBytes({ segments }: SampleLog): number {
  return segments.reduce((sum, { records, end }) => sum + (records.length > 0 ? end : 0), 0);
}

/** The bytes of a log's files, with the space that was never written. */
export function wholeBytes({ segments }: SampleLog): number {
  return segments.reduce((sum, { bytes }) => sum + bytes.length, 0);
}

/** Where the n-th byte of a log's files lies. */
export function placeInFiles({ segments }: SampleLog, n: number): { segment: LogSegment; at: number } {
  let at = n;
  for (const segment of segments) {
    if (at < segment.bytes.length) return { segment, at };
    at -= segment.bytes.length;
  }
  throw new RangeError(`the log has no byte ${String(n)}`);
}

/** Where the n-th byte that was written lies. */
export function placeOf({ segments }: SampleLog, n: number): { segment: LogSegment; at: number } {
  let at = n;
  for (const segment of segments) {
    if (segment.records.length === 0) continue;
    if (at < segment.end) return { segment, at };
    at -= segment.end;
  }
  throw new RangeError(`the log has no byte ${String(n)}`);
}

export class DamageTrial {
  readonly seen: DamageSeen;
  readonly #log: SampleLog;
  readonly #whole: string;
  /** What is there without a record. */
  readonly #without = new Map<LogRecord, string>();

  constructor(log: SampleLog, seen: DamageSeen) {
    this.seen = seen;
    this.#log = log;
    this.#whole = log.whole.describe();
  }

  /** Flips a bit; sometimes the store is also worked with, and started again. */
  async flip(segment: LogSegment, at: number, bit: number, goesOn: boolean): Promise<void> {
    const bytes = Buffer.from(segment.bytes);
    bytes[at] = (bytes[at] as number) ^ (1 << bit);
    const hit = segment.records.find(({ from, dataEnd }) => at >= from && at < dataEnd);
    await naming(`${segment.name}, byte ${String(at)}, bit ${String(bit)}`, async () => {
      const disk = diskOf(this.#log, new Map([[segment.path, bytes]]));
      const { state, bench, found } = await this.#open(disk, this.#expected(hit, segment));
      assert.ok(state.nextHandle >= this.#log.nextHandle, 'a handle would be used again');
      if (this.#isLastMark(hit, segment) || (hit === undefined && at >= RECORDS_FROM)) {
        // Nothing was in it: a mark at the very end, padding, or space that was never written.
        assert.deepEqual(state.damage, []);
      } else if (hit !== undefined) {
        this.#assertPutAside(state, disk, segment, hit, bytes);
      } else {
        this.#assertHeader(state, segment, at);
      }
      if (goesOn) await this.#goOn(bench, disk, state, found);
    });
    this.seen.flips++;
  }

  /** Flips a bit when the store is open already: what is hit leaves its queues when it is read, and the host is told. */
  async flipLater(segment: LogSegment, at: number, bit: number): Promise<void> {
    const hit = segment.records.find(({ from, dataEnd }) => at >= from && at < dataEnd);
    await naming(`${segment.name}, byte ${String(at)}, bit ${String(bit)}, while it is open`, async () => {
      const disk = diskOf(this.#log);
      const bench = new LogBench(disk, SEGMENT_BYTES);
      const state = await bench.open();
      const { data } = disk.names.get(segment.path) as Inode;
      const bytes = Buffer.from(data);
      if (at < bytes.length) bytes[at] = (bytes[at] as number) ^ (1 << bit);
      (disk.names.get(segment.path) as Inode).data = bytes;
      const found = await observe(bench.engine, { ...state, tracked: [] });
      const isMessage = hit?.change?.kind === 'append' || hit?.change?.kind === 'again';
      const left = isMessage ? stateWithout(this.#log, record => record === hit) : this.#log.whole;
      if (found.messages() !== left.messages()) this.#blame(found, left.describe());
      const lost = differenceOf(this.#log.whole, left);
      const told = bench.damaged.flatMap(({ queue, handle, count }) =>
        Array.from({ length: count }, (_, i) => `${queue} ${String(handle + i)}`),
      );
      assert.deepEqual(told.sort(), lost, 'what the host is told');
      assert.equal(bench.warnings.length, lost.length > 0 ? 1 : 0, bench.warnings.join());
      if (lost.length > 0) this.seen.named++;
      assert.deepEqual(bench.failures, []);
    });
    this.seen.flips++;
  }

  /** Cuts a file off. */
  async truncate(segment: LogSegment, size: number, goesOn: boolean): Promise<void> {
    await naming(`${segment.name}, cut off at byte ${String(size)}`, async () => {
      const disk = diskOf(this.#log, new Map([[segment.path, Buffer.from(segment.bytes.subarray(0, size))]]));
      const expected = stateWithout(this.#log, ({ to }, { path }) => path === segment.path && to > size).describe();
      if (size === 0) await giveUp(disk, segment, this.seen);
      const { state, bench, found } = await this.#open(disk, expected);
      const named = state.damage.filter(text => text.includes(segment.name));
      assert.ok(named.length > 0, `nothing was said of it: ${JSON.stringify(state.damage)}`);
      this.seen.named++;
      assert.equal(named.length, state.damage.length, `another segment was named: ${state.damage.join()}`);
      if (goesOn) await this.#goOn(bench, disk, state, found);
    });
    this.seen.truncations++;
  }

  #expected(hit: LogRecord | undefined, segment: LogSegment): string {
    if (hit?.change === undefined) return this.#whole;
    let text = this.#without.get(hit);
    if (text === undefined) {
      text = stateWithout(this.#log, (record, { path }) => record === hit && path === segment.path).describe();
      this.#without.set(hit, text);
    }
    return text;
  }

  /** The record that ends the log: it says only that everything before it is durable. */
  #isLastMark(hit: LogRecord | undefined, segment: LogSegment): boolean {
    if (hit === undefined || hit.to < segment.end) return false;
    const { segments } = this.#log;
    return segments.slice(segments.indexOf(segment) + 1).every(({ records }) => records.length === 0);
  }

  async #open(disk: SimulatedDisk, expected: string): Promise<{ state: EngineState; bench: LogBench; found: Model }> {
    const names = [...disk.names.keys()];
    const bench = new LogBench(disk, SEGMENT_BYTES);
    const state = await bench.open();
    const found = await observe(bench.engine, state);
    if (found.describe() !== expected) this.#blame(found, expected);
    for (const messages of found.queues.values())
      for (const handle of messages.keys()) assert.ok(state.nextHandle > handle, 'a handle would be used again');
    for (const name of names) assert.ok(disk.names.has(name), `${name} is gone`);
    assert.deepEqual([bench.warnings, bench.failures, bench.damaged], [[], [], []]);
    this.seen.recovered++;
    return { state, bench, found };
  }

  /** Counts what is wrong before it says it. */
  #blame(found: Model, expected: string): never {
    const text = found.describe();
    if (text.includes('"wrong ')) this.seen.wrongBodies++;
    else this.seen.lostUndamaged++;
    assert.fail(`found ${text}\nexpected ${expected}`);
  }

  /** A damaged record is named with its place, stays where it is, and there is a copy of it. */
  #assertPutAside(
    { damage }: EngineState,
    disk: SimulatedDisk,
    { name, path, end: segmentEnd }: LogSegment,
    { from, to }: LogRecord,
    bytes: Buffer,
  ): void {
    assert.equal(damage.length, 1, damage.join());
    const [text = ''] = damage;
    // Zeros at the very end of a segment are not told from space.
    let end = to;
    if (to === segmentEnd) while (bytes.subarray(end - 8, end).every(byte => byte === 0)) end -= 8;
    const copy = `damaged/${name}.${String(from)}-${String(end)}`;
    const place = `${name}, bytes ${String(from)} to ${String(end)}: `;
    assert.equal(text.slice(0, place.length), place);
    assert.ok(text.includes(copy), text);
    const part = bytes.subarray(from, end);
    assert.ok(disk.names.get(`${FOLDER}/${copy}`)?.data.equals(part), `${copy} is not what was damaged`);
    assert.ok(disk.names.get(path)?.data.subarray(from, end).equals(part), 'what was damaged was changed');
    this.seen.named++;
    this.seen.putAside++;
  }

  /** Headers are there twice, so nothing is lost; the first one is written again and that is said. */
  #assertHeader({ damage }: EngineState, { name }: LogSegment, at: number): void {
    if (at >= 64) {
      assert.deepEqual(damage, []);
      return;
    }
    assert.deepEqual(damage, [`the header of ${name} was damaged; its copy served, and it has been written again`]);
    this.seen.named++;
  }

  /** What is new is safe, also behind the damage, and the damage is named again. */
  async #goOn(bench: LogBench, disk: SimulatedDisk, before: EngineState, found: Model): Promise<void> {
    const work = new LogWork(bench, found, seededRandom(this.seen.recovered));
    work.make({ kind: 'append', instance: '3'.repeat(32), parts: [NEW] });
    await work.commit();
    await bench.engine.close();
    const again = new LogBench(
      disk.afterPowerCut(() => 0.999),
      SEGMENT_BYTES,
    );
    const state = await again.open();
    const after = await observe(again.engine, state);
    assert.equal(after.describe(), work.now.describe(), 'after another start');
    const mended = before.damage.filter(text => text.startsWith('the header'));
    assert.deepEqual([...mended, ...state.damage], before.damage, 'what is named at another start');
    await again.engine.close();
    this.seen.wentOn++;
  }
}

/** The places in queues that are in the first model only. */
function differenceOf(whole: Model, left: Model): string[] {
  return QUEUES.flatMap(queue =>
    [...whole.queue(queue).keys()]
      .filter(handle => !left.queue(queue).has(handle))
      .map(handle => `${queue} ${String(handle)}`),
  ).sort();
}

const NEW = {
  handle: 0,
  texts: ['3.1/20'],
  first: 1,
  expiresAt: 0,
  tracked: false,
  queues: ['a'],
};
