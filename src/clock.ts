/**
 * Time, as the only file that touches timers and the system's clocks. Everything else is handed a `Clock`, so that
 * tests tick it by hand (`TestClock` in the testing entry) and a jump of the wall clock can be played.
 */

/** A timer that was started by a {@link Clock}; opaque. */
export interface Timer {
  /** Stops the timer; does nothing when it has fired or was stopped before. */
  cancel(): void;
}

/** What the library knows of time. Timers never keep a process alive by themselves: sockets do. */
export interface Clock {
  /** Wall-clock time in epoch milliseconds. Only shown to people and persisted, never used for order or expiry. */
  now(): number;
  /** Monotonic time in milliseconds since an arbitrary start. */
  monotonic(): number;
  /** Calls `callback` once after `ms` milliseconds. */
  setTimeout(callback: () => void, ms: number): Timer;
  /** Calls `callback` every `ms` milliseconds until cancelled. */
  setInterval(callback: () => void, ms: number): Timer;
}

/** The longest delay that Node's timers take; longer ones fire at once there, so they are clamped here. */
const MAX_DELAY = 2 ** 31 - 1;

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
