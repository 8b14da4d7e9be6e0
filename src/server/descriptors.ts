/**
 * File descriptors, which connections share with the store. A connection that comes when few are left is refused with a
 * word; one that comes when hardly any are left is closed, so that the store can still open its files.
 */
import { readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import type { Clock } from '../clock.js';

/** The limit may be changed while the process runs; it is read no more often than this. */
const READ_EVERY = 1000;
/** This share of the descriptors, and no more than so many, is kept back: half for refusals, half for the store. */
const SHARE = 16;
const MOST = 64;
const LEAST = 8;

export type Room = 'enough' | 'few' | 'none';

export class Descriptors {
  readonly #clock: Clock;
  #readAt = -Infinity;
  /** Infinity where the system does not say. */
  limit = Infinity;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The system gives the lowest number that is free, so that a connection's own says how many are in use. */
  roomFor(socket: Socket): Room {
    const { fd = -1 } = (socket as { _handle?: { fd?: number } | null })._handle ?? {};
    this.#read();
    const reserve = Math.min(MOST, Math.max(LEAST, Math.floor(this.limit / SHARE)));
    if (fd < this.limit - reserve) return 'enough';
    return fd < this.limit - reserve / 2 ? 'few' : 'none';
  }

  /** What is said to those who are refused. */
  get complaint(): string {
    return `the server has used up its ${String(this.limit)} file descriptors; let it have more (ulimit -n)`;
  }

  #read(): void {
    const now = this.#clock.monotonic();
    if (now - this.#readAt < READ_EVERY) return;
    this.#readAt = now;
    try {
      const [, soft] = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1')) ?? [];
      this.limit = soft === undefined ? Infinity : Number(soft);
    } catch {
      // Not Linux; or there is none left to read it with, and the limit is as it was.
    }
  }
}
