/** What the parts of the broker share: the engine, the limits, the registries of names and the counters. */
import type { Batch } from '../batch.js';
import type { Clock, Timer } from '../clock.js';
import type { Limits } from '../config.js';
import type { Logger } from '../logger.js';
import type { Engine } from '../engine/engine.js';
import type { DeliveryFailure } from '../receipts.js';
import type { Channel, Entry, Expiring, Instance, Queue, Sender, Session, Tracked } from './model.js';

/** What the broker tells the layer above it. Called synchronously; must not throw. */
export interface BrokerEvents {
  /** A client's messages, once each, in order, before they are routed. Undefined while nobody observes. */
  published?: ((batch: Batch, instance: Instance) => void) | undefined;
  subscribed(instance: Instance, channel: string): void;
  unsubscribed(instance: Instance | undefined, channel: string): void;
  failure(failure: DeliveryFailure): void;
  /** An instance that the store knows has not come back yet; its process may be dead. */
  restored(instance: Instance): void;
  /** A sending instance will not come back: what is remembered of its positions can be forgotten. */
  senderGone(instance: string): void;
  engineFailed(error: Error): void;
}

export interface BrokerOptions {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly limits: Limits;
  /** Milliseconds without progress of a recipient after which its messages are stored. */
  readonly storeAfter: number;
  /** Milliseconds that an instance's own deliveries wait for it after a lost connection. */
  readonly instanceGrace: number;
  /** Milliseconds after which a lost instance's share of its name's queue goes to others. */
  readonly deadAfter: number;
  /** True when an instance's process is known to run; false also when that cannot be known, as on another machine. */
  readonly isRunning: (process: string) => boolean;
  readonly logger: Logger;
  readonly events: BrokerEvents;
}

export class Context {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly limits: Limits;
  readonly options: BrokerOptions;
  readonly logger: Logger;
  readonly events: BrokerEvents;

  readonly sessions = new Map<string, Session>();
  readonly channels = new Map<string, Channel>();
  readonly instances = new Map<string, Instance>();
  readonly senders = new Map<string, Sender>();
  /** Live connections by their address. */
  readonly addresses = new Map<string, Instance>();
  /** Stored, tracked messages by handle. */
  readonly tracked = new Map<number, Tracked>();
  /** By sending instance: positions whose final outcome is that nobody got them, oldest first; see tracking.ts. */
  readonly undelivered = new Map<string, Set<number>>();
  /** Channels with a backlog. */
  readonly backlogs = new Set<string>();
  /** By channel: what waits in its backlog below this handle may have been handled by a client that left it there. */
  readonly backlogDoubts = new Map<string, number>();

  serial = 0;
  /** The highest handle that the engine has given. */
  lastHandle = 0;
  /** Counts the looks at progress; see store.ts. */
  tick = 0;
  /** Queues with deliveries that exist only in memory. */
  readonly unstoredQueues = new Set<Queue>();
  /** Queues that hold too much in memory. */
  readonly overfull = new Set<Queue>();
  /** Messages have come to the end of their time; see expiry.ts. */
  expired: ((what: Expiring) => void) | undefined;
  progressTimer: Timer | undefined;
  /** Entries that wait for the next commit, and their bytes in this and the running ones. */
  uncommitted: Entry[] = [];
  uncommittedBytes = 0;
  commitScheduled = false;
  /** Words about the end of messages that wait for a commit. */
  unsaid = 0;
  readonly paused = new Set<Instance>();
  /** Senders with something to be told at the end of the turn. */
  readonly chatty = new Set<Sender>();
  flushScheduled = false;
  /** Set once the engine has failed or the broker is closed. */
  stopped = false;

  readonly counters = { messagesIn: 0, messagesOut: 0, stored: 0, failures: 0 };

  constructor(options: BrokerOptions) {
    this.options = options;
    this.engine = options.engine;
    this.clock = options.clock;
    this.limits = options.limits;
    this.logger = options.logger;
    this.events = options.events;
  }

  /** Forgets where a channel's messages go, because a session, an instance or a handler has come or gone. */
  reroute(channel: string): void {
    const known = this.channels.get(channel);
    if (known !== undefined) known.route = undefined;
  }
}
