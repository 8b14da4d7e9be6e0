/**
 * What the log says, in memory: which messages are in which queues and where they lie, the pairs, the senders. Records
 * are applied here when they are written and again, in the same order, at recovery; so both arrive at the same state.
 */
import { idCounters, itemOffsets, type Batch } from '../../batch.js';
import { formatId } from '../../message.js';
import { RangeSet } from '../../range-set.js';
import { QueueIndex, type IndexRun } from '../queue-index.js';
import type { BatchRecord } from './record.js';
import type { Segment } from './segment.js';

/** A stored batch: where it lies, and what is needed of it without reading it. */
export interface Stored {
  segment: Segment;
  offset: number;
  readonly size: number;
  readonly handle: number;
  readonly count: number;
  readonly expiresAt: number;
  /** For messages whose sender wants the final outcome. */
  readonly tracked: { readonly instance: string; readonly first: number; readonly ids: readonly string[] } | undefined;
  readonly itemBytes: number;
  references: number;
  /** While it is not committed, and a while longer. */
  batch: Batch | undefined;
}

export interface StoredSender {
  name: string | undefined;
  floor: number;
  readonly taken: RangeSet;
  /** Oldest segment that its state is read back from. */
  segment: number;
}

export interface StoredEntry {
  readonly value: string;
  readonly segment: number;
}

export class LogState {
  readonly queues = new Map<string, QueueIndex<Stored>>();
  readonly entries = new Map<string, StoredEntry>();
  readonly senders = new Map<string, StoredSender>();
  nextHandle = 1;
  messages = 0;
  bytes = 0;

  queue(id: string): QueueIndex<Stored> {
    let queue = this.queues.get(id);
    if (queue === undefined) {
      queue = new QueueIndex();
      this.queues.set(id, queue);
    }
    return queue;
  }

  /** BATCH; `number` is that of its segment, or Infinity while it has none. */
  addBatch(record: BatchRecord, segment: Segment, offset: number, size: number, number: number): Stored {
    const { batch, handle, expiresAt, placements } = record;
    const stored: Stored = {
      segment,
      offset,
      size,
      handle,
      count: batch.count,
      expiresAt,
      tracked: trackedOf(batch),
      itemBytes: batch.items.length,
      references: 0,
      batch,
    };
    this.nextHandle = Math.max(this.nextHandle, handle + batch.count);
    const sender = this.sender(batch.sender.instance, batch.sender.name, number);
    if (batch.first + batch.count > sender.floor) sender.taken.add(batch.first, batch.count);
    this.#place(stored, placements);
    return stored;
  }

  /** REBATCH: messages whose segment is given back; their old copy, if it is there, is let go. */
  moveBatch(record: BatchRecord, segment: Segment, offset: number, size: number): Stored {
    const { batch, handle, placements } = record;
    for (const { queue, offset: from, count } of placements) this.remove(queue, handle + from, count);
    const stored: Stored = {
      segment,
      offset,
      size,
      handle,
      count: batch.count,
      expiresAt: record.expiresAt,
      tracked: trackedOf(batch),
      itemBytes: batch.items.length,
      references: 0,
      batch: undefined,
    };
    this.nextHandle = Math.max(this.nextHandle, handle + batch.count);
    this.#place(stored, placements);
    return stored;
  }

  #place(stored: Stored, placements: BatchRecord['placements']): void {
    for (const { queue, offset, count, attempts, note } of placements) {
      const run = { handle: stored.handle + offset, count, offset, source: stored, attempts, note };
      this.#refer(stored, this.queue(queue).insert(run, sizeOf(run)));
    }
  }

  #refer(stored: Stored, count: number): void {
    if (count > 0 && stored.references === 0) {
      this.messages += stored.count;
      this.bytes += stored.size;
      stored.segment.liveBytes += stored.size;
    }
    stored.references += count;
    stored.segment.references += count;
  }

  #release(stored: Stored, count: number): void {
    stored.references -= count;
    stored.segment.references -= count;
    if (stored.references > 0) return;
    this.messages -= stored.count;
    this.bytes -= stored.size;
    stored.segment.liveBytes -= stored.size;
    stored.batch = undefined;
  }

  /** A batch has found its place in the log. */
  settle(stored: Stored, segment: Segment, offset: number): void {
    const live = stored.references > 0;
    stored.segment.references -= stored.references;
    segment.references += stored.references;
    if (live) {
      stored.segment.liveBytes -= stored.size;
      segment.liveBytes += stored.size;
    }
    stored.segment = segment;
    stored.offset = offset;
  }

  /** ACK; returns how many left. */
  remove(id: string, handle: number, count: number): number {
    const queue = this.queues.get(id);
    if (queue === undefined) return 0;
    let removed = 0;
    for (const run of queue.remove(handle, count, sizeOf)) {
      this.#release(run.source, run.count);
      removed += run.count;
    }
    if (queue.isEmpty) this.queues.delete(id);
    return removed;
  }

  /** MOVE */
  move(from: string, to: string, handle: number, count: number, note: string | undefined): void {
    const queue = this.queues.get(from);
    if (queue === undefined || from === to) return;
    const runs = queue.remove(handle, count, sizeOf);
    if (queue.isEmpty) this.queues.delete(from);
    for (const run of runs) {
      const moved = this.queue(to).insert(note === undefined ? run : { ...run, note }, sizeOf(run));
      if (moved < run.count) this.#release(run.source, run.count - moved);
    }
  }

  /** ATTEMPT */
  attempt(queue: string, handle: number, attempts: number): void {
    this.queues.get(queue)?.setAttempts(handle, attempts);
  }

  /** PUT */
  put(key: string, value: string | null, segment: number): void {
    if (value === null) this.entries.delete(key);
    else this.entries.set(key, { value, segment });
  }

  sender(instance: string, name: string | undefined, segment: number): StoredSender {
    let sender = this.senders.get(instance);
    if (sender === undefined) {
      sender = { name, floor: 1, taken: new RangeSet(), segment };
      this.senders.set(instance, sender);
    }
    return sender;
  }

  /** FLOOR */
  floor(instance: string, floor: number | null): void {
    if (floor === null) {
      this.senders.delete(instance);
      return;
    }
    const sender = this.senders.get(instance);
    if (sender === undefined) return;
    sender.floor = Math.max(sender.floor, floor);
    sender.taken.deleteBelow(sender.floor);
  }
}

function trackedOf(batch: Batch): Stored['tracked'] {
  if (!batch.envelope.tracked) return undefined;
  const ids = idCounters(batch).map(counter => formatId(batch.envelope.idPrefix, counter));
  return { instance: batch.sender.instance, first: batch.first, ids };
}

/** Bytes of the messages of a run: exact for a whole batch or while the batch is at hand, in proportion otherwise. */
function sizeOf({ source, offset, count }: IndexRun<Stored>): number {
  if (count === source.count) return source.itemBytes;
  if (source.batch !== undefined) {
    const offsets = itemOffsets(source.batch.items, source.batch.count);
    return (offsets[offset + count] as number) - (offsets[offset] as number);
  }
  return Math.round((source.itemBytes * count) / source.count);
}
