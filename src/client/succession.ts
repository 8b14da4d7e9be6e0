/**
 * What becomes of a subscription when handlers are taken away: what has not started, or fails from now on, goes to the
 * handler that is there or is added in their place, in its order, and that one starts when the handlers before it have
 * ended. What nobody takes over goes back to the server once that has answered that nothing else comes for the
 * subscription: if it went before, what is on its way would overtake it.
 */
import type { Runner } from './runner.js';
import type { Acceptor, Rest, Work } from './work.js';

export class Succession implements Acceptor {
  /** Handlers that were taken away and have not ended. */
  readonly #retired = new Set<Runner>();
  /** Those of a subscription that was ended: nobody is in their place. */
  readonly #strangers = new WeakSet<Runner>();
  /** How often the server was told on this connection that the channel is not handled, and has not answered. */
  #unanswered = 0;
  #parked: Rest[] = [];

  /** The server may still send for handlers that are gone. */
  get isLeaving(): boolean {
    return this.#unanswered > 0;
  }

  /** A handler that keeps order waits for those before it. */
  get isRunning(): boolean {
    for (const runner of this.#retired)
      if (runner.options.concurrency === 1 && !this.#strangers.has(runner)) return true;
    return false;
  }

  get isOver(): boolean {
    return this.#retired.size === 0 && this.#unanswered === 0 && this.#parked.length === 0;
  }

  /** Handlers that were taken away and have not ended. */
  get retired(): Iterable<Runner> {
    return this.#retired;
  }

  leaves(): void {
    this.#unanswered++;
  }

  /** The server has answered. What nobody has taken over is returned. */
  answered(): Rest[] {
    if (this.#unanswered > 0) this.#unanswered--;
    return this.#unanswered === 0 ? this.takeParked() : [];
  }

  retire(runner: Runner): void {
    if (!runner.isOver) this.#retired.add(runner);
  }

  ended(runner: Runner): void {
    this.#retired.delete(runner);
  }

  isStranger(runner: Runner): boolean {
    return this.#strangers.has(runner);
  }

  /** What a handler that was taken away had: before everything that has come since. */
  park(rest: readonly Rest[]): void {
    this.#parked.unshift(...rest);
  }

  /** Something has come for a handler that is gone. */
  accept(work: Work, from: number, end: number): void {
    this.#parked.push({ work, from, end, attempt: undefined });
  }

  takeParked(): Rest[] {
    const parked = this.#parked;
    this.#parked = [];
    return parked;
  }

  /** A new connection: nothing is on its way for what was taken away before. */
  renew(): Rest[] {
    this.#unanswered = 0;
    return this.takeParked();
  }

  /** The subscription itself has ended, and its handlers: whoever subscribes anew has no predecessor. */
  end(runners: readonly Runner[]): Rest[] {
    for (const runner of runners) this.retire(runner);
    for (const runner of [...runners, ...this.#retired]) this.#strangers.add(runner);
    return this.takeParked();
  }
}
