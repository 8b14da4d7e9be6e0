/**
 * Cuts a stream of bytes into frames (docs/protocol.md, 2 and 3.1). Knows no sockets and no types of frames.
 *
 *   preamble ──8 bytes──▶ frames ⟲            anything wrong, or stop() ──▶ stopped, for good
 *
 * A frame that lies within one chunk is handed on as a view of it. One that straddles chunks is assembled by one copy,
 * in a buffer that grows with the bytes that arrive and never with the length that was announced.
 */
import { BroadcastError } from '../errors.js';
import { malformed } from './bytes.js';
import { FRAME_HEADER, MAGIC, PREAMBLE_BYTES, VERSION } from './constants.js';

/** Takes what the parser finds. May stop it, or push more, in the middle of a chunk; what it throws comes out of `push`. */
export interface FrameSink {
  /** The peer has introduced its protocol. */
  onPreamble(): void;
  /** `frame` is the whole frame with its length and type; a view that nobody writes to again. */
  onFrame(type: number, frame: Buffer): void;
}

/** Bytes of a frame's length. */
const LENGTH_BYTES = 4;
/** The first allocation for a frame that straddles chunks. */
const FIRST_ASSEMBLY = 512;

export class FrameParser {
  readonly #sink: FrameSink;
  #maxFrame: number;
  /** Bytes that the opening may still take; Infinity once it is done. */
  #openingLeft: number;
  #state: 'preamble' | 'frames' | 'stopped' = 'preamble';
  #preambleBytes = 0;
  #version = 0;
  #minVersion = 0;
  #reserved = 0;
  /** The beginning of an unfinished frame. */
  #partial: Buffer | undefined;
  #size = 0;
  /** What a sink pushed while a chunk is taken apart. */
  #waiting: Buffer[] | undefined;
  #pushing = false;

  /** `openingBytes`: what the peer may send, after its preamble, until `setMaxFrame` says that the opening is done. */
  constructor(sink: FrameSink, openingBytes: number) {
    this.#sink = sink;
    this.#maxFrame = openingBytes;
    this.#openingLeft = openingBytes;
  }

  /** Bytes that wait for the rest of their frame, or of the preamble. */
  get pending(): number {
    return this.#state === 'preamble' ? this.#preambleBytes : this.#size;
  }

  /** Bytes that are set aside for an unfinished frame. */
  get allocated(): number {
    return this.#partial?.length ?? 0;
  }

  get isStopped(): boolean {
    return this.#state === 'stopped';
  }

  /** The opening is done (2.2): frames up to this length are taken from now on, also in the chunk that is at hand. */
  setMaxFrame(bytes: number): void {
    this.#maxFrame = bytes;
    this.#openingLeft = Infinity;
  }

  /** Nothing further is handed on, whatever is pushed. */
  stop(): void {
    this.#state = 'stopped';
    this.#partial = undefined;
    this.#size = 0;
    this.#waiting = undefined;
  }

  /**
   * Takes the next bytes. Throws `not-broadcast`, `protocol-version`, `protocol-error`, `frame-too-large`,
   * `handshake-too-large`, and what the sink throws; it is stopped then.
   */
  push(chunk: Buffer): void {
    if (this.#pushing) {
      (this.#waiting ??= []).push(chunk);
      return;
    }
    this.#pushing = true;
    try {
      this.#take(chunk);
      while (this.#waiting !== undefined) {
        const waiting: Buffer[] = this.#waiting;
        this.#waiting = undefined;
        for (const next of waiting) this.#take(next);
      }
    } catch (error) {
      this.stop();
      throw error;
    } finally {
      this.#pushing = false;
    }
  }

  #take(chunk: Buffer): void {
    let at = 0;
    if (this.#state === 'preamble') at = this.#takePreamble(chunk);
    if (this.#size > 0) at = this.#takeRest(chunk, at);
    while (this.#state === 'frames' && chunk.length - at >= LENGTH_BYTES) {
      const end = at + LENGTH_BYTES + this.#checkLength(chunk.readUInt32LE(at));
      if (end > chunk.length) break;
      const frame = chunk.subarray(at, end);
      at = end;
      this.#hand(frame);
    }
    if (this.#state === 'frames' && at < chunk.length) this.#keepRest(chunk, at);
  }

  #keepRest(chunk: Buffer, at: number): void {
    const isLengthKnown = chunk.length - at >= LENGTH_BYTES;
    this.#keep(chunk, at, chunk.length, isLengthKnown ? LENGTH_BYTES + chunk.readUInt32LE(at) : Infinity);
  }

  /** 3.1: refused at the first byte that is wrong. */
  #takePreamble(chunk: Buffer): number {
    let at = 0;
    while (at < chunk.length && this.#preambleBytes < PREAMBLE_BYTES) {
      const byte = chunk[at++] as number;
      const index = this.#preambleBytes++;
      if (index < MAGIC.length) {
        if (byte !== MAGIC[index]) throw notBroadcast();
      } else if (index === 4) this.#version = byte;
      else if (index === 5) this.#minVersion = byte;
      else this.#reserved |= byte;
    }
    if (this.#preambleBytes === PREAMBLE_BYTES) this.#checkPreamble();
    return at;
  }

  #checkPreamble(): void {
    if (this.#minVersion > VERSION || this.#version < VERSION) {
      throw new BroadcastError(
        'protocol-version',
        `the peer speaks version ${String(this.#version)} of the protocol, this side version ${String(VERSION)}; use the same release at both ends`,
      );
    }
    if (this.#reserved !== 0) throw notBroadcast();
    this.#state = 'frames';
    this.#sink.onPreamble();
  }

  /** 2.1, 2.2: before anything is allocated. */
  #checkLength(length: number): number {
    if (length < 1) throw malformed('its length is 0');
    if (length + LENGTH_BYTES > this.#openingLeft) {
      throw new BroadcastError(
        'handshake-too-large',
        `an introduction of ${String(length + LENGTH_BYTES)} bytes is larger than what is accepted`,
      );
    }
    if (length > this.#maxFrame) {
      throw new BroadcastError(
        'frame-too-large',
        `a frame of ${String(length)} bytes exceeds the ${String(this.#maxFrame)} that are accepted`,
      );
    }
    return length;
  }

  #hand(frame: Buffer): void {
    this.#openingLeft -= frame.length;
    this.#sink.onFrame(frame[FRAME_HEADER - 1] as number, frame);
  }

  /** Goes on with an unfinished frame; returns where the next one starts. */
  #takeRest(chunk: Buffer, start: number): number {
    let at = start;
    if (this.#size < LENGTH_BYTES) {
      const end = Math.min(at + LENGTH_BYTES - this.#size, chunk.length);
      this.#keep(chunk, at, end);
      at = end;
      if (this.#size < LENGTH_BYTES) return at;
    }
    const whole = LENGTH_BYTES + this.#checkLength((this.#partial as Buffer).readUInt32LE(0));
    const end = Math.min(at + whole - this.#size, chunk.length);
    this.#keep(chunk, at, end, whole);
    if (this.#size < whole) return end;
    const frame = (this.#partial as Buffer).subarray(0, whole);
    this.#partial = undefined;
    this.#size = 0;
    this.#hand(frame);
    return end;
  }

  /** Sets bytes of an unfinished frame aside: at most twice what has arrived, and not more than the frame when that is known. */
  #keep(chunk: Buffer, from: number, to: number, whole = Infinity): void {
    const needed = this.#size + to - from;
    if (this.#partial === undefined || this.#partial.length < needed) {
      const larger = Buffer.allocUnsafeSlow(Math.min(Math.max(FIRST_ASSEMBLY, needed * 2), Math.max(whole, needed)));
      this.#partial?.copy(larger, 0, 0, this.#size);
      this.#partial = larger;
    }
    chunk.copy(this.#partial, this.#size, from, to);
    this.#size = needed;
  }
}

function notBroadcast(): BroadcastError {
  return new BroadcastError(
    'not-broadcast',
    'the peer does not speak the Broadcast protocol: its first bytes are others',
  );
}
