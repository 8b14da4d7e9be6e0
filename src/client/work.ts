/** What a runner of handlers and the messages that it runs them on know of each other. */
import type { BroadcastMessage } from '../message.js';

/** Counts, for each message of a delivery on the wire, the subscriptions that have not ended it. */
export interface Shared {
  readonly left: Uint16Array;
}

/** Where a message stands on the wire: its delivery number on a connection; 0 for what is not persistent. */
export interface Place {
  readonly epoch: number;
  readonly number: number;
  readonly shared: Shared | undefined;
  /** Its index in `shared`. */
  readonly index: number;
}

/** Who runs a handler. */
export interface WorkRunner {
  /** Another attempt is to be made, after a pause. */
  retry(work: Work, index: number, attempt: number): void;
  /** A message that waited for another attempt will not get one here. */
  giveUp(): void;
}

/** Messages on their way to a handler. */
export interface Work {
  /** The subscription. */
  readonly channel: string;
  readonly isPersistent: boolean;
  readonly isRedelivered: boolean;
  /** Its subscription had several handlers when it came. */
  readonly hasSeveralRunners: boolean;
  /** The message, decoded; undefined when it must not be handled (damaged, expired): that is taken care of. */
  take(index: number): BroadcastMessage | undefined;
  /** The attempt that a message came for, or a later one that is to be made here. */
  attemptOf(index: number): number;
  /** It is forgotten and comes again: that attempt has failed, uncharged, and none before it is made here any more. */
  noteAttempt(index: number, attempt: number): void;
  /** The handler has ended, or will not be run. */
  end(index: number): void;
  /** Asks for another attempt; the runner is called back (`retry`) when it is recorded. False: there will be none. */
  fail(index: number, runner: WorkRunner, attempt: number, reason: string): boolean;
  reject(index: number, attempts: number, reason: string): void;
  /** Where a message stands, more than once where it has come from several queues. */
  placesOf(index: number): readonly Place[];
  /** A handler will not be run for it. True when no other handler has it any more: then it is as if it had not come. */
  abandon(index: number): boolean;
  /** A handler was taken away. False: for the others it has ended; true: there is none, and somebody else is to have it. */
  withdraw(index: number): boolean;
}

/** Who takes messages that have come, behind those that wait. */
export interface Acceptor {
  accept(work: Work, from: number, end: number): void;
}

/** Messages of some work that have not started, or are to be attempted again. */
export interface Rest {
  readonly work: Work;
  readonly from: number;
  readonly end: number;
  /** The attempt to be made; undefined: the one that it came for. */
  readonly attempt: number | undefined;
}
