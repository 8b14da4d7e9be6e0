/** Log lines about peers that misbehave: at most one a second for each address and code, however many there are. */
import type { Clock } from '../clock.js';
import type { Logger } from '../logger.js';

const INTERVAL = 1000;
/** Addresses and codes that are remembered; when there are more, all are forgotten. */
const MAX_REMEMBERED = 1024;

export class Complaints {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #saidAt = new Map<string, number>();

  constructor(clock: Clock, logger: Logger) {
    this.#clock = clock;
    this.#logger = logger;
  }

  add(address: string, code: string, text: string): void {
    const key = `${address.replace(/:\d+$/, '')} ${code}`;
    const now = this.#clock.monotonic();
    if (now - (this.#saidAt.get(key) ?? -Infinity) < INTERVAL) return;
    if (this.#saidAt.size >= MAX_REMEMBERED) this.#saidAt.clear();
    this.#saidAt.set(key, now);
    const line = `the connection from ${address} ended: ${code}: ${text}`;
    if (code === 'connection-lost') this.#logger.debug(line);
    else this.#logger.warn(line);
  }
}
