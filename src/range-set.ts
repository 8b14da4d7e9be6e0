/**
 * A set of whole numbers kept as ascending, disjoint, non-touching ranges: positions that are stored, handled or
 * settled. Adding at the end and taking away from the front are amortised O(1); elsewhere the cost grows with the
 * number of ranges, which stays small where numbers come nearly in order. Depends on nothing.
 */

/** Consecutive numbers. */
export interface NumberRange {
  first: number;
  count: number;
}

/** Below this many bounds that have left at the front, nothing is moved to close the gap. */
const COMPACT_FROM = 64;

export class RangeSet {
  /** Starts and ends (exclusive), in turn. A bound's index is even for a start and odd for an end. */
  #bounds: number[] = [];
  /** Bounds before this index have left; always even. */
  #head = 0;
  #size = 0;

  get isEmpty(): boolean {
    return this.#size === 0;
  }

  /** How many numbers are in the set. */
  get size(): number {
    return this.#size;
  }

  /** Number of ranges, for bounds and tests. */
  get rangeCount(): number {
    return (this.#bounds.length - this.#head) / 2;
  }

  /** The lowest number, or undefined. */
  get first(): number | undefined {
    return this.#bounds[this.#head];
  }

  /** The highest number, or undefined. */
  get last(): number | undefined {
    const end = this.#bounds[this.#bounds.length - 1];
    return end === undefined ? undefined : end - 1;
  }

  has(value: number): boolean {
    return this.#upTo(value) % 2 === 1;
  }

  add(first: number, count: number): void {
    if (count <= 0) return;
    const bounds = this.#bounds;
    const end = first + count;
    const last = bounds[bounds.length - 1];
    if (last === undefined || first > last) {
      bounds.push(first, end);
      this.#size += count;
    } else if (first === last) {
      bounds[bounds.length - 1] = end;
      this.#size += count;
    } else {
      this.#size += count - this.#overlap(first, end);
      this.#replace(first, end, 0);
    }
  }

  /** Adds a range and returns the parts of it that were not in the set. */
  addNew(first: number, count: number): NumberRange[] {
    const fresh = this.missing(first, count);
    this.add(first, count);
    return fresh;
  }

  /** The parts of a range that are not in the set. */
  missing(first: number, count: number): NumberRange[] {
    const parts: NumberRange[] = [];
    const bounds = this.#bounds;
    const end = first + count;
    let at = first;
    for (let i = this.#upTo(first) & ~1; i < bounds.length && at < end; i += 2) {
      const start = bounds[i] as number;
      if (start > at) parts.push({ first: at, count: Math.min(start, end) - at });
      at = Math.max(at, bounds[i + 1] as number);
    }
    if (at < end) parts.push({ first: at, count: end - at });
    return parts;
  }

  /** The parts of a range that are in the set. */
  within(first: number, count: number): NumberRange[] {
    const parts: NumberRange[] = [];
    let at = first;
    for (const gap of [...this.missing(first, count), { first: first + count, count: 0 }]) {
      if (gap.first > at) parts.push({ first: at, count: gap.first - at });
      at = gap.first + gap.count;
    }
    return parts;
  }

  delete(first: number, count: number): void {
    if (count <= 0) return;
    const end = first + count;
    this.#size -= this.#overlap(first, end);
    this.#replace(first, end, 1);
    this.#compact();
  }

  /** Takes out everything below `value`. */
  deleteBelow(value: number): void {
    const first = this.first;
    if (first === undefined || first >= value) return;
    this.#size -= this.#overlap(first, value);
    const i = this.#upTo(value);
    if (i % 2 === 1) this.#bounds[i - 1] = value;
    this.#head = i & ~1;
    this.#compact();
  }

  clear(): void {
    this.#bounds = [];
    this.#head = 0;
    this.#size = 0;
  }

  /** The ranges, ascending; they neither overlap nor touch. Do not change the set meanwhile. */
  *ranges(): IterableIterator<NumberRange> {
    for (let i = this.#head; i < this.#bounds.length; i += 2) {
      const first = this.#bounds[i] as number;
      yield { first, count: (this.#bounds[i + 1] as number) - first };
    }
  }

  /**
   * Makes first…end one range (parity 0), or none (parity 1): bounds within it go, and a border becomes a bound where
   * the other side differs. A range that touches it is joined, or left as it is.
   */
  #replace(first: number, end: number, parity: 0 | 1): void {
    const from = this.#below(first);
    const to = this.#upTo(end);
    const borders: number[] = [];
    if (from % 2 === parity) borders.push(first);
    if (to % 2 === parity) borders.push(end);
    this.#bounds.splice(from, to - from, ...borders);
  }

  /** How many numbers from `first` to before `end` are in the set. */
  #overlap(first: number, end: number): number {
    const bounds = this.#bounds;
    let sum = 0;
    for (let i = this.#upTo(first) & ~1; i < bounds.length; i += 2) {
      const start = bounds[i] as number;
      if (start >= end) break;
      sum += Math.min(bounds[i + 1] as number, end) - Math.max(start, first);
    }
    return sum;
  }

  /** Index behind the last bound that is ≤ value: odd when the value is in the set. */
  #upTo(value: number): number {
    return this.#below(value + 1);
  }

  /** Index of the first bound that is ≥ value. */
  #below(value: number): number {
    const bounds = this.#bounds;
    let low = this.#head;
    let high = bounds.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((bounds[middle] as number) < value) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #compact(): void {
    if (this.#size === 0) this.clear();
    else if (this.#head >= COMPACT_FROM && this.#head * 2 > this.#bounds.length) {
      this.#bounds.splice(0, this.#head);
      this.#head = 0;
    }
  }
}
