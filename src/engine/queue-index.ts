/**
 * The index of a queue: which stored messages are in it, in the order of their handles. Shared by the engines that keep
 * their index in memory. `T` is what a run points to: the batch itself, or where it lies in a log.
 *
 * Runs lie in chunks of a few hundred, so that taking messages out of the middle of a long queue, or putting them back,
 * costs the same however long it is. A run that was handed out is never changed: it is replaced.
 */
import type { HandleRange } from './engine.js';

/** Consecutive messages in a queue. */
export interface IndexRun<T> {
  readonly handle: number;
  readonly count: number;
  /** The first message's place within the stored batch. */
  readonly offset: number;
  readonly source: T;
  readonly attempts: number;
  readonly note: string | undefined;
}

/** A chunk is filled up to this many runs at the end of a queue, and divided when it has twice as many. */
const CHUNK = 256;

export class QueueIndex<T> {
  /** Ascending; none is empty. */
  #chunks: IndexRun<T>[][] = [];
  readonly #sizeOf: (run: IndexRun<T>) => number;
  messages = 0;
  bytes = 0;

  /** `sizeOf` says how many bytes the messages of a run count for. */
  constructor(sizeOf: (run: IndexRun<T>) => number) {
    this.#sizeOf = sizeOf;
  }

  get isEmpty(): boolean {
    return this.messages === 0;
  }

  /** Adds a run at the place that its handle gives it. Messages that are there already are passed over and added to `known`; returns how many came in. */
  insert(run: IndexRun<T>, known?: HandleRange[]): number {
    const chunk = this.#chunks[this.#chunks.length - 1];
    if (chunk === undefined) {
      this.#chunks.push([run]);
    } else {
      const last = chunk[chunk.length - 1] as IndexRun<T>;
      if (run.handle < endOf(last)) return this.#insertBetween(run, known);
      if (continues(last, run)) chunk[chunk.length - 1] = { ...last, count: last.count + run.count };
      else if (chunk.length < CHUNK) chunk.push(run);
      else this.#chunks.push([run]);
    }
    this.#grow(run);
    return run.count;
  }

  #insertBetween(run: IndexRun<T>, known?: HandleRange[]): number {
    const end = endOf(run);
    const fresh: IndexRun<T>[] = [];
    let at = run.handle;
    for (const other of this.from(run.handle)) {
      if (other.handle >= end) break;
      if (other.handle > at) fresh.push(cut(run, at, other.handle));
      const first = Math.max(other.handle, run.handle);
      known?.push({ handle: first, count: Math.min(endOf(other), end) - first });
      at = endOf(other);
    }
    if (at < end) fresh.push(cut(run, at, end));
    let added = 0;
    for (const piece of fresh) {
      this.#insertOne(piece);
      this.#grow(piece);
      added += piece.count;
    }
    return added;
  }

  /** Puts in a run that overlaps with none. */
  #insertOne(run: IndexRun<T>): void {
    const c = Math.min(this.#chunkAt(run.handle), this.#chunks.length - 1);
    const chunk = this.#chunks[c] as IndexRun<T>[];
    const i = indexIn(chunk, run.handle);
    const before = chunk[i - 1];
    if (before !== undefined && continues(before, run)) {
      chunk[i - 1] = { ...before, count: before.count + run.count };
      return;
    }
    this.#replace(c, i, 0, [run]);
  }

  #grow(run: IndexRun<T>): void {
    this.messages += run.count;
    this.bytes += this.#sizeOf(run);
  }

  /** Runs from a handle on; the first one is cut at it. Do not change the queue meanwhile. */
  *from(handle: number): IterableIterator<IndexRun<T>> {
    const first = this.#chunkAt(handle);
    for (let c = first; c < this.#chunks.length; c++) {
      const chunk = this.#chunks[c] as IndexRun<T>[];
      for (let i = c === first ? indexIn(chunk, handle) : 0; i < chunk.length; i++) {
        const run = chunk[i] as IndexRun<T>;
        yield run.handle < handle ? cut(run, handle, endOf(run)) : run;
      }
    }
  }

  /** Takes messages out and returns the parts that were there. */
  remove(handle: number, count: number): IndexRun<T>[] {
    const end = handle + count;
    const removed: IndexRun<T>[] = [];
    let c = this.#chunkAt(handle);
    while (c < this.#chunks.length) {
      const chunk = this.#chunks[c] as IndexRun<T>[];
      const from = indexIn(chunk, handle);
      const rest: IndexRun<T>[] = [];
      let to = from;
      for (; to < chunk.length; to++) {
        const run = chunk[to] as IndexRun<T>;
        if (run.handle >= end) break;
        const runEnd = endOf(run);
        removed.push(cut(run, Math.max(run.handle, handle), Math.min(runEnd, end)));
        if (run.handle < handle) rest.push(cut(run, run.handle, handle));
        if (runEnd > end) rest.push(cut(run, end, runEnd));
      }
      const isLast = to < chunk.length;
      if (to > from && !this.#replace(c, from, to - from, rest)) c--;
      if (isLast) break;
      c++;
    }
    for (const part of removed) {
      this.messages -= part.count;
      this.bytes -= this.#sizeOf(part);
    }
    return removed;
  }

  /** Replaces a message by one that differs in attempts; divides its run if need be. */
  setAttempts(handle: number, attempts: number): boolean {
    const c = this.#chunkAt(handle);
    const chunk = this.#chunks[c];
    if (chunk === undefined) return false;
    const i = indexIn(chunk, handle);
    const run = chunk[i] as IndexRun<T>;
    if (run.handle > handle) return false;
    const pieces: IndexRun<T>[] = [];
    if (run.handle < handle) pieces.push(cut(run, run.handle, handle));
    pieces.push({ ...cut(run, handle, handle + 1), attempts });
    if (handle + 1 < endOf(run)) pieces.push(cut(run, handle + 1, endOf(run)));
    this.#replace(c, i, 1, pieces);
    return true;
  }

  /** Index of the first chunk that ends behind `handle`. */
  #chunkAt(handle: number): number {
    const chunks = this.#chunks;
    let low = 0;
    let high = chunks.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const chunk = chunks[middle] as IndexRun<T>[];
      if (endOf(chunk[chunk.length - 1] as IndexRun<T>) <= handle) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Changes a chunk; false when nothing is left of it. */
  #replace(c: number, at: number, count: number, runs: readonly IndexRun<T>[]): boolean {
    const chunk = this.#chunks[c] as IndexRun<T>[];
    chunk.splice(at, count, ...runs);
    if (chunk.length === 0) this.#chunks.splice(c, 1);
    else if (chunk.length >= 2 * CHUNK) this.#chunks.splice(c + 1, 0, chunk.splice(CHUNK));
    return chunk.length > 0;
  }
}

function endOf({ handle, count }: IndexRun<unknown>): number {
  return handle + count;
}

/** The part of a run from one handle to before another. */
function cut<T>(run: IndexRun<T>, from: number, to: number): IndexRun<T> {
  if (from === run.handle && to === endOf(run)) return run;
  return { ...run, handle: from, count: to - from, offset: run.offset + from - run.handle };
}

/** True when the second run is nothing but more of the first. A message with attempts stays a run of its own. */
function continues<T>(first: IndexRun<T>, second: IndexRun<T>): boolean {
  return (
    first.source === second.source &&
    endOf(first) === second.handle &&
    first.attempts === 0 &&
    second.attempts === 0 &&
    first.note === second.note
  );
}

/** Index of the first run of a chunk that ends behind `handle`; its length when there is none. */
function indexIn(chunk: readonly IndexRun<unknown>[], handle: number): number {
  let low = 0;
  let high = chunk.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (endOf(chunk[middle] as IndexRun<unknown>) <= handle) low = middle + 1;
    else high = middle;
  }
  return low;
}
