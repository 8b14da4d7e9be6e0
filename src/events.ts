/**
 * The events of a client or server, and every other call back into the application. What a callback throws is logged,
 * emitted as `callbackError`, and goes no further.
 */
import { EventEmitter } from 'node:events';
import type { Logger } from './logger.js';

/** Takes a handler or listener away; again it does nothing. */
export type Unsubscribe = () => void;

/** Events by name, with what their listeners are given. None is named `error`: an emitter would throw it unheard. */
interface Table {
  callbackError: [error: unknown, callback: string];
}

export class Events<T extends Table & Record<keyof T, unknown[]>> {
  readonly #emitter = new EventEmitter();
  readonly #owner: object;
  readonly #logger: Logger;

  /** `owner`: what listeners find as `this`. */
  constructor(owner: object, logger: Logger) {
    this.#owner = owner;
    this.#logger = logger;
  }

  on<E extends keyof T & string>(event: E, listener: (...args: T[E]) => void): void {
    this.#emitter.on(event, listener as (...args: unknown[]) => void);
  }

  once<E extends keyof T & string>(event: E, listener: (...args: T[E]) => void): void {
    this.#emitter.once(event, listener as (...args: unknown[]) => void);
  }

  off<E extends keyof T & string>(event: E, listener: (...args: T[E]) => void): void {
    this.#emitter.off(event, listener as (...args: unknown[]) => void);
  }

  emit<E extends keyof T & string>(event: E, ...args: T[E]): void {
    for (const listener of this.#emitter.rawListeners(event))
      this.call(`a listener of ${event}`, (listener as (...args: T[E]) => unknown).bind(this.#owner), ...args);
  }

  /** Calls `callback`; what it throws, now or later, is reported under the name of `what`. */
  call<A extends unknown[]>(what: string, callback: (...args: A) => unknown, ...args: A): void {
    callSafely(
      () => callback(...args),
      error => this.#report(what, error),
    );
  }

  #report(what: string, error: unknown): void {
    this.#logger.error(`${what} threw`, error);
    for (const listener of this.#emitter.rawListeners('callbackError')) {
      callSafely(
        () => listener.call(this.#owner, error, what) as unknown,
        second => this.#logger.error('a listener of callbackError threw', second),
      );
    }
  }
}

function callSafely(call: () => unknown, failed: (error: unknown) => void): void {
  try {
    const result = call();
    if (isThenable(result)) result.then(undefined, failed);
  } catch (error) {
    failed(error);
  }
}

/** True for what `await` would wait for. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return (
    ((typeof value === 'object' && value !== null) || typeof value === 'function') &&
    typeof (value as { then?: unknown }).then === 'function'
  );
}

/** A set of callbacks, each of which can be taken away by the function that adding it returns. */
export class CallbackSet<A extends unknown[]> {
  // Entries, not functions: the same function may be added twice.
  readonly #entries = new Set<{ readonly callback: (...args: A) => unknown }>();

  get size(): number {
    return this.#entries.size;
  }

  add(callback: (...args: A) => unknown): Unsubscribe {
    const entry = { callback };
    this.#entries.add(entry);
    return () => void this.#entries.delete(entry);
  }

  *[Symbol.iterator](): IterableIterator<(...args: A) => unknown> {
    for (const { callback } of this.#entries) yield callback;
  }
}
