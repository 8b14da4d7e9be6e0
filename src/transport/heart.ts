/**
 * Heartbeats of many connections on one timer (docs/protocol.md, 9.1). Nobody is dropped before what already waits in
 * its socket has been read: a connection is judged only when two looks have passed with the event loop's poll between
 * them, so that a process which was stopped itself first reads what came meanwhile.
 */
import type { Clock, Timer } from '../clock.js';

/** What the heart looks at. */
export interface Beating {
  readonly lastRead: number;
  readonly lastWrite: number;
  /** Reading is paused by ourselves: silence proves nothing. */
  readonly deaf: boolean;
  ping(): void;
  /** Nothing was heard for `deadAfter`. */
  silent(): void;
}

export class Heart {
  readonly #clock: Clock;
  readonly #pingInterval: number;
  readonly #deadAfter: number;
  readonly #members = new Map<Beating, number>();
  #timer: Timer | undefined;

  constructor(clock: Clock, pingInterval: number, deadAfter: number) {
    this.#clock = clock;
    this.#pingInterval = pingInterval;
    this.#deadAfter = deadAfter;
  }

  add(member: Beating): void {
    this.#members.set(member, 0);
    this.#timer ??= this.#clock.setInterval(() => this.#look(), Math.max(1, Math.min(this.#pingInterval, this.#deadAfter) / 4));
  }

  delete(member: Beating): void {
    this.#members.delete(member);
    if (this.#members.size > 0) return;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #look(): void {
    const now = this.#clock.monotonic();
    for (const [member, looks] of this.#members) {
      if (now - member.lastRead >= this.#deadAfter && !member.deaf) {
        if (looks >= 2) member.silent();
        else this.#members.set(member, looks + 1);
        continue;
      }
      if (looks > 0) this.#members.set(member, 0);
      if (now - member.lastWrite >= this.#pingInterval) member.ping();
    }
  }
}
