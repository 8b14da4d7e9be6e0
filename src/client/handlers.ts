/** Handlers as users give them: their types, and the check of their options. */
import { BroadcastError } from '../errors.js';
import type { BroadcastMessage } from '../message.js';
import { show } from '../names.js';
import { hintAt } from '../nearest.js';

/**
 * What a handler is told beside the message.
 * @example
 * client.onMessage('jobs', (message, { attempt, signal }) => run(message.data, { attempt, signal }));
 */
export interface DeliveryInfo {
  /** The subscription it is for; null for what is addressed to the client or to everyone. */
  channel: string | null;
  /** True when the message may have been handled before. */
  redelivered: boolean;
  /** Number of this attempt, 1 for the first. */
  attempt: number;
  /**
   * Aborted when `handlerTimeout` is over (its reason: `handler-timeout`), or when the client closes without waiting for
   * the handler any longer (`closed`).
   */
  signal: AbortSignal;
}

/**
 * Handles a message; a thenable that it returns is awaited. What it throws counts as a failed attempt, a
 * {@link BroadcastReject} sends the message to the dead letters at once.
 */
export type MessageHandler<D = unknown> = (message: BroadcastMessage<D>, info: DeliveryInfo) => unknown;

/**
 * How a handler is run.
 * @example
 * client.onMessage('jobs', run, { concurrency: 10, handlerTimeout: 30_000 });
 */
export interface HandlerOptions {
  /** Messages handled at the same time. Default 1, which keeps their order. */
  concurrency?: number;
  /** Most unacknowledged messages of this subscription. Default: a share of `limits.windowMessages`. */
  window?: number;
  /** Attempts before the message goes to the dead letters. Default the client's `maxAttempts`, 5. */
  maxAttempts?: number;
  /** Milliseconds after which a handler that has not ended has failed with `handler-timeout`. Default none. */
  handlerTimeout?: number;
}

const LARGEST = { concurrency: 1_000_000, window: 1_000_000, maxAttempts: 1000, handlerTimeout: 2 ** 31 - 1 };

/** Throws `invalid-option`. */
export function checkHandlerOptions(options: unknown): HandlerOptions {
  if (typeof options !== 'object' || options === null)
    throw new BroadcastError('invalid-option', `the handler's options must be an object, not ${show(options)}`);
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(LARGEST, name)) throw unknown(name);
    const largest = LARGEST[name as keyof HandlerOptions];
    if (value === undefined || (Number.isInteger(value) && value >= 1 && value <= largest)) continue;
    throw new BroadcastError(
      'invalid-option',
      `${name} must be a whole number from 1 to ${String(largest)}, not ${show(value)}`,
    );
  }
  return options;
}

function unknown(name: string): BroadcastError {
  const hint = hintAt(name, Object.keys(LARGEST));
  return new BroadcastError('invalid-option', `there is no handler option ${name}; ${hint}`);
}
