/**
 * What becomes of a subscription when its last handler is taken away: what has not started, or fails from now on, goes to
 * the handler that is added in its place, in its order, and that one starts when the handler before it has ended. What
 * nobody takes over goes back to the server once that has answered that nothing else comes for the subscription: if it went
 * before, what is on its way would overtake it.
 */
import type { Runner } from './runner.js';
import type { Acceptor, Rest, Work } from './work.js';

export class Succession implements Acceptor {
  /** Handlers that were taken away and have not ended. */
  readonly #predecessors = new Set<Runner>();
  /** The same, of a subscription that was ended meanwhile: nobody is in their place. */
  readonly #strangers = new Set<Runner>();
  /** How often the server was told on this connection that the channel is not handled, and has not answered. */
  #unanswered = 0;
  #parked: Rest[] = [];

  /** The server may still send for the handler that is gone. */
  get isLeaving(): boolean {
    return this.#unanswered > 0;
  }

  /** A handler that keeps order waits for those before it. */
  get isRunning(): boolean {
    for (const { options } of this.#predecessors) if (options.concurrency === 1) return true;
    return false;
  }

  get isOver(): boolean {
    return this.#predecessors.size === 0 && this.#strangers.size === 0 && this.#unanswered === 0;
  }

  runners(): Runner[] {
    return [...this.#predecessors, ...this.#strangers];
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
    if (!runner.isOver) this.#predecessors.add(runner);
  }

  has(runner: Runner): boolean {
    return this.#predecessors.has(runner);
  }

  ended(runner: Runner): void {
    this.#predecessors.delete(runner);
    this.#strangers.delete(runner);
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

  /** The subscription itself has ended: whoever subscribes anew has no predecessor. */
  end(): Rest[] {
    for (const runner of this.#predecessors) this.#strangers.add(runner);
    this.#predecessors.clear();
    return this.takeParked();
  }
}
