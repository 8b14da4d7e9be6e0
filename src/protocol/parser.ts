/**
 * Cuts a stream of bytes into frames (docs/protocol.md, 2 and 3.1).
 *
 *   preamble ──8 bytes──▶ length ──4 bytes──▶ frame ──complete──▶ length …
 *
 * A frame that lies within one chunk is handed on as a view of it. One that straddles chunks is assembled by one copy
 * into a buffer that grows with the bytes that arrive, never with the length that was announced.
 */
import { BroadcastError } from '../errors.js';
import { FRAME_HEADER, MAGIC, PREAMBLE_BYTES, VERSION } from './constants.js';

/** Takes what the parser finds. May stop it in the middle of a chunk. */
export interface FrameSink {
  /** The peer has introduced its protocol. */
  onPreamble(): void;
  /** `frame` is the whole frame with its length and type; a view that is valid as long as its holder keeps it. */
  onFrame(type: number, frame: Buffer): void;
}

/** The first allocation for a frame that straddles chunks. */
const FIRST_ASSEMBLY = 4096;

export class FrameParser {
  readonly #sink: FrameSink;
  #maxFrame: number;
  #preamble = 0;
  #minVersion = 0;
  #version = 0;
  /** Bytes of an unfinished frame. */
  #partial: Buffer | undefined;
  #size = 0;
  #stopped = false;

  constructor(sink: FrameSink, maxFrame: number) {
    this.#sink = sink;
    this.#maxFrame = maxFrame;
  }

  /** Bytes that wait for the rest of their frame. */
  get pending(): number {
    return this.#size;
  }

  setMaxFrame(bytes: number): void {
    this.#maxFrame = bytes;
  }

  /** Nothing further is handed on. */
  stop(): void {
    this.#stopped = true;
    this.#partial = undefined;
    this.#size = 0;
  }

  /** Takes the next bytes. Throws `not-broadcast`, `protocol-version`, `protocol-error`, `frame-too-large`, and what the sink throws. */
  push(chunk: Buffer): void {
    let at = 0;
    if (this.#preamble < PREAMBLE_BYTES) {
      at = this.#takePreamble(chunk);
      if (this.#preamble < PREAMBLE_BYTES) return;
    }
    if (this.#size > 0) at = this.#continue(chunk, at);
    while (!this.#stopped && at < chunk.length) {
      const available = chunk.length - at;
      if (available < 4) break;
      const length = chunk.readUInt32LE(at);
      this.#check(length);
      if (available < length + 4) break;
      const frame = chunk.subarray(at, at + length + 4);
      at += length + 4;
      this.#sink.onFrame(frame[4] as number, frame);
    }
    if (!this.#stopped && at < chunk.length) this.#keep(chunk, at, chunk.length);
  }

  #takePreamble(chunk: Buffer): number {
    let at = 0;
    while (at < chunk.length && this.#preamble < PREAMBLE_BYTES) {
      const byte = chunk[at++] as number;
      const index = this.#preamble++;
      if (index < MAGIC.length && byte !== MAGIC[index]) {
        throw new BroadcastError('not-broadcast', 'the peer does not speak the Broadcast protocol: wrong first bytes');
      }
      if (index === 4) this.#version = byte;
      if (index === 5) this.#minVersion = byte;
    }
    if (this.#preamble === PREAMBLE_BYTES) {
      if (this.#minVersion > VERSION || this.#version < VERSION) {
        throw new BroadcastError('protocol-version', `the peer speaks version ${String(this.#version)} of the protocol, this side ${String(VERSION)}`);
      }
      this.#sink.onPreamble();
    }
    return at;
  }

  #check(length: number): void {
    if (length < 1) throw new BroadcastError('protocol-error', 'malformed frame: its length is 0');
    if (length > this.#maxFrame) {
      throw new BroadcastError('frame-too-large', `a frame of ${String(length)} bytes exceeds the ${String(this.#maxFrame)} that are accepted`);
    }
  }

  /** Goes on with an unfinished frame; returns where the next one starts. */
  #continue(chunk: Buffer, start: number): number {
    let at = start;
    if (this.#size < 4) {
      const missing = Math.min(4 - this.#size, chunk.length - at);
      this.#keep(chunk, at, at + missing);
      at += missing;
      if (this.#size < 4) return at;
    }
    const partial = this.#partial as Buffer;
    const length = partial.readUInt32LE(0);
    this.#check(length);
    const missing = Math.min(length + 4 - this.#size, chunk.length - at);
    this.#keep(chunk, at, at + missing, length + 4);
    at += missing;
    if (this.#size < length + 4) return at;
    const frame = (this.#partial as Buffer).subarray(0, this.#size);
    this.#partial = undefined;
    this.#size = 0;
    this.#sink.onFrame(frame[4] as number, frame);
    return at;
  }

  #keep(chunk: Buffer, from: number, to: number, frameBytes = 0): void {
    const needed = this.#size + to - from;
    let partial = this.#partial;
    if (partial === undefined || partial.length < needed) {
      let size = Math.max(FIRST_ASSEMBLY, needed, Math.min(frameBytes, needed * 2));
      if (this.#size === 0 && to - from >= FRAME_HEADER - 1) {
        // The length is known: a frame that is half here gets its buffer at once.
        const length = chunk.readUInt32LE(from) + 4;
        if (length <= this.#maxFrame + 4 && length <= 2 * needed) size = length;
      }
      const larger = Buffer.allocUnsafeSlow(size);
      if (partial !== undefined) partial.copy(larger, 0, 0, this.#size);
      partial = larger;
      this.#partial = partial;
    }
    chunk.copy(partial, this.#size, from, to);
    this.#size = needed;
  }
}
