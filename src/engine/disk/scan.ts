/**
 * Finds the records of a segment, and what lies between them that is none. Records are aligned, so that the next one behind
 * bad bytes is found by looking at each place where one could begin.
 */
import { SEGMENT_HEADER } from './header.js';
import {
  ALIGNMENT,
  decodeCommit,
  MalformedRecord,
  readSize,
  RECORD,
  RECORD_HEADER,
  RecordReader,
  recordSize,
  type CommitRecord,
} from './record.js';
import type { Segment } from './segment.js';

/** Bytes from one offset to before another. */
export interface Gap {
  readonly from: number;
  readonly to: number;
}

export interface Scanned {
  readonly segment: Segment;
  readonly bytes: Buffer;
  /** Offset and size of each record, in turn. */
  readonly records: readonly number[];
  /** Stretches that are not records, up to the zeros at the end. */
  readonly gaps: readonly Gap[];
  readonly firstCommit: CommitRecord | undefined;
  readonly lastCommit: CommitRecord | undefined;
  /** Offset of the last COMMIT; 0 without. */
  readonly lastCommitAt: number;
}

const ZEROS = Buffer.alloc(64 * 1024);
/** What a disk writes whole or not at all. */
const SECTOR = 512;

export function scan(segment: Segment, bytes: Buffer): Scanned {
  const records: number[] = [];
  const gaps: Gap[] = [];
  const { salt } = segment.header;
  const zeros = zeroTail(bytes);
  let first = -1;
  let last = -1;
  let bad = -1;
  /** Where the last group that has its COMMIT ends. */
  let ended = SEGMENT_HEADER;
  let at = SEGMENT_HEADER;
  while (at < zeros) {
    let size = readSize(bytes, at, salt, at);
    const isCommit = size > 0 && bytes[at + RECORD_HEADER] === RECORD.COMMIT;
    // The others are judged by what commits say: one that cannot be true is none.
    if (isCommit && !isSound(bytes, at, size, segment, ended)) size = 0;
    if (size === 0) {
      if (bad < 0) bad = at;
      at += ALIGNMENT;
      continue;
    }
    if (bad >= 0) gaps.push({ from: bad, to: at });
    bad = -1;
    if (isCommit) {
      if (first < 0) first = records.length;
      last = records.length;
      ended = at + recordSize(size);
    }
    records.push(at, size);
    at += recordSize(size);
  }
  if (bad >= 0) gaps.push({ from: bad, to: Math.min(at, bytes.length) });
  const commit = (i: number): CommitRecord | undefined =>
    i < 0 ? undefined : commitAt(bytes, records[i] as number, records[i + 1] as number);
  const lastCommitAt = last < 0 ? 0 : (records[last] as number);
  return { segment, bytes, records, gaps, firstCommit: commit(first), lastCommit: commit(last), lastCommitAt };
}

/** A group begins where the one before it ended or later, and what was durable before it lies before it. */
function isSound(bytes: Buffer, at: number, size: number, { header }: Segment, ended: number): boolean {
  try {
    const { start, durable } = commitAt(bytes, at, size);
    const isBefore = durable.segment < header.number || (durable.segment === header.number && durable.offset <= start);
    return isBefore && start >= ended && start <= at;
  } catch (error) {
    /* v8 ignore else -- no reader throws anything else */
    if (error instanceof MalformedRecord) return false;
    throw error;
  }
}

export function commitAt(bytes: Buffer, offset: number, size: number): CommitRecord {
  const reader = new RecordReader(bytes, offset, size);
  reader.u8();
  return decodeCommit(reader);
}

/** Where the zeros begin that reach to the end: space that was never written. */
export function zeroTail(bytes: Buffer): number {
  let at = bytes.length;
  while (at >= ZEROS.length && bytes.subarray(at - ZEROS.length, at).equals(ZEROS)) at -= ZEROS.length;
  while (at > 0 && bytes[at - 1] === 0) at--;
  return at;
}

/**
 * True when bad bytes look like a write that was cut off: a sector that did not reach the disk holds the zeros that it was
 * made with. Where every sector was written, the bytes were whole once.
 */
export function looksTorn(bytes: Buffer, { from, to }: Gap): boolean {
  for (let at = from; at < to;) {
    const end = Math.min(to, (Math.floor(at / SECTOR) + 1) * SECTOR);
    if (bytes.subarray(at, end).equals(ZEROS.subarray(0, end - at))) return true;
    at = end;
  }
  return false;
}
