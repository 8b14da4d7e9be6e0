/** Reads stored batches back: from memory while they are there, otherwise a stretch of a segment at a time, checked record by record. */
import { sliceBatch, type Batch } from '../../batch.js';
import type { StoredRun } from '../engine.js';
import { sizeOfItems } from '../item-sizes.js';
import type { IndexRun } from '../queue-index.js';
import { decodeBatch } from './batch-record.js';
import { readSize, RecordReader } from './record.js';
import type { Segment } from './segment.js';
import type { Stored } from './state.js';

/** A read from a segment spans at most this, unless one record is larger … */
const MAX_READ = 1024 * 1024;
/** … and over no more than this that was not asked for. */
const MAX_SKIP = 64 * 1024;

/** Runs of a queue as far as a read goes, cut at its number of messages. */
export function select(runs: Iterable<IndexRun<Stored>>, maxMessages: number, maxBytes: number): IndexRun<Stored>[] {
  const selected: IndexRun<Stored>[] = [];
  let messages = 0;
  let bytes = 0;
  let inMemory: boolean | undefined;
  for (const run of runs) {
    if (messages >= maxMessages || (messages > 0 && bytes >= maxBytes)) break;
    const here = run.source.batch !== undefined;
    // One answer is either at once or from the disk.
    if (inMemory !== undefined && inMemory !== here) break;
    inMemory = here;
    const count = Math.min(run.count, maxMessages - messages);
    selected.push(count === run.count ? run : { ...run, count });
    messages += count;
    bytes += sizeOfItems(run.source.sizes, run.offset, count);
  }
  return selected;
}

/** What is in memory, at once; undefined when it is not. */
export function fromMemory(runs: readonly IndexRun<Stored>[]): StoredRun[] | undefined {
  if (runs[0]?.source.batch === undefined) return runs.length === 0 ? [] : undefined;
  return runs.map(run => asStored(run, run.source.batch as Batch));
}

function asStored({ source, offset, count, handle, attempts, note }: IndexRun<Stored>, batch: Batch): StoredRun {
  return { handle, batch: sliceBatch(batch, offset, count), expiresAt: source.expiresAt, attempts, note };
}

/** Where a record lay when a read of it began: it may be moved meanwhile. */
interface Place {
  readonly stored: Stored;
  readonly segment: Segment;
  readonly offset: number;
  readonly size: number;
}

/**
 * Reads the batches of these records, in turn; undefined for one that is damaged or that the disk does not give. Rejects
 * when a segment was given back meanwhile: what was in it has moved, and is to be looked for again.
 */
export async function readBatches(records: readonly Stored[]): Promise<(Batch | undefined)[]> {
  const places = records.map((stored): Place => ({
    stored,
    segment: stored.segment,
    offset: stored.offset,
    size: stored.size,
  }));
  const answer: (Batch | undefined)[] = [];
  for (let at = 0; at < places.length;) {
    const end = stretch(places, at);
    const part = places.slice(at, end);
    const first = part[0] as Place;
    let to = 0;
    for (const { offset, size } of part) to = Math.max(to, offset + size);
    const bytes = await readBytes(first.segment, first.offset, to - first.offset);
    if (bytes !== undefined) for (const place of part) answer.push(decode(bytes, first.offset, place));
    // Once more, one by one: some of them the disk may give.
    else for (const place of part) answer.push(await readOne(place));
    at = end;
  }
  return answer;
}

/** How many of the records from `at` on are read at once. */
function stretch(places: readonly Place[], at: number): number {
  const { segment, offset } = places[at] as Place;
  let to = offset;
  let end = at;
  for (; end < places.length; end++) {
    const place = places[end] as Place;
    if (place.segment !== segment || place.offset < offset) break;
    if (end > at && (place.offset + place.size - offset > MAX_READ || place.offset > to + MAX_SKIP)) break;
    to = Math.max(to, place.offset + place.size);
  }
  return end;
}

async function readOne(place: Place): Promise<Batch | undefined> {
  const bytes = await readBytes(place.segment, place.offset, place.size);
  return bytes === undefined ? undefined : decode(bytes, place.offset, place);
}

/** Thrown when the file that was read from has been given back. */
export class SegmentGone extends Error {}

/** Undefined when the disk cannot read this place. */
async function readBytes(segment: Segment, offset: number, length: number): Promise<Buffer | undefined> {
  try {
    return await segment.file.read(offset, length);
  } catch (error) {
    if (segment.gone) throw new SegmentGone();
    if ((error as NodeJS.ErrnoException).code === 'EIO') return undefined;
    throw error;
  }
}

function decode(bytes: Buffer, base: number, { stored, segment, offset }: Place): Batch | undefined {
  const size = readSize(bytes, offset - base, segment.header.salt, offset);
  if (size === 0) return undefined;
  const reader = new RecordReader(bytes, offset - base, size);
  reader.u8();
  const { batch, handle } = decodeBatch(reader);
  /* v8 ignore next -- a whole record of this place and salt has another handle only by a fault of ours */
  return handle === stored.handle ? batch : undefined;
}

/** Reads runs from the disk; those that are damaged are reported and left out. */
export async function fromDisk(
  runs: readonly IndexRun<Stored>[],
  damaged: (run: IndexRun<Stored>) => void,
): Promise<StoredRun[]> {
  const records: Stored[] = [];
  for (const { source } of runs) if (records[records.length - 1] !== source) records.push(source);
  const batches = await readBatches(records);
  const answer: StoredRun[] = [];
  let at = 0;
  for (const run of runs) {
    if (records[at] !== run.source) at++;
    const batch = batches[at];
    if (batch === undefined) damaged(run);
    else answer.push(asStored(run, batch));
  }
  return answer;
}
