/**
 * A set in the order of insertion that mostly holds one item or none: a hundred thousand of them must not cost a hundred
 * thousand hash tables. Depends on nothing.
 */
export class SmallSet<T extends object> {
  #only: T | undefined;
  /** All items, once there have been two at a time and until there are none. */
  #many: Set<T> | undefined;

  get size(): number {
    return this.#many?.size ?? (this.#only === undefined ? 0 : 1);
  }

  /** The item that has been here for longest. */
  get first(): T | undefined {
    if (this.#many === undefined) return this.#only;
    for (const item of this.#many) return item;
    return undefined;
  }

  has(item: T): boolean {
    return this.#many?.has(item) ?? this.#only === item;
  }

  add(item: T): void {
    if (this.#many !== undefined) this.#many.add(item);
    else if (this.#only === undefined) this.#only = item;
    else if (this.#only !== item) {
      this.#many = new Set([this.#only, item]);
      this.#only = undefined;
    }
  }

  delete(item: T): boolean {
    if (this.#many !== undefined) {
      const isGone = this.#many.delete(item);
      if (this.#many.size === 0) this.#many = undefined;
      return isGone;
    }
    if (this.#only !== item) return false;
    this.#only = undefined;
    return true;
  }

  clear(): void {
    this.#only = undefined;
    this.#many = undefined;
  }

  /** As with a Set, items may be deleted meanwhile; those that are added meanwhile need not be met. */
  *[Symbol.iterator](): IterableIterator<T> {
    if (this.#many !== undefined) yield* this.#many;
    else if (this.#only !== undefined) yield this.#only;
  }
}
