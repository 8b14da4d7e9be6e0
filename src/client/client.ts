/** `BroadcastTcpClient`: ties the parts of the client together. What they do is in the other files of this folder. */
import { randomBytes } from 'node:crypto';
import type { SenderIdentity } from '../batch.js';
import { resolveClientConfig, type ClientConfig, type ResolvedClientConfig } from '../config.js';
import { BroadcastError } from '../errors.js';
import { CallbackSet, Events, type Unsubscribe } from '../events.js';
import { processIdPrefix, type BroadcastMessage } from '../message.js';
import { checkClientName, checkName } from '../names.js';
import { machineIdentity } from '../process-identity.js';
import { FRAME } from '../protocol/constants.js';
import * as frames from '../protocol/frames.js';
import { RangeSet } from '../range-set.js';
import type { DeliveryFailure, Receipt, SendOptions } from '../receipts.js';
import { atMost, checkOptions, checkSignal, checkTimeout, limited, quiet, rejected, Waiters } from '../waiters.js';
import { BroadcastClient, type ClientEvents, type ConnectionState } from './broadcast-client.js';
import { Connector, type ConnectorHost } from './connector.js';
import { Deliveries } from './deliveries.js';
import { departuresOf, forgetDepartures, noteDeparture } from './departed.js';
import { checkHandlerOptions, type HandlerOptions, type MessageHandler } from './handlers.js';
import { Incoming } from './incoming.js';
import type { Outbox } from './outbox.js';
import { Requests } from './requests.js';
import { Sending } from './sending.js';
import { Subscriptions } from './subscriptions.js';

const CLOSE_TIMEOUT = 5000;
/** Ranges in one frame. */
const MAX_RANGES = 8192;

/**
 * A client over TCP or a Unix socket.
 * @example
 * const client = new BroadcastTcpClient({ host: 'localhost', port: 9000 }, 'orders');
 * client.onMessage('paid', message => ship(message.data));
 * await client.connect();
 */
export class BroadcastTcpClient extends BroadcastClient {
  /**
   * The client's name, given or generated.
   * @example
   * console.log('connected as', client.name);
   */
  readonly name: string;
  readonly #config: ResolvedClientConfig;
  readonly #isGenerated: boolean;
  readonly #identity: SenderIdentity;
  readonly #events: Events<ClientEvents>;
  readonly #failureHandlers = new CallbackSet<[DeliveryFailure]>();
  readonly #connector: Connector;
  readonly #requests: Requests;
  readonly #subscriptions: Subscriptions;
  readonly #deliveries: Deliveries;
  readonly #sending: Sending;
  readonly #outbox: Outbox;
  readonly #incoming: Incoming;
  /** Whoever leaves looks again when one of these has happened: a handler or a message has ended, the connection too. */
  readonly #progress = new Waiters();
  /** Numbers of kept notices that the application has had, in this store, and those that the server does not know of. */
  readonly #notices = new RangeSet();
  readonly #noted = new RangeSet();
  #state: ConnectionState = 'offline';
  #store = '';
  /** The run of the server that last welcomed it: what it has written since went there. */
  #boot = '';
  /** Others of its name in this process that are gone, as its last introduction said. */
  #departed: readonly string[] = [];
  /** Introductions that were made: the server tells a late one from the newest. */
  #connections = 0;
  #refusal: BroadcastError | undefined;
  #closed: Promise<void> | undefined;
  #hasSaidGoodbye = false;
  #hasServerLeft = false;
  /** The server knows that it is gone. */
  #isParted = false;

  /**
   * Connects nowhere yet: that is what `connect` is for. Throws `invalid-option`, `invalid-name`.
   * @param name the client's name; default `clientName` of the options, else one is generated
   * @example
   * const client = new BroadcastTcpClient({ host: 'localhost', port: 9000 }, 'orders');
   */
  constructor(config: ClientConfig = {}, name?: string) {
    super();
    this.#config = resolveClientConfig(config);
    const given = name ?? this.#config.clientName ?? '';
    this.#isGenerated = given === '';
    this.name = this.#isGenerated ? `anonymous-${randomBytes(9).toString('base64url')}` : given;
    checkClientName(this.name, this.#config.limits.nameBytes);
    this.#identity = { instance: randomBytes(16).toString('hex'), name: this.name };
    this.#events = new Events(this, this.#config.logger);
    this.#connector = new Connector(this.#config, this.#connectorHost());
    this.#requests = new Requests(frame => this.#connector.send(frame));
    this.#subscriptions = this.#newSubscriptions();
    this.#deliveries = this.#newDeliveries();
    this.#sending = this.#newSending();
    this.#outbox = this.#sending.outbox;
    this.#incoming = this.#newIncoming();
  }

  // ---- the parts and what they need ------------------------------------------------------------------------------------------

  #connectorHost(): ConnectorHost {
    return {
      connecting: () => this.#connecting(),
      hello: store => this.#hello(store),
      welcomed: welcome => this.#welcomed(welcome),
      frame: (type, frame) => this.#incoming.take(type, frame),
      flushing: () => this.#flushing(),
      lost: error => this.#lost(error),
      skipped: error => this.#events.emit('refused', error),
      refused: error => this.#refused(error),
    };
  }

  #newSubscriptions(): Subscriptions {
    const connector = this.#connector;
    return new Subscriptions({
      clock: this.#config.clock,
      maxAttempts: this.#config.maxAttempts,
      requests: this.#requests,
      get isOnline() {
        return connector.isOnline;
      },
      handlerError: (channel, error, message) => this.#handlerError(channel, error, message),
      idle: () => this.#progress.release(),
      beginning: () => this.#deliveries.look(),
      giveBack: rest => this.#deliveries.giveBack(rest),
      refused: (channel, error) => this.#subscriptionRefused(channel, error),
    });
  }

  #newDeliveries(): Deliveries {
    return new Deliveries({
      clock: this.#config.clock,
      takers: channel => this.#subscriptions.takers(channel),
      mayBeGivenUp: () => this.#connector.mayBeGivenUp,
      wake: () => this.#connector.wake(),
      hurry: () => this.#connector.hurry(),
      fail: frame => this.#connector.send(frames.encodeFail(frame)),
      reject: frame => this.#connector.send(frames.encodeReject(frame)),
      release: ranges => this.#connector.send(frames.encodeRanges(FRAME.RELEASE, ranges)),
      logger: this.#config.logger,
    });
  }

  #newSending(): Sending {
    const { clock, logger, limits } = this.#config;
    return new Sending({
      clock,
      logger,
      limits,
      identity: this.#identity,
      aliases: {
        channel: name => this.#incoming.aliases.channel(name),
        client: name => this.#incoming.aliases.client(name),
      },
      send: piece => this.#connector.send(piece),
      wake: () => this.#connector.wake(),
      failed: failure => this.#reportFailure(failure),
      drained: () => this.#events.emit('drain'),
      emptied: () => this.#progress.release(),
    });
  }

  #newIncoming(): Incoming {
    return new Incoming({
      deliveries: this.#deliveries,
      outbox: this.#outbox,
      requests: this.#requests,
      subscriptions: this.#subscriptions,
      failure: frame => this.#onFailure(frame),
      goodbye: text => this.#onGoodbye(text),
      wake: () => this.#connector.wake(),
    });
  }

  // ---- connecting ------------------------------------------------------------------------------------------------------------

  connect(options: { signal?: AbortSignal; timeout?: number } = {}): Promise<void> {
    if (this.#closed !== undefined) return rejected(closedError('make a new one to connect again'));
    try {
      checkOptions(options, 'connect', ['signal', 'timeout']);
      checkTimeout(options.timeout);
      checkSignal(options.signal);
    } catch (error) {
      return rejected(error as BroadcastError);
    }
    this.#refusal = undefined;
    const inForce = this.#requests.flush(0).then(() => this.#subscriptions.check());
    this.#connector.start();
    this.#connector.wake();
    const patient = limited(inForce, options, this.#config.clock, 'the client goes on trying until it is closed');
    return quiet(patient);
  }

  #connecting(): void {
    if (this.#state === 'offline') this.#state = 'connecting';
  }

  #hello(store: string): frames.Hello {
    this.#departed = departuresOf(this.name);
    const host = machineIdentity();
    return {
      generated: this.#isGenerated,
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
      extensions: frames.helloExtensions(++this.#connections, this.#departed),
    };
  }

  /** Everything that the server must know follows its WELCOME, in the order in which it was asked for. */
  #welcomed({ limits, ...welcome }: frames.Welcome): void {
    const isSameStore = this.#store === welcome.store;
    this.#store = welcome.store;
    // A run that knows it from a connection whose WELCOME was lost has been written nothing.
    const sameRun = this.#boot === welcome.boot;
    const known = welcome.known && sameRun;
    this.#boot = welcome.boot;
    forgetDepartures(welcome.store, this.name, this.#departed);
    if (!isSameStore) this.#forgetStore();
    this.#incoming.renew();
    this.#deliveries.renew(isSameStore, this.#subscriptions.all(), limits);
    this.#requests.online();
    this.#subscriptions.online();
    this.#sendRanges(FRAME.TRACK, this.#outbox.trackedPositions());
    this.#outbox.online({ ...limits, ...welcome, known, sameRun });
    this.#sending.adopt(limits);
    this.#outbox.pump();
    this.#requests.pump(this.#outbox.writtenBelow);
    if (this.#state !== 'closing') this.#state = 'online';
    this.#events.emit('online');
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

  #lost(error: BroadcastError | undefined): void {
    this.#outbox.offline();
    this.#requests.offline();
    if (this.#state === 'online') this.#state = 'offline';
    this.#events.emit('offline', error);
    this.#progress.release();
  }

  /** The server has refused for good. */
  #refused(error: BroadcastError): void {
    this.#refusal = error;
    if (this.#state === 'connecting' || this.#state === 'online') this.#state = 'offline';
    this.#config.logger.error(`the server refused "${this.name}" for good (${error.code})`, error);
    this.#events.emit('refused', error);
    this.#requests.rejectAll(error);
    this.#sending.refuse(error);
    this.#progress.release();
  }

  #subscriptionRefused(channel: string, error: BroadcastError): void {
    this.#config.logger.error(`the server refused the subscription to "${channel}" (${error.code})`, error);
    this.#events.emit('refused', error);
  }

  /** The turn ends: what has gathered leaves with it. */
  #flushing(): void {
    const acks = this.#deliveries.takeAcks();
    if (acks !== undefined) this.#connector.send(frames.encodeRanges(FRAME.ACK, acks));
    this.#outbox.pump();
    const floor = this.#outbox.takeFloor();
    if (floor !== undefined) this.#connector.send(frames.encodeSettled(floor));
    this.#requests.pump(this.#outbox.writtenBelow);
    if (this.#noted.isEmpty) return;
    this.#sendRanges(FRAME.NOTED, [...this.#noted.ranges()]);
    this.#noted.clear();
  }

  /** In several frames when they are many: a frame has a longest length (docs/protocol.md, 2.2). */
  #sendRanges(type: number, ranges: readonly { first: number; count: number }[]): void {
    for (let i = 0; i < ranges.length; i += MAX_RANGES)
      this.#connector.send(frames.encodeRanges(type, ranges.slice(i, i + MAX_RANGES)));
  }

  // ---- sending ---------------------------------------------------------------------------------------------------------------

  sendMessage(message: BroadcastMessage, options?: SendOptions): Promise<Receipt> {
    if (this.#closed !== undefined) return rejected(closedError('it sends nothing any more'));
    return this.#sending.send(message, options);
  }

  get outbox(): {
    /** How many messages. */
    readonly messages: number;
    /** Their size in bytes. */
    readonly bytes: number;
    /** True when a message of the largest size might be refused with `outbox-full`. */
    readonly full: boolean;
  } {
    return this.#outbox;
  }

  ready(): Promise<void> {
    if (this.#closed !== undefined) return rejected(closedError('it sends nothing any more'));
    return this.#sending.ready(this.#refusal);
  }

  flush(): Promise<void> {
    const error = this.#cannotAsk();
    if (error !== undefined) return rejected(error);
    const done = this.#requests.flush(this.#outbox.nextPosition).then(() => this.#subscriptions.check());
    this.#connector.wake();
    return quiet(done);
  }

  /** Why the server cannot be asked for anything, now and later. */
  #cannotAsk(): BroadcastError | undefined {
    return this.#closed !== undefined ? closedError('it asks for nothing any more') : this.#refusal;
  }

  // ---- failures --------------------------------------------------------------------------------------------------------------

  onDeliveryFailure(handler: (failure: DeliveryFailure) => unknown): Unsubscribe {
    if (typeof handler !== 'function')
      throw new BroadcastError('invalid-argument', 'onDeliveryFailure takes a function');
    return this.#failureHandlers.add(handler);
  }

  #onFailure({ failure, position, notice }: frames.FailureFrame): void {
    if (notice > 0) {
      this.#noted.add(notice, 1);
      this.#connector.wake();
      // It comes again until the server has heard that it was read.
      if (this.#notices.addNew(notice, 1).length === 0) return;
    }
    if (position > 0 && !this.#outbox.attach(position, failure, notice > 0)) return;
    this.#reportFailure(failure);
  }

  #reportFailure(failure: DeliveryFailure): void {
    for (const handler of this.#failureHandlers) this.#events.call('a failure handler', handler, failure);
    this.#events.emit('failure', failure);
  }

  // ---- receiving -------------------------------------------------------------------------------------------------------------

  /**
   * Handles a channel's messages, and subscribes the client's name to it; again for the same channel adds a handler.
   * Returns a function that takes the handler away; the name's subscription stays. Throws `invalid-argument`,
   * `invalid-name`, `invalid-option`, `closed`.
   * @example
   * client.onMessage('orders', async message => ship(message.data), { concurrency: 10 });
   */
  onMessage<D = unknown>(channel: string, handler: MessageHandler<D>, options?: HandlerOptions): Unsubscribe;
  /**
   * Handles what is addressed to the client itself or to everyone. Throws `invalid-argument`, `invalid-option`, `closed`.
   * @example
   * client.onMessage(message => console.log(message.sender, message.data));
   */
  onMessage<D = unknown>(handler: MessageHandler<D>, options?: HandlerOptions): Unsubscribe;
  onMessage(...args: unknown[]): Unsubscribe {
    const isOwn = typeof args[0] === 'function';
    const [channel, handler, options = {}] = isOwn ? ['', args[0], args[1]] : args;
    if (typeof handler !== 'function')
      throw new BroadcastError('invalid-argument', 'onMessage takes a channel and a handler, or a handler alone');
    if (!isOwn) checkName(channel, 'the channel', this.#config.limits.nameBytes);
    if (this.#closed !== undefined) throw closedError('it handles nothing any more');
    return this.#subscriptions.add(channel as string, handler as MessageHandler, checkHandlerOptions(options));
  }

  unsubscribe(channel: string): Promise<void> {
    try {
      checkName(channel, 'the channel', this.#config.limits.nameBytes);
    } catch (error) {
      return rejected(error as BroadcastError);
    }
    const error = this.#cannotAsk();
    return error === undefined ? this.#subscriptions.unsubscribe(channel) : rejected(error);
  }

  get subscriptions(): readonly string[] {
    return this.#subscriptions.held;
  }

  #handlerError(channel: string, error: unknown, message: BroadcastMessage): void {
    const where = channel === '' ? 'for the client itself' : `of "${channel}"`;
    this.#config.logger.warn(`a handler ${where} failed on message ${message.id}`, error);
    this.#events.emit('handlerError', error, message);
  }

  // ---- leaving ---------------------------------------------------------------------------------------------------------------

  close(options: { timeout?: number } = {}): Promise<void> {
    if (this.#closed !== undefined) return this.#closed;
    try {
      checkOptions(options, 'close', ['timeout']);
      checkTimeout(options.timeout);
    } catch (error) {
      return rejected(error as BroadcastError);
    }
    const { timeout = CLOSE_TIMEOUT } = options;
    this.#state = 'closing';
    this.#closed = this.#close(timeout);
    return this.#closed;
  }

  async #close(timeout: number): Promise<void> {
    await atMost(this.#leave(), timeout, this.#config.clock);
    const error = closedError('this was not settled, and its outcome is unknown');
    this.#subscriptions.abort(error);
    this.#sayGoodbye();
    this.#connector.stop();
    this.#sending.close(error);
    this.#requests.rejectAll(error);
    if (this.#boot !== '' && !this.#isParted && !this.#isGenerated)
      noteDeparture(this.#store, this.name, this.#identity.instance);
    this.#state = 'closed';
  }

  async #leave(): Promise<void> {
    this.#subscriptions.stop();
    await this.#until(() => this.#subscriptions.isIdle);
    await this.#until(() => this.#outbox.messages === 0 || !this.#connector.isRunning);
    if (!this.#connector.isOnline) return;
    this.#sayGoodbye();
    await this.#until(() => this.#hasServerLeft || !this.#connector.isOnline);
    this.#connector.stop();
    await this.#until(() => !this.#connector.isConnected);
  }

  async #until(isSo: () => boolean): Promise<void> {
    while (!isSo()) await this.#progress.wait();
  }

  /** The last word, behind the acknowledgements. */
  #sayGoodbye(): void {
    if (!this.#connector.isOnline || this.#hasSaidGoodbye) return;
    this.#hasSaidGoodbye = true;
    this.#flushing();
    this.#connector.send(frames.encodeGoodbye({ finished: this.#isGenerated, text: '' }));
  }

  #onGoodbye(text: string): void {
    this.#hasServerLeft = true;
    // One that stops says so, and may not have read our word; the answer to that says nothing.
    this.#isParted = this.#hasSaidGoodbye && text === '';
    this.#progress.release();
  }

  /**
   * Closes the client at the end of an `await using` block.
   * @example
   * await using client = new BroadcastTcpClient({ port: 9000 }, 'orders');
   * await client.connect();
   */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  get state(): ConnectionState {
    return this.#state;
  }

  // ---- events ----------------------------------------------------------------------------------------------------------------

  on<E extends keyof ClientEvents>(event: E, listener: (...args: ClientEvents[E]) => void): this {
    this.#events.on(event, listener);
    return this;
  }

  once<E extends keyof ClientEvents>(event: E, listener: (...args: ClientEvents[E]) => void): this {
    this.#events.once(event, listener);
    return this;
  }

  off<E extends keyof ClientEvents>(event: E, listener: (...args: ClientEvents[E]) => void): this {
    this.#events.off(event, listener);
    return this;
  }
}

function closedError(text: string): BroadcastError {
  return new BroadcastError('closed', `the client is closed; ${text}`);
}
