/**
 * Reads the log back when the store is opened (docs/store-format.md, "Recovery"): one segment at a time, and the one
 * behind it, because a commit there proves that everything before it had reached the disk.
 *
 * What is bad before such a point is damage in synced data: it is put aside and named, and the rest is served. What is bad
 * behind it was never promised: a torn tail, which is cut. Records are applied a commit group at a time: a group without
 * its COMMIT is no group.
 *
 * A segment that is missing or empty is no damage of a disk but somebody's doing, or a backup that is not whole, and may be
 * put right: the store is refused until it is, or until the operator gives it up.
 */
import { BroadcastError } from '../../errors.js';
import { join, type FileSystem, type LogFile } from './files.js';
import { decodeSegmentHeader, SEGMENT_HEADER } from './header.js';
import { Replay, type Position } from './replay.js';
import { scan, zeroTail, type Scanned } from './scan.js';
import {
  isCutOff,
  isUnfinished,
  lostName,
  lostNumber,
  newSegment,
  segmentName,
  segmentNumber,
  writeHeader,
  type Segment,
} from './segment.js';
import type { LogState } from './state.js';

/** A million messages a second take a century and more up to here, and as much is left of what numbers can say exactly. */
const MAX_HANDLE = 2 ** 52;

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
  const { numbers, unfinished, givenUp } = await findSegments(files, directory, isForeign);
  const opened: Segment[] = [];
  try {
    const found = await read(files, directory, { numbers, givenUp }, opened);
    // The machine went down while they were made: nothing was ever stored in them.
    for (const name of unfinished) await files.unlink(join(directory, name));
    return found;
  } catch (error) {
    for (const { file } of opened) await file.close().catch(() => undefined);
    throw error;
  }
}

/** The segments that there are, in their order, and those that the operator has given up. */
interface Listed {
  readonly numbers: readonly number[];
  readonly givenUp: ReadonlySet<number>;
}

async function findSegments(
  files: FileSystem,
  directory: string,
  isForeign: (name: string) => boolean,
): Promise<Listed & { unfinished: string[] }> {
  const names = await files.list(directory);
  const foreign = names.filter(isForeign);
  if (foreign.length > 0) {
    throw new BroadcastError(
      'store-foreign',
      `${directory} holds files that are not of this store (${foreign.slice(0, 3).join(', ')}); choose an empty folder`,
    );
  }
  return {
    numbers: numbersIn(names, segmentNumber).sort((a, b) => a - b),
    givenUp: new Set(numbersIn(names, lostNumber)),
    unfinished: names.filter(isUnfinished),
  };
}

function numbersIn(names: readonly string[], numberIn: (name: string) => number | undefined): number[] {
  return names.map(numberIn).filter(n => n !== undefined);
}

async function read(
  files: FileSystem,
  directory: string,
  { numbers, givenUp }: Listed,
  opened: Segment[],
): Promise<Recovered> {
  const replay = new Replay(files, directory);
  const { damage } = replay;
  const written = new Set<Segment>();
  let waiting: Scanned[] = [];
  // Numbers that were given up are not used again.
  let nextSegment = numbers.length > 0 ? 1 : 1 + Math.max(0, ...givenUp);
  for (const number of numbers) {
    const found = await openSegment(files, directory, number, givenUp, damage);
    nextSegment = number + 1;
    if (found === undefined) continue;
    opened.push(found.segment);
    checkStore(directory, opened);
    if (found.repaired) {
      await writeHeader(found.segment);
      damage.push(`the header of ${segmentName(number)} was damaged; its copy served, and it has been written again`);
    }
    const scanned = scan(found.segment, found.bytes);
    // One that was cut off may have been written to.
    if (scanned.records.length > 0 || scanned.gaps.length > 0 || isCutOff(found.segment)) written.add(found.segment);
    waiting.push(scanned);
    if (!replay.note(scanned)) continue;
    for (const one of waiting.slice(0, -1)) await replay.apply(one);
    waiting = [scanned];
  }
  for (const one of waiting) await replay.apply(one);
  const last = opened[opened.length - 1];
  // The number of one that is missing is not used again, or nobody would miss it from then on.
  if (last?.header.followed === true && last.header.number + 1 === nextSegment) nextSegment++;
  for (const segment of opened) replay.judgeLength(segment);
  for (const gap of missing(numbers, replay.neededFrom, nextSegment)) {
    // Where the last commits cannot be read, the log does not know of segments that went in good order since then.
    const mayHaveGone = gap.from < (numbers[0] as number) && damage.length > 0;
    if (!mayHaveGone && !isGivenUp(gap, givenUp)) throw incomplete(directory, gap.from, `${nameOf(gap)} missing`);
    damage.push(`${nameOf(gap)} missing; what was in ${gap.from === gap.to ? 'it' : 'them'} is lost`);
  }
  if (replay.state.nextHandle > MAX_HANDLE)
    throw new BroadcastError('store-unreadable', `the numbers of messages in ${directory} are used up`);
  await cutTails(files, directory, opened, written, replay.durable);
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

/** Segments one behind the other, both ends included. */
interface Gap {
  readonly from: number;
  readonly to: number;
}

/** The segments that are needed and are not there. */
function missing(numbers: readonly number[], neededFrom: number | undefined, next: number): Gap[] {
  const gaps: Gap[] = [];
  let from = neededFrom ?? numbers[0] ?? next;
  for (const number of [...numbers, next]) {
    if (number > from) gaps.push({ from, to: number - 1 });
    from = Math.max(from, number + 1);
  }
  return gaps;
}

function nameOf({ from, to }: Gap): string {
  return from === to ? `${segmentName(from)} is` : `${segmentName(from)} to ${segmentName(to)} are`;
}

function isGivenUp({ from, to }: Gap, givenUp: ReadonlySet<number>): boolean {
  const among = [...givenUp].filter(number => number >= from && number <= to);
  return among.length === to - from + 1;
}

function incomplete(directory: string, number: number, what: string): BroadcastError {
  return new BroadcastError(
    'store-incomplete',
    `the store in ${directory} is not whole: ${what}; put back what was there, ` +
      `or make an empty file ${lostName(number)} for each that is gone for good, to be served without it`,
  );
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
  givenUp: ReadonlySet<number>,
  damage: string[],
): Promise<{ segment: Segment; bytes: Buffer; repaired: boolean } | undefined> {
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
    if (found.header.number !== number) {
      await file.close();
      const own = segmentName(found.header.number);
      throw new BroadcastError('store-foreign', `${path} is ${own} under another name; give it its own name again`);
    }
    return { segment: newSegment(found.header, path, file, bytes.length), bytes, repaired: found.repaired };
  }
  await file.close();
  if (bytes.length === 0 && !givenUp.has(number)) throw incomplete(directory, number, `${name} is empty`);
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
  durable: Position,
): Promise<void> {
  for (const segment of segments) {
    if (written.has(segment) && segment.capacity > segment.end && !isCutOff(segment)) await shorten(segment);
    if (segment.header.number === durable.segment) await writeAgain(segment, durable.offset);
    await segment.file.sync();
  }
  // What was made just before the end may not have reached the folder.
  await files.syncDirectory(directory);
}

/** A segment says how long it is before it is cut, so that one that somebody else has cut off is known. */
async function shorten(segment: Segment): Promise<void> {
  const { file, end } = segment;
  segment.header = { ...segment.header, capacity: end };
  await writeHeader(segment);
  await file.sync();
  await file.truncate(end);
  segment.capacity = end;
}

/**
 * What nothing proves to be durable may only be in the system's memory, and clean there, since a sync of it has failed: it
 * can be read, and no sync would write it. Written again, it is as good as new.
 */
async function writeAgain({ file, end }: Segment, from: number): Promise<void> {
  if (from < end) await file.write(await file.read(from, end - from), from);
}

/** How many of the last segments were never written to; there are two at most: the current one and the next. */
function countFresh(segments: readonly Segment[], written: ReadonlySet<Segment>): number {
  let fresh = 0;
  while (fresh < 2 && fresh < segments.length && !written.has(segments[segments.length - 1 - fresh] as Segment))
    fresh++;
  return fresh;
}
