/** Segments: the files of the log. Each is preallocated, so that a commit neither grows a file nor runs out of space in it. */
import { randomBytes } from 'node:crypto';
import { join, type FileSystem, type LogFile } from './files.js';
import { forGood } from './shortage.js';
import { encodeSegmentHeader, SEGMENT_HEADER, type SegmentHeader } from './header.js';

export interface Segment {
  header: SegmentHeader;
  readonly path: string;
  readonly file: LogFile;
  /** Bytes that are preallocated. */
  capacity: number;
  /** Where the next record goes. */
  end: number;
  /** Everything before it is durable. */
  durable: number;
  /** Messages stored here that are still in some queue, counted once for each. */
  references: number;
  /** Bytes of what only this segment says: stored batches that are in a queue, pairs, senders. */
  liveBytes: number;
  /** The handles of the batches that were stored here lie between these. */
  lowHandle: number;
  highHandle: number;
  /** Something in it cannot be read: the file is put aside, not deleted. */
  damaged: boolean;
  /** Its file has been given back. */
  gone: boolean;
}

export function newSegment(header: SegmentHeader, path: string, file: LogFile, capacity: number): Segment {
  return {
    header,
    path,
    file,
    capacity,
    end: SEGMENT_HEADER,
    durable: SEGMENT_HEADER,
    references: 0,
    liveBytes: 0,
    lowHandle: Infinity,
    highHandle: 0,
    damaged: false,
    gone: false,
  };
}

/** True for a file that is not as long as it was made, or as recovery left it. */
export function isCutOff({ header, capacity }: Segment): boolean {
  return capacity < header.capacity;
}

/** Stands for the place of what has none in the log yet. */
export function nowhere(): Segment {
  const header = { number: Infinity, storeId: '', salt: 0, nextHandle: 0, capacity: 0, followed: false };
  return newSegment(header, '', undefined as never, 0);
}

/** The folder for what cannot be read. */
export const DAMAGED = 'damaged';

const ZEROS = Buffer.alloc(1024 * 1024);

export function segmentName(number: number): string {
  return `segment-${String(number).padStart(10, '0')}.log`;
}

/** The number in a segment's name, or undefined. */
export function segmentNumber(name: string): number | undefined {
  const match = /^segment-(\d{10})\.log$/.exec(name);
  return match === null ? undefined : Number(match[1]);
}

/** What a segment is called while it is made: under its own name it was whole once, so that what it lacks is damage. */
function unfinishedName(number: number): string {
  return segmentName(number).replace('.log', '.new');
}

/** True for the name of a segment that was being made. */
export function isUnfinished(name: string): boolean {
  return /^segment-\d{10}\.new$/.test(name);
}

/** The file by which an operator says that the store is to be served without a segment. */
export function lostName(number: number): string {
  return segmentName(number).replace('.log', '.lost');
}

/** The number in the name of such a file, or undefined. */
export function lostNumber(name: string): number | undefined {
  const match = /^segment-(\d{10})\.lost$/.exec(name);
  return match === null ? undefined : Number(match[1]);
}

/** Makes a segment with its space and makes it durable. Rejects with the system's error, the file removed. */
export async function createSegment(
  files: FileSystem,
  directory: string,
  header: Omit<SegmentHeader, 'salt' | 'capacity' | 'followed'>,
  capacity: number,
): Promise<Segment> {
  const path = join(directory, segmentName(header.number));
  const whole = { ...header, salt: randomBytes(4).readUInt32LE(0), capacity, followed: false };
  let made = join(directory, unfinishedName(header.number));
  const file = await files.open(made, true);
  try {
    await writeZeros(file, 0, capacity);
    await file.write(encodeSegmentHeader(whole), 0);
    await file.sync();
    await files.rename(made, path);
    made = path;
    await forGood(files.syncDirectory(directory));
  } catch (error) {
    await file.close().catch(() => undefined);
    await files.unlink(made).catch(() => undefined);
    throw error;
  }
  return newSegment(whole, path, file, capacity);
}

/** Writes the header again. A file that was cut off in it stays as short as it is. */
export async function writeHeader({ file, header, capacity }: Segment): Promise<void> {
  await file.write(encodeSegmentHeader(header).subarray(0, capacity), 0);
}

/** Gives a segment that has not been written to more space. */
export async function growSegment(segment: Segment, capacity: number): Promise<void> {
  await writeZeros(segment.file, segment.capacity, capacity);
  await forGood(segment.file.sync());
  segment.capacity = capacity;
}

async function writeZeros(file: LogFile, from: number, to: number): Promise<void> {
  for (let at = from; at < to; at += ZEROS.length)
    await file.write(ZEROS.subarray(0, Math.min(ZEROS.length, to - at)), at);
}
