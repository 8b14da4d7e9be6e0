/** A full disk: messages are written again, so that space is given back, where there is room for that, and only there. */
import { expect, it } from 'vitest';
import { newInstance, sampleBatch } from '../../../src/engine/conformance/batches.js';
import { DiskBench, settled, ticking, until } from '../../helpers/disk-bench.js';
import { SimulatedDisk } from '../../helpers/simulated-files.js';

const KIB = 1024;
/** A queue. */
const LONG = 'q'.repeat(200);

/** A store on a disk that others fill too. */
class FullDisk {
  readonly bench: DiskBench;
  readonly #stored = new Map<string, number[]>();

  constructor(options: { readonly segmentBytes: number; readonly reserveBytes: number }) {
    this.bench = new DiskBench(new SimulatedDisk(), options);
  }

  get used(): number {
    return this.bench.disk.used;
  }

  /** The disk has so many bytes in all, or so many are free now. */
  set capacity(bytes: number) {
    this.bench.disk.capacity = bytes;
  }

  set free(bytes: number) {
    this.capacity = this.used + bytes;
  }

  async add(queue: string, bodyBytes: number): Promise<void> {
    const stored = this.#stored.get(queue) ?? [];
    this.#stored.set(queue, stored);
    stored.push(this.bench.append(queue, ['x'], { bodyBytes }));
    await this.bench.engine.commit();
    await settled();
  }

  /** Until the store is full; queues take turns. */
  async fill(queues: readonly string[], bodyBytes: number): Promise<void> {
    const fill = async (): Promise<void> => {
      for (let i = 0; ; i++) await this.add(queues[i % queues.length] as string, bodyBytes);
    };
    await expect(fill()).rejects.toMatchObject({ code: 'store-full' });
  }

  /** All but so many of a queue's messages are acknowledged, durably. */
  async acknowledge(queue: string, but = 0): Promise<void> {
    const stored = this.#stored.get(queue) ?? [];
    for (const handle of stored.splice(0, stored.length - but)) this.bench.engine.ack(queue, handle, 1);
    await ticking(this.bench.clock, this.bench.engine.commit());
    await this.pass();
  }

  /** Ten seconds. */
  async pass(): Promise<void> {
    for (let i = 0; i < 20; i++) {
      await settled();
      this.bench.clock.tick(500);
    }
  }

  async end(): Promise<void> {
    expect(this.bench.failures).toEqual([]);
    await this.bench.engine.close();
  }
}

async function fullDisk(options: { readonly segmentBytes: number; readonly reserveBytes: number }): Promise<FullDisk> {
  const disk = new FullDisk(options);
  await disk.bench.open();
  return disk;
}

const SMALL = { segmentBytes: 256 * KIB, reserveBytes: 256 * KIB };

it('takes acknowledgements when there is no room to write again what is left, and less and less is left', async () => {
  const disk = await fullDisk(SMALL);
  disk.capacity = 2560 * KIB;
  // Two fifths of each segment die first, and the rest of it fits nowhere.
  await disk.fill(['away', 'away', 'away', 'here', 'here'], 8 * KIB);
  // Others take most of the reserve; what they leave is enough for a small segment.
  disk.free = 80 * KIB;
  await disk.acknowledge('here');
  await disk.acknowledge('away');
  await until(() => disk.used < 800 * KIB);
  await disk.add('here', 8 * KIB);
  await disk.end();
});

it('gives back what is dead behind a segment that is full of what waits', async () => {
  const disk = await fullDisk({ segmentBytes: 1024 * KIB, reserveBytes: 2048 * KIB });
  await disk.add('here', 100 * KIB);
  await disk.acknowledge('here'); // the small first segment goes
  for (let i = 0; i < 62; i++) await disk.add('away', 16 * KIB);
  disk.capacity = 5312 * KIB;
  await disk.pass();
  await disk.fill(['here'], 16 * KIB);
  await disk.acknowledge('here');
  await disk.add('here', 16 * KIB);
  await disk.end();
});

it('goes on by itself when others give room back, though nobody writes', async () => {
  const disk = await fullDisk({ segmentBytes: 256 * KIB, reserveBytes: 512 * KIB });
  await disk.add('here', 20 * KIB);
  for (let i = 0; i < 24; i++) await disk.add('away', 8 * KIB);
  disk.capacity = 2560 * KIB;
  await disk.fill(['here'], 8 * KIB);
  disk.free = 8 * KIB;
  await disk.acknowledge('here');
  const before = disk.used;
  await disk.pass();
  expect(disk.used).toBe(before);
  disk.free = 500 * KIB;
  await disk.pass();
  expect(disk.used).toBeLessThan(before / 2);
  await disk.end();
});

it.each<[string, (bench: DiskBench) => void]>([
  [
    'a message is larger than what is written at a time',
    bench => void bench.append('away', ['x'], { bodyBytes: 200 * KIB }),
  ],
  [
    'messages were acknowledged out of order, so that each has a place of its own',
    bench => {
      for (let n = 0; n < 3; n++) {
        const first = bench.append(
          LONG,
          Array.from({ length: 400 }, () => 'x'),
        );
        for (let i = 0; i < 400; i += 2) bench.engine.ack(LONG, first + i, 1);
      }
    },
  ],
])('takes acknowledgements in any case: %s', async (_, prepare) => {
  for (const free of [64, 165]) {
    const disk = await fullDisk({ segmentBytes: 256 * KIB, reserveBytes: 512 * KIB });
    prepare(disk.bench);
    await disk.bench.engine.commit();
    disk.capacity = (free === 64 ? 3072 : 2690) * KIB;
    await disk.fill(['here'], 8 * KIB);
    disk.free = free * KIB;
    await disk.acknowledge('here', 1);
    for (const queue of ['away', LONG]) disk.bench.engine.drop(queue);
    await disk.acknowledge('here');
    await disk.end();
  }
});

it('stops when others fill the disk while it is written again, and goes on when they give it back', async () => {
  const disk = await fullDisk(SMALL);
  await disk.add('here', 60 * KIB);
  await disk.acknowledge('here'); // the small first segment goes
  for (let i = 0; i < 20; i++) await disk.add('away', 8 * KIB);
  disk.free = 2048 * KIB;
  await disk.fill(['here'], 8 * KIB);
  // Memory has nothing of it from here on.
  await disk.bench.engine.close();
  await disk.bench.open();
  const [first] = disk.bench.segments;
  let reads = 0;
  let isTaken = false;
  disk.bench.disk.fault = (operation, _, path) => {
    // What is left of the oldest is read and written piece by piece.
    if (operation === 'read' && path === first) reads++;
    if (operation === 'sync' && reads > 0 && !isTaken) {
      isTaken = true;
      disk.free = 80 * KIB;
    }
    return undefined;
  };
  await disk.acknowledge('here');
  expect(disk.bench.segments[0]).toBe(first);
  const before = reads;
  expect(before).toBeGreaterThan(0);
  // Nothing waits in front of others.
  disk.bench.engine.put('key', 'value');
  await ticking(disk.bench.clock, disk.bench.engine.commit());
  disk.free = 1024 * KIB;
  await disk.pass();
  expect(disk.bench.segments[0]).not.toBe(first);
  expect(reads).toBeGreaterThan(before);
  await disk.end();
});

it('counts what senders take whose names are long', async () => {
  const disk = await fullDisk({ segmentBytes: 256 * KIB, reserveBytes: 512 * KIB });
  const { engine } = disk.bench;
  for (let i = 0; i < 450; i++) {
    const batch = sampleBatch(['x'], { instance: newInstance(), name: 'n'.repeat(255) });
    engine.append([{ batch, expiresAt: 0, queues: [] }]);
  }
  await engine.commit();
  disk.capacity = 2752 * KIB;
  await disk.fill(['here'], 8 * KIB);
  disk.free = 4 * KIB;
  await disk.acknowledge('here', 1);
  await disk.acknowledge('here');
  await disk.end();
});

it('lets pairs and senders go before, while and after they are written again', async () => {
  const disk = await fullDisk({ segmentBytes: 1024 * KIB, reserveBytes: 512 * KIB });
  const { engine } = disk.bench;
  const senders = Array.from({ length: 320 }, () => newInstance());
  for (const [i, instance] of senders.entries()) {
    const batch = sampleBatch(['x'], { instance, name: 'n'.repeat(KIB) });
    engine.append([{ batch, expiresAt: 0, queues: [] }]);
    engine.put(String(i), 'v'.repeat(KIB));
  }
  await engine.commit();
  disk.capacity = 8192 * KIB;
  await disk.fill(['here'], 16 * KIB);
  disk.free = 64 * KIB;
  await disk.acknowledge('here');
  const [first] = disk.bench.segments;
  // They are written again in pieces of some sixty. With each sync one or two of each piece go, and there is another group in
  // front of the next piece, so that some go while they wait to be written.
  let gone = 0;
  let hasRoom = false;
  disk.bench.disk.fault = operation => {
    hasRoom ||= operation === 'free'; // it was asked whether there is
    if (operation !== 'sync' || !hasRoom || gone === 32 || disk.bench.segments[0] !== first) return undefined;
    for (let i = gone; i < senders.length; i += 40) {
      engine.floor(senders[i] as string, null);
      engine.put(String(i), null);
    }
    gone++;
    void engine.commit();
    return undefined;
  };
  disk.free = 4096 * KIB;
  await disk.pass();
  expect(gone).toBeGreaterThan(10);
  expect(disk.bench.segments[0]).not.toBe(first);
  // What memory holds is written once more; nothing of what has gone is in it.
  const [...before] = disk.bench.segments;
  await disk.fill(['here'], 16 * KIB);
  disk.free = 4096 * KIB;
  await disk.acknowledge('here');
  expect(disk.bench.segments.filter(path => before.includes(path))).toEqual([]);
  await engine.close();
  await disk.bench.open();
  const known = new Set(disk.bench.state.senders.map(({ instance }) => instance));
  const kept = [...senders.keys()].filter(i => i % 40 >= gone);
  expect([...senders.keys()].filter(i => known.has(senders[i] as string))).toEqual(kept);
  expect([...disk.bench.state.entries.keys()]).toEqual(kept.map(String));
  await disk.end();
});
