/**
 * What the broker and the layer above it (the server) say to each other: the broker knows sessions, queues and receipts,
 * and speaks to an instance through an `Outlet`; it knows neither bytes nor sockets.
 */
import type { Batch } from '../batch.js';
import type { ErrorCode } from '../errors.js';
import type { DeliveryFailure, Receipt } from '../receipts.js';

/** First value and length of a run of numbers. */
export interface Range {
  readonly first: number;
  readonly count: number;
}

/** What a client says of itself when it connects. */
export interface InstanceHello {
  readonly name: string;
  /** True: the session ends with the name's last instance. */
  readonly generated: boolean;
  readonly instance: string;
  /** Which of its connections this is, counted by the instance; 0 when unknown. */
  readonly connection: number;
  /** Instances of the same name that will not come back. */
  readonly departed: readonly string[];
  readonly floor: number;
  /** Lower-case text that identifies machine and process, so that a death there can be seen; '' when unknown. */
  readonly process: string;
}

/** What the client is told in return. */
export interface Attached {
  /** This run of the server has seen the instance before. */
  readonly known: boolean;
  /** The store has: `taken` is complete even after a restart. */
  readonly stored: boolean;
  readonly taken: readonly Range[];
  readonly subscriptions: readonly string[];
}

/** How an instance handles a channel; the channel `''` is what is addressed to the client or to everyone. */
export interface HandlerDeclaration {
  readonly concurrency: number;
  /** Most unacknowledged messages of this subscription; 0 for no bound of its own. */
  readonly window: number;
  readonly maxAttempts: number;
}

/** What is said with a delivery beyond the messages themselves. */
export interface DeliveryNote {
  readonly redelivered: boolean;
  readonly attempt: number;
  /** Only for these subscriptions of the instance; undefined: for every one that matches. */
  readonly subscriptions: readonly string[] | undefined;
  /** How often it was sent again from the dead letters; undefined: never. */
  readonly revival: number | undefined;
}

/** A failure with what the wire needs beside it. */
export interface FailureMessage {
  readonly failure: DeliveryFailure;
  /** Position in the receiving instance's own sequence, 0 when it was another instance's. */
  readonly position: number;
  /** Number under which the instance confirms it (`noted`), 0 when it need not. */
  readonly notice: number;
}

/** The outcome of a run of positions. */
export interface Outcome extends Range {
  readonly status: Receipt['status'];
  readonly durability: Receipt['durability'];
  /** The final outcome of tracked messages. */
  readonly final: boolean;
}

/** A connection of an instance, as the broker sees it. Calls never throw and never block; an outlet that is gone ignores them. */
export interface Outlet {
  /** `host:port` as the server sees it. */
  readonly address: string;
  /** Bytes that were given to the outlet and not yet taken by the system. */
  readonly buffered: number;
  /** Monotonic time at which the system last took bytes from it, or at which it was last empty. */
  readonly lastProgress: number;
  /** Hands over persistent messages; both ends number them from 1, in order. `offset` and `count`: the part of the batch. */
  deliver(batch: Batch, offset: number, count: number, note: DeliveryNote | undefined): void;
  /** Hands over non-persistent messages, at most once. */
  deliverTransient(batch: Batch, note: DeliveryNote | undefined): void;
  /** Receipts, in ascending and disjoint ranges. */
  receipts(outcomes: readonly Outcome[]): void;
  failure(message: FailureMessage): void;
  retry(delivery: number, channel: string, attempt: number): void;
  /** The name's subscriptions have changed. */
  subscription(channel: string, present: boolean): void;
  /** Stop or go on reading from this client, because what it sends finds no room. */
  pauseReading(paused: boolean): void;
  /** Stops reading from `sender` until this outlet has written most of what it holds, or has made no progress for a while. */
  holdBack(sender: Outlet | undefined): void;
  /** Ends the connection with an error. */
  end(code: ErrorCode, text: string): void;
}

/** What a sender may have on the wire that has no receipt yet (docs/protocol.md, 3.3): it bounds what we hold for it. */
export const SEND_WINDOW = { messages: 32_768, bytes: 16 * 1024 * 1024 } as const;

/** How a connection of an instance ended. */
export type DetachReason =
  /** The connection broke; the instance may come back. */
  | 'lost'
  /** The client said goodbye. */
  | 'goodbye'
  /** The client said goodbye for good: its session ends with it. */
  | 'finished'
  /** Its process is known to be dead. */
  | 'died';

/** What a peer did wrong; ends its connection. */
export class PeerFault extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, text: string) {
    super(text);
    this.name = 'PeerFault';
    this.code = code;
  }
}
