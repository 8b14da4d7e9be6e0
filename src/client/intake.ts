/**
 * Messages of one delivery on their way to the handlers of one subscription: decoded when their turn comes, ended when
 * every handler has, and then remembered.
 *
 *   open ──every handler ended──▶ handled: acknowledged, never handled again by this instance
 *     │ └──not started──▶ abandoned: given back, or forgotten because it comes again
 *     └──rejected──▶ handled, and told once more whenever it comes again: the word may have been lost with its connection
 */
import type { Batch } from '../batch.js';
import type { Clock } from '../clock.js';
import { textOf } from '../errors.js';
import type { BroadcastMessage } from '../message.js';
import type { DeliveryFrame, RejectFrame } from '../protocol/frames.js';
import type { RangeSet } from '../range-set.js';
import type { ReceivedBatch } from '../received.js';
import type { Place, Shared, Work, WorkRunner } from './work.js';

/** Ranges kept for one sender; where a sender's messages for us lie far apart, the oldest are forgotten beyond this. */
const MAX_RANGES = 100_000;

/** Rejections that are remembered of one sender; the oldest are forgotten beyond this. */
const MAX_REJECTIONS = 10_000;

/** Attempts that are remembered of one sender's messages; the oldest are forgotten beyond this. */
const MAX_ATTEMPTED = 10_000;

/** What is remembered of a sending instance's positions, for one subscription when a message can match several. */
export interface Memory {
  highest: number;
  readonly handled: RangeSet;
  readonly open: Set<Intake>;
  /** What was said of handled positions that were rejected, oldest first. */
  readonly rejected: Map<number, Rejection>;
  /** The attempt at positions that failed here and come again, oldest first: perhaps in a copy that knows nothing of it. */
  readonly attempted: Map<number, number>;
}

/** Why a message was not handled after all. */
export type Rejection = Pick<RejectFrame, 'kind' | 'attempts' | 'reason'>;

/** Who numbers deliveries and speaks for them. */
export interface IntakeOwner {
  readonly epoch: number;
  readonly clock: Clock;
  /** A message that has come before is about to be handled. */
  beginsAgain(): void;
  /** The handlers of one subscription have ended a message. */
  ended(place: Place, isRedelivered: boolean): void;
  /** The same for what comes for one subscription, on the connection that is up, and has a delivery number. */
  endedAt(number: number, isRedelivered: boolean): void;
  /** Asks for another attempt, or does what is to be done when the connection is gone that could be asked. */
  fail(waiting: Waiting, places: readonly Place[], reason: string): void;
  reject(channel: string, place: Place, rejection: Rejection): void;
  /** Messages that are not persistent wait for their handlers, or, below nothing, do no longer. */
  transient(messages: number, bytes: number): void;
  /** A message goes back, uncharged. */
  release(channel: string, place: Place, attempt: number): void;
}

/** A handler that waits until its failed attempt is recorded. */
export interface Waiting {
  readonly work: Work;
  readonly index: number;
  readonly runner: WorkRunner;
  /** The attempt that failed. */
  readonly attempt: number;
}

export interface IntakeInput {
  readonly batch: Batch;
  readonly messages: ReceivedBatch;
  readonly note: DeliveryFrame | undefined;
  /** The subscription. */
  readonly channel: string;
  readonly memory: Memory;
  /** Delivery number of the batch's first message, 0 for what is not persistent. */
  readonly number: number;
  readonly shared: Shared | undefined;
  /** Others of the name may have it by now. */
  readonly isInDoubt: boolean;
  /** How many handlers the subscription has. */
  readonly runners: number;
  /** The part of the batch that is taken. */
  readonly from: number;
  readonly end: number;
}

export class Intake implements Work {
  readonly channel: string;
  readonly isPersistent: boolean;
  /** It has come before, or may come to others: also known only when it is here already. */
  isRedelivered: boolean;
  readonly #owner: IntakeOwner;
  readonly #input: IntakeInput;
  readonly #epoch: number;
  readonly #expiresAt: number;
  /** Messages that are neither handled nor abandoned. */
  #open: number;
  /** Handlers that have not ended, by index; only where there are several. */
  #left: Uint16Array | undefined;
  /** Messages that were given up, or that one of several handlers will not have. */
  #abandoned: Set<number> | undefined;
  /** All places, on one connection, of those that have come again. */
  #again: Map<number, Place[]> | undefined;
  /** Messages that some of several handlers have ended. */
  #ended: Set<number> | undefined;
  #refused: Set<number> | undefined;
  /** What was said of messages that one of their handlers rejected; when all have ended, the memory keeps it. */
  #rejected: Map<number, Rejection> | undefined;
  #decoded: Map<number, BroadcastMessage> | undefined;

  constructor(owner: IntakeOwner, input: IntakeInput) {
    const { batch, runners, from, end } = input;
    this.#owner = owner;
    this.#input = input;
    this.channel = input.channel;
    this.#epoch = owner.epoch;
    this.#open = end - from;
    this.isPersistent = input.number !== 0;
    this.isRedelivered = input.isInDoubt || input.note?.redelivered === true || batch.envelope.resent;
    const { ttl } = batch.envelope;
    this.#expiresAt = ttl === undefined ? Infinity : owner.clock.monotonic() + ttl;
    if (!this.isPersistent) owner.transient(batch.count, batch.items.length);
    if (runners > 1) this.#left = new Uint16Array(batch.count).fill(runners);
  }

  get hasSeveralRunners(): boolean {
    return this.#left !== undefined;
  }

  isOpen(position: number): boolean {
    const { batch, memory, from, end } = this.#input;
    const index = position - batch.first;
    if (index < from || index >= end || memory.handled.has(position)) return false;
    return this.#abandoned?.has(index) !== true || (this.#left?.[index] ?? 0) > 0;
  }

  placesOf(index: number): readonly Place[] {
    return this.#again?.get(index) ?? [this.#placeOf(index)];
  }

  /** Where it came first. */
  #placeOf(index: number): Place {
    const { number, shared } = this.#input;
    return { epoch: this.#epoch, number: number === 0 ? 0 : number + index, shared, index };
  }

  /**
   * A message has come again, under another number, while it is here: on a new connection, which knows nothing of the
   * older places, or from another queue of its name.
   */
  comeAgain(position: number, place: Place): void {
    const index = position - this.#input.batch.first;
    const known = this.placesOf(index).filter(({ epoch }) => epoch === place.epoch);
    (this.#again ??= new Map()).set(index, [...known, place]);
  }

  // ---- Work ------------------------------------------------------------------------------------------------------------

  take(index: number): BroadcastMessage | undefined {
    if (this.#refused?.has(index) === true) return undefined;
    if (this.#expiresAt !== Infinity && this.#owner.clock.monotonic() >= this.#expiresAt) {
      this.#refuse(index, 'expired', 'its time to live is over');
      return undefined;
    }
    const kept = this.#decoded?.get(index);
    if (kept !== undefined) return kept;
    if (this.isRedelivered) this.#owner.beginsAgain();
    let message: BroadcastMessage;
    try {
      message = this.#input.messages.message(index);
    } catch (error) {
      this.#refuse(index, 'damaged', textOf(error));
      return undefined;
    }
    if (this.hasSeveralRunners) (this.#decoded ??= new Map()).set(index, message);
    return message;
  }

  /** The message itself is at fault: no handler gets it. */
  #refuse(index: number, kind: 'damaged' | 'expired', reason: string): void {
    (this.#refused ??= new Set()).add(index);
    this.#tell(index, kind, this.attemptOf(index) - 1, reason);
  }

  /** Once for the subscription, whichever of its handlers is the first to reject: a delivery is rejected once (7.3). */
  #tell(index: number, kind: RejectFrame['kind'], attempts: number, reason: string): void {
    if (!this.isPersistent) return; // there is nothing to be kept
    if (this.#rejected?.has(index) === true) return;
    const rejection = { kind, attempts, reason };
    (this.#rejected ??= new Map()).set(index, rejection);
    for (const place of this.placesOf(index)) this.#owner.reject(this.channel, place, rejection);
  }

  /** What was said of a message that is open. */
  rejectionOf(position: number): Rejection | undefined {
    return this.#rejected?.get(position - this.#input.batch.first);
  }

  /** The attempt that a message came for. */
  attemptOf(index: number): number {
    const { note, memory, batch } = this.#input;
    const attempt = note?.attempt ?? 1;
    return memory.attempted.size === 0 ? attempt : Math.max(attempt, memory.attempted.get(batch.first + index) ?? 1);
  }

  end(index: number): void {
    if (!this.#isLast(index)) {
      (this.#ended ??= new Set()).add(index);
      return;
    }
    this.#decoded?.delete(index);
    if (this.#abandoned?.has(index) !== true || this.#rejected?.has(index) === true) {
      this.#finish(index);
      return;
    }
    // One of its handlers gave it up before it had started: it comes again, to this process or the next one.
    for (const place of this.placesOf(index)) this.#owner.release(this.channel, place, this.attemptOf(index));
    this.#close();
  }

  noteAttempt(index: number, attempt: number): void {
    const { memory, batch } = this.#input;
    memory.attempted.set(batch.first + index, attempt);
    if (memory.attempted.size > MAX_ATTEMPTED) dropFirst(memory.attempted);
  }

  /** Every handler has ended it, or one has rejected it and no other will have it: it does not come again. */
  #finish(index: number): void {
    const { memory, batch } = this.#input;
    memory.handled.add(batch.first + index, 1);
    if (memory.attempted.size > 0) memory.attempted.delete(batch.first + index);
    if (memory.handled.rangeCount > MAX_RANGES) dropOldest(memory.handled);
    const rejection = this.#rejected?.get(index);
    if (rejection !== undefined) {
      memory.rejected.set(batch.first + index, rejection);
      if (memory.rejected.size > MAX_REJECTIONS) dropFirst(memory.rejected);
    }
    const { number, shared } = this.#input;
    // The usual way makes no object for each message.
    if (this.#again === undefined && shared === undefined) {
      if (number !== 0 && this.#epoch === this.#owner.epoch) this.#owner.endedAt(number + index, this.isRedelivered);
    } else {
      for (const place of this.placesOf(index)) this.#owner.ended(place, this.isRedelivered);
    }
    this.#close();
  }

  /** One handler is done with a message; true when no other one is left. */
  #isLast(index: number): boolean {
    if (this.#left === undefined) return true;
    this.#left[index] = (this.#left[index] as number) - 1;
    return this.#left[index] === 0;
  }

  #close(): void {
    this.#open--;
    if (this.#open > 0) return;
    this.#input.memory.open.delete(this);
    if (!this.isPersistent) this.#owner.transient(-this.#input.batch.count, -this.#input.batch.items.length);
  }

  fail(index: number, runner: WorkRunner, attempt: number, reason: string): boolean {
    if (!this.isPersistent) return false; // at most once, so it is not tried again
    // Another handler has rejected it: the server keeps no attempts of it any more, and this one has its own left.
    if (this.#rejected?.has(index) === true) runner.retry(this, index, attempt + 1);
    else this.#owner.fail({ work: this, index, runner, attempt }, this.placesOf(index), reason);
    return true;
  }

  reject(index: number, attempts: number, reason: string): void {
    this.#tell(index, 'rejected', attempts, reason);
  }

  withdraw(index: number): boolean {
    if (this.#left === undefined) return true;
    if (this.#left[index] !== 1) {
      this.#isLast(index);
      return false;
    }
    if (this.#ended?.has(index) !== true && this.#rejected?.has(index) !== true) return true;
    this.end(index);
    return false;
  }

  /** A handler will not be run for it. True when no other handler has it any more: then it is as if it had not come. */
  abandon(index: number): boolean {
    (this.#abandoned ??= new Set()).add(index);
    if (!this.#isLast(index)) return false;
    if (this.#rejected?.has(index) === true) {
      this.#finish(index);
      return false;
    }
    this.#close();
    return true;
  }
}

function dropOldest(set: RangeSet): void {
  for (const { first, count } of set.ranges()) {
    set.deleteBelow(first + count);
    return;
  }
}

function dropFirst(map: Map<number, unknown>): void {
  for (const key of map.keys()) {
    map.delete(key);
    return;
  }
}
