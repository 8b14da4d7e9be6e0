/**
 * Time, as the only file that touches timers and the system's clocks. Everything else is handed a `Clock`, so that
 * tests tick it by hand (`TestClock` in the testing entry) and a jump of the wall clock can be played.
 */

/** A timer that was started by a {@link Clock}; opaque. */
export interface Timer {
  /**
   * Stops the timer; does nothing when it has fired or was stopped before.
   * @example
   * const timer = clock.setTimeout(giveUp, 5_000);
   * timer.cancel();
   */
  cancel(): void;
}

/** What the library knows of time. Timers never keep a process alive by themselves: sockets do, and `close()` and `stop()` while they run. */
export interface Clock {
  /**
   * Wall-clock time in epoch milliseconds. Only shown to people and persisted, never used for order or expiry.
   * @example
   * new Date(clock.now()).toISOString();
   */
  now(): number;
  /**
   * Monotonic time in milliseconds since an arbitrary start.
   * @example
   * const start = clock.monotonic();
   * const passed = clock.monotonic() - start;
   */
  monotonic(): number;
  /**
   * Calls `callback` once after `ms` milliseconds.
   * @example
   * const timer = clock.setTimeout(() => retry(), 1_000);
   */
  setTimeout(callback: () => void, ms: number): Timer;
  /**
   * Calls `callback` every `ms` milliseconds until cancelled.
   * @example
   * const timer = clock.setInterval(() => ping(), 10_000);
   */
  setInterval(callback: () => void, ms: number): Timer;
}

/** The longest delay that Node's timers take; longer ones fire at once there, so they are clamped here. */
const MAX_DELAY = 2 ** 31 - 1;

/** Keeps the process alive until the returned function is called: for what has a limit, and whose outcome was promised. */
export function holdProcess(): () => void {
  const timer = setInterval(() => undefined, MAX_DELAY);
  return () => clearInterval(timer);
}

/** The machine's clock. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  setTimeout(callback, ms) {
    const timer = setTimeout(callback, Math.min(ms, MAX_DELAY));
    timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
  setInterval(callback, ms) {
    const timer = setInterval(callback, Math.min(ms, MAX_DELAY));
    timer.unref();
    return { cancel: () => clearInterval(timer) };
  },
};
