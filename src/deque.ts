/** A double-ended queue on a growing ring; amortised O(1) at both ends. Depends on nothing. */
const FIRST_LENGTH = 8;

export class Deque<T> {
  /** A ring whose length is a power of two, or nothing: most of many deques are empty most of the time. */
  #items: (T | undefined)[] = [];
  #head = 0;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  push(item: T): void {
    if (this.#size === this.#items.length) this.#grow();
    this.#items[(this.#head + this.#size++) & (this.#items.length - 1)] = item;
  }

  unshift(item: T): void {
    if (this.#size === this.#items.length) this.#grow();
    this.#head = (this.#head - 1) & (this.#items.length - 1);
    this.#items[this.#head] = item;
    this.#size++;
  }

  shift(): T | undefined {
    if (this.#size === 0) return undefined;
    const item = this.#items[this.#head];
    this.#items[this.#head] = undefined;
    this.#head = (this.#head + 1) & (this.#items.length - 1);
    this.#size--;
    return item;
  }

  peek(): T | undefined {
    return this.#size === 0 ? undefined : this.#items[this.#head];
  }

  last(): T | undefined {
    return this.#size === 0 ? undefined : this.at(this.#size - 1);
  }

  at(index: number): T {
    return this.#items[(this.#head + index) & (this.#items.length - 1)] as T;
  }

  /** Replaces the item at `index`. */
  set(index: number, item: T): void {
    this.#items[(this.#head + index) & (this.#items.length - 1)] = item;
  }

  clear(): void {
    this.#items = [];
    this.#head = 0;
    this.#size = 0;
  }

  *[Symbol.iterator](): IterableIterator<T> {
    for (let i = 0; i < this.#size; i++) yield this.at(i);
  }

  #grow(): void {
    const items = new Array<T | undefined>(Math.max(FIRST_LENGTH, this.#items.length * 2));
    for (let i = 0; i < this.#size; i++) items[i] = this.at(i);
    this.#items = items;
    this.#head = 0;
  }
}
