/** Segments: the files of the log. Each is preallocated, so that a commit neither grows a file nor runs out of space in it. */
import { randomBytes } from 'node:crypto';
import { encodeSegmentHeader, SEGMENT_HEADER, type SegmentHeader } from './record.js';
import { join, type FileSystem, type LogFile } from './files.js';

export interface Segment {
  readonly header: SegmentHeader;
  readonly path: string;
  readonly file: LogFile;
  /** Bytes that are preallocated. */
  readonly capacity: number;
  /** Where the next record goes. */
  end: number;
  /** Everything before it is durable. */
  durable: number;
  /** Messages stored here that are still in some queue, counted once for each. */
  references: number;
  /** Bytes of the records that those are in. */
  liveBytes: number;
}

const ZEROS = Buffer.alloc(1024 * 1024);

export function segmentName(number: number): string {
  return `segment-${String(number).padStart(10, '0')}.log`;
}

/** The number in a segment's name, or undefined. */
export function segmentNumber(name: string): number | undefined {
  const match = /^segment-(\d{10})\.log$/.exec(name);
  return match === null ? undefined : Number(match[1]);
}

/** Makes a segment with its space and makes it durable. Rejects with the system's error, the file removed. */
export async function createSegment(
  files: FileSystem,
  directory: string,
  header: Omit<SegmentHeader, 'salt'>,
  capacity: number,
): Promise<Segment> {
  const path = join(directory, segmentName(header.number));
  const whole: SegmentHeader = { ...header, salt: randomBytes(4).readUInt32LE(0) };
  const file = await files.open(path, true);
  try {
    for (let at = 0; at < capacity; at += ZEROS.length)
      await file.write(ZEROS.subarray(0, Math.min(ZEROS.length, capacity - at)), at);
    await file.write(encodeSegmentHeader(whole), 0);
    await file.sync();
    await files.syncDirectory(directory);
  } catch (error) {
    await file.close().catch(() => undefined);
    await files.unlink(path).catch(() => undefined);
    throw error;
  }
  return {
    header: whole,
    path,
    file,
    capacity,
    end: SEGMENT_HEADER,
    durable: SEGMENT_HEADER,
    references: 0,
    liveBytes: 0,
  };
}
