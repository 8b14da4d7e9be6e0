/** Space is given back, and what still counts survives it. */
import { describe, expect, it } from 'vitest';
import { INSTANCE, messagesOf, newInstance, sampleBatch } from '../../../src/engine/conformance/batches.js';
import type { StoredRun } from '../../../src/engine/engine.js';
import { DiskBench, settled, until } from '../../helpers/disk-bench.js';
import { SimulatedDisk, type Inode } from '../../helpers/simulated-files.js';

const SEGMENT = 8 * 1024;

async function newBench(): Promise<DiskBench> {
  const bench = new DiskBench(new SimulatedDisk(), { segmentBytes: SEGMENT });
  await bench.open();
  return bench;
}

/** Sends messages through a queue, each acknowledged, until so many bytes have been written. */
async function churn(bench: DiskBench, bytes: number, queue = 'through', bodyBytes = 500): Promise<void> {
  for (let written = 0; written < bytes; written += bodyBytes) {
    bench.engine.ack(queue, bench.append(queue, ['x'], { bodyBytes }), 1);
    await bench.engine.commit();
  }
  await settled();
}

async function restart(bench: DiskBench): Promise<void> {
  const dead = bench.engine;
  bench.disk = bench.disk.afterKill();
  await bench.open();
  await dead.close();
}

describe('the space of the disk engine', () => {
  it('stays small when much goes through', async () => {
    const bench = await newBench();
    let largest = 0;
    for (let i = 0; i < 20; i++) {
      await churn(bench, 4 * SEGMENT);
      largest = Math.max(largest, bench.disk.used);
    }
    expect(largest).toBeLessThanOrEqual(5 * SEGMENT);
    expect(bench.engine.totals()).toEqual({ messages: 0, bytes: 0, limit: 0 });
    await bench.engine.close();
    expect(bench.failures).toEqual([]);
  });

  it('reads across what is in memory and what is not', async () => {
    const bench = await newBench();
    const texts = Array.from({ length: 20 }, (_, i) => `message ${String(i)}`);
    for (const text of texts.slice(0, 10)) bench.append('q', [text]);
    await bench.engine.commit();
    await restart(bench);
    for (const text of texts.slice(10)) bench.append('q', [text]);
    expect(await bench.texts('q')).toEqual(texts);
    await bench.engine.close();
  });

  it('is bounded by what lives in it, also when the oldest segment is full of what waits', async () => {
    const bench = await newBench();
    const waiting = Array.from({ length: 30 }, (_, i) => `waiting ${String(i)}`);
    for (const text of waiting) bench.append('away', [text], { bodyBytes: 400 });
    await bench.engine.commit();
    const live = bench.engine.totals().bytes;
    await churn(bench, 60 * SEGMENT);
    await until(() => bench.disk.used <= 2 * live + 8 * SEGMENT);
    expect(await bench.texts('away')).toEqual(waiting);
    await restart(bench);
    expect(await bench.texts('away')).toEqual(waiting);
    expect(bench.state.damage).toEqual([]);
    await bench.engine.close();
  });

  it('takes attempts, notes, places in several queues and what is left of a batch along', async () => {
    const bench = await newBench();
    const { engine } = bench;
    const first = bench.append('q', ['a', 'b', 'c', 'd', 'e', 'f'], { bodyBytes: 200, expiresAt: 77_000 });
    engine.attempt('q', first + 1, 3);
    engine.move('q', 'dead', first + 2, 1, 'a note');
    engine.move('q', 'other', first + 5, 1);
    engine.ack('q', first + 3, 1);
    await engine.commit();
    const look = async (): Promise<unknown[]> => {
      const found: unknown[] = [];
      for (const queue of ['q', 'dead', 'other']) {
        for (const { handle, batch, attempts, note, expiresAt } of await bench.engine.read(queue, 0, 10, 10_000))
          found.push([
            queue,
            handle,
            batch.count,
            batch.first,
            batch.idBase,
            attempts,
            note,
            expiresAt,
            bench.engine.usage(queue),
          ]);
      }
      return found;
    };
    const before = await look();
    await churn(bench, 40 * SEGMENT);
    expect(bench.segments[0]).not.toContain('0000000001');
    expect(await look()).toEqual(before);
    await restart(bench);
    expect(await look()).toEqual(before);
    // Acknowledged in its new place, it stays away.
    bench.engine.ack('q', first, 3);
    await bench.engine.commit();
    await churn(bench, 40 * SEGMENT);
    await restart(bench);
    expect(await bench.texts('q')).toEqual(['e']);
    await bench.engine.close();
  });

  it('keeps pairs, floors and the positions that senders took', async () => {
    const bench = await newBench();
    const { engine } = bench;
    const other = newInstance();
    engine.put('session', 'x'.repeat(100));
    engine.put('removed', 'y');
    engine.ack('q', bench.append('q', ['a', 'b'], { instance: other, first: 5, name: undefined }), 2);
    engine.floor(other, 6);
    await engine.commit();
    engine.put('removed', null);
    await churn(bench, 20 * SEGMENT);
    engine.floor(INSTANCE, 10);
    await churn(bench, 20 * SEGMENT);
    expect(bench.segments[0]).not.toContain('0000000001');
    const taken = bench.engine;
    expect(taken).toBe(engine);
    await restart(bench);
    expect([...bench.state.entries]).toEqual([['session', 'x'.repeat(100)]]);
    const senders = new Map(bench.state.senders.map(({ instance, ...rest }) => [instance, rest]));
    expect(senders.get(other)).toEqual({ name: undefined, floor: 6, taken: [{ first: 6, count: 1 }] });
    expect(senders.get(INSTANCE)?.floor).toBe(10);
    expect(senders.get(INSTANCE)?.taken).toHaveLength(1);
    await bench.engine.close();
  });

  it('moves what is there at the moment, while pairs, senders and messages go', async () => {
    // All of it is one group, and so in one segment.
    const bench = new DiskBench(new SimulatedDisk(), { segmentBytes: 8 * 1024 * 1024 });
    await bench.open();
    const large = (i: number): string => `${String(i)} `.padEnd(60_000, 'x');
    const numbers = Array.from({ length: 60 }, (_, i) => i);
    const full = new Set([...numbers.slice(0, 10), ...numbers.slice(50)]);
    const instances = numbers.map(() => newInstance());
    const handles = new Map<number, number>();
    for (const i of numbers) {
      const batch = sampleBatch(['x'], { instance: instances[i] as string, name: large(i) });
      bench.engine.append([{ batch, expiresAt: 0, queues: [] }]);
      if (i < 10 || i >= 20) bench.engine.put(`key ${String(i)}`, large(i));
      if (!full.has(i)) continue;
      handles.set(i, bench.append('away', [String(i)], { bodyBytes: 60_000 }));
    }
    await bench.engine.commit();
    // From the end on, one after the other goes with every sync, once the first segment is being moved.
    const last = bench.segments[1] as string;
    let next = 59;
    let isMoving = false;
    const goOn = bench.disk.step.bind(bench.disk);
    bench.disk.step = (operation, path) => {
      isMoving ||= operation === 'read';
      if (isMoving && operation === 'sync' && next >= 10) {
        bench.engine.put(`key ${String(next)}`, null);
        bench.engine.floor(instances[next] as string, null);
        bench.engine.ack('away', handles.get(next) ?? 0, 1);
        next--;
      }
      return goOn(operation, path);
    };
    await churn(bench, 96 * 1024 * 1024, 'through', 100_000);
    await until(() => next < 10 && !bench.segments.includes(last));
    await restart(bench);
    expect(bench.state.damage).toEqual([]);
    expect(await bench.texts('away')).toEqual(numbers.slice(0, 10).map(String));
    expect([...bench.state.entries.keys()].sort()).toEqual(numbers.slice(0, 10).map(i => `key ${String(i)}`));
    const known = new Set(bench.state.senders.map(({ instance }) => instance));
    expect(instances.filter(instance => known.has(instance))).toEqual(instances.slice(0, 10));
    await bench.engine.close();
  }, 60_000);

  it('counts handles on when everything was given back', async () => {
    const bench = await newBench();
    await churn(bench, 20 * SEGMENT);
    const last = bench.append('q', ['last']);
    bench.engine.drop('q');
    await bench.engine.commit();
    await churn(bench, 4 * SEGMENT);
    await restart(bench);
    expect(bench.append('q', ['next'])).toBeGreaterThan(last);
    await bench.engine.close();
  });

  it('reads a run whose segment is given back meanwhile', async () => {
    const bench = await newBench();
    const texts = Array.from({ length: 80 }, (_, i) => `waiting ${String(i)}`);
    for (const text of texts) {
      bench.append('away', [text], { bodyBytes: 300 });
      await bench.engine.commit();
    }
    await restart(bench);
    // Each read of the disk waits until the log has gone on by some segments; a read goes over several of them.
    let busy = false;
    const { disk } = bench;
    let reads = 0;
    const slow = disk.step.bind(disk);
    disk.step = async (operation, path) => {
      if (operation === 'read' && !busy && reads++ < 6) {
        busy = true;
        await churn(bench, 30 * SEGMENT);
        busy = false;
      }
      return slow(operation, path);
    };
    expect(await bench.texts('away')).toEqual(texts);
    expect(reads).toBeGreaterThan(0);
    expect(bench.segments[0]).not.toContain('0000000001');
    expect(bench.warnings).toEqual([]);
    expect(bench.failures).toEqual([]);
    await bench.engine.close();
  });

  it('reads what is written again at every moment, also before it has arrived where it goes', async () => {
    const bench = await newBench();
    bench.append('away', ['waits']);
    await bench.engine.commit();
    // Memory has nothing of it from here on.
    await restart(bench);
    const reads: Promise<readonly StoredRun[]>[] = [];
    let writes = 0;
    bench.disk.fault = operation => {
      if (operation === 'write') {
        writes++;
        reads.push(Promise.resolve(bench.engine.read('away', 0, 1, 1000)));
      }
      return undefined;
    };
    await churn(bench, 6 * SEGMENT);
    expect(bench.segments[0]).not.toBe('/data/segment-0000000001.log');
    const texts = (await Promise.all(reads)).map(runs => messagesOf(runs).map(({ text }) => text));
    expect(texts).toEqual(Array.from({ length: writes }, () => ['waits']));
    expect(bench.damage).toEqual([]);
    await bench.engine.close();
  });

  it('does not gather segments over many restarts', async () => {
    const bench = await newBench();
    for (let i = 0; i < 30; i++) bench.append('away', ['x'], { bodyBytes: 400 });
    for (let i = 0; i < 60; i++) {
      bench.engine.put('session', String(i));
      await bench.engine.commit();
      await settled();
      if (i % 2 === 0) await restart(bench);
      else {
        await bench.engine.close();
        await bench.open();
      }
    }
    expect(bench.segments.length).toBeLessThan(60);
    expect(bench.engine.usage('away').messages).toBe(30);
    for (let i = 0; i < 5; i++) await restart(bench);
    const segments = bench.segments.length;
    for (let i = 0; i < 5; i++) await restart(bench);
    // A restart without anything to write makes nothing new.
    expect(bench.segments.length).toBe(segments);
    await bench.engine.close();
  });

  it('stores an append larger than a segment, whole', async () => {
    const bench = await newBench();
    const texts = Array.from({ length: 200 }, (_, i) => `message ${String(i)}`);
    bench.append('q', ['before']);
    await bench.engine.commit();
    await settled();
    bench.append('q', texts, { bodyBytes: 300 });
    await bench.engine.commit();
    bench.append('q', ['behind']);
    await bench.engine.commit();
    await restart(bench);
    expect(await bench.texts('q')).toEqual(['before', ...texts, 'behind']);
    expect(bench.state.damage).toEqual([]);
    const numbers = bench.segments.map(name => Number(name.slice(-14, -4)));
    expect(numbers).toEqual(numbers.map((_, i) => (numbers[0] as number) + i));
    await bench.engine.close();
  });

  it('marks the end of the log when it is quiet, and knows the time after a long one', async () => {
    const bench = await newBench();
    bench.append('q', ['a']);
    await bench.engine.commit();
    const synced = (): number => bench.disk.log.filter(operation => operation === 'sync').length;
    const before = synced();
    bench.clock.tick(100);
    bench.engine.put('k', 'v');
    await bench.engine.commit();
    bench.clock.tick(200);
    await settled();
    expect(synced()).toBe(before + 1);
    bench.clock.tick(100);
    await until(() => synced() === before + 2);
    const day = 24 * 60 * 60 * 1000;
    for (let i = 0; i < 5 * 144; i++) {
      bench.clock.tick(day / 144);
      await settled();
    }
    await restart(bench);
    expect(bench.state.time).toBeGreaterThan(5 * day);
    expect(bench.state.time).toBeLessThan(5 * day + 1000);
    await bench.engine.close();
  });

  it('writes acknowledgements after a while when nobody asks for a commit', async () => {
    const bench = await newBench();
    const handle = bench.append('q', ['a', 'b']);
    await bench.engine.commit();
    await settled();
    bench.engine.ack('q', handle, 1);
    bench.clock.tick(50);
    await settled();
    await restart(bench);
    expect(await bench.texts('q')).toEqual(['b']);
    await bench.engine.close();
  });

  it('writes many scattered acknowledgements without a commit', async () => {
    const bench = await newBench();
    const texts = Array.from({ length: 5000 }, (_, i) => String(i));
    const first = bench.append('q', texts);
    for (let i = 0; i < 5000; i += 2) bench.engine.ack('q', first + i, 1);
    await bench.engine.commit();
    await restart(bench);
    expect(await bench.texts('q')).toEqual(texts.filter((_, i) => i % 2 === 1));
    await bench.engine.close();
  });

  it('keeps only the latest in memory, and reads the rest back', async () => {
    const bench = new DiskBench(new SimulatedDisk(), { segmentBytes: 1024 * 1024 });
    await bench.open();
    const texts = Array.from({ length: 50 }, (_, i) => `message ${String(i)}`);
    for (const text of texts) {
      bench.append('q', [text], { bodyBytes: 300_000 });
      await bench.engine.commit();
    }
    expect(bench.engine.read('q', 0, 1, 1)).toBeInstanceOf(Promise);
    expect(bench.engine.read('q', 45, 1, 1)).toBeInstanceOf(Array);
    expect(await bench.texts('q')).toEqual(texts);
    await bench.engine.close();
  });

  it('lets the segment that was prepared grow for a group that is larger', async () => {
    const bench = await newBench();
    bench.append('q', ['small'], { bodyBytes: SEGMENT / 2 });
    await bench.engine.commit();
    await settled();
    const prepared = bench.segments;
    bench.append('q', ['large'], { bodyBytes: 4 * SEGMENT });
    await bench.engine.commit();
    expect(bench.segments.slice(0, prepared.length)).toEqual(prepared);
    const grown = bench.disk.names.get(prepared[prepared.length - 1] as string) as Inode;
    expect(grown.data.length).toBeGreaterThan(4 * SEGMENT);
    await bench.engine.close();
    await bench.open();
    expect(await bench.texts('q')).toEqual(['small', 'large']);
    await bench.engine.close();
  });
});
