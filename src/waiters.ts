/** Promises: those that wait together for one event, those that nobody may await, and those with a limit. */
import { holdProcess, systemClock, type Clock } from './clock.js';
import { BroadcastError } from './errors.js';
import { show } from './names.js';
import { hintAt } from './nearest.js';

/** What waits for one event, as often as it happens. */
export class Waiters {
  #waiting: { readonly resolve: () => void; readonly reject: (error: BroadcastError) => void }[] = [];

  wait(): Promise<void> {
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** It has happened. */
  release(): void {
    for (const { resolve } of this.#take()) resolve();
  }

  /** It will not happen. */
  reject(error: BroadcastError): void {
    for (const { reject } of this.#take()) reject(error);
  }

  #take(): { readonly resolve: () => void; readonly reject: (error: BroadcastError) => void }[] {
    const waiting = this.#waiting;
    if (waiting.length > 0) this.#waiting = [];
    return waiting;
  }
}

/** A promise for the user; when nobody awaits it, its rejection does not end the process. */
export function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}

export function rejected(error: BroadcastError): Promise<never> {
  return quiet(Promise.reject(error));
}

/** How long a caller waits. */
export interface Patience {
  readonly signal?: AbortSignal;
  readonly timeout?: number;
}

/** Throws `invalid-argument` unless it is an object with none but these options. */
export function checkOptions(options: unknown, method: string, known: readonly string[]): void {
  if (typeof options !== 'object' || options === null)
    throw new BroadcastError('invalid-argument', `the options of ${method} must be an object, not ${show(options)}`);
  const unknown = Object.keys(options).find(name => !known.includes(name));
  if (unknown !== undefined)
    throw new BroadcastError(
      'invalid-argument',
      `there is no option ${show(unknown)} of ${method}; ${hintAt(unknown, known)}`,
    );
}

/** Throws `invalid-argument` unless it is a number of milliseconds. */
export function checkTimeout(timeout: unknown): void {
  if (timeout === undefined || (typeof timeout === 'number' && timeout >= 0)) return;
  throw new BroadcastError('invalid-argument', `timeout must be a number of milliseconds from 0, not ${show(timeout)}`);
}

/** Throws `invalid-argument` unless it is a signal, and `aborted` when that was aborted before. */
export function checkSignal(signal: unknown): void {
  if (signal === undefined) return;
  if (typeof signal !== 'object' || signal === null || !('addEventListener' in signal) || !('aborted' in signal))
    throw new BroadcastError('invalid-argument', `signal must be an AbortSignal, not ${show(signal)}`);
  if (signal.aborted === true)
    throw new BroadcastError('aborted', 'the signal was aborted before the call, which does nothing');
}

/** The same promise, but rejected with `aborted` or `timeout` when its time is over; `what` goes on all the same. */
export function limited(
  promise: Promise<void>,
  { signal, timeout }: Patience,
  clock: Clock,
  what: string,
): Promise<void> {
  if (signal === undefined && timeout === undefined) return promise;
  return new Promise((resolve, reject) => {
    const aborted = (): void => reject(new BroadcastError('aborted', `the signal was aborted; ${what}`));
    const late = (): void => reject(new BroadcastError('timeout', `not within ${String(timeout)} ms; ${what}`));
    signal?.addEventListener('abort', aborted, { once: true });
    const timer = timeout === undefined ? undefined : clock.setTimeout(late, timeout);
    const done = (): void => {
      timer?.cancel();
      signal?.removeEventListener('abort', aborted);
    };
    promise.then(resolve, reject).then(done, done);
  });
}

/** Fulfilled with the promise, whatever its outcome, or when so many milliseconds are over; the process lives so long. */
export function atMost(promise: Promise<unknown>, ms: number, clock: Clock): Promise<void> {
  return new Promise(resolve => {
    // Who ticks the clock decides when the time is over.
    const release = clock === systemClock ? holdProcess() : () => undefined;
    const done = (): void => {
      timer.cancel();
      release();
      resolve();
    };
    const timer = clock.setTimeout(done, ms);
    promise.then(done, done);
  });
}
