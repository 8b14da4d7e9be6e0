/** `BroadcastTcpServer`: the public face of the server. Thin: connections are in peer.ts, everything else is the broker's. */
import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import type { Batch } from '../batch.js';
import { Broker } from '../broker/broker.js';
import type { DeadBatch } from '../broker/dead-letters.js';
import type { Instance } from '../broker/model.js';
import type { Timer } from '../clock.js';
import { resolveServerConfig, type ResolvedServerConfig, type ServerConfig } from '../config.js';
import { diskEngine } from '../engine/disk/disk-engine.js';
import { isEngine, type Engine } from '../engine/engine.js';
import { memoryEngine } from '../engine/memory/memory-engine.js';
import { BroadcastError } from '../errors.js';
import { CallbackSet, Events, type Unsubscribe } from '../events.js';
import type { BroadcastMessage } from '../message.js';
import { isAlive, processHere } from '../process-identity.js';
import type { DeliveryFailure, Receipt, SendOptions } from '../receipts.js';
import { ReceivedBatch } from '../received.js';
import { parseEndpoint, type Address } from '../transport/endpoint.js';
import { Heart } from '../transport/heart.js';
import { atMost, checkOptions, checkTimeout, quiet, rejected, Waiters } from '../waiters.js';
import { Addresses } from './addresses.js';
import { administrate } from './admin.js';
import { Aliases } from './aliases.js';
import {
  BroadcastServer,
  type BroadcastPeer,
  type DeadLetter,
  type ServerEvents,
  type ServerStats,
  type SessionInfo,
} from './broadcast-server.js';
import { Complaints } from './complaints.js';
import { Descriptors } from './descriptors.js';
import type { Hub, HubPeer } from './hub.js';
import { Listener } from './listener.js';
import { LocalSender } from './local-sender.js';
import { Peer } from './peer.js';
import { Suspects } from './suspects.js';

const STOP_TIMEOUT = 5000;

type State = 'new' | 'starting' | 'running' | 'stopping' | 'stopped';

/**
 * A server over TCP or a Unix socket.
 *
 * @example
 * const server = new BroadcastTcpServer({ port: 9000, dataDir: './data' });
 * await server.start();
 */
export class BroadcastTcpServer extends BroadcastServer {
  readonly #config: ResolvedServerConfig;
  readonly #wanted: Address;
  readonly #engine: Engine;
  readonly #events: Events<ServerEvents>;
  readonly #hub: Hub;
  readonly #suspects: Suspects;
  readonly #listener: Listener;
  readonly #descriptors: Descriptors;
  readonly #observers = new CallbackSet<[BroadcastMessage, BroadcastPeer]>();
  readonly #failureHandlers = new CallbackSet<[DeliveryFailure]>();
  /** Who waits for connections to end. */
  readonly #gone = new Waiters();
  #local: LocalSender | undefined;
  #state: State = 'new';
  #started: Promise<void> | undefined;
  #stopped: Promise<void> | undefined;
  #startedAt = 0;
  #relisten: Timer | undefined;

  /**
   * Listens nowhere yet: that is what `start` is for. Throws `invalid-option`, `engine-invalid`.
   * @example
   * const server = new BroadcastTcpServer({ port: 9000, dataDir: './data' });
   */
  constructor(config: ServerConfig = {}) {
    super();
    this.#config = resolveServerConfig(config);
    this.#wanted = parseEndpoint(this.#config.endpoint);
    this.#events = new Events(this, this.#config.logger);
    this.#engine = this.#chooseEngine();
    const broker = this.#newBroker();
    const { clock, instanceGrace, deadAfter } = this.#config;
    this.#suspects = new Suspects(clock, Math.max(instanceGrace, deadAfter), instance => broker.died(instance));
    this.#hub = this.#newHub(broker);
    this.#descriptors = new Descriptors(clock);
    this.#listener = new Listener(
      socket => this.#onSocket(socket),
      error => this.#listenerFailed(error),
    );
  }

  // ---- the parts and what they need --------------------------------------------------------------------------------------

  #newBroker(): Broker {
    const { clock, limits, logger, storeAfter, instanceGrace, deadAfter } = this.#config;
    return new Broker({
      engine: this.#engine,
      clock,
      limits,
      storeAfter,
      instanceGrace,
      deadAfter,
      isRunning: process => {
        const here = processHere(process);
        return here !== undefined && isAlive(here);
      },
      logger,
      events: {
        subscribed: (instance, channel) => this.#emitFor('subscribe', instance, channel),
        unsubscribed: (instance, channel) => this.#emitFor('unsubscribe', instance, channel),
        failure: failure => this.#events.emit('failure', failure),
        restored: instance => this.#lookForProcess(instance),
        senderGone: instance => this.#senderGone(instance),
        engineFailed: error => this.#engineFailed(error),
      },
    });
  }

  #newHub(broker: Broker): Hub {
    const { clock, logger, deadAfter, pingInterval } = this.#config;
    const complaints = new Complaints(clock, logger);
    return {
      config: this.#config,
      broker,
      aliases: new Aliases(),
      addresses: new Addresses(),
      heart: new Heart(clock, pingInterval, deadAfter),
      boot: randomBytes(16).toString('hex'),
      peers: new Set(),
      counters: { bytesIn: 0, bytesOut: 0 },
      stopping: false,
      gone: () => this.#gone.release(),
      welcomed: peer => this.#events.emit('connect', peerOf(peer)),
      left: (peer, reason) => this.#events.emit('disconnect', peerOf(peer), reason),
      suspect: (instance, process) => this.#suspects.add(instance, process),
      complain: (address, code, text) => complaints.add(address, code, text),
      admin: (verb, args, asker) => administrate(this, verb, args, { description: this.#describe(), asker }),
    };
  }

  #chooseEngine(): Engine {
    const { engine, dataDir } = this.#config;
    if (engine !== undefined) {
      if (!isEngine(engine))
        throw new BroadcastError(
          'engine-invalid',
          'the object given as engine does not have the shape of one; see docs/engines.md',
        );
      return engine;
    }
    return dataDir === undefined ? memoryEngine() : diskEngine({ directory: dataDir });
  }

  #describe(): Record<string, unknown> {
    return {
      engine: this.#engine.kind,
      durability: this.#engine.durability,
      dataDir: this.#config.dataDir,
      address: this.address,
      pid: process.pid,
    };
  }

  // ---- life --------------------------------------------------------------------------------------------------------------

  start(): Promise<void> {
    if (this.#state !== 'new')
      return rejected(
        new BroadcastError('already-started', 'the server was started before; make a new one to start again'),
      );
    this.#state = 'starting';
    this.#started = quiet(this.#start());
    return this.#started;
  }

  async #start(): Promise<void> {
    const { broker } = this.#hub;
    const { clock, limits } = this.#config;
    try {
      await broker.open();
      this.#local = new LocalSender(
        broker,
        limits,
        () => clock.now(),
        failure => this.#onLocalFailure(failure),
      );
      await this.#listener.listen(this.#wanted);
    } catch (error) {
      this.#state = 'stopped';
      this.#config.logger.error('the server could not be started', error);
      await broker.close().catch(() => undefined);
      throw error;
    }
    this.#startedAt = clock.monotonic();
    this.#state = 'running';
    this.#events.emit('listening');
  }

  stop(options: { timeout?: number } = {}): Promise<void> {
    if (this.#stopped !== undefined) return this.#stopped;
    try {
      checkOptions(options, 'stop', ['timeout']);
      checkTimeout(options.timeout);
    } catch (error) {
      return rejected(error as BroadcastError);
    }
    const { timeout = STOP_TIMEOUT } = options;
    this.#stopped = this.#stop(timeout);
    return this.#stopped;
  }

  async #stop(timeout: number): Promise<void> {
    if (this.#state === 'new') this.#state = 'stopped';
    await this.#started?.catch(() => undefined);
    if (this.#state !== 'running') return;
    this.#state = 'stopping';
    this.#hub.stopping = true;
    this.#relisten?.cancel();
    this.#suspects.stop();
    await this.#listener.close();
    await atMost(this.#drain(), timeout, this.#config.clock);
    for (const peer of this.#hub.peers) peer.destroy();
    this.#local?.close();
    this.#state = 'stopped';
  }

  async #drain(): Promise<void> {
    await this.#hub.broker.close();
    for (const peer of this.#hub.peers) peer.sayGoodbye('the server is stopping');
    while (this.#hub.peers.size > 0) await this.#gone.wait();
  }

  /**
   * Stops the server at the end of an `await using` block.
   * @example
   * await using server = new BroadcastTcpServer({ port: 9000 });
   * await server.start();
   */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #listenerFailed(error: Error): void {
    const { logger, reconnectInterval } = this.#config;
    logger.error(`listening failed, trying again every ${String(reconnectInterval)} ms`, error);
    this.#listenLater(this.#listener.address ?? this.#wanted);
  }

  #listenLater(address: Address): void {
    const { clock, reconnectInterval } = this.#config;
    this.#relisten = clock.setTimeout(() => {
      if (this.#hub.stopping) return;
      this.#listener.listenAgain(address).then(
        () => this.#events.emit('listening'),
        () => this.#listenLater(address),
      );
    }, reconnectInterval);
  }

  /** A store that failed is not trusted again: nothing further is accepted, and everybody is told why. */
  #engineFailed(error: Error): void {
    this.#config.logger.error('the store has failed; the server accepts nothing further', error);
    this.#events.emit('engineError', error);
    this.#hub.stopping = true;
    void this.#listener.close();
    for (const peer of this.#hub.peers) peer.end('store-failed', error.message);
  }

  // ---- connections ---------------------------------------------------------------------------------------------------------

  #onSocket(socket: Socket): void {
    const room = this.#descriptors.roomFor(socket);
    if (room === 'none') {
      this.#hub.complain(String(socket.remoteAddress), 'server-busy', this.#descriptors.complaint);
      socket.destroy();
      return;
    }
    const peer = new Peer(this.#hub, socket);
    const { connections } = this.#config.limits;
    if (this.#hub.stopping) peer.end('shutting-down', 'the server is stopping');
    else if (room === 'few') peer.end('server-busy', this.#descriptors.complaint);
    else if (this.#hub.peers.size > connections)
      peer.end('too-many-connections', `the server has ${String(connections)} connections (limits.connections)`);
  }

  /** An instance of before the restart: if its process ran on this machine and is gone, nobody waits for it. */
  #lookForProcess({ id, process }: Instance): void {
    const here = processHere(process);
    if (here === undefined) return;
    // In a turn of its own: the broker is being restored.
    this.#config.clock.setTimeout(() => this.#suspects.add(id, here), 0);
  }

  #senderGone(instance: string): void {
    for (const alias of this.#hub.aliases.removeSender(instance)) {
      for (const peer of this.#hub.peers) peer.unalias(alias);
    }
  }

  // ---- messages ------------------------------------------------------------------------------------------------------------

  onMessage(handler: (message: BroadcastMessage, peer: BroadcastPeer) => unknown): Unsubscribe {
    checkCallback(handler, 'onMessage');
    const remove = this.#observers.add(handler);
    const { broker } = this.#hub;
    broker.observer = (batch, instance) => this.#observe(batch, instance);
    return () => {
      remove();
      if (this.#observers.size === 0) broker.observer = undefined;
    };
  }

  #observe(batch: Batch, instance: Instance): void {
    const peer = peerOfInstance(instance);
    const messages = new ReceivedBatch(batch);
    for (let i = 0; i < batch.count; i++) {
      const message = messages.lazyMessage(i);
      for (const observer of this.#observers) this.#events.call('an observer', observer, message, peer);
    }
  }

  sendMessage(message: BroadcastMessage, options: SendOptions = {}): Promise<Receipt> {
    if (this.#local === undefined || this.#state !== 'running')
      return rejected(new BroadcastError('closed', 'the server is not running; call start() first'));
    return this.#local.send(message, options);
  }

  onDeliveryFailure(handler: (failure: DeliveryFailure) => unknown): Unsubscribe {
    checkCallback(handler, 'onDeliveryFailure');
    return this.#failureHandlers.add(handler);
  }

  #onLocalFailure(failure: DeliveryFailure): void {
    for (const handler of this.#failureHandlers) this.#events.call('a failure handler', handler, failure);
  }

  // ---- looking -------------------------------------------------------------------------------------------------------------

  get address(): BroadcastServer['address'] {
    return this.#state === 'running' ? (this.#listener.address ?? null) : null;
  }

  get clients(): readonly BroadcastPeer[] {
    return [...this.#hub.peers].filter(peer => peer.instance !== undefined).map(peerOf);
  }

  get channels(): readonly string[] {
    return this.#hub.broker.channels();
  }

  stats(): ServerStats {
    let { bytesIn, bytesOut } = this.#hub.counters;
    for (const { traffic } of this.#hub.peers) {
      bytesIn += traffic.bytesIn;
      bytesOut += traffic.bytesOut;
    }
    const uptime = this.#state === 'running' ? Math.round(this.#config.clock.monotonic() - this.#startedAt) : 0;
    return { ...this.#hub.broker.stats(), clients: this.clients.length, bytesIn, bytesOut, uptime };
  }

  sessions(): Promise<readonly SessionInfo[]> {
    return Promise.resolve(this.#hub.broker.sessions());
  }

  forget(name: string): Promise<void> {
    return quiet(this.#hub.broker.forget(name));
  }

  deadLetters(name: string): ReturnType<BroadcastServer['deadLetters']> {
    const { broker } = this.#hub;
    return {
      list: limit => quiet(broker.listDeadLetters(name, limit).then(letters => letters.map(deadLetterOf))),
      retry: id => quiet(broker.retryDeadLetter(name, id)),
      drop: id => quiet(broker.dropDeadLetter(name, id)),
    };
  }

  // ---- events --------------------------------------------------------------------------------------------------------------

  on<E extends keyof ServerEvents>(event: E, listener: (...args: ServerEvents[E]) => void): this {
    this.#events.on(event, listener);
    return this;
  }

  once<E extends keyof ServerEvents>(event: E, listener: (...args: ServerEvents[E]) => void): this {
    this.#events.once(event, listener);
    return this;
  }

  off<E extends keyof ServerEvents>(event: E, listener: (...args: ServerEvents[E]) => void): this {
    this.#events.off(event, listener);
    return this;
  }

  #emitFor(event: 'subscribe' | 'unsubscribe', instance: Instance | undefined, channel: string): void {
    if (instance !== undefined) this.#events.emit(event, peerOfInstance(instance), channel);
  }
}

function checkCallback(callback: unknown, method: string): void {
  if (typeof callback !== 'function') throw new BroadcastError('invalid-argument', `${method} takes a function`);
}

function peerOf(peer: HubPeer): BroadcastPeer {
  return { name: peer.name, instance: peer.instance?.id ?? '', address: peer.address };
}

function peerOfInstance({ session, id, outlet }: Instance): BroadcastPeer {
  return { name: session.name, instance: id, address: outlet?.address ?? '' };
}

function deadLetterOf({ id, batch, reason, attempts, at }: DeadBatch): DeadLetter {
  return { id, message: new ReceivedBatch(batch).lazyMessage(0), reason, attempts, at };
}
