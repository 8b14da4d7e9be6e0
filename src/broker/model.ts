/**
 * The nouns of the broker: what a session, an instance, a queue, a delivery, an entry and a sender are and know of each
 * other. Small invariants live here; what happens between them is in the other files of this folder.
 *
 *   Session (a name) ── has ──▶ Instance (a process) ── has ──▶ lane: a Queue for each channel it handles
 *          └──────── has ─────▶ Queue for each subscription: what waits for whichever instance comes
 *   Entry (a batch on its way) ── has ──▶ Delivery (part of it, on its way to one queue's recipient)
 *   Sender (a sending instance) ── has ──▶ its unsettled entries, in order
 */
import type { Batch } from '../batch.js';
import { Deque } from '../deque.js';
import type { ExpiringRun } from '../engine/engine.js';
import type { RangeSet } from '../range-set.js';
import { SmallSet } from '../small-set.js';
import type { DeliveryFailure } from '../receipts.js';
import type { FailureMessage, HandlerDeclaration, Outcome, Outlet } from './ports.js';
import type { Attached } from './ports.js';
import { queueIds } from './queue-ids.js';

/** The subscription to what is addressed to the client itself or to everyone. */
export const SELF = '';

/** A batch that is on its way to its recipients, or whose receipt is outstanding. */
export interface Entry {
  /** Grows with every routed batch. */
  readonly serial: number;
  readonly batch: Batch;
  /** Undefined for what was read back from the engine: its receipt was given long ago. */
  readonly sender: Sender | undefined;
  /** Monotonic time at which it was routed, or read back. */
  readonly takenAt: number;
  /** Engine time, 0 for never. */
  readonly expiresAt: number;
  /** Everyone who is still to get it, or has not acknowledged all of it. */
  readonly deliveries: SmallSet<Delivery>;
  /** Recipients, also those who are done; messages for queues that are away count when stored. */
  recipients: number;
  /** Recipients that have not finished the batch as a whole; used while `left` is undefined. */
  whole: number;
  /** For each message, how many recipients have not finished it; made when one finishes a part. */
  left: Uint32Array | undefined;
  /** For each message, how many recipients will not get it. */
  failed: Uint32Array | undefined;
  /** Messages that are settled: their receipt is given. */
  settled: number;
  /** Handle of the first message in the engine, 0 when not stored. */
  handle: number;
  /** True once stored durably. */
  committed: boolean;
  /** For the queues of names with several instances: what one of them has handled before it was stored, by offset. */
  handledBy?: Map<Queue, RangeSet>;
}

/** By the word of its recipient, who has no more to say, or behind its back (`withdrawn`). */
export type Refusal = 'gone' | 'waits' | 'withdrawn';

/** Consecutive messages of an entry on their way to a recipient. */
export interface Delivery {
  readonly entry: Entry;
  /** Where it waits when it is stored; more than one when a message matches several subscriptions of an instance. */
  queues: readonly Queue[];
  /** The part of the entry's batch. */
  offset: number;
  count: number;
  /** Handle of its first message, 0 while not stored. */
  handle: number;
  /** Charged attempts of its messages before this delivery. */
  attempts: number;
  /** How often its messages were sent again from the dead letters. */
  revival: number;
  redelivered: boolean;
  /** While in flight: the number of its first message on the connection, and the instance. */
  number: number;
  instance: Instance | undefined;
  /** Messages from the start that are done. */
  done: number;
  /** Done ones behind that, as indexes. */
  later: Set<number> | undefined;
  /** By index: for which queues (none: it was sent to an address) a message is gone otherwise, or waits again. */
  refused: Map<number, Map<Queue | undefined, Refusal>> | undefined;
  /** Attempts charged while in flight, by index and subscription: each has attempts of its own. */
  charged: Map<number, Map<string, number>> | undefined;
}

/** When something was last acknowledged, or sent after a pause: by the monotonic clock, and in looks at the progress. */
export interface Progress {
  progressAt: number;
  progressTick: number;
}

/** An ordered queue for one subscription: of a session (`owner` undefined), or an instance's own (a lane). */
export class Queue implements Progress {
  #id: string | undefined;
  readonly session: Session;
  readonly subscription: string;
  readonly owner: Instance | undefined;
  /** Of a lane, while its instance handles the subscription: to look it up for each message costs more than the rest. */
  handler: Handler | undefined;
  /** Read from the engine, next to be sent. */
  readonly fetched = new Deque<Delivery>();
  #behind = false;
  cursor = 0;
  /** A read is under way. */
  reading = false;
  /** How often the cursor was set back: the answer to a read from before may lack what has come to the queue since. */
  rewinds = 0;
  /** How often the engine has said that something came from another server. */
  arrivals = 0;
  /** Engine time at which what it holds in memory is looked at next. */
  expiresNext = Infinity;
  /** Messages below this handle may have been delivered before. */
  redeliverBelow = 0;
  /** Of a session: handles that one instance has handled while another may still wait for them; while it has several. */
  handled: RangeSet | undefined;
  /** Read from the engine, and only for other instances than the ones that are here: they sent them. */
  aside: Delivery[] | undefined;
  /** Unstored and not yet sent; everything stored goes before it. */
  readonly live = new Deque<Delivery>();
  liveMessages = 0;
  liveBytes = 0;
  /** Sent and not acknowledged, in order. */
  readonly inflight = new SmallSet<Delivery>();
  /** Deliveries that exist only in memory, sent or not. */
  unstored = 0;
  progressAt = 0;
  progressTick = 0;
  /** Monotonic time at which the store last had no room for what it holds. */
  fullAt = -Infinity;

  constructor(session: Session, subscription: string, owner: Instance | undefined) {
    this.session = session;
    this.subscription = subscription;
    this.owner = owner;
  }

  /** The engine's id; made when it is needed, as most lanes never have anything stored. */
  get id(): string {
    const { session, subscription, owner } = this;
    return (this.#id ??=
      owner === undefined
        ? queueIds.session(session.name, subscription)
        : queueIds.lane(owner.id, session.name, subscription));
  }

  /** There may be more in the engine, from `cursor` on. New messages are stored then. */
  get behind(): boolean {
    return this.#behind;
  }

  set behind(behind: boolean) {
    this.#behind = behind;
    if (behind) this.session.eager.add(this);
  }

  /** Something stored waits to be sent. */
  get waiting(): boolean {
    return this.#behind || this.fetched.size > 0;
  }
}

/** Who a queue's messages are for, in a notice. */
export function targetOf({ session, subscription }: Queue): DeliveryFailure['target'] {
  return subscription === SELF ? { client: session.name } : { client: session.name, channel: subscription };
}

/** What a notice says of attempts at least: each process of a shared name has its own copy, and another one may have had its. */
export function fewestAttempts({ owner, session }: Queue): number {
  return owner !== undefined && session.shared ? 1 : 0;
}

/** A handler that an instance has declared, and what is in flight for it. */
export interface Handler {
  declaration: HandlerDeclaration;
  messages: number;
  bytes: number;
  readonly lane: Queue;
}

/** What an instance has declared for a queue's subscription. */
export function handlerOf(instance: Instance, { owner, handler, subscription }: Queue): Handler | undefined {
  return owner === instance ? handler : instance.handlers.get(subscription);
}

/** A message whose handler could have been running when its instance was lost. */
export interface Suspect {
  delivery: Delivery;
  index: number;
  readonly queue: Queue;
  readonly maxAttempts: number;
}

/** Deliveries of a lost instance that came from its session's queues; stored, and kept for it. */
export interface Held {
  readonly queue: Queue;
  readonly delivery: Delivery;
}

/** One process's client object, across its connections. */
export class Instance implements Progress {
  readonly id: string;
  readonly session: Session;
  readonly sender: Sender;
  attached: Attached | undefined;
  outlet: Outlet | undefined;
  process = '';
  /** The newest of its connections, as it counts them; 0 when it does not. */
  connection = 0;
  readonly handlers = new Map<string, Handler>();
  /** In flight on the connection, in order of their numbers. */
  readonly inflight = new Deque<Delivery>();
  nextNumber = 1;
  /** The highest number that it has acknowledged: what was sent to it before has had its turn. */
  reached = 0;
  progressAt = 0;
  progressTick = 0;
  messages = 0;
  bytes = 0;
  /** Stored deliveries that wait for this instance to come back. */
  held: Held[] = [];
  suspects: Suspect[] = [];
  /** Its process has closed it, as another instance of its name has said. */
  hasDeparted = false;
  /** Restored from the store and never seen in this run. */
  restored = false;
  /** Stops the timers that run while it is lost. */
  stopWaiting: (() => void) | undefined;

  constructor(id: string, session: Session, sender: Sender) {
    this.id = id;
    this.session = session;
    this.sender = sender;
  }
}

/** What the server keeps for a name. */
export class Session {
  readonly name: string;
  generated: boolean;
  /** What waits below this handle may have been delivered by an earlier run of the server. */
  doubtBelow = 0;
  /** Commits that are waited for: what is stored is not delivered before, or it would come again unmarked after a crash. */
  arriving = 0;
  /** The name's subscriptions, and when an instance last declared them (engine time). */
  readonly subscriptions = new Map<string, number>();
  readonly instances = new Map<string, Instance>();
  /** What waits for any instance, by subscription. */
  readonly queues = new Map<string, Queue>();
  /** Those of its queues and lanes that something may wait in: one that does is among them. */
  readonly eager = new SmallSet<Queue>();
  /** Stored messages in all of its queues. */
  messages = 0;
  bytes = 0;
  /** Messages for it that exist only in memory, on their way or waiting; counted once for each of its queues, as those are. */
  heldMessages = 0;
  heldBytes = 0;
  /** Engine time when its last instance left. */
  lastSeen = 0;
  /** It has had several instances at a time: each is waited for, also after a restart, and by those channels that it handled. */
  shared = false;
  /** What it got of channels' backlogs lies below these handles. */
  readonly backlogs = new Map<string, number>();
  /** Subscriptions that have had dead letters. */
  readonly deadLetterQueues = new Set<string>();
  /** Final notices may wait for the name. */
  noticesWaiting = false;

  constructor(name: string, generated: boolean) {
    this.name = name;
    this.generated = generated;
  }
}

/** Where a batch for a channel goes, kept until something changes. */
export interface Route {
  readonly lanes: readonly Queue[];
  /** Sessions none of whose instances handles the channel: it waits in their queues. */
  readonly away: readonly Queue[];
}

/** A channel that somebody subscribes to. */
export interface Channel {
  readonly name: string;
  readonly sessions: SmallSet<Session>;
  route: Route | undefined;
}

/** A sending instance: its positions and what became of them. */
export interface Sender {
  readonly instance: string;
  readonly name: string | undefined;
  /** Where receipts go; undefined while it is away. */
  outlet: Outlet | undefined;
  floor: number;
  /** Highest position taken. */
  last: number;
  readonly taken: RangeSet;
  /** The store knows it. */
  stored: boolean;
  /** Entries without a receipt, in order of position. */
  readonly unsettled: Deque<Entry>;
  unsettledBytes: number;
  /** Outcomes at or above the floor, ascending; sent again after a reconnection. */
  outcomes: Outcome[];
  /** Outcomes and failures to be sent at the end of the turn. */
  fresh: Outcome[];
  failures: FailureMessage[];
  /** Final failures above the floor, for a sender that comes back. */
  kept: FailureMessage[];
  lastSeen: number;
  /** It said goodbye, or its process died: it sends nothing again. */
  left: boolean;
}

/** A stored, tracked message: its sender wants the final outcome. */
export interface Tracked {
  readonly position: number;
  readonly id: string;
  /** Queues that it is in. */
  waiting: number;
  /** Recipients that have handled it. */
  delivered: number;
  /** The store knows that a recipient has it. */
  isDeliveredKept: boolean;
  /** The batch that it came in. */
  readonly group: TrackedGroup;
}

/** The messages of a batch whose sender wants the final outcome. */
export interface TrackedGroup {
  /** Who sent it. */
  readonly instance: string;
  /** Position of its first message. */
  readonly first: number;
  /** Those that have no outcome yet. */
  open: number;
  /** Those that wait no longer, by their offset in the batch; undefined where the store says nothing of the batch. */
  readonly ended: RangeSet | undefined;
}

/** What an alarm is about: what a queue holds in memory, or messages that were stored. */
export type Expiring =
  { readonly kind: 'live'; readonly queue: Queue } | { readonly kind: 'stored'; readonly run: ExpiringRun };
