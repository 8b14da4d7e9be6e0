/**
 * Reads the log back when the store is opened (docs/store-format.md, "Recovery").
 *
 * Pass 1 finds the records of every segment, and what lies between them that is not one. Each COMMIT says how far the
 * log was durable before it. What is bad before the furthest such point is damage in synced data: it is put aside and
 * named, and the rest is served. What is bad behind it was never promised: a torn tail, which is cut.
 * Pass 2 applies the records in order, a commit group at a time: a group without its COMMIT is no group.
 */
import { BroadcastError } from '../../errors.js';
import { join, type FileSystem, type LogFile } from './files.js';
import {
  ALIGNMENT,
  decodeBatch,
  decodeSegmentHeader,
  readSize,
  RECORD,
  RecordReader,
  recordSize,
  SEGMENT_HEADER,
  type SegmentHeader,
} from './record.js';
import { segmentName, segmentNumber, type Segment } from './segment.js';
import { LogState } from './state.js';

/** What recovery found. */
export interface Recovered {
  readonly state: LogState;
  readonly segments: Segment[];
  readonly storeId: string | undefined;
  readonly nextSegment: number;
  /** Of the last commit. */
  readonly wall: number;
  readonly time: number;
  readonly damage: string[];
}

interface Found {
  readonly offset: number;
  readonly size: number;
  readonly type: number;
}

interface Scanned {
  readonly segment: Segment;
  readonly bytes: Buffer;
  readonly records: Found[];
  /** Stretches that are not records, before the last record. */
  readonly gaps: { readonly from: number; readonly to: number }[];
}

interface Position {
  readonly segment: number;
  readonly offset: number;
}

function isBefore(a: Position, b: Position): boolean {
  return a.segment < b.segment || (a.segment === b.segment && a.offset < b.offset);
}

export async function recover(
  files: FileSystem,
  directory: string,
  isForeign: (name: string) => boolean,
): Promise<Recovered> {
  const names = await files.list(directory);
  const foreign = names.filter(isForeign);
  if (foreign.length > 0) {
    throw new BroadcastError(
      'store-foreign',
      `${directory} holds files that are not of this store (${foreign.slice(0, 3).join(', ')}); choose an empty folder`,
    );
  }
  const numbers = names
    .map(segmentNumber)
    .filter((n): n is number => n !== undefined)
    .sort((a, b) => a - b);
  const damage: string[] = [];
  const scanned: Scanned[] = [];
  let storeId: string | undefined;
  for (const [i, number] of numbers.entries()) {
    const opened = await openSegment(files, directory, number, i === numbers.length - 1, damage);
    if (opened === undefined) continue;
    const { segment, bytes } = opened;
    if (storeId !== undefined && storeId !== segment.header.storeId) {
      throw new BroadcastError(
        'store-foreign',
        `${segmentName(number)} in ${directory} is of another store; put it aside`,
      );
    }
    storeId = segment.header.storeId;
    scanned.push(scan(segment, bytes));
  }
  for (const [i, { segment }] of scanned.entries()) {
    const before = scanned[i - 1]?.segment.header.number;
    if (
      before !== undefined &&
      segment.header.number !== before + 1 &&
      !damage.some(text => text.includes(segmentName(before + 1)))
    ) {
      damage.push(`${segmentName(before + 1)} is missing; what was in it is lost`);
    }
  }
  const durable = durableUntil(scanned);
  const state = new LogState();
  let last = { wall: 0, time: 0 };
  let cut = false;
  const segments: Segment[] = [];
  for (const one of scanned) {
    const result: Applied = cut
      ? { end: SEGMENT_HEADER, torn: true, last: undefined }
      : await apply(files, directory, one, state, durable, damage);
    cut ||= result.torn;
    one.segment.end = result.end;
    one.segment.durable = result.end;
    if (result.last !== undefined) last = result.last;
    segments.push(one.segment);
  }
  // A torn tail is cut durably before anything is written behind it, or the next recovery would take it for damage.
  for (const segment of segments) {
    if ((await segment.file.size()) <= segment.end) continue;
    await segment.file.truncate(segment.end);
    await segment.file.sync();
  }
  return { state, segments, storeId, nextSegment: (numbers[numbers.length - 1] ?? 0) + 1, ...last, damage };
}

async function openSegment(
  files: FileSystem,
  directory: string,
  number: number,
  isLast: boolean,
  damage: string[],
): Promise<{ segment: Segment; bytes: Buffer } | undefined> {
  const path = join(directory, segmentName(number));
  let file: LogFile;
  let bytes: Buffer;
  try {
    file = await files.open(path, false);
    bytes = await file.read(0, await file.size());
  } catch (error) {
    throw new BroadcastError('store-unreadable', `${path} cannot be read: ${(error as Error).message}`, {
      cause: error,
    });
  }
  const header = decodeSegmentHeader(bytes.subarray(0, SEGMENT_HEADER));
  if (typeof header === 'object') return { segment: segmentOf(header, path, file, bytes.length), bytes };
  await file.close();
  if (header === 'newer')
    throw new BroadcastError('store-newer', `${path} was written by a newer version; use that version`);
  if (header === 'foreign')
    throw new BroadcastError('store-foreign', `${path} is not of this store; put it aside or choose another folder`);
  if (header === 'empty' && isLast) {
    // Made, and the machine went down before its header was durable: nothing was ever stored in it.
    await files.unlink(path);
    await files.syncDirectory(directory);
    return undefined;
  }
  damage.push(`${segmentName(number)} has no readable header; it is left as it is, and what was in it is lost`);
  return undefined;
}

function segmentOf(header: SegmentHeader, path: string, file: LogFile, capacity: number): Segment {
  return { header, path, file, capacity, end: SEGMENT_HEADER, durable: SEGMENT_HEADER, references: 0, liveBytes: 0 };
}

/** Finds the records of a segment. Records are aligned, so that the next one behind bad bytes is found by looking at each place. */
function scan(segment: Segment, bytes: Buffer): Scanned {
  const records: Found[] = [];
  const gaps: { from: number; to: number }[] = [];
  const { salt } = segment.header;
  let at = SEGMENT_HEADER;
  let bad = -1;
  const zeros = zeroTail(bytes);
  while (at + ALIGNMENT < bytes.length && at < zeros) {
    const size = readSize(bytes, at, salt, at);
    if (size === 0) {
      if (bad < 0) bad = at;
      at += ALIGNMENT;
      continue;
    }
    if (bad >= 0) gaps.push({ from: bad, to: at });
    bad = -1;
    records.push({ offset: at, size, type: bytes[at + 8] as number });
    at += recordSize(size);
  }
  if (bad >= 0) gaps.push({ from: bad, to: Math.min(bytes.length, Math.ceil(zeros / ALIGNMENT) * ALIGNMENT) });
  return { segment, bytes, records, gaps };
}

/** Where the zeros begin that reach to the end: space that was never written. */
function zeroTail(bytes: Buffer): number {
  let at = bytes.length;
  while (at >= 8 && bytes.readUInt32LE(at - 4) === 0 && bytes.readUInt32LE(at - 8) === 0) at -= 8;
  while (at > 0 && bytes[at - 1] === 0) at--;
  return at;
}

/** How far the log was durable, by the word of its commits. */
function durableUntil(scanned: readonly Scanned[]): Position {
  let durable: Position = { segment: 0, offset: 0 };
  for (const { bytes, records } of scanned) {
    for (const { offset, size, type } of records) {
      if (type !== RECORD.COMMIT) continue;
      const commit = readCommit(bytes, offset, size);
      if (isBefore(durable, commit.durable)) durable = commit.durable;
    }
  }
  return durable;
}

interface Commit {
  readonly durable: Position;
  readonly start: number;
  readonly wall: number;
  readonly time: number;
}

function readCommit(bytes: Buffer, offset: number, size: number): Commit {
  const reader = new RecordReader(bytes, offset, size);
  reader.u8();
  return {
    durable: { segment: reader.varint(), offset: reader.varint() },
    start: reader.varint(),
    wall: reader.f64(),
    time: reader.f64(),
  };
}

interface Applied {
  readonly end: number;
  readonly torn: boolean;
  readonly last: { wall: number; time: number } | undefined;
}

/** Applies the groups of one segment; says where it ends, and whether it ends in a torn tail. */
async function apply(
  files: FileSystem,
  directory: string,
  { segment, bytes, records, gaps }: Scanned,
  state: LogState,
  durable: Position,
  damage: string[],
): Promise<Applied> {
  const { number } = segment.header;
  const isDamage = (offset: number): boolean => isBefore({ segment: number, offset }, durable);
  const torn = gaps.find(gap => !isDamage(gap.from));
  for (const gap of gaps) if (isDamage(gap.from)) damage.push(await putAside(files, directory, segment, bytes, gap));
  let end = SEGMENT_HEADER;
  let last: { wall: number; time: number } | undefined;
  let group: Found[] = [];
  for (const record of records) {
    if (torn !== undefined && record.offset > torn.from) break;
    if (record.type !== RECORD.COMMIT) {
      group.push(record);
      continue;
    }
    const { wall, time, start } = readCommit(bytes, record.offset, record.size);
    // Records of a group whose own COMMIT was damaged belong to durable data too, and are applied with the next.
    for (const one of group) if (one.offset >= start || isDamage(one.offset)) applyRecord(state, segment, bytes, one);
    last = { wall, time };
    group = [];
    end = record.offset + recordSize(record.size);
  }
  const rest = group.filter(record => isDamage(record.offset));
  for (const record of rest) {
    applyRecord(state, segment, bytes, record);
    end = record.offset + recordSize(record.size);
  }
  return { end, torn: torn !== undefined || group.length > rest.length, last };
}

async function putAside(
  files: FileSystem,
  directory: string,
  segment: Segment,
  bytes: Buffer,
  gap: { from: number; to: number },
): Promise<string> {
  const folder = join(directory, 'damaged');
  const name = `${segmentName(segment.header.number)}.${String(gap.from)}-${String(gap.to)}`;
  const text = `${segmentName(segment.header.number)}, bytes ${String(gap.from)} to ${String(gap.to)}: not readable, put aside as damaged/${name}; the messages in them are lost`;
  await files.makeDirectory(folder);
  try {
    const file = await files.open(join(folder, name), true);
    await file.write(bytes.subarray(gap.from, gap.to), 0);
    await file.sync();
    await file.close();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  return text;
}

function applyRecord(state: LogState, segment: Segment, bytes: Buffer, { offset, size, type }: Found): void {
  const reader = new RecordReader(bytes, offset, size);
  reader.u8();
  const { number } = segment.header;
  switch (type) {
    case RECORD.BATCH:
      state.addBatch(decodeBatch(reader), segment, offset, recordSize(size), number).batch = undefined;
      return;
    case RECORD.REBATCH:
      state.moveBatch(decodeBatch(reader), segment, offset, recordSize(size));
      return;
    case RECORD.ACK: {
      const queue = reader.str();
      for (let n = reader.varint(); n > 0; n--) state.remove(queue, reader.varint(), reader.varint());
      return;
    }
    case RECORD.MOVE: {
      const [from, to, handle, count] = [reader.str(), reader.str(), reader.varint(), reader.varint()];
      state.move(from, to, handle, count, reader.u8() === 1 ? reader.str() : undefined);
      return;
    }
    case RECORD.ATTEMPT:
      state.attempt(reader.str(), reader.varint(), reader.varint());
      return;
    case RECORD.DROP:
      state.remove(reader.str(), 0, Number.MAX_SAFE_INTEGER);
      return;
    case RECORD.PUT: {
      const key = reader.str();
      state.put(key, reader.u8() === 1 ? reader.str() : null, number);
      return;
    }
    case RECORD.FLOOR: {
      const instance = reader.hex16();
      state.floor(instance, reader.u8() === 1 ? reader.varint() : null);
      return;
    }
    case RECORD.SENDER:
      applySender(state, reader, number);
      return;
    default:
  }
}

function applySender(state: LogState, reader: RecordReader, segment: number): void {
  const instance = reader.hex16();
  const name = reader.u8() === 1 ? reader.str() : undefined;
  const floor = reader.varint();
  state.senders.delete(instance);
  const sender = state.sender(instance, name, segment);
  sender.floor = floor;
  for (let n = reader.varint(); n > 0; n--) sender.taken.add(reader.varint(), reader.varint());
}
