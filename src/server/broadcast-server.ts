/** `BroadcastServer`: what every server can do, whatever its transport. */
import type { Unsubscribe } from '../events.js';
import type { BroadcastMessage } from '../message.js';
import type { DeliveryFailure, Receipt, SendOptions } from '../receipts.js';

/** A client that is connected, as the server sees it. */
export interface BroadcastPeer {
  /** The client's name. */
  readonly name: string;
  /** The id of its instance: one process's client object, across its reconnections. */
  readonly instance: string;
  /** Its address, `host:port`; on a Unix socket `unix:` and a number. A message may be sent to it. */
  readonly address: string;
}

/**
 * The server's events, with what their listeners are given. None is named `error`.
 * @example
 * server.on('connect', ({ name, address }) => console.log(name, 'from', address));
 */
export interface ServerEvents {
  /** `start` has ended, or the listener is back after a failure. */
  listening: [];
  /** A client has introduced itself. */
  connect: [peer: BroadcastPeer];
  /** A client's connection has ended; the reason is `goodbye`, `finished`, `lost`, or the code of an error. */
  disconnect: [peer: BroadcastPeer, reason: string];
  /** A name has a new subscription. */
  subscribe: [peer: BroadcastPeer, channel: string];
  /** A name has a subscription less. */
  unsubscribe: [peer: BroadcastPeer, channel: string];
  /** Anybody's message does not reach a recipient now, or never will. */
  failure: [failure: DeliveryFailure];
  /** The store has failed; the server accepts nothing further until it is restarted. */
  engineError: [error: Error];
  /** A callback of the application threw: an observer, a listener, a failure handler. */
  callbackError: [error: unknown, callback: string];
}

/** A message that no handler of a name would take. */
export interface DeadLetter {
  /** Under which it is sent again or dropped. */
  id: string;
  /** The message as it was sent. */
  message: BroadcastMessage;
  /** What the last attempt threw. */
  reason: string;
  /** How often it was attempted. */
  attempts: number;
  /** When it was given up, in epoch milliseconds. */
  at: number;
}

/** What the server keeps for a name. */
export interface SessionInfo {
  /** The name. */
  name: string;
  /** Instances that are connected. */
  instances: number;
  /** Channels that it subscribes to. */
  subscriptions: readonly string[];
  /** Messages that wait for it or are on their way to it. */
  queued: number;
  /** Their bytes. */
  queuedBytes: number;
  /** Messages that its handlers would not take. */
  deadLetters: number;
  /** When an instance was last connected, in epoch milliseconds. */
  lastSeen: number;
}

/** Counters since the start and sizes now. */
export interface ServerStats {
  /** Clients that are connected. */
  clients: number;
  /** Names that are kept. */
  sessions: number;
  /** Channels that somebody subscribes to. */
  channels: number;
  /** Messages that came from clients and the server itself, since the start. */
  messagesIn: number;
  /** Messages that were sent to instances, since the start. */
  messagesOut: number;
  /** Bytes that came, since the start. */
  bytesIn: number;
  /** Bytes that went, since the start. */
  bytesOut: number;
  /** Messages that were stored, since the start. */
  stored: number;
  /** Messages in the queues of names. */
  queued: number;
  /** Messages in the backlogs of channels. */
  backlog: number;
  /** Failure notices, since the start. */
  failures: number;
  /** Dead letters of all names. */
  deadLetters: number;
  /** Milliseconds since the start. */
  uptime: number;
}

/**
 * What every Broadcast server can do, whatever its transport.
 * @example
 * const server: BroadcastServer = new BroadcastTcpServer({ port: 9000 });
 */
export abstract class BroadcastServer {
  /**
   * Opens the store and is fulfilled when the server listens. Rejects with `address-in-use`, `address-unavailable`,
   * `store-locked`, `store-foreign`, `store-incomplete`, `store-newer`, `store-unreadable`, `already-started`. A server is
   * started once.
   * @example
   * await server.start();
   */
  abstract start(): Promise<void>;
  /**
   * Drains, tells the clients, frees the address; the process lives so long. Idempotent; rejects with `invalid-argument`.
   * @param options `timeout`: at most so many milliseconds, default 5,000
   * @example
   * process.once('SIGTERM', () => server.stop());
   */
  abstract stop(options?: { timeout?: number }): Promise<void>;
  /**
   * Observes every message that clients send, in order, before it is routed; called, not awaited, and without a veto.
   * Returns a function that ends the observation. Throws `invalid-argument`.
   * @example
   * server.onMessage((message, peer) => console.log(peer.name, message.channel));
   */
  abstract onMessage(handler: (message: BroadcastMessage, peer: BroadcastPeer) => unknown): Unsubscribe;
  /**
   * Sends a message from the server itself; the promise is fulfilled once it is safe, or as `until` says. Rejects with
   * `data-not-cloneable`, `invalid-argument`, `invalid-name`, `message-too-large`, `headers-too-large`,
   * `too-many-targets`, `aborted`, `closed`. It need not be awaited.
   * @example
   * server.sendMessage(BroadcastMessage.createChannelMessage('room_1', 'Hello world'));
   */
  abstract sendMessage(message: BroadcastMessage, options?: SendOptions): Promise<Receipt>;
  /**
   * Hears of messages of the server itself that do not reach a recipient now, or never will. Throws `invalid-argument`.
   * @example
   * server.onDeliveryFailure(({ messageId, reason }) => console.warn(messageId, reason));
   */
  abstract onDeliveryFailure(handler: (failure: DeliveryFailure) => unknown): Unsubscribe;
  /**
   * Where it listens, or null when it does not.
   * @example
   * console.log('listening on', server.address);
   */
  abstract readonly address:
    | {
        /** The host that it listens on. */
        host: string;
        /** The port; 0 has become the one that was found. */
        port: number;
      }
    | {
        /** The path of the Unix socket. */
        path: string;
      }
    | null;
  /**
   * The clients that are connected.
   * @example
   * console.log(server.clients.map(({ name }) => name));
   */
  abstract readonly clients: readonly BroadcastPeer[];
  /**
   * The channels that somebody subscribes to.
   * @example
   * if (!server.channels.includes('orders')) console.warn('nobody takes orders');
   */
  abstract readonly channels: readonly string[];
  /**
   * Counters since the start and sizes now.
   * @example
   * console.log(server.stats().queued, 'messages wait');
   */
  abstract stats(): ServerStats;
  /**
   * The names that the server keeps.
   * @example
   * for (const { name, queued } of await server.sessions()) console.log(name, queued);
   */
  abstract sessions(): Promise<readonly SessionInfo[]>;
  /**
   * Ends a session: queue, subscriptions, dead letters; senders hear `dropped`. Rejects with `not-found`.
   * @example
   * await server.forget('a-name-that-was-retired');
   */
  abstract forget(name: string): Promise<void>;
  /**
   * The dead letters of a name, to list, send again or drop.
   * @example
   * for (const { id } of await server.deadLetters('orders').list()) await server.deadLetters('orders').retry(id);
   */
  abstract deadLetters(name: string): {
    /**
     * The oldest ones first, none for a name that is not known.
     * @param limit at most so many, default 100
     * @example
     * for (const { id, reason } of await server.deadLetters('orders').list(10)) console.log(id, reason);
     */
    list(limit?: number): Promise<readonly DeadLetter[]>;
    /**
     * Puts one back into the queue of the name, to be attempted anew. Rejects with `not-found`.
     * @example
     * await server.deadLetters('orders').retry(letter.id);
     */
    retry(id: string): Promise<void>;
    /**
     * Throws one away. Rejects with `not-found`.
     * @example
     * await server.deadLetters('orders').drop(letter.id);
     */
    drop(id: string): Promise<void>;
  };
  /**
   * Calls `listener` at each event of {@link ServerEvents}.
   * @example
   * server.on('listening', () => console.log(server.address));
   */
  abstract on<E extends keyof ServerEvents>(event: E, listener: (...args: ServerEvents[E]) => void): this;
  /**
   * Calls `listener` at the next event only.
   * @example
   * server.once('listening', () => console.log(server.address));
   */
  abstract once<E extends keyof ServerEvents>(event: E, listener: (...args: ServerEvents[E]) => void): this;
  /**
   * Takes a listener away; one that is not there is passed over.
   * @example
   * const greet = ({ name }) => console.log('hello', name);
   * server.on('connect', greet);
   * server.off('connect', greet);
   */
  abstract off<E extends keyof ServerEvents>(event: E, listener: (...args: ServerEvents[E]) => void): this;
  /**
   * Stops the server at the end of an `await using` block.
   * @example
   * await using server = new BroadcastTcpServer({ port: 9000 });
   * await server.start();
   */
  abstract [Symbol.asyncDispose](): Promise<void>;
}
