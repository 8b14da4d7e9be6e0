/**
 * Keeps a connection: connects, introduces the client, and after a loss tries at once, then at a regular interval, for
 * ever, with the next of several servers.
 *
 *   stopped ──start──▶ connecting ──WELCOME──▶ online ──lost──▶ connecting (at once, then every reconnectInterval ±20 %)
 *                          └─ a refusal that trying again cannot mend ──▶ refused (for good)
 */
import { connect, type Socket } from 'node:net';
import type { Timer } from '../clock.js';
import type { Endpoint, ResolvedClientConfig } from '../config.js';
import { BroadcastError } from '../errors.js';
import { Reader } from '../protocol/bytes.js';
import { FRAME, FRAME_HEADER, frameName, maxFrameBytes } from '../protocol/constants.js';
import { decodeWelcome, encodeHello, type Hello, type Welcome } from '../protocol/frames.js';
import { formatAddress, parseEndpoint, type Address } from '../transport/endpoint.js';
import { FrameConnection, type ConnectionOwner } from '../transport/frame-connection.js';
import { Heart } from '../transport/heart.js';

/** What the connector needs of its client. */
export interface ConnectorHost {
  connecting(): void;
  hello(store: string): Hello;
  welcomed(welcome: Welcome): void;
  frame(type: number, frame: Buffer): void;
  /** The turn ends: the last chance to send something with what leaves now. */
  flushing(): void;
  /** The connection that was up has ended. */
  lost(error: BroadcastError | undefined): void;
  /** One of several servers is passed over. */
  skipped(error: BroadcastError): void;
  /** A refusal that trying again cannot mend; nothing more is tried. */
  refused(error: BroadcastError): void;
}

/** Refusals that hold for an established connection too; others on one are tried again. */
const FINAL = new Set(['taken-over', 'unauthorized']);
const WARN_INTERVAL = 60_000;
const FIRST_MAX_FRAME = 16 * 1024 * 1024;
const HANDSHAKE_TIMEOUT = 10_000;
/**
 * So many times as long is waited at most for a server that connects and does not answer, and never longer than for a dead
 * peer. It is doubled each time: a crowd that comes again before its turn makes the server take connections that nobody
 * waits for any more, and never gets in.
 */
const MOST_PATIENCE = 8;

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
  #patience = 1;
  #store = '';
  #storeIndex = -1;
  /** When the last server that welcomed us takes us for dead, and when it last could hear us. */
  #serverPatience = Infinity;
  #spokeAt = -Infinity;
  #warnedAt = -Infinity;
  #skippedAt = -Infinity;
  #atOnceAt = -Infinity;

  constructor(config: ResolvedClientConfig, host: ConnectorHost) {
    this.#config = config;
    this.#host = host;
    this.#addresses = config.endpoints.map(parseServer);
    this.#heart = new Heart(config.clock, config.pingInterval, config.deadAfter);
  }

  get isOnline(): boolean {
    return this.#welcomed && this.#connection?.isOpen === true;
  }

  /** This process was silent for so long that the server may have taken it for dead. */
  get mayBeGivenUp(): boolean {
    if (this.#welcomed && this.#connection !== undefined) return this.#connection.mayBeGivenUp;
    return this.#config.clock.monotonic() - this.#spokeAt >= this.#serverPatience;
  }

  /** There is a connection, and be it one that is opening or ending. */
  get isConnected(): boolean {
    return this.#connection !== undefined;
  }

  get isRunning(): boolean {
    return this.#running;
  }

  start(): void {
    if (this.#running) return;
    this.#running = true;
    this.#attempt();
  }

  send(frame: Buffer): void {
    this.#connection?.send(frame);
  }

  wake(): void {
    if (this.isOnline) this.#connection?.wake();
  }

  /** Does now what the end of the turn would do. */
  hurry(): void {
    if (this.isOnline) this.#connection?.hurry();
  }

  /** Ends for good; what was sent on a connection that is up leaves first. */
  stop(): void {
    this.#running = false;
    this.#timer?.cancel();
    this.#handshake?.cancel();
    if (this.isOnline) this.#connection?.end();
    else if (this.#connection !== undefined) this.#connection.destroy();
    else this.#socket?.destroy();
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
    this.#waitFor(socket, 1);
  }

  #waitFor(socket: Socket, patience: number): void {
    const { clock, deadAfter } = this.#config;
    this.#handshake?.cancel();
    this.#handshake = clock.setTimeout(
      () => this.#onSilence(socket),
      Math.min(HANDSHAKE_TIMEOUT * patience, deadAfter),
    );
  }

  /** Neither a connection nor an introduction in time. */
  #onSilence(socket: Socket): void {
    const error = new BroadcastError('handshake-timeout', 'the server did not answer the introduction');
    if (this.#connection === undefined) socket.destroy(error);
    else {
      this.#patience = Math.min(MOST_PATIENCE, this.#patience * 2);
      this.#connection.destroy(error);
    }
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
    this.#waitFor(socket, this.#patience);
  }

  #socketOnError(socket: Socket, error: NodeJS.ErrnoException): void {
    if (this.#connection !== undefined || this.#socket !== socket) return;
    this.#handshake?.cancel();
    this.#socket = undefined;
    // Several addresses of one name that all failed come as one error without a text.
    this.#again(false);
    this.#warn(error.message === '' ? (error.code ?? error.name) : error.message);
  }

  /** Warns once after the first failure, then once a minute. */
  #warn(reason: string): void {
    if (!this.#running) return;
    const { clock, logger, reconnectInterval } = this.#config;
    const now = clock.monotonic();
    const addresses = this.#addresses.map(formatAddress).join(', ');
    const text = `no server at ${addresses} (${reason}); trying again every ${String(reconnectInterval)} ms`;
    if (now - this.#warnedAt < WARN_INTERVAL) {
      logger.debug(text);
      return;
    }
    this.#warnedAt = now;
    logger.warn(`${text}. Start one there ("npx @alien-worlds/aw-broadcast serve"), or check host and port.`);
  }

  /** Tries the next address; after the last one, and where a loss follows on another, there is a pause. */
  #again(wasUp: boolean): void {
    if (!this.#running) return;
    this.#index = (this.#index + 1) % this.#addresses.length;
    const atOnce = wasUp && this.#mayTryAtOnce();
    if (atOnce || this.#index !== 0) {
      setImmediate(() => this.#attempt());
      return;
    }
    const spread = 0.8 + Math.random() * 0.4;
    this.#timer = this.#config.clock.setTimeout(() => this.#attempt(), this.#config.reconnectInterval * spread);
  }

  /** Not again and again to a server that welcomes and then ends every connection. */
  #mayTryAtOnce(): boolean {
    const { clock, reconnectInterval } = this.#config;
    const now = clock.monotonic();
    if (now - this.#atOnceAt < reconnectInterval) return false;
    this.#atOnceAt = now;
    return true;
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
    this.#patience = 1;
    this.#warnedAt = -Infinity;
    this.#skippedAt = -Infinity;
    this.#connection?.setMaxFrame(maxFrameBytes(welcome.limits));
    this.#serverPatience = welcome.deadAfter;
    if (this.#connection !== undefined) this.#connection.peerPatience = welcome.deadAfter;
    this.#host.welcomed(welcome);
  }

  onFlush(): void {
    if (this.#welcomed) this.#host.flushing();
  }

  onClose(error: BroadcastError | undefined): void {
    this.#handshake?.cancel();
    const welcomed = this.#welcomed;
    if (welcomed && this.#connection !== undefined) this.#spokeAt = this.#connection.lastWrite;
    this.#connection = undefined;
    this.#socket = undefined;
    this.#welcomed = false;
    // The next of several servers is tried at once, and so is a single one that was lost.
    if (welcomed) this.#host.lost(error);
    if (error?.code === 'different-store') this.#skip(error);
    else if (error !== undefined && !error.retryable && (FINAL.has(error.code) || !welcomed)) this.#refuse(error);
    else if (welcomed) this.#again(true);
    else {
      this.#again(false);
      this.#warn(error?.message ?? 'it ended the connection');
    }
  }

  /** A server of the list keeps another store: it is not ours, but one that is may come back. */
  #skip(error: BroadcastError): void {
    if (!this.#running) return;
    const now = this.#config.clock.monotonic();
    if (now - this.#skippedAt >= WARN_INTERVAL) {
      this.#skippedAt = now;
      this.#config.logger.error(error.message);
      this.#host.skipped(error);
    }
    this.#again(false);
  }

  #refuse(error: BroadcastError): void {
    if (!this.#running) return;
    this.#running = false;
    this.#host.refused(error);
  }
}

function parseServer(endpoint: Endpoint | string): Address {
  const address = parseEndpoint(endpoint);
  if ('port' in address && address.port === 0)
    throw new BroadcastError('invalid-option', 'a client cannot connect to port 0; give the port of the server');
  return address;
}
