/** Reads stored batches back: from memory while they are there, otherwise a stretch of a segment at a time, checked record by record. */
import { sliceBatch } from '../../batch.js';
import type { StoredRun } from '../engine.js';
import type { IndexRun } from '../queue-index.js';
import { decodeBatch, readSize, RecordReader } from './record.js';
import type { Stored } from './state.js';

/** A read from a segment spans at most this, unless one record is larger. */
const MAX_READ = 1024 * 1024;

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
    bytes += Math.round((run.source.itemBytes * count) / run.source.count);
  }
  return selected;
}

/** What is in memory, at once; undefined when it is not. */
export function fromMemory(runs: readonly IndexRun<Stored>[]): StoredRun[] | undefined {
  if (runs[0]?.source.batch === undefined) return runs.length === 0 ? [] : undefined;
  return runs.map(run => {
    const { source, offset, count, handle, attempts, note } = run;
    return {
      handle,
      batch: sliceBatch(source.batch as NonNullable<Stored['batch']>, offset, count),
      expiresAt: source.expiresAt,
      attempts,
      note,
    };
  });
}

/** Reads from the disk; records that are damaged are reported and left out. */
export async function fromDisk(
  runs: readonly IndexRun<Stored>[],
  damaged: (run: IndexRun<Stored>) => void,
): Promise<StoredRun[]> {
  const answer: StoredRun[] = [];
  let at = 0;
  while (at < runs.length) {
    const first = (runs[at] as IndexRun<Stored>).source;
    const { segment, offset } = first;
    let end = at;
    let to = offset;
    while (end < runs.length) {
      const { source } = runs[end] as IndexRun<Stored>;
      if (
        source.segment !== segment ||
        source.offset < offset ||
        (end > at && source.offset + source.size - offset > MAX_READ)
      )
        break;
      to = Math.max(to, source.offset + source.size);
      end++;
    }
    const bytes = await segment.file.read(offset, to - offset);
    for (; at < end; at++) {
      const run = runs[at] as IndexRun<Stored>;
      const read = decodeRun(bytes, offset, run);
      if (read === undefined) damaged(run);
      else answer.push(read);
    }
  }
  return answer;
}

function decodeRun(bytes: Buffer, base: number, run: IndexRun<Stored>): StoredRun | undefined {
  const { source, offset, count, handle, attempts, note } = run;
  const at = source.offset - base;
  const size = readSize(bytes, at, source.segment.header.salt, source.offset);
  if (size === 0) return undefined;
  const reader = new RecordReader(bytes, at, size);
  reader.u8();
  const { batch, handle: first } = decodeBatch(reader);
  if (first !== source.handle) return undefined;
  return { handle, batch: sliceBatch(batch, offset, count), expiresAt: source.expiresAt, attempts, note };
}
