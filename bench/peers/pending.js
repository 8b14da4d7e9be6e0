// What a client has been given and has not confirmed, in marks: a promise each for so many messages. Most clients have no
// bound of their own.
export class Pending {
  #most;
  #every;
  #since = 0;
  #open = 0;
  #failure;
  #wake = [];

  /** @param most marks that may be open; @param every messages between two of them */
  constructor({ most, every = 1 }) {
    this.#most = most;
    this.#every = every;
  }

  /** A message has been handed over; every so often `mark` is asked for a promise that covers it and all before it. */
  add(mark) {
    if (++this.#since < this.#every) return;
    this.#since = 0;
    this.wait(mark());
  }

  wait(promise) {
    this.#open++;
    promise.then(
      () => this.#done(),
      error => {
        this.#failure ??= error;
        this.#done();
      },
    );
  }

  #done() {
    this.#open--;
    const wake = this.#wake;
    this.#wake = [];
    for (const resolve of wake) resolve();
  }

  get isFull() {
    return this.#open >= this.#most;
  }

  async room() {
    await this.#until(() => !this.isFull);
  }

  /** Fulfilled when nothing is open; rejects when something has failed. */
  async settled() {
    await this.#until(() => this.#open === 0);
  }

  async #until(isSo) {
    while (!isSo() && this.#failure === undefined) await new Promise(resolve => this.#wake.push(resolve));
    if (this.#failure !== undefined) throw this.#failure;
  }
}

/** A link that is full, has room and is settled as `pending` says, and is `own` otherwise. */
export function linkOn(pending, own) {
  const link = {
    get isFull() {
      return pending.isFull;
    },
    room: () => pending.room(),
    settled: () => pending.settled(),
  };
  // With its getters.
  return Object.defineProperties(link, Object.getOwnPropertyDescriptors(own));
}
