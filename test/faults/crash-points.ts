/**
 * Power cuts and failing operations on the disk engine over a simulated disk, checked against a model after each restart:
 * what was promised is there, what was not may be, as a whole and in order.
 */
import assert from 'node:assert/strict';
import type { EngineState } from '../../src/engine/index.js';
import { PowerCut, seededRandom, SimulatedDisk, type Fault, type Operation } from '../helpers/simulated-files.js';
import { Model, observe, survivingState } from './log-model.js';
import { LogBench, LogWork, turn } from './log-work.js';

/** What was done and seen. */
export interface Seen {
  /** Power cuts, each at an operation, that were recovered from. */
  crashPoints: number;
  /** Of these, cuts within the recovery from another one. */
  duringRecovery: number;
  failedOperations: number;
  shortWrites: number;
  shortReads: number;
  /** Runs that the failed operation ended, as it must where a promise could not be kept. */
  failStops: number;
  /** Changes that were promised, counted again at each check that they are there. */
  promised: number;
}

export function nothingSeen(): Seen {
  return {
    crashPoints: 0,
    duringRecovery: 0,
    failedOperations: 0,
    shortWrites: 0,
    shortReads: 0,
    failStops: 0,
    promised: 0,
  };
}

/** What a run was cut off at, for messages. */
interface Expected {
  readonly base: Model;
  readonly work: LogWork;
  readonly made: number;
  readonly promised: number;
}

/** Opens a disk and asserts that it holds what it must. */
async function check(
  disk: SimulatedDisk,
  segmentBytes: number,
  { base, work, made, promised }: Expected,
  seen: Seen,
): Promise<Model> {
  const bench = new LogBench(disk, segmentBytes);
  const state = await bench.open();
  assert.deepEqual(state.damage, [], 'a power cut is no damage');
  const found = await observe(bench.engine, state);
  const model = survivingState(base, work.changes.slice(0, made), promised, found);
  seen.promised += promised;
  assert.deepEqual(bench.warnings, []);
  assert.deepEqual(bench.failures, []);
  await bench.engine.close();
  assert.equal(disk.openFiles, 0, 'files are open after the close');
  return model;
}

// ---- a cut at every operation ------------------------------------------------------------------------------------------

/**
 * Makes one run, and at each of its operations the disk as a power cut there would leave it. Each is recovered from; and
 * again after a second cut at some operation of that recovery.
 */
export async function cutEverywhere(seed: number, segmentBytes: number, seen: Seen): Promise<void> {
  const random = seededRandom(seed);
  const chance = seededRandom(seed ^ 0x5bd1e995);
  const images: { disk: SimulatedDisk; made: number; promised: number }[] = [];
  const bench = new LogBench(new SimulatedDisk(), segmentBytes);
  const work = new LogWork(bench, new Model(), random);
  bench.disk.fault = () => {
    const { promised, changes } = work;
    images.push({ disk: bench.disk.afterPowerCut(chance), made: changes.length, promised });
    return undefined;
  };
  await bench.open();
  await work.run(40);
  await bench.engine.close();
  images.push({ disk: bench.disk.afterPowerCut(chance), made: work.changes.length, promised: work.changes.length });
  for (const [index, { disk, ...point }] of images.entries()) {
    const expected = { base: work.base, work, ...point };
    let second: SimulatedDisk | undefined;
    const secondAt = Math.floor(chance() * 48);
    disk.fault = (_, at) => {
      if (at === secondAt) second = disk.afterPowerCut(chance);
      return undefined;
    };
    await naming(`power cut at operation ${String(index)}`, () => check(disk, segmentBytes, expected, seen));
    seen.crashPoints++;
    if (second === undefined) continue;
    const again = second;
    const where = `power cut at operation ${String(index)}, and at operation ${String(secondAt)} of the recovery`;
    await naming(where, () => check(again, segmentBytes, expected, seen));
    seen.crashPoints++;
    seen.duringRecovery++;
  }
}

/** Says in the message of what is thrown where it was. */
export async function naming<T>(where: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof Error) error.message = `${where}: ${error.message}`;
    throw error;
  }
}

// ---- several lives -----------------------------------------------------------------------------------------------------

/**
 * Several lives of one store: each is cut short at a random operation, while it recovers, works or closes, and goes on with
 * what the one before it left. The operations behind the cut fail, as they do for a process whose disk has gone.
 */
export async function liveOn(seed: number, segmentBytes: number, lives: number, seen: Seen): Promise<void> {
  const random = seededRandom(seed);
  let disk = new SimulatedDisk();
  const positions = new Map<string, number>();
  /** The last work that was begun, and which of it is not known to be lost. */
  let last = new LogWork(new LogBench(disk, segmentBytes), new Model(), random, { positions });
  /** The life before ended with a power cut from which nothing has recovered yet. */
  let wasCut = false;
  for (let life = 0; life < lives; life++) {
    const cutAt = random() < 0.25 ? Infinity : Math.floor(random() * (life === 0 ? 60 : 160));
    const bench = new LogBench(disk, segmentBytes);
    const dying = disk;
    let isOpen = false;
    dying.fault = (operation, index) => {
      // What is being written, and perhaps written again elsewhere, is read at the same time.
      if (isOpen && operation === 'write') bench.readAll();
      return index === cutAt ? 'power-cut' : undefined;
    };
    const isCut = (): boolean => dying.operations > cutAt;
    try {
      const state: EngineState = await bench.open();
      assert.deepEqual(state.damage, [], 'a power cut is no damage');
      const found = await observe(bench.engine, state);
      isOpen = true;
      const base = survivingState(last.base, last.changes, last.promised, found);
      seen.promised += last.promised;
      if (wasCut) seen.crashPoints++;
      wasCut = false;
      last = new LogWork(bench, base, random, { positions });
      await last.run(5 + Math.floor(random() * 60));
      assert.deepEqual(await bench.wrongReads(), [], 'bodies that were read meanwhile');
      await bench.engine.close();
      if (bench.failures.length === 0 && !isCut()) last.promised = last.changes.length;
    } catch (error) {
      await bench.engine.close();
      if (!isPowerCut(error)) throw error;
    }
    assert.equal(last.lies, 0, 'a commit was fulfilled after the engine had failed');
    assert.deepEqual(bench.damaged, []);
    if (!isCut()) assert.deepEqual([bench.warnings, bench.failures], [[], []]);
    assert.equal(dying.openFiles, 0, 'files are open after the close');
    wasCut = isCut();
    disk = isCut() ? dying.afterPowerCut(random) : dying.afterKill();
  }
}

function isPowerCut(error: unknown): boolean {
  for (let at: unknown = error; at instanceof Error; at = at.cause) if (at instanceof PowerCut) return true;
  return false;
}

// ---- a failure of every operation --------------------------------------------------------------------------------------

/** What an operation is made to do in turn. A fault without a code is no error: the write or read only ends early. */
function faultsOf(operation: Operation): Fault[] {
  if (operation === 'read') return [{ code: 'EIO' }, { written: 100 }];
  const all: Fault[] = [{ code: 'EIO' }, { code: 'ENOSPC' }];
  if (operation === 'write')
    all.push({ code: 'EIO', written: 700 }, { code: 'ENOSPC', written: 700 }, { written: 100 });
  return all;
}

/**
 * Makes a run of some changes once for each of its operations and each way in which that can fail. After it, what was
 * promised is there, also when the power goes on top of it.
 */
export async function failEverywhere(seed: number, segmentBytes: number, steps: number, seen: Seen): Promise<void> {
  const disk = new SimulatedDisk();
  const whole = await standardRun(seed, segmentBytes, steps, disk);
  assert.equal(whole.error, undefined);
  const operations = [...disk.log];
  for (const [index, operation] of operations.entries()) {
    for (const fault of faultsOf(operation)) {
      const where = `operation ${String(index)} (${operation}) with ${JSON.stringify(fault)}`;
      await naming(where, () => failOnce(seed, segmentBytes, steps, { index, fault, whole: whole.work }, seen));
      if (fault.code !== undefined) seen.failedOperations++;
      else if (operation === 'write') seen.shortWrites++;
      else seen.shortReads++;
    }
  }
}

async function failOnce(
  seed: number,
  segmentBytes: number,
  steps: number,
  { index, fault, whole }: { index: number; fault: Fault; whole: LogWork },
  seen: Seen,
): Promise<void> {
  const disk = new SimulatedDisk();
  let operation: Operation | undefined;
  disk.fault = (kind, at) => {
    if (at !== index) return undefined;
    operation = kind;
    return fault;
  };
  const { failures, work, error } = await standardRun(seed, segmentBytes, steps, disk);
  assert.ok(operation !== undefined, 'the run never came to it');
  assert.equal(work.lies, 0, 'a commit was fulfilled after the engine had failed');
  assert.ok(failures.length <= 1, 'the engine said that it failed more than once');
  assert.equal(disk.openFiles, 0, 'files are open after the close');
  if (error !== undefined) {
    assert.match(String((error as { code?: unknown }).code), /^store-(failed|unreadable|full)$/);
    if (failures.length > 0) seen.failStops++;
  }
  if (fault.code === undefined) {
    // A write or read that ends early is gone on with: nobody notices.
    assert.equal(error, undefined);
    assert.equal(work.now.describe(), whole.now.describe());
  }
  const { base, changes, promised } = work;
  const expected = { base, work, made: changes.length, promised };
  const random = seededRandom(seed ^ index);
  const cut = disk.afterPowerCut(random);
  await check(cut, segmentBytes, expected, seen);
  seen.crashPoints++;
  await startAgain(disk, segmentBytes, expected, seen, random);
}

/** Starts on what the system holds in memory, some of which it could not write, goes on with it, and then the power goes. */
async function startAgain(
  disk: SimulatedDisk,
  segmentBytes: number,
  { work, made, promised, base }: Expected,
  seen: Seen,
  random: () => number,
): Promise<void> {
  disk.fault = () => undefined;
  const bench = new LogBench(disk, segmentBytes);
  const found = await observe(bench.engine, await bench.open());
  const before = survivingState(base, work.changes.slice(0, made), promised, found);
  const more = new LogWork(bench, before, random);
  await more.run(3);
  await more.commit();
  const expected = { base: before, work: more, made: more.changes.length, promised: more.promised };
  const cut = disk.afterPowerCut(random);
  await bench.engine.close();
  await check(cut, segmentBytes, expected, seen);
  seen.crashPoints++;
}

/** Two lives of a store, the second with what the first one left, and the error that ended it; time passes while it waits. */
async function standardRun(
  seed: number,
  segmentBytes: number,
  steps: number,
  disk: SimulatedDisk,
): Promise<{ failures: Error[]; work: LogWork; error: unknown }> {
  let bench = new LogBench(disk, segmentBytes);
  const failures: Error[] = [];
  const work = new LogWork(bench, new Model(), seededRandom(seed));
  const live = async (): Promise<unknown> => {
    try {
      const found = await observe(bench.engine, await bench.open());
      assert.equal(found.describe(), work.now.describe(), 'what is there after a restart');
      await work.run(steps);
      await work.commit();
      return undefined;
    } catch (error) {
      await assertFailed(bench, work);
      return error;
    } finally {
      await bench.engine.close();
      failures.push(...bench.failures);
    }
  };
  const run = async (): Promise<unknown> => {
    const error = await live();
    if (error !== undefined || failures.length > 0) return error;
    bench = new LogBench(disk, segmentBytes);
    work.moveTo(bench);
    return live();
  };
  const state = { ended: false };
  const running = run().finally(() => (state.ended = true));
  // What waits for room tries again after a while.
  for (let i = 1; !state.ended; i++) {
    await turn();
    if (i % 20 === 0) bench.clock.tick(500);
  }
  return { failures, work, error: await running };
}

/** An engine that has failed says so at every call from then on. */
async function assertFailed({ failures, engine, disk }: LogBench, work: LogWork): Promise<void> {
  if (failures.length === 0) return;
  disk.fault = () => undefined;
  const refused = { code: 'store-failed' };
  await assert.rejects(engine.commit(), refused);
  const calls: (() => unknown)[] = [
    () => work.make({ kind: 'append', instance: '1'.repeat(32), parts: [] }),
    () => engine.ack('a', 1, 1),
    () => engine.move('a', 'b'),
    () => engine.attempt('a', 1, 1),
    () => engine.drop('a'),
    () => engine.put('k1', 'v'),
    () => engine.floor('1'.repeat(32), 1),
    () => engine.read('a', 0, 1, 1),
  ];
  for (const call of calls) assert.throws(call, refused);
}
