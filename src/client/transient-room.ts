/**
 * Room for messages that are not persistent and wait for handlers. They are not acknowledged, so no window at the server
 * holds their senders back: what a slow or hanging handler leaves waiting is bounded here, and the newest are lost.
 */
import type { Batch } from '../batch.js';
import type { Clock } from '../clock.js';
import type { Logger } from '../logger.js';
import type { WireLimits } from '../protocol/handshake.js';

/** Many windows: a turn reads megabytes before a handler that awaits anything gets on. */
const WINDOWS = 16;
/** Milliseconds between two warnings. */
const WARN_EVERY = 1000;

export type WindowLimits = Pick<WireLimits, 'windowMessages' | 'windowBytes'>;

export class TransientRoom {
  readonly #clock: Clock;
  readonly #logger: Logger;
  #most: WindowLimits = { windowMessages: Infinity, windowBytes: Infinity };
  #messages = 0;
  #bytes = 0;
  #dropped = 0;
  #warnedAt = -Infinity;

  constructor(clock: Clock, logger: Logger) {
    this.#clock = clock;
    this.#logger = logger;
  }

  /** The server's windows, of its WELCOME. */
  adopt({ windowMessages, windowBytes }: WindowLimits): void {
    this.#most = { windowMessages: windowMessages * WINDOWS, windowBytes: windowBytes * WINDOWS };
  }

  count(messages: number, bytes: number): void {
    this.#messages += messages;
    this.#bytes += bytes;
  }

  /** False, and a warning now and then, when the batch is lost; one batch always has room. */
  admits({ count, items }: Batch): boolean {
    const { windowMessages, windowBytes } = this.#most;
    const fits = this.#messages + count <= windowMessages && this.#bytes + items.length <= windowBytes;
    if (fits || this.#messages === 0) return true;
    this.#dropped += count;
    const now = this.#clock.monotonic();
    if (now - this.#warnedAt >= WARN_EVERY) {
      this.#warnedAt = now;
      this.#logger.warn(
        `handlers are too slow for what is not persistent: ${String(this.#dropped)} messages were dropped since the last warning, ${String(this.#messages)} wait`,
      );
      this.#dropped = 0;
    }
    return false;
  }
}
