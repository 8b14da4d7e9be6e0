/**
 * Frames over one socket: what is sent in one turn of the event loop leaves in one system call, errors are told to the
 * peer before the end, and silence ends the connection. Who speaks and what it means is the owner's business.
 *
 *   open ──fail──▶ failing: ERROR sent, stream ended, reset a second later
 *     │  └─end──▶ ending: everything sent, stream ended, reset a second later
 *     └──────────▶ closed (the peer's end, an error, silence)
 */
import type { Socket } from 'node:net';
import type { Clock, Timer } from '../clock.js';
import { BroadcastError, isErrorCode, type ErrorCode } from '../errors.js';
import type { Logger } from '../logger.js';
import { Reader } from '../protocol/bytes.js';
import { FRAME, FRAME_HEADER, frameName, PREAMBLE } from '../protocol/constants.js';
import { decodeError, encodeError, PING, PONG } from '../protocol/frames.js';
import { FrameParser, type FrameSink } from '../protocol/parser.js';
import type { Beating, Heart } from './heart.js';

/** Who owns a connection. */
export interface ConnectionOwner {
  onPreamble(): void;
  /** `frame` is whole, with its length and type; PING, PONG and ERROR are taken care of before. A BroadcastError that is thrown ends the connection and is told to the peer. */
  onFrame(type: number, frame: Buffer): void;
  /** Once, whatever the reason. */
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
  readonly maxFrame: number;
}

/** More than this leaves at once, before the turn has ended. */
const EARLY_FLUSH = 256 * 1024;
/** Buffers up to this size are copied together; larger ones are written as they are. */
const COPY_BELOW = 4096;
const RESET_AFTER = 1000;
/** `onDrain` is called when less than this is left. */
const LOW_WATER = 256 * 1024;

export class FrameConnection implements FrameSink, Beating {
  readonly #socket: Socket;
  readonly #owner: ConnectionOwner;
  readonly #options: ConnectionOptions;
  readonly #parser: FrameParser;
  #queue: Buffer[] = [];
  #queued = 0;
  #scheduled = false;
  #state: 'open' | 'ending' | 'closed' = 'open';
  #resetTimer: Timer | undefined;
  #error: BroadcastError | undefined;
  #wasFull = false;
  deaf = false;
  lastRead: number;
  lastWrite: number;
  lastProgress: number;
  bytesIn = 0;
  bytesOut = 0;

  constructor(socket: Socket, owner: ConnectionOwner, options: ConnectionOptions) {
    this.#socket = socket;
    this.#owner = owner;
    this.#options = options;
    this.#parser = new FrameParser(this, options.maxFrame);
    const now = options.clock.monotonic();
    this.lastRead = now;
    this.lastWrite = now;
    this.lastProgress = now;
    socket.setNoDelay(true);
    socket.on('data', chunk => this.#socketOnData(chunk));
    socket.on('end', () => this.#socketOnEnd());
    socket.on('error', error => this.#socketOnError(error));
    socket.on('close', () => this.#socketOnClose());
    options.heart.add(this);
    this.send(PREAMBLE);
  }

  /** Bytes that were sent and that the system has not taken. */
  get buffered(): number {
    return this.#queued + this.#socket.writableLength;
  }

  get isOpen(): boolean {
    return this.#state === 'open';
  }

  setMaxFrame(bytes: number): void {
    this.#parser.setMaxFrame(bytes);
  }

  /** Sends a frame at the end of this turn, or part of one that is followed by the rest. */
  send(frame: Buffer): void {
    if (this.#state !== 'open') return;
    if (this.#queued === 0 && this.#socket.writableLength === 0) this.lastProgress = this.#options.clock.monotonic();
    this.#queue.push(frame);
    this.#queued += frame.length;
    if (this.#queued >= EARLY_FLUSH) this.#flush();
    else this.wake();
  }

  /** Calls the owner's `onFlush` at the end of the turn, and sends what is there then. */
  wake(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#endOfTurn());
  }

  #endOfTurn(): void {
    if (this.#state === 'open') this.#owner.onFlush?.();
    this.#scheduled = false;
    this.#flush();
  }

  #flush(): void {
    if (this.#queued === 0 || this.#socket.destroyed) return;
    const queue = this.#queue;
    this.bytesOut += this.#queued;
    this.#queue = [];
    this.#queued = 0;
    const { clock, logger } = this.#options;
    this.lastWrite = clock.monotonic();
    if (logger.trace !== undefined) this.#trace('→', queue);
    const pieces = joinSmall(queue);
    if (pieces.length === 1) {
      this.#socket.write(pieces[0] as Buffer, () => this.#written());
    } else {
      this.#socket.cork();
      pieces.forEach((piece, i) => {
        if (i === pieces.length - 1) this.#socket.write(piece, () => this.#written());
        else this.#socket.write(piece);
      });
      this.#socket.uncork();
    }
    if (this.#socket.writableLength > LOW_WATER) this.#wasFull = true;
  }

  #written(): void {
    this.lastProgress = this.#options.clock.monotonic();
    if (this.#wasFull && this.buffered < LOW_WATER) {
      this.#wasFull = false;
      this.#owner.onDrain?.();
    }
  }

  /** Stops or goes on reading. */
  pauseReading(paused: boolean): void {
    if (this.deaf === paused || this.#state !== 'open') return;
    this.deaf = paused;
    if (paused) this.#socket.pause();
    else {
      this.lastRead = this.#options.clock.monotonic();
      this.#socket.resume();
    }
  }

  /** Tells the peer what is wrong, and ends. */
  fail(code: ErrorCode, text: string): void {
    if (this.#state !== 'open') return;
    const error = new BroadcastError(code, text);
    this.#error ??= error;
    this.send(encodeError({ code, retryable: error.retryable, text }));
    this.end();
  }

  /** Sends what is to be sent, and ends; whoever does not end as well is reset. */
  end(): void {
    if (this.#state !== 'open') return;
    this.#flush();
    this.#state = 'ending';
    this.#parser.stop();
    this.#socket.resume();
    this.#socket.end();
    this.#resetTimer = this.#options.clock.setTimeout(() => this.#socket.destroy(), RESET_AFTER);
  }

  /** Ends at once, with nothing said. */
  destroy(error?: BroadcastError): void {
    this.#error ??= error;
    this.#parser.stop();
    this.#socket.destroy();
  }

  // ---- Beating ---------------------------------------------------------------------------------------------------------

  ping(): void {
    this.send(PING);
  }

  silent(): void {
    this.destroy(new BroadcastError('dead-peer', 'nothing was heard from the peer for deadAfter'));
  }

  // ---- FrameSink -------------------------------------------------------------------------------------------------------

  onPreamble(): void {
    this.#owner.onPreamble();
  }

  onFrame(type: number, frame: Buffer): void {
    if (this.#options.logger.trace !== undefined) this.#trace('←', [frame]);
    switch (type) {
      case FRAME.PING:
        this.send(PONG);
        return;
      case FRAME.PONG:
        return;
      case FRAME.ERROR: {
        const { code, text } = decodeError(new Reader(frame, FRAME_HEADER));
        this.#error ??= new BroadcastError(isErrorCode(code) ? code : 'protocol-error', text);
        this.#state = 'ending';
        this.#parser.stop();
        this.#socket.end();
        return;
      }
      default:
        this.#owner.onFrame(type, frame);
    }
  }

  #trace(direction: string, frames: readonly Buffer[]): void {
    for (const frame of frames) {
      if (frame.length > 4) this.#options.logger.trace?.(`${direction} ${frameName(frame[4] as number)} ${String(frame.length)} bytes`);
    }
  }

  // ---- the socket's events -----------------------------------------------------------------------------------------------

  #socketOnData(chunk: Buffer): void {
    this.bytesIn += chunk.length;
    this.lastRead = this.#options.clock.monotonic();
    if (this.#state !== 'open') return;
    try {
      this.#parser.push(chunk);
    } catch (error) {
      if (error instanceof BroadcastError && isErrorCode(error.code)) {
        this.fail(error.code, error.message);
      } else {
        const { code } = error as { code?: unknown };
        this.#options.logger.error('handling a frame failed', error);
        this.fail(typeof code === 'string' && isErrorCode(code) ? code : 'protocol-error', (error as Error).message);
      }
    }
  }

  #socketOnEnd(): void {
    if (this.#state === 'open') this.end();
  }

  #socketOnError(error: NodeJS.ErrnoException): void {
    this.#error ??= new BroadcastError('connection-lost', `the connection broke: ${error.message}`, { cause: error });
  }

  #socketOnClose(): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#resetTimer?.cancel();
    this.#parser.stop();
    this.#queue = [];
    this.#queued = 0;
    this.#options.heart.delete(this);
    this.#owner.onClose(this.#error);
  }
}

/** Copies neighbouring small buffers together, so that few go to the system call. */
function joinSmall(buffers: Buffer[]): Buffer[] {
  if (buffers.length === 1) return buffers;
  const pieces: Buffer[] = [];
  let small: Buffer[] = [];
  const join = (): void => {
    if (small.length > 0) pieces.push(small.length === 1 ? (small[0] as Buffer) : Buffer.concat(small));
    small = [];
  };
  for (const buffer of buffers) {
    if (buffer.length <= COPY_BELOW) small.push(buffer);
    else {
      join();
      pieces.push(buffer);
    }
  }
  join();
  return pieces;
}
