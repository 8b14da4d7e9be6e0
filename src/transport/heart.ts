/**
 * The heartbeat of many connections, on one timer (docs/protocol.md, 9.1). Nobody is dropped before what already waits in
 * its socket has been read: whoever seems silent is judged after the event loop has polled the sockets twice more. And
 * when this process itself did not run for a while (stopped, suspended), the peers get time to speak before they are
 * judged: perhaps they did not run either.
 */
import type { Clock, Timer } from '../clock.js';

/** What the heart looks at. Times are the clock's monotonic ones. */
export interface Beating {
  /** The peer's last sign of life. */
  readonly lastHeard: number;
  readonly lastWrite: number;
  readonly lastPing: number;
  /** Reading is paused by ourselves: silence proves nothing. */
  readonly deaf: boolean;
  /** Nothing was written, or nothing was heard, for `pingInterval`. */
  ping(): void;
  /** Nothing was heard for `deadAfter`. */
  silent(): void;
}

/** Looks for each of the shorter of both intervals. */
const LOOKS = 4;
/** A gap of so many looks means that the process did not run. */
const OVERSLEPT = 3;

export class Heart {
  readonly #clock: Clock;
  readonly #pingInterval: number;
  readonly #deadAfter: number;
  readonly #between: number;
  readonly #members = new Set<Beating>();
  #suspects: Beating[] = [];
  #timer: Timer | undefined;
  #lastLook = 0;
  #mercyUntil = -Infinity;

  constructor(clock: Clock, pingInterval: number, deadAfter: number) {
    this.#clock = clock;
    this.#pingInterval = pingInterval;
    this.#deadAfter = deadAfter;
    this.#between = Math.max(1, Math.min(pingInterval, deadAfter) / LOOKS);
  }

  get size(): number {
    return this.#members.size;
  }

  add(member: Beating): void {
    this.#members.add(member);
    if (this.#timer !== undefined) return;
    this.#lastLook = this.#clock.monotonic();
    this.#timer = this.#clock.setInterval(() => this.#look(), this.#between);
  }

  delete(member: Beating): void {
    this.#members.delete(member);
    if (this.#members.size > 0) return;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #look(): void {
    const now = this.#clock.monotonic();
    if (now - this.#lastLook > OVERSLEPT * this.#between)
      this.#mercyUntil = now + Math.min(this.#pingInterval, this.#deadAfter);
    this.#lastLook = now;
    const isJudging = this.#suspects.length > 0;
    for (const member of this.#members) {
      if (this.#isQuiet(member, now)) member.ping();
      if (!isJudging && now >= this.#mercyUntil && this.#isSilent(member, now)) this.#suspects.push(member);
    }
    // An immediate follows a poll; the second one follows a poll that began after this look.
    if (!isJudging && this.#suspects.length > 0) setImmediate(() => setImmediate(() => this.#judge()));
  }

  #judge(): void {
    const now = this.#clock.monotonic();
    const suspects = this.#suspects;
    this.#suspects = [];
    for (const member of suspects) {
      if (this.#members.has(member) && this.#isSilent(member, now)) member.silent();
    }
  }

  /** A peer that only listens answers a PING, so that each side can rely on its own intervals. */
  #isQuiet(member: Beating, now: number): boolean {
    return now - Math.min(member.lastWrite, Math.max(member.lastHeard, member.lastPing)) >= this.#pingInterval;
  }

  #isSilent(member: Beating, now: number): boolean {
    return !member.deaf && now - member.lastHeard >= this.#deadAfter;
  }
}
