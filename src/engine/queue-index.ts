/**
 * The index of a queue: which stored messages are in it, in the order of their handles. Shared by the engines that keep
 * their index in memory. `T` is what a run points to: the batch itself, or where it lies in a log.
 */

/** Consecutive messages in a queue. */
export interface IndexRun<T> {
  handle: number;
  count: number;
  /** The first message's place within the stored batch. */
  offset: number;
  readonly source: T;
  attempts: number;
  note: string | undefined;
}

export class QueueIndex<T> {
  #runs: IndexRun<T>[] = [];
  /** Runs before this index have left. */
  #head = 0;
  messages = 0;
  bytes = 0;

  get isEmpty(): boolean {
    return this.messages === 0;
  }

  get first(): IndexRun<T> | undefined {
    return this.#runs[this.#head];
  }

  /** Adds a run at the place that its handle gives it. Messages that are there already are passed over; returns how many came in. */
  insert(run: IndexRun<T>, bytes: number): number {
    const runs = this.#runs;
    const last = runs[runs.length - 1];
    if (last === undefined || runs.length === this.#head || run.handle >= last.handle + last.count) {
      runs.push(run);
      this.messages += run.count;
      this.bytes += bytes;
      return run.count;
    }
    return this.#insertBetween(run, bytes);
  }

  #insertBetween(run: IndexRun<T>, bytes: number): number {
    const fresh: IndexRun<T>[] = [];
    let at = run.handle;
    const end = run.handle + run.count;
    const cut = (from: number, to: number): void => {
      if (to > from) fresh.push({ ...run, handle: from, count: to - from, offset: run.offset + from - run.handle });
    };
    for (let i = this.find(run.handle); i < this.#runs.length && at < end; i++) {
      const other = this.#runs[i] as IndexRun<T>;
      if (other.handle >= end) break;
      cut(at, Math.min(other.handle, end));
      at = Math.max(at, other.handle + other.count);
    }
    cut(at, end);
    let added = 0;
    for (const piece of fresh) {
      this.#runs.splice(this.find(piece.handle), 0, piece);
      added += piece.count;
    }
    this.messages += added;
    this.bytes += added === run.count ? bytes : Math.round((bytes * added) / run.count);
    return added;
  }

  /** Index of the first run that ends behind `handle`. */
  find(handle: number): number {
    const runs = this.#runs;
    let low = this.#head;
    let high = runs.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const run = runs[middle] as IndexRun<T>;
      if (run.handle + run.count <= handle) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Runs from a handle on; the first one is cut at it. */
  *from(handle: number): IterableIterator<IndexRun<T>> {
    for (let i = this.find(handle); i < this.#runs.length; i++) {
      const run = this.#runs[i] as IndexRun<T>;
      const skip = Math.max(0, handle - run.handle);
      yield skip === 0
        ? run
        : { ...run, handle: run.handle + skip, offset: run.offset + skip, count: run.count - skip };
    }
  }

  /** Takes messages out and returns the parts that were there. */
  remove(handle: number, count: number, bytesOf: (part: IndexRun<T>) => number): IndexRun<T>[] {
    const end = handle + count;
    const removed: IndexRun<T>[] = [];
    let i = this.find(handle);
    while (i < this.#runs.length) {
      const run = this.#runs[i] as IndexRun<T>;
      if (run.handle >= end) break;
      const from = Math.max(run.handle, handle);
      const to = Math.min(run.handle + run.count, end);
      const part = { ...run, handle: from, count: to - from, offset: run.offset + from - run.handle };
      removed.push(part);
      this.messages -= part.count;
      this.bytes -= bytesOf(part);
      const rest: IndexRun<T>[] = [];
      if (run.handle < from) rest.push({ ...run, count: from - run.handle });
      if (to < run.handle + run.count) {
        rest.push({ ...run, handle: to, count: run.handle + run.count - to, offset: run.offset + to - run.handle });
      }
      if (rest.length === 0 && i === this.#head) {
        this.#head++;
        i++;
      } else {
        this.#runs.splice(i, 1, ...rest);
        i += rest.length === 2 ? 1 : rest.length;
      }
    }
    if (this.messages === 0) this.bytes = 0;
    if (this.#head > 1024 && this.#head * 2 > this.#runs.length) {
      this.#runs.splice(0, this.#head);
      this.#head = 0;
    }
    return removed;
  }

  /** Replaces a message by one that differs in attempts; splits its run if need be. */
  setAttempts(handle: number, attempts: number): boolean {
    const i = this.find(handle);
    const run = this.#runs[i];
    if (run === undefined || run.handle > handle) return false;
    const before = handle - run.handle;
    const pieces: IndexRun<T>[] = [];
    if (before > 0) pieces.push({ ...run, count: before });
    pieces.push({ ...run, handle, count: 1, offset: run.offset + before, attempts });
    if (before + 1 < run.count) {
      pieces.push({ ...run, handle: handle + 1, count: run.count - before - 1, offset: run.offset + before + 1 });
    }
    this.#runs.splice(i, 1, ...pieces);
    return true;
  }
}
