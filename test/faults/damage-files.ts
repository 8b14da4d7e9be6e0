/**
 * Files of a log that are missing, empty, unreadable, or not its own: what is done to one of them, and what the start must say.
 */
import assert from 'node:assert/strict';
import { crc32 } from 'node:zlib';
import { Inode, type SimulatedDisk } from '../helpers/simulated-files.js';
import { naming } from './crash-points.js';
import { assertRefused, giveUp } from './damage.js';
import { observe } from './log-model.js';
import { FOLDER, LogBench } from './log-work.js';
import { diskOf, SEGMENT_BYTES, stateWithout } from './sample-log.js';
import type { LogSegment, SampleLog } from './sample-log.js';

interface FileSeen {
  refused: number;
  recovered: number;
  named: number;
}

/** What makes a start fail, and with which code. */
const REFUSALS: readonly { what: string; code: string; bytes(of: LogSegment): Buffer }[] = [
  { what: 'is no segment', code: 'store-foreign', bytes: ({ bytes }) => Buffer.alloc(bytes.length, 'a photograph ') },
  { what: 'is text of a few bytes', code: 'store-foreign', bytes: () => Buffer.from('hello '.repeat(200)) },
  { what: 'was written by a newer version', code: 'store-newer', bytes: ({ bytes }) => newer(bytes) },
];

function newer(bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  copy.writeUInt32LE(2, 8);
  copy.writeUInt32LE(crc32(copy.subarray(0, 60)), 60);
  copy.copy(copy, 512, 0, 64);
  return copy;
}

/** Does it all to each of the files; `other` is another store's log. */
export async function tryFiles(log: SampleLog, other: SampleLog): Promise<FileSeen> {
  const seen: FileSeen = { refused: 0, recovered: 0, named: 0 };
  for (const [i, segment] of log.segments.entries()) {
    for (const { what, code, bytes } of REFUSALS)
      await refused(`${segment.name} ${what}`, log, new Map([[segment.path, bytes(segment)]]), code, seen);
    const stranger = other.segments.find(({ name }) => name === segment.name);
    if (stranger !== undefined) {
      const its = new Map([[segment.path, stranger.bytes]]);
      await refused(`${segment.name} is of another store`, log, its, 'store-foreign', seen);
    }
    const neighbour = log.segments[i === 0 ? 1 : i - 1] as LogSegment;
    const under = new Map([[segment.path, neighbour.bytes]]);
    await refused(`${segment.name} is ${neighbour.name}`, log, under, 'store-foreign', seen);
    const disk = diskOf(log);
    disk.fault = (operation, _, path) => (operation === 'read' && path === segment.path ? { code: 'EIO' } : undefined);
    await refusedOn(`${segment.name} cannot be read`, log, disk, 'store-unreadable', seen);
    await without(`${segment.name} is missing`, log, segment, null, seen);
    await without(`${segment.name} is empty`, log, segment, Buffer.alloc(0), seen);
    const headless = Buffer.from(segment.bytes).fill(0, 0, 1024);
    await without(`${segment.name} has no header`, log, segment, headless, seen);
    await without(`${segment.name} has nothing but zeros`, log, segment, Buffer.alloc(segment.bytes.length), seen);
  }
  for (const name of ['photo.jpg', 'segment-1.log', 'segment-0000000001.log.bak', '.hidden']) {
    const disk = diskOf(log);
    disk.addFile(`${FOLDER}/${name}`, new Inode(Buffer.from('x')));
    await refusedOn(`there is ${name}`, log, disk, 'store-foreign', seen);
  }
  return seen;
}

async function refused(
  what: string,
  log: SampleLog,
  replaced: ReadonlyMap<string, Buffer>,
  code: string,
  seen: FileSeen,
): Promise<void> {
  const disk = diskOf(log, replaced);
  await refusedOn(what, log, disk, code, seen);
  // Nothing was spoiled: with the right file in its place all is well.
  for (const { path, bytes } of log.segments) if (replaced.has(path)) disk.addFile(path, new Inode(bytes));
  await naming(`${what}, and then is right again`, async () => {
    const bench = new LogBench(disk, SEGMENT_BYTES);
    const state = await bench.open();
    assert.deepEqual(state.damage, []);
    assert.equal((await observe(bench.engine, state)).describe(), log.whole.describe());
    await bench.engine.close();
  });
}

async function refusedOn(
  what: string,
  log: SampleLog,
  disk: SimulatedDisk,
  code: string,
  seen: FileSeen,
): Promise<void> {
  await naming(what, () => assertRefused(disk, code, seen));
}

/**
 * Starts without what a segment held, names it, and leaves what is there of it: one that is missing or empty only when it
 * has been given up. One that was made ahead, and never written to, is not missed.
 */
async function without(
  what: string,
  log: SampleLog,
  segment: LogSegment,
  instead: Buffer | null,
  seen: FileSeen,
): Promise<void> {
  await naming(what, async () => {
    const disk = diskOf(log, new Map([[segment.path, instead]]));
    const isNeeded = segment.records.length > 0 || instead !== null;
    if (isNeeded && (instead?.length ?? 0) === 0) await giveUp(disk, segment, seen);
    const bench = new LogBench(disk, SEGMENT_BYTES);
    const state = await bench.open();
    const found = await observe(bench.engine, state);
    const expected = stateWithout(log, (_, { path }) => path === segment.path);
    assert.equal(found.describe(), expected.describe());
    const { damage } = state;
    if (isNeeded) {
      assert.equal(damage.length, 1, damage.join());
      assert.ok(damage[0]?.startsWith(`${segment.name} `), damage[0]);
      if (instead !== null) assert.ok(disk.names.get(segment.path)?.data.equals(instead), 'it was changed');
      seen.named++;
    } else {
      assert.deepEqual(damage, []);
    }
    assert.ok(state.nextHandle >= log.nextHandle || segment.records.length > 0, 'a handle would be used again');
    await bench.engine.close();
    assert.deepEqual((await bench.open()).damage, damage, 'what is named at another start');
    await bench.engine.close();
    seen.recovered++;
  });
}
