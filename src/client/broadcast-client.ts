/** `BroadcastClient`: what every client can do, whatever its transport. */
import type { BroadcastError } from '../errors.js';
import type { Unsubscribe } from '../events.js';
import type { BroadcastMessage } from '../message.js';
import type { DeliveryFailure, Receipt, SendOptions } from '../receipts.js';
import type { HandlerOptions, MessageHandler } from './handlers.js';

/**
 * Where a client stands: `offline` (before `connect`, or refused for good), `connecting` (trying, and between attempts),
 * `online`, `closing`, `closed`.
 */
export type ConnectionState = 'offline' | 'connecting' | 'online' | 'closing' | 'closed';

/**
 * The client's events, with what their listeners are given. None is named `error`.
 * @example
 * client.on('offline', reason => console.warn('lost the server', reason));
 */
export interface ClientEvents {
  /** There is a connection, and everything is sent again that is not safe. */
  online: [];
  /** The connection ended; undefined when the server or this client ended it in good order. */
  offline: [reason: Error | undefined];
  /** A server, or a subscription, was refused in a way that trying again does not mend. */
  refused: [error: BroadcastError];
  /** There is room in the outbox again after it was full. */
  drain: [];
  /** A message does not reach a recipient now, or never will. */
  failure: [failure: DeliveryFailure];
  /** A handler threw or rejected, or was not done in its time (`handler-timeout`). */
  handlerError: [error: unknown, message: BroadcastMessage];
  /** Another callback of the application threw: a listener or a failure handler. */
  callbackError: [error: unknown, callback: string];
}

/**
 * What every Broadcast client can do, whatever its transport.
 * @example
 * const client: BroadcastClient = new BroadcastTcpClient({ port: 9000 }, 'orders');
 */
export abstract class BroadcastClient {
  /**
   * Connects, and is fulfilled once online with every earlier subscription in force. A server that is not there is no
   * error: the client tries again every `reconnectInterval`, for ever. Only sockets keep a process alive: one that has
   * nothing to do but wait for an absent server ends. After a refusal or once online it may be called again.
   * Rejects with `aborted`, `timeout`, `closed`, `too-many-subscriptions`, or a refusal that trying again cannot mend
   * (`taken-over`, `unauthorized`, `protocol-version`, `not-broadcast`, …).
   * @param options `timeout`: milliseconds to wait, default for ever; `signal`: stops the waiting. Neither stops the trying.
   * @example
   * await client.connect({ timeout: 10_000 });
   */
  abstract connect(options?: { signal?: AbortSignal; timeout?: number }): Promise<void>;
  /**
   * Sends a message, now or when there is a connection; the promise is fulfilled once it is safe, or as `until` says.
   * Rejects with `outbox-full`, `data-not-cloneable`, `invalid-argument`, `invalid-name`, `message-too-large`,
   * `headers-too-large`, `too-many-targets`, `aborted`, `closed`. It need not be awaited.
   * @example
   * const receipt = await client.sendMessage(message, { until: 'delivered' });
   */
  abstract sendMessage(message: BroadcastMessage, options?: SendOptions): Promise<Receipt>;
  /**
   * Handles a channel's messages, and subscribes the client's name to it; again for the same channel adds a handler.
   * Returns a function that takes the handler away; the name's subscription stays. Throws `invalid-argument`,
   * `invalid-name`, `invalid-option`, `closed`.
   * @example
   * client.onMessage('orders', async message => ship(message.data), { concurrency: 10 });
   */
  abstract onMessage<D = unknown>(channel: string, handler: MessageHandler<D>, options?: HandlerOptions): Unsubscribe;
  /**
   * Handles what is addressed to the client itself or to everyone. Throws `invalid-argument`, `invalid-option`, `closed`.
   * @example
   * client.onMessage(message => console.log(message.sender, message.data));
   */
  abstract onMessage<D = unknown>(handler: MessageHandler<D>, options?: HandlerOptions): Unsubscribe;
  /**
   * Ends the name's subscription, with or without a handler here; what waits for it goes, and its senders hear `dropped`.
   * Rejects with `invalid-name`, `closed`, or the refusal of the server.
   * @example
   * await client.unsubscribe('orders');
   */
  abstract unsubscribe(channel: string): Promise<void>;
  /**
   * Hears of this client's messages that do not reach a recipient now, or never will. Throws `invalid-argument`.
   * @example
   * client.onDeliveryFailure(({ messageId, reason, final }) => final && console.warn(messageId, reason));
   */
  abstract onDeliveryFailure(handler: (failure: DeliveryFailure) => unknown): Unsubscribe;
  /**
   * Fulfilled when the server has done all that this client asked before, subscriptions included, and has the outbox.
   * Rejects with `closed`, `too-many-subscriptions`, or the refusal of the server.
   * @example
   * client.onMessage('orders', handle);
   * await client.flush();
   */
  abstract flush(): Promise<void>;
  /**
   * Fulfilled when there is room in the outbox. Rejects with `closed`, or the refusal of the server.
   * @example
   * if (client.outbox.full) await client.ready();
   */
  abstract ready(): Promise<void>;
  /**
   * Sends what is in the outbox, finishes running handlers and leaves. A given name's session stays, and what comes
   * meanwhile waits; a generated name's ends. What is left when the time is over is rejected with `closed`; the process
   * lives so long. Idempotent; rejects with `invalid-argument`.
   * @param options `timeout`: at most so many milliseconds, default 5,000
   * @example
   * await client.close();
   */
  abstract close(options?: { timeout?: number }): Promise<void>;
  /**
   * The client's name, given or generated.
   * @example
   * console.log('connected as', client.name);
   */
  abstract readonly name: string;
  /**
   * What the name subscribes to, as the server last said.
   * @example
   * if (!client.subscriptions.includes('orders')) client.onMessage('orders', handle);
   */
  abstract readonly subscriptions: readonly string[];
  /**
   * Where the client stands.
   * @example
   * if (client.state !== 'online') console.warn('messages wait in the outbox');
   */
  abstract readonly state: ConnectionState;
  /**
   * What is not safe yet.
   * @example
   * if (client.outbox.full) await client.ready();
   */
  abstract readonly outbox: {
    /** How many messages. */
    readonly messages: number;
    /** Their size in bytes. */
    readonly bytes: number;
    /** True when a message of the largest size might be refused with `outbox-full`. */
    readonly full: boolean;
  };
  /**
   * Calls `listener` at each event of {@link ClientEvents}.
   * @example
   * client.on('drain', () => resume());
   */
  abstract on<E extends keyof ClientEvents>(event: E, listener: (...args: ClientEvents[E]) => void): this;
  /**
   * Calls `listener` at the next event only.
   * @example
   * client.once('online', () => console.log('connected'));
   */
  abstract once<E extends keyof ClientEvents>(event: E, listener: (...args: ClientEvents[E]) => void): this;
  /**
   * Takes a listener away; one that is not there is passed over.
   * @example
   * const resume = () => source.resume();
   * client.on('drain', resume);
   * client.off('drain', resume);
   */
  abstract off<E extends keyof ClientEvents>(event: E, listener: (...args: ClientEvents[E]) => void): this;
  /**
   * Closes the client at the end of an `await using` block.
   * @example
   * await using client = new BroadcastTcpClient({ port: 9000 }, 'orders');
   * await client.connect();
   */
  abstract [Symbol.asyncDispose](): Promise<void>;
}
