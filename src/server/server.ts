/** `BroadcastServer` and `BroadcastTcpServer`: the public face of the server. Thin: connections are in peer.ts, everything else is the broker's. */
import { randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { idCounterAt, itemOffsets, type Batch } from '../batch.js';
import { decodeBody } from '../body/index.js';
import { Broker } from '../broker/broker.js';
import type { DeadBatch } from '../broker/dead-letters.js';
import type { Instance } from '../broker/model.js';
import type { Timer } from '../clock.js';
import { resolveServerConfig, type ResolvedServerConfig, type ServerConfig } from '../config.js';
import { diskEngine } from '../engine/disk/disk-engine.js';
import { isEngine, type Engine } from '../engine/engine.js';
import { memoryEngine } from '../engine/memory/memory-engine.js';
import { BroadcastError } from '../errors.js';
import { formatId, lazyMessage, type BroadcastMessage } from '../message.js';
import { isAlive, machineIdentity } from '../process-identity.js';
import type { DeliveryFailure, Receipt, SendOptions } from '../receipts.js';
import { parseEndpoint } from '../transport/endpoint.js';
import { Heart } from '../transport/heart.js';
import { administrate } from './admin.js';
import { Aliases } from './aliases.js';
import type { Hub, HubPeer } from './hub.js';
import { Listener } from './listener.js';
import { LocalSender } from './local-sender.js';
import { Peer } from './peer.js';

/** A client that is connected, as the server sees it. */
export interface BroadcastPeer {
  /** The client's name. */
  readonly name: string;
  /** The id of its instance: one process's client object. */
  readonly instance: string;
  /** Its address, `host:port`. */
  readonly address: string;
}

/** The server's events. */
export interface ServerEvents {
  listening: [];
  connect: [BroadcastPeer];
  disconnect: [peer: BroadcastPeer, reason: string];
  subscribe: [peer: BroadcastPeer, channel: string];
  unsubscribe: [peer: BroadcastPeer, channel: string];
  failure: [DeliveryFailure];
  engineError: [error: Error];
}

/** A message that no handler of a name would take. */
export interface DeadLetter {
  id: string;
  message: BroadcastMessage;
  reason: string;
  attempts: number;
  at: number;
}

/** What the server keeps for a name. */
export interface SessionInfo {
  name: string;
  instances: number;
  subscriptions: readonly string[];
  queued: number;
  queuedBytes: number;
  deadLetters: number;
  lastSeen: number;
}

/** Counters since the start and sizes now. */
export interface ServerStats {
  clients: number;
  sessions: number;
  channels: number;
  messagesIn: number;
  messagesOut: number;
  bytesIn: number;
  bytesOut: number;
  stored: number;
  queued: number;
  backlog: number;
  failures: number;
  deadLetters: number;
  uptime: number;
}

/** Ends an observation or subscription of a callback. */
export type Unsubscribe = () => void;

/** What every Broadcast server can do, whatever its transport. */
export abstract class BroadcastServer {
  /** Opens the store and listens. Rejects with `address-in-use`, `address-unavailable`, `store-locked`, `store-foreign`, `store-newer`, `store-unreadable`, `already-started`. */
  abstract start(): Promise<void>;
  /** Drains, tells the clients, frees the address. Idempotent; at most `timeout`, 5 000 ms by default. */
  abstract stop(options?: { timeout?: number }): Promise<void>;
  /** Observes every message that clients send, in order, before it is routed. Called, not awaited; cannot veto. */
  abstract onMessage(handler: (message: BroadcastMessage, peer: BroadcastPeer) => unknown): Unsubscribe;
  /** Sends a message from the server itself. Rejects with `data-not-cloneable`, `invalid-name`, `message-too-large`, `aborted`, `closed`. */
  abstract sendMessage(message: BroadcastMessage, options?: SendOptions): Promise<Receipt>;
  /** Hears of messages of the server itself that do not reach a recipient now, or never will. */
  abstract onDeliveryFailure(handler: (failure: DeliveryFailure) => unknown): Unsubscribe;
  /** Where it listens, or null. */
  abstract readonly address: { host: string; port: number } | { path: string } | null;
  /** The clients that are connected. */
  abstract readonly clients: readonly BroadcastPeer[];
  /** The channels that somebody subscribes to. */
  abstract readonly channels: readonly string[];
  /** Counters and sizes. */
  abstract stats(): ServerStats;
  /** The names that the server keeps. */
  abstract sessions(): Promise<readonly SessionInfo[]>;
  /** Ends a session: queue, subscriptions, dead letters; senders hear `dropped`. Rejects with `not-found`. */
  abstract forget(name: string): Promise<void>;
  /** The dead letters of a name; `retry` and `drop` reject with `not-found`. */
  abstract deadLetters(name: string): {
    list(limit?: number): Promise<readonly DeadLetter[]>;
    retry(id: string): Promise<void>;
    drop(id: string): Promise<void>;
  };
  abstract on<E extends keyof ServerEvents>(event: E, listener: (...args: ServerEvents[E]) => void): this;
  abstract once<E extends keyof ServerEvents>(event: E, listener: (...args: ServerEvents[E]) => void): this;
  abstract off<E extends keyof ServerEvents>(event: E, listener: (...args: ServerEvents[E]) => void): this;
  /** `await using`. */
  abstract [Symbol.asyncDispose](): Promise<void>;
}

const STOP_TIMEOUT = 5000;
/** How often a lost instance's process is looked at, at first and later. */
const LOOK_AT_PROCESS = [20, 50, 100, 250, 500, 1000] as const;
const MAX_COMPLAINTS = 1024;

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
  readonly #engine: Engine;
  readonly #emitter = new EventEmitter();
  readonly #hub: Hub;
  readonly #listener: Listener;
  readonly #observers = new Set<(message: BroadcastMessage, peer: BroadcastPeer) => unknown>();
  readonly #failureHandlers = new Set<(failure: DeliveryFailure) => unknown>();
  readonly #complaints = new Map<string, number>();
  #local: LocalSender | undefined;
  #state: State = 'new';
  #stopped: Promise<void> | undefined;
  #startedAt = 0;
  #relisten: Timer | undefined;

  /** Throws `invalid-option`, `engine-invalid`. */
  constructor(config: ServerConfig = {}) {
    super();
    this.#config = resolveServerConfig(config);
    this.#engine = this.#chooseEngine();
    const { clock, limits, logger, storeAfter, instanceGrace, deadAfter, pingInterval } = this.#config;
    const broker = new Broker({
      engine: this.#engine,
      clock,
      limits,
      storeAfter,
      instanceGrace,
      deadAfter,
      logger,
      events: {
        subscribed: (instance, channel) => this.#emitFor('subscribe', instance, channel),
        unsubscribed: (instance, channel) => this.#emitFor('unsubscribe', instance, channel),
        failure: failure => this.#emit('failure', failure),
        restored: instance => this.#lookForProcess(instance),
        senderGone: instance => this.#senderGone(instance),
        engineFailed: error => this.#engineFailed(error),
      },
    });
    this.#hub = {
      config: this.#config,
      broker,
      aliases: new Aliases(),
      heart: new Heart(clock, pingInterval, deadAfter),
      boot: randomBytes(16).toString('hex'),
      peers: new Set(),
      counters: { bytesIn: 0, bytesOut: 0 },
      stopping: false,
      welcomed: peer => this.#emit('connect', peerOf(peer)),
      left: (peer, reason) => this.#emit('disconnect', peerOf(peer), reason),
      suspect: (instance, pid) => this.#suspect(instance, pid, 0),
      complain: (address, code, text) => this.#complain(address, code, text),
      admin: (verb, args, asker) => administrate(this, verb, args, { description: this.#describe(), asker }),
    };
    this.#listener = new Listener(
      socket => this.#onSocket(socket),
      error => this.#listenerFailed(error),
    );
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

  async start(): Promise<void> {
    if (this.#state !== 'new')
      throw new BroadcastError('already-started', 'the server was started before; make a new one to start again');
    this.#state = 'starting';
    const { broker } = this.#hub;
    const address = parseEndpoint(this.#config.endpoint);
    try {
      await broker.open();
      const { clock, limits } = this.#config;
      this.#local = new LocalSender(
        broker,
        limits,
        () => clock.now(),
        failure => this.#onLocalFailure(failure),
      );
      await this.#listener.listen(address);
    } catch (error) {
      this.#state = 'stopped';
      await broker.close().catch(() => undefined);
      throw error;
    }
    this.#startedAt = this.#config.clock.monotonic();
    this.#state = 'running';
    this.#emit('listening');
  }

  stop(options: { timeout?: number } = {}): Promise<void> {
    this.#stopped ??= this.#stop(options.timeout ?? STOP_TIMEOUT);
    return this.#stopped;
  }

  async #stop(timeout: number): Promise<void> {
    const wasRunning = this.#state === 'running';
    this.#state = 'stopping';
    this.#hub.stopping = true;
    this.#relisten?.cancel();
    await this.#listener.close();
    if (wasRunning) {
      let timer: Timer | undefined;
      const late = new Promise<void>(resolve => {
        timer = this.#config.clock.setTimeout(resolve, timeout);
      });
      await Promise.race([this.#drain(), late]);
      timer?.cancel();
    }
    for (const peer of this.#hub.peers) peer.destroy();
    this.#local?.close();
    this.#state = 'stopped';
  }

  async #drain(): Promise<void> {
    await this.#hub.broker.close();
    const peers = [...this.#hub.peers];
    for (const peer of peers) peer.sayGoodbye('the server is stopping');
    while (this.#hub.peers.size > 0) await new Promise<void>(resolve => this.#emitter.once('peerGone', resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #listenerFailed(error: Error): void {
    const { clock, logger, reconnectInterval } = this.#config;
    logger.error(`listening failed, trying again every ${String(reconnectInterval)} ms`, error);
    const address = this.#listener.address;
    if (address === undefined) return;
    const again = (): void => {
      this.#relisten = clock.setTimeout(() => {
        if (this.#hub.stopping) return;
        void this.#listener
          .close()
          .then(() => this.#listener.listen(address))
          .catch(again);
      }, reconnectInterval);
    };
    again();
  }

  /** A store that failed is not trusted again: nothing further is accepted, and everybody is told why. */
  #engineFailed(error: Error): void {
    this.#config.logger.error('the store has failed; the server accepts nothing further', error);
    this.#emit('engineError', error);
    this.#hub.stopping = true;
    void this.#listener.close();
    for (const peer of this.#hub.peers) peer.end('store-failed', error.message);
  }

  // ---- connections ---------------------------------------------------------------------------------------------------------

  #onSocket(socket: Socket): void {
    const peer = new Peer(this.#hub, socket);
    socket.once('close', () => this.#emitter.emit('peerGone'));
    const { connections } = this.#config.limits;
    if (this.#hub.stopping) peer.end('shutting-down', 'the server is stopping');
    else if (this.#hub.peers.size > connections)
      peer.end('too-many-connections', `the server has ${String(connections)} connections (limits.connections)`);
  }

  /** An instance of before the restart: if its process ran on this machine and is gone, nobody waits for it. */
  #lookForProcess({ id, process }: Instance): void {
    const [machine, pid] = process.split('#') as [string, string | undefined];
    if (pid === undefined || machine !== machineIdentity()) return;
    // In a turn of its own: the broker is being restored.
    this.#config.clock.setTimeout(() => this.#suspect(id, Number(pid), 0), 0);
  }

  /** Looks whether the process of a lost instance on this machine has died; if so nobody waits for it. */
  #suspect(instance: string, pid: number, look: number): void {
    if (this.#hub.stopping) return;
    if (!isAlive(pid)) {
      this.#hub.broker.died(instance);
      return;
    }
    const { clock, instanceGrace, deadAfter } = this.#config;
    const pause = LOOK_AT_PROCESS[Math.min(look, LOOK_AT_PROCESS.length - 1)] as number;
    if (look * 1000 > Math.max(instanceGrace, deadAfter)) return;
    clock.setTimeout(() => this.#suspect(instance, pid, look + 1), pause);
  }

  #complain(address: string, code: string, text: string): void {
    const host = address.replace(/:\d+$/, '');
    const key = `${host} ${code}`;
    const now = this.#config.clock.monotonic();
    if (now - (this.#complaints.get(key) ?? -Infinity) < 1000) return;
    if (this.#complaints.size >= MAX_COMPLAINTS) this.#complaints.clear();
    this.#complaints.set(key, now);
    const line = `the connection from ${address} ended: ${code}: ${text}`;
    if (code === 'connection-lost') this.#config.logger.debug(line);
    else this.#config.logger.warn(line);
  }

  #senderGone(instance: string): void {
    for (const alias of this.#hub.aliases.removeSender(instance)) {
      for (const peer of this.#hub.peers) peer.unalias(alias);
    }
  }

  // ---- messages ------------------------------------------------------------------------------------------------------------

  onMessage(handler: (message: BroadcastMessage, peer: BroadcastPeer) => unknown): Unsubscribe {
    this.#observers.add(handler);
    this.#hub.broker.observer = (batch, instance) => this.#observe(batch, instance);
    return () => {
      this.#observers.delete(handler);
      if (this.#observers.size === 0) this.#hub.broker.observer = undefined;
    };
  }

  #observe(batch: Batch, instance: Instance): void {
    const peer = { name: instance.session.name, instance: instance.id, address: instance.outlet?.address ?? '' };
    for (const message of messagesOf(batch)) {
      for (const observer of this.#observers) this.#guard('an observer', () => observer(message, peer));
    }
  }

  sendMessage(message: BroadcastMessage, options: SendOptions = {}): Promise<Receipt> {
    if (this.#local === undefined || this.#state !== 'running') {
      const rejected = Promise.reject(new BroadcastError('closed', 'the server is not running; call start() first'));
      rejected.catch(() => undefined);
      return rejected;
    }
    return this.#local.send(message, options);
  }

  onDeliveryFailure(handler: (failure: DeliveryFailure) => unknown): Unsubscribe {
    this.#failureHandlers.add(handler);
    return () => this.#failureHandlers.delete(handler);
  }

  #onLocalFailure(failure: DeliveryFailure): void {
    for (const handler of this.#failureHandlers) this.#guard('a failure handler', () => handler(failure));
  }

  // ---- looking -------------------------------------------------------------------------------------------------------------

  get address(): { host: string; port: number } | { path: string } | null {
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
    return this.#hub.broker.forget(name);
  }

  deadLetters(name: string): {
    list(limit?: number): Promise<readonly DeadLetter[]>;
    retry(id: string): Promise<void>;
    drop(id: string): Promise<void>;
  } {
    const { broker } = this.#hub;
    return {
      list: async limit => (await broker.listDeadLetters(name, limit)).map(deadLetterOf),
      retry: id => broker.retryDeadLetter(name, id),
      drop: id => broker.dropDeadLetter(name, id),
    };
  }

  // ---- events --------------------------------------------------------------------------------------------------------------

  on<E extends keyof ServerEvents>(event: E, listener: (...args: ServerEvents[E]) => void): this {
    this.#emitter.on(event, listener as (...args: unknown[]) => void);
    return this;
  }

  once<E extends keyof ServerEvents>(event: E, listener: (...args: ServerEvents[E]) => void): this {
    this.#emitter.once(event, listener as (...args: unknown[]) => void);
    return this;
  }

  off<E extends keyof ServerEvents>(event: E, listener: (...args: ServerEvents[E]) => void): this {
    this.#emitter.off(event, listener as (...args: unknown[]) => void);
    return this;
  }

  #emit<E extends keyof ServerEvents>(event: E, ...args: ServerEvents[E]): void {
    for (const listener of this.#emitter.rawListeners(event))
      this.#guard(`a listener of ${event}`, () => listener.call(this, ...args) as unknown);
  }

  #emitFor(event: 'subscribe' | 'unsubscribe', instance: Instance | undefined, channel: string): void {
    if (instance === undefined) return;
    this.#emit(
      event,
      { name: instance.session.name, instance: instance.id, address: instance.outlet?.address ?? '' },
      channel,
    );
  }

  /** Calls back into the application: what it throws is logged and goes no further. */
  #guard(what: string, call: () => unknown): void {
    const failed = (error: unknown): void => this.#config.logger.error(`${what} of the server threw`, error);
    try {
      const result = call();
      if (result instanceof Promise) result.catch(failed);
    } catch (error) {
      failed(error);
    }
  }
}

function peerOf(peer: HubPeer): BroadcastPeer {
  return { name: peer.name, instance: peer.instance?.id ?? '', address: peer.address };
}

/** The messages of a batch, with data that is decoded when it is first read. */
function messagesOf(batch: Batch): BroadcastMessage[] {
  const { items, envelope, sender } = batch;
  const offsets = itemOffsets(items, batch.count);
  const messages: BroadcastMessage[] = [];
  for (let i = 0; i < batch.count; i++) {
    const end = offsets[i + 1] as number;
    let start = (offsets[i] as number) + 4;
    while ((items[start++] as number) >= 0x80); // the delta of the id
    const bodyStart = start;
    messages.push(
      lazyMessage(
        {
          id: formatId(envelope.idPrefix, idCounterAt(batch, i)),
          clients: envelope.clients,
          channels: envelope.channels,
          name: envelope.name,
          persistent: envelope.persistent,
          headers: envelope.headers ?? {},
          ttl: envelope.ttl,
          sender: sender.name,
          timestamp: batch.timestamp,
        },
        () => decodeBody(items, bodyStart, end),
      ),
    );
  }
  return messages;
}

function deadLetterOf({ id, batch, reason, attempts, at }: DeadBatch): DeadLetter {
  return { id, message: messagesOf(batch)[0] as BroadcastMessage, reason, attempts, at };
}
