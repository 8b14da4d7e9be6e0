/**
 * The engine seam: all that the server knows of storage and, later, of other servers. The host (the broker) validates
 * and decides; an engine keeps and orders. Recognised by shape, not by `instanceof`.
 *
 * Words. A *queue* is an ordered set of messages under an opaque id that the host makes up; an engine gives ids no
 * meaning. A *run* is a batch, or part of one, in a queue. A *handle* is the engine's number of a stored message: the
 * messages of a batch have consecutive handles, and handles grow with every `append` on this server, never to be used
 * again in this store, nor is one that a crash has taken back: clients know notices by it. One stored message may be in
 * several queues (a fan-out is stored once); its bytes are given back when it has left the last one.
 *
 * Time. Expiry uses *engine time*: milliseconds that grow while the engine is open by the monotonic clock, and over a
 * downtime by the wall clock, clamped to between nothing and one day (`EngineState.time`, and `StateClock` below).
 *
 * Obligations, for every method:
 * - Calls take effect in the order in which they are made, at once for later calls on this server, and durably once a
 *   `commit()` made after them is fulfilled. What no commit covers may be lost by a crash, but only as a suffix: of two
 *   changes the later one never survives alone. Acknowledgements and floors are the exception: one that no commit covers
 *   may be lost by itself. An `append` is atomic for each sender: after a crash all of its batches are there, in all of
 *   their queues, or none.
 * - The host has reserved and checked all limits but `storeBytes`.
 * - An engine that fails (a failed sync, a lost quorum) calls `host.failed` once, rejects every outstanding commit with
 *   `store-failed`, and from then on throws `store-failed` from every method but `close` and those that only count.
 * - An engine that is not open, or closed again, has nothing in it: `append` throws and `commit` rejects with
 *   `store-failed`, `read` answers with nothing, changes are passed over. It can be opened anew, also after it has failed.
 *
 * How JetStream fits: docs/decisions/0003-engine-seam.md.
 */
import type { Batch } from '../batch.js';
import type { Clock } from '../clock.js';

/** What stands behind a message that the engine has committed. */
export type EngineDurability = 'memory' | 'fsync' | 'replicated';

/** A batch on its way into the store. */
export interface AppendBatch {
  /** The messages, as their sender encoded them. */
  readonly batch: Batch;
  /** Engine time after which it is never delivered; 0 for never. */
  readonly expiresAt: number;
  /**
   * Who gets which messages of the batch: a queue and the messages in it, as an offset and a count within the batch.
   * Ranges of one queue are in order and disjoint. Messages that no queue takes are kept by nobody.
   */
  readonly queues: readonly {
    /** The queue. */
    readonly queue: string;
    /** Index of the first message within the batch. */
    readonly offset: number;
    /** How many messages. */
    readonly count: number;
  }[];
}

/** Messages with consecutive handles. */
export interface HandleRange {
  /** Handle of the first message. */
  readonly handle: number;
  /** Number of messages. */
  readonly count: number;
}

/** Part of a stored batch as it is read back from a queue. */
export interface StoredRun {
  /** Handle of the first message of the run. */
  readonly handle: number;
  /** Exactly the messages of the run (`batch.count` of them), with the handles that follow `handle`. */
  readonly batch: Batch;
  /** Engine time after which it is never delivered; 0 for never. */
  readonly expiresAt: number;
  /** Attempts recorded by `attempt` for the first message of the run (a message with attempts is a run of its own); 0 without. */
  readonly attempts: number;
  /** The note given to `move` for these messages; undefined without. */
  readonly note: string | undefined;
}

/** A queue as `open` found it. */
export interface QueueState {
  /** Its name. */
  readonly queue: string;
  /** Messages in it. */
  readonly messages: number;
  /** Their bytes. */
  readonly bytes: number;
}

/** Where an expiring, stored batch waits, so that the host can arm its clock. */
export interface ExpiringRun {
  /** The queue that it is in. */
  readonly queue: string;
  /** Handle of its first message. */
  readonly handle: number;
  /** How many messages. */
  readonly count: number;
  /** Engine time after which they are never delivered. */
  readonly expiresAt: number;
}

/** What is known of a sending instance: the positions that are stored, or were and have left every queue since. */
export interface SenderState {
  /** The instance's id. */
  readonly instance: string;
  /** The client's name; undefined for the server itself. */
  readonly name: string | undefined;
  /** Below it everything is settled, and nothing is sent again. */
  readonly floor: number;
  /** Taken positions from the floor up: pairs of first position and count, ascending and disjoint. */
  readonly taken: readonly {
    /** The first position. */
    readonly first: number;
    /** How many positions. */
    readonly count: number;
  }[];
}

/** What `open` found. */
export interface EngineState {
  /** Identifies this store for its whole life; the opening exchange carries it. 1 to 64 ASCII characters. */
  readonly storeId: string;
  /** Engine time now. */
  readonly time: number;
  /** Everything that is stored has a lower handle, and whatever this server appends a handle that is not lower. */
  readonly nextHandle: number;
  /** The pairs of `put`. */
  readonly entries: ReadonlyMap<string, string>;
  /** Queues that are not empty. */
  readonly queues: readonly QueueState[];
  /** Messages that expire. */
  readonly expiring: readonly ExpiringRun[];
  /** Sending instances that have not been forgotten. */
  readonly senders: readonly SenderState[];
  /** Tracked messages that are still in a queue. */
  readonly tracked: readonly TrackedMessage[];
  /** Damage that was found and put aside, in words for the log; empty when all is well. */
  readonly damage: readonly string[];
}

/** A stored message whose sender wants the final outcome. */
export interface TrackedMessage {
  /** Id of the sending instance. */
  readonly instance: string;
  /** Position in its sequence. */
  readonly position: number;
  /** Handle of the message. */
  readonly handle: number;
  /** Queues that it is still in. */
  readonly queues: readonly string[];
  /** Id of the message, for notices. */
  readonly id: string;
}

/** What an engine is given when it is opened. */
export interface EngineHost {
  /** The only source of time for an engine. */
  readonly clock: Clock;
  /** Most bytes of message content and bookkeeping that the store may take; undefined for the engine's own default. */
  readonly storeBytes: number | undefined;
  /**
   * The engine has failed for good; see the obligations above.
   * @example
   * host.failed(new BroadcastError('store-failed', 'the log cannot be synced', { cause }));
   */
  failed(error: Error): void;
  /**
   * There is room again after `append` threw `store-full`.
   * @example
   * if (isRefusing && bytes < limit) host.roomAgain();
   */
  roomAgain(): void;
  /**
   * There is something to read in a queue that this server did not put there (engines that several servers share).
   * @example
   * subscription.on('message', ({ queue }) => host.arrived(queue));
   */
  arrived(queue: string): void;
  /**
   * Another server has put or removed a pair (engines that several servers share). A commit that covers a `put` is
   * fulfilled only when the hosts of all servers have been told. Undefined for a host that shares with nobody.
   * @example
   * for (const { key, value } of update) host.changed?.(key, value);
   */
  changed?(key: string, value: string | null): void;
  /**
   * Messages of a queue cannot be read and have left it, without an `ack` of the host; `bytes` is what they counted for.
   * Called once for each message and queue, never from within a call of the host that is not a `read`.
   * @example
   * host.damaged('name:orders', 17, 1, 2048);
   */
  damaged(queue: string, handle: number, count: number, bytes: number): void;
  /**
   * Something for the log.
   * @example
   * host.warn('segment 3 is damaged from byte 4096 on');
   */
  warn(text: string): void;
}

/** The usage of a queue, exact for everything done so far. */
export interface QueueUsage {
  /** Messages in it. */
  readonly messages: number;
  /** Their bytes. */
  readonly bytes: number;
}

/**
 * Where sessions and queues live. Three come with the package: memory (the readable reference), disk and, later,
 * JetStream; `conformance` in this folder proves any other.
 *
 * @example
 * const server = new BroadcastTcpServer({ engine: memoryEngine() });
 */
export interface Engine {
  /** A word for logs and banners, such as `memory` or `disk`. */
  readonly kind: string;
  /** What a fulfilled commit means. */
  readonly durability: EngineDurability;

  /**
   * Opens the store and says what is in it. Not while it is open. Rejects with `store-locked`, `store-foreign`,
   * `store-incomplete`, `store-newer` or `store-unreadable`.
   * @example
   * const { storeId, queues } = await engine.open(host);
   */
  open(host: EngineHost): Promise<EngineState>;

  /**
   * Stores batches, a sender's all or none, and puts their messages at the end of queues, which come into being by it. Also notes
   * every position of the batches as taken from its sender. Synchronous: readable at once, durable with the next commit.
   * The engine keeps no reference to `batch.items` of the caller that would pin a larger buffer than needed.
   * Returns the handle of the first message of each batch.
   * Throws `store-full` with nothing stored.
   * @example
   * const [handle] = engine.append([{ batch, expiresAt: 0, queues: [{ queue, offset: 0, count: batch.count }] }]);
   */
  append(batches: readonly AppendBatch[]): number[];

  /**
   * Reads a queue from handle `from` on (inclusive), in order, at most `maxMessages` and about `maxBytes` (at least one
   * message). An empty array: there is nothing behind `from` now. May answer at once or later; what was acknowledged or
   * moved away before the answer never comes with it, and attempts are those recorded by then. Damaged messages are left out and leave their
   * queue: `host.damaged` tells of each queue, `host.warn` once where they lay. Rejects when it cannot be read now, and can be tried again.
   * @example
   * for (const { handle, batch } of await engine.read(queue, 0, 100, 65_536)) deliver(handle, batch);
   */
  read(
    queue: string,
    from: number,
    maxMessages: number,
    maxBytes: number,
  ): readonly StoredRun[] | Promise<readonly StoredRun[]>;

  /**
   * The messages with these handles leave the queue; handles that are not in it are passed over. Needs no commit: a lost one costs a redelivery.
   * @example
   * engine.ack(queue, handle, 3); // three messages, from this handle on
   */
  ack(queue: string, handle: number, count: number): void;

  /**
   * Puts messages of one queue into another one, at the place that their handles give them, with their attempts; `note`
   * replaces theirs. Without a handle: the whole queue, which thereby ends. A message that is already in the target only leaves the source;
   * those are returned.
   * @example
   * engine.move(queue, deadLetters, handle, 1, JSON.stringify({ reason }));
   */
  move(from: string, to: string, handle?: number, count?: number, note?: string): readonly HandleRange[];

  /**
   * Records how often a message of a queue has been attempted.
   * @example
   * engine.attempt(queue, handle, 2);
   */
  attempt(queue: string, handle: number, attempts: number): void;

  /**
   * Ends a queue; its messages leave it. A queue also ends when the last message leaves it, and begins anew with the next.
   * @example
   * engine.drop(queue);
   */
  drop(queue: string): void;

  /**
   * Keeps a pair, or with null removes it (sessions, subscriptions: whatever the host must find again). Keys to 1 KiB, values to 16 MiB.
   * @example
   * engine.put('session:orders', JSON.stringify(session));
   */
  put(key: string, value: string | null): void;

  /**
   * Announces a sender's floor, below which nothing is sent again, or with null that the instance will not come back. Survives the reclaiming of the log.
   * @example
   * engine.floor(instance, 1200); // positions below 1200 are not sent again
   */
  floor(instance: string, floor: number | null): void;

  /**
   * Fulfilled when everything done before this call is durable. Calls during a running commit share the next one.
   * @example
   * engine.append(batches);
   * await engine.commit(); // now it is durable
   */
  commit(): Promise<void>;

  /**
   * The usage of a queue; zeros for one that does not exist.
   * @example
   * const { messages, bytes } = engine.usage(queue);
   */
  usage(queue: string): QueueUsage;

  /**
   * Queues whose ids begin with `prefix`, for administration and recovery.
   * @example
   * for (const queue of engine.queues('name:')) console.log(queue);
   */
  queues(prefix: string): Iterable<string>;

  /**
   * Everything together.
   * @example
   * const { bytes, limit } = engine.totals();
   */
  totals(): {
    /** Messages whose bytes the engine holds. */
    readonly messages: number;
    /** Those bytes, with the engine's own. */
    readonly bytes: number;
    /** Most bytes that the store may take; 0 when there is no limit. */
    readonly limit: number;
  };

  /**
   * Engine time now.
   * @example
   * const expiresAt = engine.time() + ttl;
   */
  time(): number;

  /**
   * Whether this server has somebody to give the messages of a queue to (engines that several servers share): such an
   * engine lets one server read a queue at a time, calls `host.arrived` when it has become this one, and answers reads of
   * others with nothing. An engine without this method lets its only server read everything.
   * @example
   * engine.serve?.(queue, true);
   */
  serve?(queue: string, wanted: boolean): void;

  /**
   * What is known of a sender that comes to this server (engines that several servers share): what it had stored through
   * others, who cannot store anything of it any longer. An engine without this method has said everything at `open`.
   * @example
   * const state = await engine.sender?.(instance);
   */
  sender?(instance: string): Promise<SenderState | undefined>;

  /**
   * Commits and closes. Idempotent. What cannot be committed any longer is given up, never waited for.
   * @example
   * await engine.close();
   */
  close(): Promise<void>;
}

const METHODS = [
  'open',
  'append',
  'read',
  'ack',
  'move',
  'attempt',
  'drop',
  'put',
  'floor',
  'commit',
  'usage',
  'queues',
  'totals',
  'time',
  'close',
] as const;

/**
 * True for an object with the shape of an {@link Engine}: that is how engines are recognised, not by `instanceof`.
 * @example
 * if (!isEngine(candidate)) throw new TypeError('not an engine');
 */
export function isEngine(value: unknown): value is Engine {
  if (typeof value !== 'object' || value === null) return false;
  const candidate = value as Record<string, unknown>;
  return typeof candidate['kind'] === 'string' && METHODS.every(method => typeof candidate[method] === 'function');
}
