/**
 * A set of whole numbers kept as ascending, disjoint, non-touching ranges. Adding at the end is O(1); elsewhere the
 * cost grows with the number of ranges, which stays small where numbers come nearly in order. Depends on nothing.
 */

/** A run of numbers. */
export interface NumberRange {
  first: number;
  count: number;
}

export class RangeSet {
  /** Starts and ends (exclusive), in turn. */
  #bounds: number[] = [];

  get isEmpty(): boolean {
    return this.#bounds.length === 0;
  }

  /** Number of ranges, for bounds and tests. */
  get rangeCount(): number {
    return this.#bounds.length / 2;
  }

  /** The highest number, or undefined. */
  get last(): number | undefined {
    const end = this.#bounds[this.#bounds.length - 1];
    return end === undefined ? undefined : end - 1;
  }

  has(value: number): boolean {
    const i = this.#indexAfter(value);
    return i % 2 === 1;
  }

  add(first: number, count: number): void {
    if (count <= 0) return;
    const bounds = this.#bounds;
    const size = bounds.length;
    if (size === 0 || first > (bounds[size - 1] as number)) {
      bounds.push(first, first + count);
      return;
    }
    if (first === bounds[size - 1]) {
      bounds[size - 1] = first + count;
      return;
    }
    const end = first + count;
    // Bounds below `first` stay, bounds above `end` stay; what lies between is swallowed. A touching range is joined.
    const from = this.#lowerBound(first);
    const to = this.#upperBound(end);
    const replacement: number[] = [];
    if (from % 2 === 0) replacement.push(first);
    if (to % 2 === 0) replacement.push(end);
    bounds.splice(from, to - from, ...replacement);
  }

  /** Adds a run and returns the parts of it that were not in the set. */
  addNew(first: number, count: number): NumberRange[] {
    const fresh = this.missing(first, count);
    this.add(first, count);
    return fresh;
  }

  /** The parts of a run that are not in the set. */
  missing(first: number, count: number): NumberRange[] {
    const parts: NumberRange[] = [];
    const end = first + count;
    let at = first;
    for (let i = this.#indexAfter(first) & ~1; i < this.#bounds.length && at < end; i += 2) {
      const start = this.#bounds[i] as number;
      const stop = this.#bounds[i + 1] as number;
      if (start > at) parts.push({ first: at, count: Math.min(start, end) - at });
      at = Math.max(at, stop);
    }
    if (at < end) parts.push({ first: at, count: end - at });
    return parts;
  }

  delete(first: number, count: number): void {
    if (count <= 0) return;
    const end = first + count;
    const from = this.#lowerBound(first);
    const to = this.#upperBound(end);
    const replacement: number[] = [];
    if (from % 2 === 1) replacement.push(first);
    if (to % 2 === 1) replacement.push(end);
    this.#bounds.splice(from, to - from, ...replacement);
  }

  deleteBelow(value: number): void {
    const bounds = this.#bounds;
    if (bounds.length === 0 || (bounds[0] as number) >= value) return;
    const i = this.#indexAfter(value - 1);
    if (i % 2 === 1) {
      bounds.splice(0, i - 1);
      if ((bounds[1] as number) <= value) bounds.splice(0, 2);
      else bounds[0] = value;
    } else {
      bounds.splice(0, i);
    }
  }

  *ranges(): IterableIterator<NumberRange> {
    for (let i = 0; i < this.#bounds.length; i += 2) {
      const first = this.#bounds[i] as number;
      yield { first, count: (this.#bounds[i + 1] as number) - first };
    }
  }

  /** Number of bounds that are ≤ value: odd when the value is in the set. */
  #indexAfter(value: number): number {
    const bounds = this.#bounds;
    let low = 0;
    let high = bounds.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((bounds[middle] as number) <= value) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Index of the first bound that is ≥ value. */
  #lowerBound(value: number): number {
    const bounds = this.#bounds;
    let low = 0;
    let high = bounds.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((bounds[middle] as number) < value) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Index of the first bound that is > value. */
  #upperBound(value: number): number {
    return this.#indexAfter(value);
  }
}
