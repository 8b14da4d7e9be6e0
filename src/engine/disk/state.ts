/**
 * What the log says, in memory: which messages are in which queues and where they lie, the pairs, the senders. Records
 * are applied here when they are made and again, in the same order, at recovery; so both arrive at the same state.
 */
import type { Batch } from '../../batch.js';
import { RangeSet } from '../../range-set.js';
import { sizeOfItems, type ItemSizes } from '../item-sizes.js';
import type { HandleRange } from '../engine.js';
import { QueueIndex, type IndexRun } from '../queue-index.js';
import type { Placement } from './batch-record.js';
import type { Segment } from './segment.js';

/** A stored batch: where it lies, and what is needed of it without reading it. */
export interface Stored {
  segment: Segment;
  offset: number;
  /** Of its record. */
  size: number;
  readonly handle: number;
  readonly count: number;
  readonly expiresAt: number;
  readonly sizes: ItemSizes;
  /** Messages that are in some queue, counted once for each. */
  references: number;
  /** While it is not durable, and a while longer. */
  batch: Batch | undefined;
  /** For messages found at recovery whose sender wants the final outcome. */
  readonly tracked: { readonly instance: string; readonly first: number; readonly ids: readonly string[] } | undefined;
}

/** A batch on its way into the state. */
export interface NewBatch {
  readonly handle: number;
  readonly count: number;
  readonly expiresAt: number;
  readonly placements: readonly Placement[];
  readonly sizes: ItemSizes;
  readonly batch: Batch | undefined;
  readonly tracked: Stored['tracked'];
}

export interface StoredSender {
  readonly name: string | undefined;
  floor: number;
  readonly taken: RangeSet;
  /** Oldest segment that its state is read back from. */
  segment: Segment;
}

export interface StoredEntry {
  readonly value: string;
  readonly segment: Segment;
}

/** What a sender counts for among the live bytes of a segment; a rough figure. */
const SENDER_BYTES = 64;

export class LogState {
  readonly queues = new Map<string, QueueIndex<Stored>>();
  readonly entries = new Map<string, StoredEntry>();
  readonly senders = new Map<string, StoredSender>();
  nextHandle = 1;
  messages = 0;
  bytes = 0;

  #queue(id: string): QueueIndex<Stored> {
    let queue = this.queues.get(id);
    if (queue === undefined) {
      queue = new QueueIndex(sizeOfRun);
      this.queues.set(id, queue);
    }
    return queue;
  }

  /** BATCH */
  addBatch(batch: NewBatch, segment: Segment, offset: number, size: number): Stored {
    const { handle, count, expiresAt, sizes, tracked } = batch;
    const stored = {
      segment,
      offset,
      size,
      handle,
      count,
      expiresAt,
      sizes,
      references: 0,
      batch: batch.batch,
      tracked,
    };
    this.nextHandle = Math.max(this.nextHandle, handle + count);
    noteHandles(segment, stored);
    for (const { queue, offset: from, count: messages, attempts, note } of batch.placements) {
      const run = { handle: handle + from, count: messages, offset: from, source: stored, attempts, note };
      this.#refer(stored, this.#queue(queue).insert(run));
    }
    return stored;
  }

  /** Positions that a sender's batch takes. */
  take(instance: string, name: string | undefined, first: number, count: number, segment: Segment): void {
    const sender = this.#sender(instance, name, segment);
    const from = Math.max(first, sender.floor);
    sender.taken.add(from, first + count - from);
  }

  /** REBATCH at recovery: messages whose segment is given back; their old copy, if it is there, is let go. */
  moveBatch(batch: NewBatch, segment: Segment, offset: number, size: number): void {
    for (const { queue, offset: from, count } of batch.placements) this.remove(queue, batch.handle + from, count);
    this.addBatch(batch, segment, offset, size);
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

  /** A batch has found a place in the log, its first or a new one. */
  settle(stored: Stored, segment: Segment, offset: number, size: number): void {
    if (stored.references > 0) {
      stored.segment.references -= stored.references;
      stored.segment.liveBytes -= stored.size;
      segment.references += stored.references;
      segment.liveBytes += size;
      this.bytes += size - stored.size;
    }
    stored.segment = segment;
    stored.offset = offset;
    stored.size = size;
    noteHandles(segment, stored);
  }

  /** ACK and DROP; returns how many left. */
  remove(id: string, handle: number, count: number): number {
    const queue = this.queues.get(id);
    if (queue === undefined) return 0;
    let removed = 0;
    for (const run of queue.remove(handle, count)) {
      this.#release(run.source, run.count);
      removed += run.count;
    }
    if (queue.isEmpty) this.queues.delete(id);
    return removed;
  }

  /** MOVE; returns what was in the target already. */
  move(from: string, to: string, handle: number, count: number, note: string | undefined): HandleRange[] {
    const known: HandleRange[] = [];
    const queue = this.queues.get(from);
    if (queue === undefined) return known;
    for (const run of queue.remove(handle, count)) {
      const moved = this.#queue(to).insert(note === undefined ? run : { ...run, note }, known);
      if (moved < run.count) this.#release(run.source, run.count - moved);
    }
    if (queue.isEmpty) this.queues.delete(from);
    return known;
  }

  /** ATTEMPT */
  attempt(queue: string, handle: number, attempts: number): boolean {
    return this.queues.get(queue)?.setAttempts(handle, attempts) ?? false;
  }

  /** PUT */
  put(key: string, value: string | null, segment: Segment): void {
    const before = this.entries.get(key);
    if (before !== undefined) before.segment.liveBytes -= sizeOfEntry(key, before.value);
    if (value === null) {
      this.entries.delete(key);
      return;
    }
    this.entries.set(key, { value, segment });
    segment.liveBytes += sizeOfEntry(key, value);
  }

  #sender(instance: string, name: string | undefined, segment: Segment): StoredSender {
    let sender = this.senders.get(instance);
    if (sender === undefined) {
      sender = { name, floor: 1, taken: new RangeSet(), segment };
      this.senders.set(instance, sender);
      segment.liveBytes += SENDER_BYTES;
    }
    return sender;
  }

  /** A sender's state is read back from this segment on. */
  settleSender(sender: StoredSender, segment: Segment): void {
    sender.segment.liveBytes -= SENDER_BYTES;
    segment.liveBytes += SENDER_BYTES;
    sender.segment = segment;
  }

  /** FLOOR */
  floor(instance: string, floor: number | null): boolean {
    const sender = this.senders.get(instance);
    if (sender === undefined) return false;
    if (floor === null) {
      this.senders.delete(instance);
      sender.segment.liveBytes -= SENDER_BYTES;
    } else {
      sender.floor = Math.max(sender.floor, floor);
      sender.taken.deleteBelow(sender.floor);
    }
    return true;
  }

  /** SENDER */
  restoreSender(
    instance: string,
    { name, floor, taken }: Pick<StoredSender, 'name' | 'floor' | 'taken'>,
    segment: Segment,
  ): void {
    this.floor(instance, null);
    const sender = this.#sender(instance, name, segment);
    sender.floor = floor;
    for (const { first, count } of taken.ranges()) sender.taken.add(first, count);
  }
}

function noteHandles(segment: Segment, { handle, count }: Stored): void {
  segment.lowHandle = Math.min(segment.lowHandle, handle);
  segment.highHandle = Math.max(segment.highHandle, handle + count - 1);
}

function sizeOfRun({ source, offset, count }: IndexRun<Stored>): number {
  return sizeOfItems(source.sizes, offset, count);
}

export function sizeOfBatch({ sizes, count }: Stored): number {
  return sizeOfItems(sizes, 0, count);
}

function sizeOfEntry(key: string, value: string): number {
  return key.length + value.length + 24;
}
