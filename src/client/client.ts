/** `BroadcastClient` and `BroadcastTcpClient`: the public face of the client, which ties its parts together. */
import { randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import type { SenderIdentity } from '../batch.js';
import { encodeBody } from '../body/index.js';
import type { Timer } from '../clock.js';
import { resolveClientConfig, type ClientConfig, type ResolvedClientConfig } from '../config.js';
import { BroadcastError } from '../errors.js';
import { LazyReceipt } from '../lazy-receipt.js';
import { BroadcastMessage, parseId, processIdPrefix } from '../message.js';
import { checkClientName, checkName } from '../names.js';
import { machineIdentity } from '../process-identity.js';
import { Reader } from '../protocol/bytes.js';
import { FIRST_OPTIONAL, FRAME, FRAME_HEADER, frameName } from '../protocol/constants.js';
import * as frames from '../protocol/frames.js';
import {
  decodeMessages,
  EnvelopeMemo,
  type AliasLookup,
  type AliasSource,
  type KnownSender,
} from '../protocol/messages.js';
import { RangeSet } from '../range-set.js';
import type { DeliveryFailure, Receipt, SendOptions } from '../receipts.js';
import { Connector, type ConnectorHost } from './connector.js';
import { Deliveries } from './deliveries.js';
import { Runner, type HandlerOptions, type MessageHandler } from './handlers.js';
import { Outbox } from './outbox.js';

/** Where a client stands. */
export type ConnectionState = 'offline' | 'connecting' | 'online' | 'closing' | 'closed';

/** The client's events. */
export interface ClientEvents {
  online: [];
  offline: [reason: Error | undefined];
  refused: [error: BroadcastError];
  drain: [];
  failure: [DeliveryFailure];
  handlerError: [error: unknown, message: BroadcastMessage];
}

/** Takes a handler away. */
export type Unsubscribe = () => void;

/** What every Broadcast client can do, whatever its transport. */
export abstract class BroadcastClient {
  /**
   * Connects, and is fulfilled once online with every earlier subscription in force. A server that is not there is no
   * error. Rejects with `aborted`, `timeout`, `closed`, or a refusal that trying again cannot mend.
   */
  abstract connect(options?: { signal?: AbortSignal; timeout?: number }): Promise<void>;
  /**
   * Sends a message, now or when there is a connection. Rejects with `outbox-full`, `data-not-cloneable`, `invalid-name`,
   * `message-too-large`, `headers-too-large`, `too-many-targets`, `aborted`, `closed`.
   * @example
   * const receipt = await client.sendMessage(message, { until: 'delivered' });
   */
  abstract sendMessage(message: BroadcastMessage, options?: SendOptions): Promise<Receipt>;
  /** Handles a channel's messages, and subscribes the client's name to it. Throws `invalid-name`, `invalid-option`. */
  abstract onMessage<D = unknown>(channel: string, handler: MessageHandler<D>, options?: HandlerOptions): Unsubscribe;
  /** Handles what is addressed to the client itself or to everyone. */
  abstract onMessage<D = unknown>(handler: MessageHandler<D>, options?: HandlerOptions): Unsubscribe;
  /** Ends the name's subscription, with or without a handler here. */
  abstract unsubscribe(channel: string): Promise<void>;
  /** Hears of messages that do not reach a recipient now, or never will. */
  abstract onDeliveryFailure(handler: (failure: DeliveryFailure) => unknown): Unsubscribe;
  /** Fulfilled when the server has done all that this client asked before, subscriptions included. */
  abstract flush(): Promise<void>;
  /** Fulfilled when there is room in the outbox. */
  abstract ready(): Promise<void>;
  /** Sends what is in the outbox, finishes running handlers and leaves. Idempotent; at most `timeout`, 5 000 ms by default. */
  abstract close(options?: { timeout?: number }): Promise<void>;
  /** The client's name. */
  abstract readonly name: string;
  /** What the name subscribes to, as the server last said. */
  abstract readonly subscriptions: readonly string[];
  abstract readonly state: ConnectionState;
  /** What is not safe yet. */
  abstract readonly outbox: { readonly messages: number; readonly bytes: number; readonly full: boolean };
  abstract on<E extends keyof ClientEvents>(event: E, listener: (...args: ClientEvents[E]) => void): this;
  abstract once<E extends keyof ClientEvents>(event: E, listener: (...args: ClientEvents[E]) => void): this;
  abstract off<E extends keyof ClientEvents>(event: E, listener: (...args: ClientEvents[E]) => void): this;
  /** `await using`. */
  abstract [Symbol.asyncDispose](): Promise<void>;
}

interface Request {
  readonly encode: (request: number) => Buffer;
  readonly resolve: () => void;
  readonly reject: (error: BroadcastError) => void;
  /** Made anew by each connection; not sent again from here. */
  readonly declaration: boolean;
}

/** What a channel is declared with: the most that any of its handlers wants. */
interface Declared {
  readonly runners: Runner[];
  readonly windows: (number | undefined)[];
}

const CLOSE_TIMEOUT = 5000;
/** Ranges in one frame. */
const MAX_RANGES = 8192;
const WARN_FULL_INTERVAL = 1000;
const MAX_HANDLER_NUMBER = 1_000_000;

/**
 * A client over TCP or a Unix socket.
 *
 * @example
 * const client = new BroadcastTcpClient({ host: 'localhost', port: 9000 }, 'orders');
 * client.onMessage('paid', message => ship(message.data));
 * await client.connect();
 */
export class BroadcastTcpClient extends BroadcastClient {
  readonly #config: ResolvedClientConfig;
  readonly #generated: boolean;
  readonly #identity: SenderIdentity;
  readonly #emitter = new EventEmitter();
  readonly #connector: Connector;
  readonly #outbox: Outbox;
  readonly #deliveries: Deliveries;
  readonly #handlers = new Map<string, Declared>();
  /** Channels that a server was told we handle: one that we handle no longer must be told so, if need be later. */
  readonly #declared = new Set<string>();
  readonly #failureHandlers = new Set<(failure: DeliveryFailure) => unknown>();
  readonly #requests = new Map<number, Request>();
  readonly #readyWaiters = new Set<() => void>();
  readonly #sentWaiters = new Set<() => void>();
  readonly #idleWaiters = new Set<() => void>();
  readonly #noted: number[] = [];
  /** Numbers of notices that the application has had, in this store. */
  readonly #notices = new RangeSet();
  #subscriptions = new Set<string>();
  #request = 0;
  #store = '';
  #state: ConnectionState = 'offline';
  #connected: { promise: Promise<void>; resolve: () => void; reject: (error: BroadcastError) => void } | undefined;
  #refusal: BroadcastError | undefined;
  #closed: Promise<void> | undefined;
  #limits: { messageBytes: number; headerBytes: number; targets: number; nameBytes: number };
  #channelAliases = new Map<string, number>();
  #clientAliases = new Map<string, number>();
  #lookup = newLookup();
  #envelopes = new EnvelopeMemo();
  #note: frames.DeliveryFrame | undefined;
  #warnedFullAt = -Infinity;
  #lastChecked: BroadcastMessage | undefined;
  #goodbye: (() => void) | undefined;
  #isLeaving = false;
  readonly #aliasSource: AliasSource;
  readonly name: string;

  /** Throws `invalid-option`, `invalid-name`. */
  constructor(config: ClientConfig = {}, name?: string) {
    super();
    this.#config = resolveClientConfig(config);
    const given = name ?? this.#config.clientName;
    this.#generated = given === undefined || given === '';
    this.name = this.#generated ? `anonymous-${randomBytes(9).toString('base64url')}` : (given as string);
    checkClientName(this.name, this.#config.limits.nameBytes);
    this.#limits = this.#config.limits;
    this.#identity = { instance: randomBytes(16).toString('hex'), name: this.name };
    this.#aliasSource = {
      channel: channel => this.#channelAliases.get(channel),
      client: client => this.#clientAliases.get(client),
    };
    this.#connector = new Connector(this.#config, this.#connectorHost());
    this.#outbox = this.#newOutbox();
    this.#deliveries = this.#newDeliveries();
  }

  #connectorHost(): ConnectorHost {
    return {
      connecting: () => this.#connecting(),
      hello: store => this.#hello(store),
      welcomed: welcome => this.#welcomed(welcome),
      frame: (type, frame) => this.#frame(type, frame),
      flushing: () => this.#flushing(),
      lost: error => this.#lost(error),
      refused: error => this.#refused(error),
    };
  }

  #newOutbox(): Outbox {
    return new Outbox({
      clock: this.#config.clock,
      identity: this.#identity,
      aliases: this.#aliasSource,
      limits: this.#config.limits,
      send: piece => this.#connector.send(piece),
      wake: () => this.#connector.wake(),
      failed: failure => this.#reportFailure(failure),
      drained: () => this.#drained(),
    });
  }

  #newDeliveries(): Deliveries {
    return new Deliveries({
      clock: this.#config.clock,
      runners: channel => this.#handlers.get(channel)?.runners,
      wake: () => this.#connector.wake(),
      hurry: () => this.#connector.hurry(),
      fail: frame => this.#connector.send(frames.encodeFail(frame)),
      reject: frame => this.#connector.send(frames.encodeReject(frame)),
      release: ranges => this.#connector.send(frames.encodeRanges(FRAME.RELEASE, ranges)),
    });
  }

  // ---- connecting ------------------------------------------------------------------------------------------------------------

  connect(options: { signal?: AbortSignal; timeout?: number } = {}): Promise<void> {
    if (this.#closed !== undefined)
      return quiet(
        Promise.reject(new BroadcastError('closed', 'the client is closed; make a new one to connect again')),
      );
    if (this.#refusal !== undefined) this.#connected = undefined;
    this.#refusal = undefined;
    if (this.#connected === undefined) {
      this.#connected = deferred();
      if (this.#state === 'online') this.#becomeReady();
    }
    this.#connector.start();
    return quiet(limited(this.#connected.promise, options, this.#config.clock));
  }

  #connecting(): void {
    if (this.#state === 'offline') this.#state = 'connecting';
  }

  #hello(store: string): frames.Hello {
    const host = machineIdentity();
    return {
      generated: this.#generated,
      name: this.name,
      instance: this.#identity.instance,
      idPrefix: processIdPrefix,
      floor: this.#outbox.floor,
      next: this.#outbox.nextPosition,
      store,
      host,
      pid: host === '' ? 0 : process.pid,
      pingInterval: this.#config.pingInterval,
      deadAfter: this.#config.deadAfter,
      extensions: new Map(),
    };
  }

  #welcomed(welcome: frames.Welcome): void {
    this.#channelAliases = new Map();
    this.#clientAliases = new Map();
    this.#lookup = newLookup();
    this.#envelopes = new EnvelopeMemo();
    this.#note = undefined;
    this.#subscriptions = new Set();
    const { limits } = welcome;
    const sameStore = this.#store === welcome.store;
    this.#store = welcome.store;
    if (!sameStore) this.#forgetStore();
    const own = this.#config.limits;
    this.#limits = {
      messageBytes: Math.min(own.messageBytes, limits.messageBytes),
      headerBytes: Math.min(own.headerBytes, limits.headerBytes),
      targets: Math.min(own.targets, limits.targets),
      nameBytes: Math.min(own.nameBytes, limits.nameBytes),
    };
    this.#deliveries.renew(sameStore, this.#runners());
    for (const channel of this.#handlers.keys()) this.#declare(channel);
    for (const channel of this.#declared) if (!this.#handlers.has(channel)) this.#undeclare(channel);
    this.#sendRanges(FRAME.TRACK, this.#outbox.trackedPositions());
    for (const [request, { encode }] of this.#requests) this.#resend(request, encode);
    this.#outbox.online(welcome.sender, limits, welcome.taken, welcome.known);
    this.#outbox.refuseOversize(this.#limits);
    this.#outbox.pump();
    if (this.#state !== 'closing') this.#state = 'online';
    this.#emit('online');
    this.#becomeReady();
  }

  /** Another store than before: what the old one was to tell us, nobody will. */
  #forgetStore(): void {
    this.#notices.clear();
    this.#outbox.giveUpTracked(
      new BroadcastError(
        'different-store',
        'the server has another store than before (one in memory forgets everything when it ends); whether the message was delivered is unknown',
      ),
    );
  }

  /** In several frames when they are many: a frame has a longest length (2.2). */
  #sendRanges(type: number, ranges: readonly { first: number; count: number }[]): void {
    for (let i = 0; i < ranges.length; i += MAX_RANGES)
      this.#connector.send(frames.encodeRanges(type, ranges.slice(i, i + MAX_RANGES)));
  }

  #resend(request: number, encode: (request: number) => Buffer): void {
    if (this.#requests.get(request)?.declaration === false) this.#connector.send(encode(request));
  }

  /** connect() is fulfilled when the server has taken every subscription. */
  #becomeReady(): void {
    const connected = this.#connected;
    if (connected === undefined) return;
    this.#ask(request => frames.encodeFlush(request)).then(connected.resolve, connected.reject);
  }

  #lost(error: BroadcastError | undefined): void {
    this.#outbox.offline();
    for (const [request, { declaration }] of this.#requests) if (declaration) this.#requests.delete(request);
    if (this.#state === 'online') this.#state = 'offline';
    this.#emit('offline', error);
    this.#goodbye?.();
  }

  #refused(error: BroadcastError): void {
    this.#refusal = error;
    if (this.#state !== 'closing' && this.#state !== 'closed') this.#state = 'offline';
    this.#config.logger.error(`the server refused "${this.name}" for good (${error.code}): ${error.message}`);
    this.#emit('refused', error);
    const connected = this.#connected ?? deferred();
    connected.reject(error);
    for (const { reject } of this.#requests.values()) reject(error);
    this.#requests.clear();
    this.#goodbye?.();
  }

  // ---- frames ----------------------------------------------------------------------------------------------------------------

  #frame(type: number, frame: Buffer): void {
    const reader = new Reader(frame, FRAME_HEADER);
    switch (type) {
      case FRAME.MESSAGES: {
        const note = this.#note;
        this.#note = undefined;
        this.#deliveries.receive(decodeMessages(frame, this.#lookup, this.#envelopes, FRAME_HEADER).batch, note);
        return;
      }
      case FRAME.RECEIPT:
        this.#outbox.settle(frames.decodeReceipts(reader));
        if (this.#outbox.floor > 1) this.#connector.wake();
        return;
      case FRAME.DELIVERY:
        this.#note = frames.decodeDelivery(reader);
        return;
      case FRAME.RETRY: {
        const { delivery, channel, attempt } = frames.decodeRetry(reader);
        this.#deliveries.retry(delivery, channel, attempt);
        return;
      }
      case FRAME.FAILURE:
        this.#onFailureFrame(frames.decodeFailure(reader));
        return;
      case FRAME.ALIAS:
        this.#onAlias(frames.decodeAlias(reader));
        return;
      case FRAME.SENDER:
        this.#lookup.addSender(frames.decodeSender(reader));
        return;
      case FRAME.UNALIAS:
        this.#onUnalias(frames.decodeUnalias(reader));
        return;
      case FRAME.SUBSCRIPTION: {
        const { present, channel } = frames.decodeSubscription(reader);
        if (present) this.#subscriptions.add(channel);
        else this.#subscriptions.delete(channel);
        return;
      }
      case FRAME.OK:
        this.#answered(frames.decodeRequest(reader), undefined);
        return;
      case FRAME.FAILED: {
        const failed = frames.decodeFailed(reader);
        this.#answered(failed.request, frames.errorFromPeer(failed));
        return;
      }
      case FRAME.GOODBYE:
        this.#goodbye?.();
        return;
      default:
        if (type < FIRST_OPTIONAL)
          throw new BroadcastError('unknown-frame', `${frameName(type)} is not expected from a server here`);
    }
  }

  #onAlias({ alias, kind, name }: frames.Alias): void {
    this.#lookup.addName(alias, kind, name);
    if (kind === frames.ALIAS_KIND.CHANNEL) this.#channelAliases.set(name, alias);
    else this.#clientAliases.set(name, alias);
  }

  #onUnalias({ alias, kind }: { alias: number; kind: number }): void {
    if (kind !== frames.ALIAS_KIND.SENDER) return; // names keep their numbers in this version
    const sender = this.#lookup.removeSender(alias);
    if (sender !== undefined) this.#deliveries.forget(sender.identity.instance);
  }

  #onFailureFrame({ failure, position, notice }: frames.FailureFrame): void {
    if (notice > 0) {
      this.#noted.push(notice);
      this.#connector.wake();
      // It comes again until the server has heard that it was read.
      if (this.#notices.addNew(notice, 1).length === 0) return;
    }
    if (position > 0) this.#outbox.attach(position, failure);
    this.#reportFailure(failure);
  }

  #answered(request: number, error: BroadcastError | undefined): void {
    const asked = this.#requests.get(request);
    this.#requests.delete(request);
    if (error === undefined) asked?.resolve();
    else asked?.reject(error);
  }

  /** The turn ends: what has gathered leaves with it. */
  #flushing(): void {
    const acks = this.#deliveries.takeAcks();
    if (acks !== undefined) this.#connector.send(frames.encodeRanges(FRAME.ACK, acks));
    this.#outbox.pump();
    const floor = this.#outbox.takeFloor();
    if (floor !== undefined) this.#connector.send(frames.encodeSettled(floor));
    if (this.#noted.length > 0) {
      const noted = new RangeSet();
      for (const notice of this.#noted.splice(0)) noted.add(notice, 1);
      this.#sendRanges(FRAME.NOTED, [...noted.ranges()]);
    }
    if (this.#sentWaiters.size > 0 && this.#outbox.allSent) release(this.#sentWaiters);
  }

  #ask(encode: (request: number) => Buffer, declaration = false): Promise<void> {
    return quiet(
      new Promise((resolve, reject) => {
        const request = ++this.#request;
        this.#requests.set(request, { encode, resolve, reject, declaration });
        if (this.#connector.isOnline) this.#connector.send(encode(request));
      }),
    );
  }

  // ---- sending ---------------------------------------------------------------------------------------------------------------

  sendMessage(message: BroadcastMessage, options?: SendOptions): Promise<Receipt> {
    try {
      return this.#send(message, options);
    } catch (error) {
      const receipt = new LazyReceipt(message instanceof BroadcastMessage ? message.id : '');
      if (!(error instanceof BroadcastError)) throw error;
      receipt.fail(error);
      if (error.code === 'outbox-full') this.#outboxFull(message, error);
      return receipt;
    }
  }

  #send(message: BroadcastMessage, options: SendOptions | undefined): LazyReceipt {
    if (!(message instanceof BroadcastMessage))
      throw new BroadcastError(
        'invalid-argument',
        'sendMessage takes a BroadcastMessage; make one with BroadcastMessage.createChannelMessage and its like',
      );
    if (this.#state === 'closing' || this.#state === 'closed')
      throw new BroadcastError('closed', 'the client is closed');
    const { until, signal } = options ?? {};
    if (until !== undefined && until !== 'safe' && until !== 'delivered')
      throw new BroadcastError('invalid-argument', `until must be "safe" or "delivered", not ${JSON.stringify(until)}`);
    if (signal?.aborted === true)
      throw new BroadcastError('aborted', 'the signal was aborted before the message was sent');
    this.#check(message);
    const id = parseId(message.id);
    if (id === undefined)
      throw new BroadcastError('invalid-argument', `${JSON.stringify(message.id)} is not the id of a message`);
    const body = encodeBody(message.data);
    if (body.length > this.#limits.messageBytes) {
      throw new BroadcastError(
        'message-too-large',
        `the data has ${String(body.length)} bytes, limits.messageBytes is ${String(this.#limits.messageBytes)}; send less, or raise the limit on both sides`,
      );
    }
    const receipt = this.#outbox.add(message, id, body, until === 'delivered');
    if (signal !== undefined) {
      signal.addEventListener(
        'abort',
        () => {
          const error = new BroadcastError(
            'aborted',
            'the signal was aborted; the message may still arrive if it has left',
          );
          if (!this.#outbox.withdraw(receipt, error)) receipt.fail(error);
        },
        { once: true },
      );
    }
    return receipt;
  }

  /** Names, targets and headers; not again for a message that goes where the one before went. */
  #check(message: BroadcastMessage): void {
    const last = this.#lastChecked;
    if (
      last !== undefined &&
      last.channel === message.channel &&
      message.channel !== null &&
      message.clients === last.clients &&
      last.name === message.name &&
      message.headers === last.headers
    )
      return;
    const { nameBytes, headerBytes, targets } = this.#limits;
    for (const channel of message.channels) checkName(channel, 'the channel', nameBytes);
    for (const client of message.clients) checkName(client, 'the client', nameBytes);
    if (message.name !== undefined) checkMessageName(message.name, nameBytes);
    if (message.channels.length + message.clients.length > targets) {
      throw new BroadcastError(
        'too-many-targets',
        `the message has ${String(message.channels.length + message.clients.length)} targets, limits.targets is ${String(targets)}`,
      );
    }
    let size = 0;
    for (const [key, value] of Object.entries(message.headers)) {
      if (typeof value !== 'string')
        throw new BroadcastError(
          'invalid-argument',
          `the header ${JSON.stringify(key)} must be a string, not ${typeof value}`,
        );
      size += Buffer.byteLength(key) + Buffer.byteLength(value);
    }
    if (size > headerBytes)
      throw new BroadcastError(
        'headers-too-large',
        `the headers have ${String(size)} bytes, limits.headerBytes is ${String(headerBytes)}`,
      );
    this.#lastChecked = message;
  }

  #outboxFull(message: BroadcastMessage, error: BroadcastError): void {
    this.#reportFailure(this.#outbox.finalFailure(message, message.id, 'outbox-full', 0));
    const now = this.#config.clock.monotonic();
    if (now - this.#warnedFullAt < WARN_FULL_INTERVAL) return;
    this.#warnedFullAt = now;
    this.#config.logger.warn(error.message);
  }

  get outbox(): { readonly messages: number; readonly bytes: number; readonly full: boolean } {
    return this.#outbox;
  }

  ready(): Promise<void> {
    if (!this.#outbox.full || this.#state === 'closed') return Promise.resolve();
    return new Promise(resolve => this.#readyWaiters.add(resolve));
  }

  #drained(): void {
    release(this.#readyWaiters);
    this.#emit('drain');
  }

  async flush(): Promise<void> {
    if (this.#state === 'closed') throw new BroadcastError('closed', 'the client is closed');
    if (!this.#outbox.allSent || !this.#connector.isOnline) {
      this.#connector.wake();
      await new Promise<void>(resolve => this.#sentWaiters.add(resolve));
    }
    await this.#ask(request => frames.encodeFlush(request));
  }

  onDeliveryFailure(handler: (failure: DeliveryFailure) => unknown): Unsubscribe {
    this.#failureHandlers.add(handler);
    return () => this.#failureHandlers.delete(handler);
  }

  #reportFailure(failure: DeliveryFailure): void {
    for (const handler of this.#failureHandlers) this.#guard('a failure handler', () => handler(failure));
    this.#emit('failure', failure);
  }

  // ---- receiving ---------------------------------------------------------------------------------------------------------------

  onMessage<D = unknown>(channel: string, handler: MessageHandler<D>, options?: HandlerOptions): Unsubscribe;
  onMessage<D = unknown>(handler: MessageHandler<D>, options?: HandlerOptions): Unsubscribe;
  onMessage(...args: unknown[]): Unsubscribe {
    const own = typeof args[0] === 'function';
    const [channel, handler, options] = own ? ['', args[0], args[1]] : args;
    if (typeof handler !== 'function')
      throw new BroadcastError('invalid-argument', 'onMessage takes a channel and a handler, or a handler alone');
    if (!own) checkName(channel, 'the channel', this.#config.limits.nameBytes);
    if (this.#state === 'closing' || this.#state === 'closed')
      throw new BroadcastError('closed', 'the client is closed');
    return this.#addHandler(channel as string, handler as MessageHandler, checkHandlerOptions(options ?? {}));
  }

  #addHandler(channel: string, handler: MessageHandler, options: HandlerOptions): Unsubscribe {
    const runner = new Runner(
      channel,
      handler,
      {
        concurrency: options.concurrency ?? 1,
        maxAttempts: options.maxAttempts ?? this.#config.maxAttempts,
        handlerTimeout: options.handlerTimeout,
      },
      {
        clock: this.#config.clock,
        handlerError: (error, message) => this.#handlerError(channel, error, message),
        idle: () => release(this.#idleWaiters),
      },
    );
    let declared = this.#handlers.get(channel);
    if (declared === undefined) {
      declared = { runners: [], windows: [] };
      this.#handlers.set(channel, declared);
    }
    // A copy, so that messages on their way keep the handlers that they came for.
    this.#handlers.set(channel, {
      runners: [...declared.runners, runner],
      windows: [...declared.windows, options.window],
    });
    if (this.#connector.isOnline) this.#declare(channel);
    return () => this.#removeHandler(channel, runner);
  }

  #declare(channel: string): void {
    this.#declared.add(channel);
    const { runners, windows } = this.#handlers.get(channel) as Declared;
    const window = windows.includes(undefined) ? 0 : Math.max(...(windows as number[]));
    const declaration = {
      channel,
      concurrency: Math.max(...runners.map(runner => runner.concurrency)),
      window,
      maxAttempts: Math.max(...runners.map(runner => runner.maxAttempts)),
    };
    this.#ask(request => frames.encodeSubscribe({ request, ...declaration }), true).catch((error: unknown) => {
      this.#config.logger.error(`subscribing to "${channel}" was refused`, error);
      if (this.#state !== 'closed') this.#connected?.reject(error as BroadcastError);
    });
  }

  #removeHandler(channel: string, runner: Runner): void {
    const declared = this.#handlers.get(channel);
    if (declared?.runners.includes(runner) !== true) return;
    const index = declared.runners.indexOf(runner);
    if (declared.runners.length > 1) {
      this.#handlers.set(channel, {
        runners: declared.runners.filter(other => other !== runner),
        windows: declared.windows.filter((_, i) => i !== index),
      });
      this.#deliveries.withdraw(runner.stop());
      return;
    }
    this.#handlers.delete(channel);
    if (this.#connector.isOnline) this.#undeclare(channel);
    this.#deliveries.giveBack(runner.stop());
  }

  #undeclare(channel: string): void {
    this.#ask(request => frames.encodeUnhandle({ request, channel }), true).then(
      () => {
        if (!this.#handlers.has(channel)) this.#declared.delete(channel);
      },
      () => undefined,
    );
  }

  #runners(): Runner[] {
    return [...this.#handlers.values()].flatMap(declared => declared.runners);
  }

  async unsubscribe(channel: string): Promise<void> {
    checkName(channel, 'the channel', this.#config.limits.nameBytes);
    for (const runner of this.#handlers.get(channel)?.runners ?? []) this.#removeHandler(channel, runner);
    await this.#ask(request => frames.encodeUnsubscribe({ request, channel }));
  }

  get subscriptions(): readonly string[] {
    return [...this.#subscriptions];
  }

  #handlerError(channel: string, error: unknown, message: BroadcastMessage): void {
    const where = channel === '' ? 'for the client itself' : `of "${channel}"`;
    this.#config.logger.warn(`a handler ${where} failed on message ${message.id}:`, error);
    this.#emit('handlerError', error, message);
  }

  // ---- leaving -----------------------------------------------------------------------------------------------------------------

  close(options: { timeout?: number } = {}): Promise<void> {
    this.#closed ??= this.#close(options.timeout ?? CLOSE_TIMEOUT);
    return this.#closed;
  }

  async #close(timeout: number): Promise<void> {
    const { clock } = this.#config;
    const started = this.#connector.isRunning || this.#connector.isOnline;
    this.#state = 'closing';
    let timer: Timer | undefined;
    const late = new Promise<void>(resolve => {
      timer = clock.setTimeout(resolve, timeout);
    });
    if (started) await Promise.race([this.#leave(), late]);
    timer?.cancel();
    // Also when handlers or the outbox took too long: nothing is charged, and what is unfinished waits at once.
    this.#sayGoodbye();
    const reason = new BroadcastError(
      'closed',
      'the client was closed before this was settled; the outcome is unknown',
    );
    for (const { runners } of this.#handlers.values()) for (const runner of runners) runner.abort(reason);
    this.#outbox.close(reason);
    for (const { reject } of this.#requests.values()) reject(reason);
    this.#requests.clear();
    this.#connected?.reject(reason);
    release(this.#readyWaiters);
    release(this.#sentWaiters);
    if (this.#connector.isOnline) this.#connector.stop();
    else this.#connector.destroy();
    this.#state = 'closed';
  }

  async #leave(): Promise<void> {
    const runners = this.#runners();
    for (const runner of runners) this.#deliveries.giveBack(runner.stop());
    while (runners.some(runner => !runner.isWaiting))
      await new Promise<void>(resolve => this.#idleWaiters.add(resolve));
    while (this.#outbox.messages > 0 && this.#refusal === undefined)
      await new Promise<void>(resolve => this.#settledWaiter(resolve));
    if (!this.#connector.isOnline) return;
    await new Promise<void>(resolve => {
      this.#goodbye = resolve;
      this.#sayGoodbye();
    });
  }

  #sayGoodbye(): void {
    if (!this.#connector.isOnline || this.#isLeaving) return;
    this.#isLeaving = true;
    const acks = this.#deliveries.takeAcks();
    if (acks !== undefined) this.#connector.send(frames.encodeRanges(FRAME.ACK, acks));
    this.#connector.send(frames.encodeGoodbye({ finished: this.#generated, text: '' }));
  }

  /** Looks again when something may have been settled. */
  #settledWaiter(resolve: () => void): void {
    setImmediate(resolve);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  get state(): ConnectionState {
    return this.#state;
  }

  // ---- events ------------------------------------------------------------------------------------------------------------------

  on<E extends keyof ClientEvents>(event: E, listener: (...args: ClientEvents[E]) => void): this {
    this.#emitter.on(event, listener as (...args: unknown[]) => void);
    return this;
  }

  once<E extends keyof ClientEvents>(event: E, listener: (...args: ClientEvents[E]) => void): this {
    this.#emitter.once(event, listener as (...args: unknown[]) => void);
    return this;
  }

  off<E extends keyof ClientEvents>(event: E, listener: (...args: ClientEvents[E]) => void): this {
    this.#emitter.off(event, listener as (...args: unknown[]) => void);
    return this;
  }

  #emit<E extends keyof ClientEvents>(event: E, ...args: ClientEvents[E]): void {
    for (const listener of this.#emitter.rawListeners(event))
      this.#guard(`a listener of ${event}`, () => listener.call(this, ...args) as unknown);
  }

  /** Calls back into the application: what it throws is logged and goes no further. */
  #guard(what: string, call: () => unknown): void {
    const failed = (error: unknown): void => this.#config.logger.error(`${what} of the client threw`, error);
    try {
      const result = call();
      if (result instanceof Promise) result.catch(failed);
    } catch (error) {
      failed(error);
    }
  }
}

function checkMessageName(name: unknown, nameBytes: number): void {
  if (name !== '') checkName(name, 'the message name', nameBytes);
}

function checkHandlerOptions(options: HandlerOptions): HandlerOptions {
  const known = ['concurrency', 'window', 'maxAttempts', 'handlerTimeout'];
  for (const [name, value] of Object.entries(options)) {
    if (!known.includes(name))
      throw new BroadcastError('invalid-option', `there is no handler option ${name}; there are ${known.join(', ')}`);
    if (value === undefined) continue;
    if (
      !Number.isInteger(value) ||
      (value as number) < 1 ||
      (name !== 'handlerTimeout' && (value as number) > MAX_HANDLER_NUMBER)
    ) {
      throw new BroadcastError('invalid-option', `${name} must be a whole number from 1, not ${String(value)}`);
    }
  }
  return options;
}

interface Lookup extends AliasLookup {
  addName(alias: number, kind: number, name: string): void;
  addSender(sender: frames.SenderAlias): void;
  removeSender(alias: number): KnownSender | undefined;
}

/** What the server has announced on this connection. */
function newLookup(): Lookup {
  const channels = new Map<number, string>();
  const clients = new Map<number, string>();
  const senders = new Map<number, KnownSender>();
  return {
    channel: alias => channels.get(alias),
    client: alias => clients.get(alias),
    sender: alias => senders.get(alias),
    // An alias never changes its meaning: envelopes are remembered by it (5.1).
    addName(alias, kind, name) {
      const names = kind === frames.ALIAS_KIND.CHANNEL ? channels : clients;
      if ((names.get(alias) ?? name) !== name)
        throw new BroadcastError('protocol-error', 'an alias changed its meaning');
      names.set(alias, name);
    },
    addSender({ alias, instance, name, idPrefix }) {
      const identity = { instance, name: name === '' ? undefined : name };
      const known = senders.get(alias) ?? { identity, idPrefix };
      if (known.identity.instance !== instance || known.idPrefix !== idPrefix)
        throw new BroadcastError('protocol-error', 'an alias changed its meaning');
      senders.set(alias, known);
    },
    removeSender(alias) {
      const known = senders.get(alias);
      senders.delete(alias);
      return known;
    },
  };
}

function deferred(): { promise: Promise<void>; resolve: () => void; reject: (error: BroadcastError) => void } {
  let resolve!: () => void;
  let reject!: (error: BroadcastError) => void;
  const promise = new Promise<void>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise: quiet(promise), resolve, reject };
}

/** What nobody awaits must not end the process. */
function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}

function release(waiters: Set<() => void>): void {
  for (const waiter of waiters) waiter();
  waiters.clear();
}

/** A promise with a time and a signal that end the waiting for it. */
function limited(
  promise: Promise<void>,
  { signal, timeout }: { signal?: AbortSignal; timeout?: number },
  clock: ResolvedClientConfig['clock'],
): Promise<void> {
  if (signal === undefined && timeout === undefined) return promise;
  return new Promise((resolve, reject) => {
    const aborted = (): void =>
      reject(new BroadcastError('aborted', 'connect was aborted; the client goes on trying until it is closed'));
    if (signal?.aborted === true) {
      aborted();
      return;
    }
    signal?.addEventListener('abort', aborted, { once: true });
    const timer =
      timeout === undefined
        ? undefined
        : clock.setTimeout(
            () =>
              reject(
                new BroadcastError(
                  'timeout',
                  `no server within ${String(timeout)} ms; the client goes on trying until it is closed`,
                ),
              ),
            timeout,
          );
    promise.then(resolve, reject).finally(() => {
      timer?.cancel();
      signal?.removeEventListener('abort', aborted);
    });
  });
}
