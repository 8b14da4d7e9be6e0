/**
 * Keeps a connection: connects, introduces the client, and after a loss tries at once, then at a regular interval, for
 * ever, with the next of several servers.
 *
 *   stopped ──start──▶ connecting ──WELCOME──▶ online ──lost──▶ connecting (at once, then every reconnectInterval ±20 %)
 *                          └─ a refusal that trying again cannot mend ──▶ refused (for good)
 */
import { connect, type Socket } from 'node:net';
import type { Timer } from '../clock.js';
import type { ResolvedClientConfig } from '../config.js';
import { BroadcastError } from '../errors.js';
import { Reader } from '../protocol/bytes.js';
import { FRAME, FRAME_HEADER, frameName, maxFrameBytes } from '../protocol/constants.js';
import { decodeWelcome, encodeHello, type Hello, type Welcome } from '../protocol/frames.js';
import { formatAddress, parseEndpoint, type Address } from '../transport/endpoint.js';
import { FrameConnection, type ConnectionOwner } from '../transport/frame-connection.js';
import { Heart } from '../transport/heart.js';

export interface ConnectorHost {
  hello(store: string): Hello;
  welcomed(welcome: Welcome): void;
  frame(type: number, frame: Buffer): void;
  flushing(): void;
  lost(error: BroadcastError | undefined): void;
  refused(error: BroadcastError): void;
  connecting(): void;
}

/** Refusals that hold for an established connection too; others on one are tried again. */
const FINAL = new Set(['taken-over', 'unauthorized', 'different-store']);
const WARN_INTERVAL = 60_000;
const FIRST_MAX_FRAME = 16 * 1024 * 1024;
const HANDSHAKE_TIMEOUT = 10_000;

export class Connector implements ConnectionOwner {
  readonly #config: ResolvedClientConfig;
  readonly #host: ConnectorHost;
  readonly #addresses: readonly Address[];
  readonly #heart: Heart;
  #index = 0;
  #socket: Socket | undefined;
  #connection: FrameConnection | undefined;
  #welcomed = false;
  #running = false;
  #timer: Timer | undefined;
  #handshake: Timer | undefined;
  #store = '';
  #storeIndex = -1;
  #refusals = 0;
  #warnedAt = -Infinity;
  #atOnceAt = -Infinity;

  constructor(config: ResolvedClientConfig, host: ConnectorHost) {
    this.#config = config;
    this.#host = host;
    this.#addresses = config.endpoints.map(parseEndpoint);
    this.#heart = new Heart(config.clock, config.pingInterval, config.deadAfter);
  }

  get isOnline(): boolean {
    return this.#welcomed && this.#connection?.isOpen === true;
  }

  get isRunning(): boolean {
    return this.#running;
  }

  start(): void {
    if (this.#running) return;
    this.#running = true;
    this.#refusals = 0;
    this.#attempt();
  }

  send(frame: Buffer): void {
    this.#connection?.send(frame);
  }

  wake(): void {
    if (this.isOnline) this.#connection?.wake();
  }

  hurry(): void {
    if (this.isOnline) this.#connection?.hurry();
  }

  /** Ends for good; what was sent leaves first. */
  stop(): void {
    this.#running = false;
    this.#timer?.cancel();
    this.#handshake?.cancel();
    if (this.#connection !== undefined) this.#connection.end();
    else this.#socket?.destroy();
  }

  destroy(): void {
    this.stop();
    this.#connection?.destroy();
  }

  // ---- connecting ----------------------------------------------------------------------------------------------------------

  #attempt(): void {
    if (!this.#running) return;
    this.#host.connecting();
    const address = this.#addresses[this.#index] as Address;
    const socket = connect({ ...address, noDelay: true });
    this.#socket = socket;
    socket.once('connect', () => this.#socketOnConnect(socket));
    socket.once('error', error => this.#socketOnError(socket, error));
  }

  #socketOnConnect(socket: Socket): void {
    if (!this.#running) {
      socket.destroy();
      return;
    }
    const { clock, logger } = this.#config;
    this.#connection = new FrameConnection(socket, this, {
      clock,
      logger,
      heart: this.#heart,
      maxFrame: FIRST_MAX_FRAME,
    });
    this.#connection.send(encodeHello(this.#host.hello(this.#store)));
    this.#handshake = clock.setTimeout(
      () =>
        this.#connection?.destroy(
          new BroadcastError('handshake-timeout', 'the server did not answer the introduction'),
        ),
      Math.min(HANDSHAKE_TIMEOUT, this.#config.deadAfter),
    );
  }

  #socketOnError(socket: Socket, error: NodeJS.ErrnoException): void {
    if (this.#connection !== undefined || this.#socket !== socket) return;
    this.#socket = undefined;
    this.#warn(error.message);
    this.#again(false);
  }

  /** Warns once after the first failure, then once a minute. */
  #warn(reason: string): void {
    if (!this.#running) return;
    const { clock, logger, reconnectInterval } = this.#config;
    const now = clock.monotonic();
    if (now - this.#warnedAt < WARN_INTERVAL) return;
    this.#warnedAt = now;
    const address = formatAddress(this.#addresses[this.#index] as Address);
    logger.warn(
      `no server at ${address} (${reason}); trying again every ${String(reconnectInterval)} ms. Start one there ("npx @alien-worlds/aw-broadcast serve"), or check host and port.`,
    );
  }

  #again(atOnce: boolean): void {
    if (!this.#running) return;
    this.#index = (this.#index + 1) % this.#addresses.length;
    if (atOnce || this.#index !== 0) {
      setImmediate(() => this.#attempt());
      return;
    }
    const spread = 0.8 + Math.random() * 0.4;
    this.#timer = this.#config.clock.setTimeout(() => this.#attempt(), this.#config.reconnectInterval * spread);
  }

  // ---- ConnectionOwner -------------------------------------------------------------------------------------------------------

  onPreamble(): void {
    // WELCOME or ERROR follows.
  }

  onFrame(type: number, frame: Buffer): void {
    if (this.#welcomed) {
      this.#host.frame(type, frame);
      return;
    }
    if (type !== FRAME.WELCOME) throw new BroadcastError('unexpected-frame', `${frameName(type)} came before WELCOME`);
    const welcome = decodeWelcome(new Reader(frame, FRAME_HEADER));
    if (
      this.#addresses.length > 1 &&
      this.#store !== '' &&
      welcome.store !== this.#store &&
      this.#storeIndex !== this.#index
    ) {
      const address = formatAddress(this.#addresses[this.#index] as Address);
      throw new BroadcastError(
        'different-store',
        `the server at ${address} keeps another store than the one before; servers in one list must share theirs`,
      );
    }
    this.#handshake?.cancel();
    this.#store = welcome.store;
    this.#storeIndex = this.#index;
    this.#welcomed = true;
    this.#refusals = 0;
    this.#warnedAt = -Infinity;
    this.#connection?.setMaxFrame(maxFrameBytes(welcome.limits));
    this.#host.welcomed(welcome);
  }

  onFlush(): void {
    if (this.#welcomed) this.#host.flushing();
  }

  onClose(error: BroadcastError | undefined): void {
    this.#handshake?.cancel();
    const welcomed = this.#welcomed;
    this.#connection = undefined;
    this.#socket = undefined;
    this.#welcomed = false;
    if (error !== undefined && !error.retryable && (FINAL.has(error.code) || !welcomed)) {
      this.#refuse(error, welcomed);
      return;
    }
    if (welcomed) {
      // The next of several servers is tried first, a single one at once.
      this.#host.lost(error);
      if (this.#addresses.length === 1) this.#index = this.#addresses.length - 1;
      this.#again(this.#mayTryAtOnce());
      return;
    }
    this.#warn(error?.message ?? 'it ended the connection');
    this.#again(false);
  }

  /** Not again and again to a server that welcomes and then ends every connection. */
  #mayTryAtOnce(): boolean {
    const { clock, reconnectInterval } = this.#config;
    const now = clock.monotonic();
    if (now - this.#atOnceAt < reconnectInterval) return false;
    this.#atOnceAt = now;
    return true;
  }

  /** A server has refused for good; with several, each is asked before that is the end. */
  #refuse(error: BroadcastError, welcomed: boolean): void {
    if (welcomed) this.#host.lost(error);
    if (error.code === 'different-store' && ++this.#refusals < this.#addresses.length) {
      this.#again(true);
      return;
    }
    this.#running = false;
    this.#host.refused(error);
  }
}
