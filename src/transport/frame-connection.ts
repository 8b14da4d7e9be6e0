/**
 * Frames over one stream: what is sent in one turn of the event loop leaves in one system call, errors are told to the
 * peer before the end, and silence ends the connection. Who speaks and what it means is the owner's business.
 *
 *   open ──fail()──▶ ending: ERROR sent, stream ended, reset a second later
 *     │ ──end()───▶ ending: everything sent, stream ended, reset after a second without progress
 *     │ ──ERROR or the peer's end──▶ ending
 *     └──destroy(), silence, a broken socket──▶ closed          ending ──both streams ended──▶ closed
 *
 * Bytes lie in our own queue until the stream has taken what it was given before, so that `lastProgress` tells a slow
 * peer from one that takes nothing.
 */
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Clock, Timer } from '../clock.js';
import { BroadcastError, isErrorCode, type ErrorCode } from '../errors.js';
import type { Logger } from '../logger.js';
import { Reader } from '../protocol/bytes.js';
import { FRAME, FRAME_HEADER, PREAMBLE } from '../protocol/constants.js';
import { decodeError, encodeError, errorFromPeer, PING, PONG } from '../protocol/control.js';
import { FrameParser, type FrameSink } from '../protocol/parser.js';
import { FrameTracer } from './frame-tracer.js';
import type { Beating, Heart } from './heart.js';
import { joinSmall } from './join.js';

/** Who owns a connection. What its methods throw ends this connection only. */
export interface ConnectionOwner {
  /** The peer speaks the protocol; its first frame follows. */
  onPreamble(): void;
  /**
   * `frame` is whole, with its length and type, and a view that may be kept. PING, PONG and ERROR are taken care of
   * before. A BroadcastError that is thrown is told to the peer and ends the connection.
   */
  onFrame(type: number, frame: Buffer): void;
  /** Once, whatever the reason; undefined when the peer ended its stream between two frames, or we ours. */
  onClose(error: BroadcastError | undefined): void;
  /** What was buffered has mostly been written. */
  onDrain?(): void;
  /** The turn ends: the last chance to send something with what leaves now. */
  onFlush?(): void;
}

export interface ConnectionOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly heart: Heart;
  /** The longest frame, and all that the opening may take in all, until `setMaxFrame` is called. */
  readonly maxFrame: number;
  /** `setMaxFrame` must be called within so many milliseconds, whatever arrives; none by default. */
  readonly handshakeMs?: number;
  /** Nothing is read while more than so many bytes wait for a peer that does not take them; no bound by default. */
  readonly pauseAbove?: number;
}

/** More than this leaves at once, before the turn has ended. */
const EARLY_FLUSH = 128 * 1024;
/** The stream is given no more than this at a time (a frame is never cut for it). */
const MAX_WRITE = 512 * 1024;
const RESET_AFTER = 1000;
/** `onDrain` is called when less than this is left. */
const LOW_WATER = 256 * 1024;

const CONNECTION = Symbol('connection');
type OwnedStream = Duplex & { [CONNECTION]?: FrameConnection };

export class FrameConnection implements FrameSink, Beating {
  readonly #stream: OwnedStream;
  readonly #owner: ConnectionOwner;
  readonly #options: ConnectionOptions;
  readonly #parser: FrameParser;
  readonly #tracer: FrameTracer | undefined;
  readonly #onWritten: () => void;
  #state: 'open' | 'ending' | 'closed' = 'open';
  #queue: Buffer[] = [];
  #queued = 0;
  #isScheduled = false;
  #isPongQueued = false;
  #wasFull = false;
  /** The owner does not want to read; the peer does not take what it is sent. */
  #isPaused = false;
  #isChoked = false;
  #isStreamEnded = false;
  #deadline: Timer | undefined;
  #error: BroadcastError | undefined;
  lastRead: number;
  lastWrite: number;
  lastPing: number;
  /** When the system last took bytes, or when the first of those that wait was sent. */
  lastProgress: number;
  bytesIn = 0;
  bytesOut = 0;
  /** When the peer takes this side for dead: so many milliseconds without a word. */
  peerPatience = Infinity;
  /** When a silence ended that was longer than that. */
  #silentUntil = -Infinity;

  constructor(stream: Duplex, owner: ConnectionOwner, options: ConnectionOptions) {
    this.#stream = stream;
    this.#owner = owner;
    this.#options = options;
    this.#parser = new FrameParser(this, options.maxFrame);
    this.#tracer = options.logger.trace === undefined ? undefined : new FrameTracer(options.logger);
    this.#onWritten = this.#written.bind(this);
    const now = options.clock.monotonic();
    this.lastRead = now;
    this.lastWrite = now;
    this.lastPing = now;
    this.lastProgress = now;
    if (options.handshakeMs !== undefined) {
      this.#deadline = options.clock.setTimeout(this.#handshakeExpired.bind(this), options.handshakeMs);
    }
    this.#listen();
    options.heart.add(this);
    this.#enqueue(PREAMBLE);
  }

  #listen(): void {
    const stream = this.#stream;
    if (stream instanceof Socket) stream.setNoDelay(true);
    // The peer's end must not cut off what is still to be sent.
    stream.allowHalfOpen = true;
    (stream as OwnedStream)[CONNECTION] = this;
    stream.on('data', FrameConnection.#streamOnData);
    stream.on('end', FrameConnection.#streamOnEnd);
    stream.on('error', FrameConnection.#streamOnError);
    stream.on('close', FrameConnection.#streamOnClose);
  }

  /** Bytes that were sent and that the system has not taken. */
  get buffered(): number {
    return this.#queued + this.#stream.writableLength;
  }

  get isOpen(): boolean {
    return this.#state === 'open';
  }

  /** The owner does not read: the peer's silence proves nothing. */
  get deaf(): boolean {
    return this.#isPaused;
  }

  /** The last sign of life: bytes that came, or, from a peer that is not read because it takes nothing, that were taken. */
  get lastHeard(): number {
    return this.#isChoked ? Math.max(this.lastRead, this.lastProgress) : this.lastRead;
  }

  /** The opening is done: its deadline is over, and frames may be so long from now on. */
  setMaxFrame(bytes: number): void {
    this.#parser.setMaxFrame(bytes);
    if (this.#state !== 'open') return;
    this.#deadline?.cancel();
    this.#deadline = undefined;
  }

  // ---- sending ---------------------------------------------------------------------------------------------------------------

  /** Sends a frame at the end of this turn, or part of one that is followed by the rest. Does nothing once it is ending. */
  send(frame: Buffer): void {
    if (this.#state === 'open') this.#enqueue(frame);
  }

  /** Calls the owner's `onFlush` at the end of the turn, and sends what is there then. */
  wake(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(FrameConnection.#endOfTurn, this);
  }

  /** Does now what the end of the turn would do: a turn that reads much may last long. */
  hurry(): void {
    if (this.#state === 'open') this.#guard(this.#owner.onFlush);
    this.#flush();
  }

  #enqueue(frame: Buffer): void {
    if (this.buffered === 0) this.lastProgress = this.#options.clock.monotonic();
    this.#queue.push(frame);
    this.#queued += frame.length;
    if (this.#queued >= EARLY_FLUSH) this.#flush();
    else this.wake();
  }

  static #endOfTurn(connection: FrameConnection): void {
    if (connection.#state === 'open') connection.#guard(connection.#owner.onFlush);
    connection.#isScheduled = false;
    connection.#flush();
  }

  /**
   * True when this process did not run for so long (stopped, suspended, blocked) that the peer may have given it up: until
   * another such time has passed, after which its word that it did would have been read.
   */
  get mayBeGivenUp(): boolean {
    const now = this.#options.clock.monotonic();
    return now - this.lastWrite >= this.peerPatience || now - this.#silentUntil < this.peerPatience;
  }

  /** Gives the stream what it takes: it is never given more before the system has taken what it has. */
  #flush(): void {
    const stream = this.#stream;
    while (this.#queued > 0 && stream.writableLength === 0 && stream.writable) this.#writeSome();
    if (this.#queued > 0) this.#wasFull ||= this.buffered >= LOW_WATER;
    else if (this.#state === 'ending') this.#endStream();
  }

  #writeSome(): void {
    const stream = this.#stream;
    const frames = this.#takeSome();
    this.#isPongQueued = false;
    this.#tracer?.out(frames);
    const pieces = joinSmall(frames);
    const last = pieces.length - 1;
    if (last > 0) stream.cork();
    for (let i = 0; i < last; i++) stream.write(pieces[i]);
    stream.write(pieces[last], this.#onWritten);
    if (last > 0) stream.uncork();
    const now = this.#options.clock.monotonic();
    if (now - this.lastWrite >= this.peerPatience) this.#silentUntil = now;
    this.lastWrite = now;
    if (stream.writableLength === 0) this.lastProgress = now;
    else if (this.buffered >= LOW_WATER) this.#wasFull = true;
  }

  #takeSome(): Buffer[] {
    const queue = this.#queue;
    let taken = 0;
    let n = 0;
    while (n < queue.length && (n === 0 || taken < MAX_WRITE)) taken += (queue[n++] as Buffer).length;
    this.#queued -= taken;
    this.bytesOut += taken;
    if (n < queue.length) return queue.splice(0, n);
    this.#queue = [];
    return queue;
  }

  /** The system has taken what the stream was given. */
  #written(): void {
    if (this.#state === 'closed') return;
    this.lastProgress = this.#options.clock.monotonic();
    if (this.#queued > 0) this.#flush();
    if (this.#isChoked && this.buffered * 2 < (this.#options.pauseAbove as number)) this.#choke(false);
    if (!this.#wasFull || this.buffered >= LOW_WATER) return;
    this.#wasFull = false;
    if (this.#state === 'open') this.#guard(this.#owner.onDrain);
  }

  // ---- reading ---------------------------------------------------------------------------------------------------------------

  /** Stops or goes on reading; what was read already is still handed on. */
  pauseReading(paused: boolean): void {
    if (this.#isPaused === paused || this.#state !== 'open') return;
    const wasReading = this.#isReading;
    this.#isPaused = paused;
    this.#listenOrNot(wasReading);
  }

  #choke(choked: boolean): void {
    const wasReading = this.#isReading;
    this.#isChoked = choked;
    if (this.#state === 'open') this.#listenOrNot(wasReading);
  }

  get #isReading(): boolean {
    return !this.#isPaused && !this.#isChoked;
  }

  #listenOrNot(wasReading: boolean): void {
    if (this.#isReading === wasReading) return;
    if (!wasReading) {
      this.lastRead = this.#options.clock.monotonic();
      this.#stream.resume();
    } else {
      this.#stream.pause();
    }
  }

  onPreamble(): void {
    this.#owner.onPreamble();
  }

  onFrame(type: number, frame: Buffer): void {
    this.#tracer?.in(frame);
    switch (type) {
      case FRAME.PING:
        new Reader(frame, FRAME_HEADER).done();
        this.#pong();
        return;
      case FRAME.PONG:
        new Reader(frame, FRAME_HEADER).done();
        return;
      case FRAME.ERROR:
        this.#errorFrame(frame);
        return;
      default:
        this.#owner.onFrame(type, frame);
    }
  }

  /** One PONG answers all PINGs that came before it leaves: a peer cannot make the queue grow. */
  #pong(): void {
    if (this.#isPongQueued || this.#state !== 'open') return;
    this.#isPongQueued = true;
    this.#enqueue(PONG);
  }

  /** The peer will not read any further, so that nothing is left to be sent. */
  #errorFrame(frame: Buffer): void {
    this.#error ??= errorFromPeer(decodeError(new Reader(frame, FRAME_HEADER)));
    this.#queue = [];
    this.#queued = 0;
    this.end();
  }

  // ---- ending ----------------------------------------------------------------------------------------------------------------

  /** Tells the peer what is wrong, and ends. */
  fail(code: ErrorCode, text: string): void {
    if (this.#state !== 'open') return;
    const error = new BroadcastError(code, text);
    this.#error ??= error;
    this.#enqueue(encodeError({ code, retryable: error.retryable, text }));
    this.#leave();
    this.#deadline = this.#options.clock.setTimeout(this.#reset.bind(this), RESET_AFTER);
  }

  /** Sends what is to be sent, and ends; a peer that takes nothing of it for a second, or does not end as well, is reset. */
  end(): void {
    if (this.#state !== 'open') return;
    this.#leave();
    this.#watchProgress();
  }

  /** Ends at once, with nothing said. */
  destroy(error?: BroadcastError): void {
    this.#error ??= error;
    this.#parser.stop();
    this.#stream.destroy();
  }

  /** From now on nothing is sent that was not sent before, and what arrives is read and thrown away. */
  #leave(): void {
    this.#state = 'ending';
    this.#parser.stop();
    this.#options.heart.delete(this);
    this.#deadline?.cancel();
    this.#stream.resume();
    this.#flush();
  }

  #endStream(): void {
    if (this.#isStreamEnded) return;
    this.#isStreamEnded = true;
    this.#stream.end();
  }

  #watchProgress(): void {
    const { clock } = this.#options;
    const seen = this.lastProgress;
    this.#deadline = clock.setTimeout(() => {
      if (this.buffered > 0 && this.lastProgress > seen) this.#watchProgress();
      else this.#reset();
    }, RESET_AFTER);
  }

  #reset(): void {
    const stream = this.#stream;
    // Only TCP knows a reset.
    if (stream instanceof Socket && stream.remoteAddress !== undefined) stream.resetAndDestroy();
    else stream.destroy();
  }

  #handshakeExpired(): void {
    this.fail('handshake-timeout', `no introduction within ${String(this.#options.handshakeMs)} ms`);
  }

  // ---- Beating ---------------------------------------------------------------------------------------------------------------

  ping(): void {
    this.lastPing = this.#options.clock.monotonic();
    // Whatever waits to be sent does as well, and is not added to.
    if (this.buffered === 0) this.send(PING);
  }

  silent(): void {
    this.#error ??= new BroadcastError('dead-peer', 'nothing was heard from the peer for deadAfter');
    this.#parser.stop();
    this.#reset();
  }

  // ---- the stream's events ---------------------------------------------------------------------------------------------------

  static #streamOnData(this: OwnedStream, chunk: Buffer): void {
    const connection = this[CONNECTION] as FrameConnection;
    connection.bytesIn += chunk.length;
    connection.lastRead = connection.#options.clock.monotonic();
    if (connection.#state !== 'open') return;
    try {
      connection.#parser.push(chunk);
    } catch (error) {
      connection.#fault(error);
    }
    const { pauseAbove = Infinity } = connection.#options;
    if (!connection.#isChoked && connection.buffered > pauseAbove) connection.#choke(true);
  }

  static #streamOnEnd(this: OwnedStream): void {
    const connection = this[CONNECTION] as FrameConnection;
    if (connection.#state !== 'open') return;
    if (connection.#parser.pending > 0) {
      connection.#error ??= new BroadcastError(
        'connection-lost',
        'the peer ended the connection in the middle of a frame',
      );
    }
    connection.end();
  }

  static #streamOnError(this: OwnedStream, error: Error): void {
    const connection = this[CONNECTION] as FrameConnection;
    connection.#error ??= new BroadcastError('connection-lost', `the connection broke: ${error.message}`, {
      cause: error,
    });
  }

  static #streamOnClose(this: OwnedStream): void {
    const connection = this[CONNECTION] as FrameConnection;
    connection.#state = 'closed';
    connection.#deadline?.cancel();
    connection.#parser.stop();
    connection.#queue = [];
    connection.#queued = 0;
    connection.#options.heart.delete(connection);
    try {
      connection.#owner.onClose(connection.#error);
    } catch (error) {
      connection.#options.logger.error('a connection’s owner failed at its end', error);
    }
  }

  // ---- what owners throw -----------------------------------------------------------------------------------------------------

  #guard(callback: (() => void) | undefined): void {
    try {
      callback?.call(this.#owner);
    } catch (error) {
      this.#fault(error);
    }
  }

  /** An error of the table is the peer's; any other is a fault of ours, and ends this connection only. */
  #fault(error: unknown): void {
    const { code, message } = error as { code?: unknown; message?: unknown };
    if (typeof code === 'string' && isErrorCode(code)) {
      this.fail(code, String(message));
      return;
    }
    this.#options.logger.error('handling a frame failed', error);
    this.fail('internal-error', 'a fault in the library; its log has the details');
  }
}
