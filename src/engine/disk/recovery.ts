/**
 * Reads the log back when the store is opened (docs/store-format.md, "Recovery"): one segment at a time, and the one
 * behind it, because a commit there proves that everything before it had reached the disk.
 *
 * What is bad before such a point is damage in synced data: it is put aside and named, and the rest is served. What is bad
 * behind it was never promised: a torn tail, which is cut. Records are applied a commit group at a time: a group without
 * its COMMIT is no group.
 */
import { BroadcastError } from '../../errors.js';
import { join, type FileSystem, type LogFile } from './files.js';
import { decodeSegmentHeader, encodeSegmentHeader, SEGMENT_HEADER } from './header.js';
import { Replay, type Position } from './replay.js';
import { scan, zeroTail, type Scanned } from './scan.js';
import { newSegment, segmentName, segmentNumber, type Segment } from './segment.js';
import type { LogState } from './state.js';

/** What recovery found. */
export interface Recovered {
  readonly state: LogState;
  /** In the order of their numbers. */
  readonly segments: Segment[];
  /** A segment that was made ahead and not used. */
  readonly spare: Segment | undefined;
  /** The last one is to be written on: nothing was ever written to it. */
  readonly isLastFresh: boolean;
  readonly storeId: string | undefined;
  readonly nextSegment: number;
  /** Everything before it is durable; undefined for an empty log. */
  readonly durable: Position | undefined;
  /** Of the last commit. */
  readonly wall: number;
  readonly time: number;
  readonly damage: string[];
}

export async function recover(
  files: FileSystem,
  directory: string,
  isForeign: (name: string) => boolean,
): Promise<Recovered> {
  const numbers = await findSegments(files, directory, isForeign);
  const opened: Segment[] = [];
  try {
    return await read(files, directory, numbers, opened);
  } catch (error) {
    for (const { file } of opened) await file.close().catch(() => undefined);
    throw error;
  }
}

async function findSegments(
  files: FileSystem,
  directory: string,
  isForeign: (name: string) => boolean,
): Promise<number[]> {
  const names = await files.list(directory);
  const foreign = names.filter(isForeign);
  if (foreign.length > 0) {
    throw new BroadcastError(
      'store-foreign',
      `${directory} holds files that are not of this store (${foreign.slice(0, 3).join(', ')}); choose an empty folder`,
    );
  }
  const numbers = names.map(segmentNumber).filter((n): n is number => n !== undefined);
  return numbers.sort((a, b) => a - b);
}

async function read(
  files: FileSystem,
  directory: string,
  numbers: readonly number[],
  opened: Segment[],
): Promise<Recovered> {
  const replay = new Replay(files, directory);
  const { damage } = replay;
  const written = new Set<Segment>();
  let waiting: Scanned[] = [];
  let nextSegment = 1;
  for (const [i, number] of numbers.entries()) {
    const before = numbers[i - 1];
    if (before !== undefined && number !== before + 1) {
      damage.push(`${segmentName(before + 1)} is missing; what was in it is lost`);
    }
    const found = await openSegment(files, directory, number, i === numbers.length - 1, damage);
    if (found === 'removed') {
      nextSegment = number;
      continue;
    }
    nextSegment = number + 1;
    if (found === undefined) continue;
    opened.push(found.segment);
    checkStore(directory, opened);
    const scanned = scan(found.segment, found.bytes);
    if (scanned.records.length > 0 || scanned.gaps.length > 0) written.add(found.segment);
    waiting.push(scanned);
    if (!replay.note(scanned)) continue;
    for (const one of waiting.slice(0, -1)) await replay.apply(one);
    waiting = [scanned];
  }
  for (const one of waiting) await replay.apply(one);
  await cutTails(files, directory, opened, written);
  const fresh = countFresh(opened, written);
  const spare = fresh > 1 ? opened.pop() : undefined;
  const used = opened[opened.length - 1 - (fresh > 0 ? 1 : 0)];
  return {
    state: replay.state,
    segments: opened,
    spare,
    isLastFresh: fresh > 0,
    storeId: opened[0]?.header.storeId,
    nextSegment,
    durable: used === undefined ? undefined : { segment: used.header.number, offset: used.end },
    wall: replay.wall,
    time: replay.time,
    damage,
  };
}

function checkStore(directory: string, opened: readonly Segment[]): void {
  const [first, last] = [opened[0] as Segment, opened[opened.length - 1] as Segment];
  if (first.header.storeId === last.header.storeId) return;
  const name = segmentName(last.header.number);
  throw new BroadcastError('store-foreign', `${name} in ${directory} is of another store; put it aside`);
}

/** Undefined for a segment that cannot be read. */
async function openSegment(
  files: FileSystem,
  directory: string,
  number: number,
  isLast: boolean,
  damage: string[],
): Promise<{ segment: Segment; bytes: Buffer } | 'removed' | undefined> {
  const name = segmentName(number);
  const path = join(directory, name);
  let file: LogFile | undefined;
  let bytes: Buffer;
  try {
    file = await files.open(path, false);
    bytes = await file.read(0, await file.size());
  } catch (error) {
    await file?.close().catch(() => undefined);
    const text = `${path} cannot be read: ${(error as Error).message}`;
    throw new BroadcastError('store-unreadable', text, { cause: error });
  }
  const found = decodeSegmentHeader(bytes.subarray(0, SEGMENT_HEADER));
  if (typeof found === 'object') {
    if (found.repaired) {
      await file.write(encodeSegmentHeader(found.header), 0);
      // Nothing is wrong when the machine went down while the segment was made.
      if (!isLast || zeroTail(bytes) > SEGMENT_HEADER) {
        damage.push(`the header of ${name} was damaged; its copy served, and it has been written again`);
      }
    }
    return { segment: newSegment(found.header, path, file, bytes.length), bytes };
  }
  await file.close();
  if (isLast && zeroTail(bytes) === 0) {
    // Made, and the machine went down before its header was durable: nothing was ever stored in it.
    await files.unlink(path);
    await files.syncDirectory(directory);
    return 'removed';
  }
  if (found === 'newer')
    throw new BroadcastError('store-newer', `${path} was written by a newer version; use that version`);
  if (found === 'foreign' && zeroTail(bytes.subarray(0, SEGMENT_HEADER)) > 0)
    throw new BroadcastError('store-foreign', `${path} is not of this store; put it aside or choose another folder`);
  damage.push(`${name} has no readable header; it is left as it is, and what was in it is lost`);
  return undefined;
}

/** A torn tail is cut durably before anything is written behind it, or the next recovery would take it for damage. */
async function cutTails(
  files: FileSystem,
  directory: string,
  segments: readonly Segment[],
  written: ReadonlySet<Segment>,
): Promise<void> {
  for (const segment of segments) {
    if (written.has(segment) && segment.capacity > segment.end) {
      await segment.file.truncate(segment.end);
      segment.capacity = segment.end;
    }
    await segment.file.sync();
  }
  // What was made just before the end may not have reached the folder.
  await files.syncDirectory(directory);
}

/** How many of the last segments were never written to; there are two at most: the current one and the next. */
function countFresh(segments: readonly Segment[], written: ReadonlySet<Segment>): number {
  let fresh = 0;
  while (fresh < 2 && fresh < segments.length && !written.has(segments[segments.length - 1 - fresh] as Segment))
    fresh++;
  return fresh;
}
