/** A clock for tests: time stands still until it is ticked. */
import type { Clock, Timer } from '../clock.js';

interface Entry {
  at: number;
  readonly serial: number;
  readonly callback: () => void;
  readonly every: number | undefined;
}

/**
 * A {@link Clock} that a test moves. Timers fire in the order of their times, at their times.
 *
 * @example
 * const clock = new TestClock();
 * const client = new BroadcastTcpClient({ port, clock });
 * clock.tick(1000); // the client tries again
 */
export class TestClock implements Clock {
  #now: number;
  #monotonic = 0;
  #serial = 0;
  readonly #timers = new Set<Entry>();

  /**
   * A clock that stands still.
   * @param now epoch milliseconds to start at; default 2026-01-01
   * @example
   * const clock = new TestClock(Date.parse('2030-01-01'));
   */
  constructor(now = 1_767_225_600_000) {
    this.#now = now;
  }

  /**
   * Wall-clock time in epoch milliseconds; moved by `tick` and `jump`.
   * @example
   * new TestClock(0).now(); // 0
   */
  now(): number {
    return this.#now;
  }

  /**
   * Milliseconds that were ticked since the clock was made; `jump` does not move it.
   * @example
   * clock.tick(250);
   * clock.monotonic(); // 250 on a new clock
   */
  monotonic(): number {
    return this.#monotonic;
  }

  /**
   * Calls `callback` once, in the `tick` that brings it to `ms` milliseconds from now.
   * @example
   * clock.setTimeout(() => console.log('now'), 1_000);
   * clock.tick(1_000); // now
   */
  setTimeout(callback: () => void, ms: number): Timer {
    return this.#add(callback, ms, undefined);
  }

  /**
   * Calls `callback` every `ms` milliseconds (at least 1) that are ticked, until cancelled.
   * @example
   * const timer = clock.setInterval(() => console.log('ping'), 1_000);
   * clock.tick(3_000); // ping, three times
   * timer.cancel();
   */
  setInterval(callback: () => void, ms: number): Timer {
    return this.#add(callback, ms, Math.max(1, ms));
  }

  #add(callback: () => void, ms: number, every: number | undefined): Timer {
    const entry = { at: this.#monotonic + Math.max(0, ms), serial: ++this.#serial, callback, every };
    this.#timers.add(entry);
    return { cancel: () => void this.#timers.delete(entry) };
  }

  /**
   * Number of timers that wait.
   * @example
   * clock.setTimeout(() => undefined, 1_000);
   * clock.pending; // 1 on a new clock
   */
  get pending(): number {
    return this.#timers.size;
  }

  /**
   * Lets `ms` milliseconds pass and fires what is due on the way.
   * @example
   * clock.tick(1_000);
   */
  tick(ms: number): void {
    const end = this.#monotonic + ms;
    for (let next = this.#next(end); next !== undefined; next = this.#next(end)) {
      const passed = Math.max(0, next.at - this.#monotonic);
      this.#monotonic += passed;
      this.#now += passed;
      if (next.every === undefined) this.#timers.delete(next);
      else next.at += next.every;
      next.callback();
    }
    this.#now += end - this.#monotonic;
    this.#monotonic = end;
  }

  #next(end: number): Entry | undefined {
    let soonest: Entry | undefined;
    for (const entry of this.#timers) {
      if (entry.at > end) continue;
      if (soonest === undefined || entry.at < soonest.at || (entry.at === soonest.at && entry.serial < soonest.serial))
        soonest = entry;
    }
    return soonest;
  }

  /**
   * The wall clock jumps, as when somebody sets it; monotonic time does not.
   * @example
   * clock.jump(-3_600_000); // the wall clock is set back by an hour
   */
  jump(ms: number): void {
    this.#now += ms;
  }
}
