/**
 * Writing and reading the protocol's notation (docs/protocol.md, 1), with every bound checked. A reader never allocates
 * more than the bytes in front of it can justify.
 */
import { isUtf8 } from 'node:buffer';
import { BroadcastError } from '../errors.js';
import { FRAME_HEADER } from './constants.js';

/** A run of numbers, as `ranges` are written. */
export interface WireRange {
  readonly first: number;
  readonly count: number;
}

const MAX_U48 = 2 ** 48 - 1;
/** Most frames are smaller than this, and it still comes from Node's pool. */
const FIRST_SIZE = 256;
/** Up to here a text is looked through byte by byte, which is faster than a call into the engine's decoder. */
const SHORT_TEXT = 64;
const LONE_SURROGATE = /\p{Surrogate}/u;

/** What a peer did wrong: its connection ends. */
export function malformed(text: string): BroadcastError {
  return new BroadcastError('protocol-error', `malformed frame: ${text}`);
}

/** Builds one frame. Numbers that cannot be written are a RangeError: the caller's fault, not the peer's. */
export class Writer {
  #buffer = Buffer.allocUnsafe(FIRST_SIZE);
  #size: number;

  constructor(type: number) {
    this.#buffer[4] = type;
    this.#size = FRAME_HEADER;
  }

  #reserve(bytes: number): void {
    if (this.#size + bytes <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#size + bytes));
    this.#buffer.copy(larger, 0, 0, this.#size);
    this.#buffer = larger;
  }

  u8(value: number): this {
    if (!(value >= 0 && value <= 0xff)) throw new RangeError(`${String(value)} is not a u8`);
    this.#reserve(1);
    this.#buffer[this.#size++] = value;
    return this;
  }

  flag(value: boolean): this {
    return this.u8(value ? 1 : 0);
  }

  /** Fractions are cut off: a clock may have them. */
  u48(value: number): this {
    if (!(value >= 0 && value <= MAX_U48)) throw new RangeError(`${String(value)} is not a u48`);
    this.#reserve(6);
    this.#size = this.#buffer.writeUIntLE(Math.floor(value), this.#size, 6);
    return this;
  }

  varint(value: number): this {
    if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${String(value)} is not a varint`);
    this.#reserve(8);
    let rest = value;
    while (rest >= 0x80) {
      this.#buffer[this.#size++] = (rest % 0x80) + 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.#buffer[this.#size++] = rest;
    return this;
  }

  zigzag(value: number): this {
    return this.varint(value < 0 ? -2 * value - 1 : 2 * value);
  }

  /** Throws `invalid-name` for a lone surrogate, which UTF-8 cannot carry. */
  str(text: string): this {
    const length = Buffer.byteLength(text);
    return this.varint(length).#text(text, length);
  }

  #text(text: string, length: number): this {
    if (length !== text.length && LONE_SURROGATE.test(text)) {
      throw new BroadcastError(
        'invalid-name',
        `${JSON.stringify(text.slice(0, 80))} has a lone surrogate, which UTF-8 cannot carry`,
      );
    }
    this.#reserve(length);
    this.#size += this.#buffer.write(text, this.#size, 'utf8');
    return this;
  }

  bytes(value: Uint8Array): this {
    return this.varint(value.length).raw(value);
  }

  raw(value: Uint8Array): this {
    this.#reserve(value.length);
    this.#buffer.set(value, this.#size);
    this.#size += value.length;
    return this;
  }

  /** A target of a message (5.3): an alias, or the name in full. */
  target(alias: number | undefined, name: string): this {
    if (alias !== undefined) return this.varint(alias * 2);
    const length = Buffer.byteLength(name);
    return this.varint(length * 2 + 1).#text(name, length);
  }

  id16(hex: string): this {
    this.#reserve(16);
    const written = this.#buffer.write(hex, this.#size, 16, 'hex');
    if (written !== 16 || hex.length !== 32)
      throw new RangeError(`${JSON.stringify(hex)} is not 32 hexadecimal digits`);
    this.#size += written;
    return this;
  }

  /** 1.5: ascending, and not touching. */
  ranges(ranges: readonly WireRange[]): this {
    this.varint(ranges.length);
    let end = -1;
    for (const { first, count } of ranges) {
      this.varint(first - (end + 1)).varint(count - 1);
      end = first + count;
    }
    return this;
  }

  /** The finished frame, or its beginning when `following` more bytes of the payload are sent behind it. */
  finish(following = 0): Buffer {
    this.#buffer.writeUInt32LE(this.#size - 4 + following, 0);
    return this.#buffer.subarray(0, this.#size);
  }
}

/** Reads one payload; what is missing, left over or out of range is a `protocol-error` (2.3). */
export class Reader {
  readonly buffer: Buffer;
  offset: number;
  readonly end: number;

  constructor(buffer: Buffer, offset = 0, end: number = buffer.length) {
    this.buffer = buffer;
    this.offset = offset;
    this.end = end;
  }

  #take(bytes: number): number {
    const at = this.offset;
    if (bytes > this.end - at) throw malformed('a field is cut short');
    this.offset = at + bytes;
    return at;
  }

  u8(): number {
    return this.buffer[this.#take(1)] as number;
  }

  /** A u8 that is 0 or 1. */
  flag(): boolean {
    const value = this.u8();
    if (value > 1) throw malformed('a flag is neither 0 nor 1');
    return value === 1;
  }

  /** A u8 of flags; `known` are the bits that have a meaning. */
  flags(known: number): number {
    const value = this.u8();
    if ((value & ~known) !== 0) throw malformed('a flag is not known');
    return value;
  }

  u48(): number {
    return this.buffer.readUIntLE(this.#take(6), 6);
  }

  varint(): number {
    const { buffer, end } = this;
    let at = this.offset;
    if (at >= end) throw malformed('a number is cut short');
    let byte = buffer[at++] as number;
    if (byte < 0x80) {
      this.offset = at;
      return byte;
    }
    let value = byte & 0x7f;
    let scale = 0x80;
    for (let i = 1; i < 8; i++) {
      if (at >= end) throw malformed('a number is cut short');
      byte = buffer[at++] as number;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        if (byte === 0) throw malformed('a number is longer than it need be');
        if (value > Number.MAX_SAFE_INTEGER) break;
        this.offset = at;
        return value;
      }
      scale *= 0x80;
    }
    throw malformed('a number is too large');
  }

  /** A varint of at least `min`. */
  atLeast(min: number, what: string): number {
    const value = this.varint();
    if (value < min) throw malformed(`${what} is at least ${String(min)}`);
    return value;
  }

  zigzag(): number {
    const value = this.varint();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }

  str(maxBytes: number = this.end): string {
    const length = this.varint();
    const text = this.text(length);
    if (length > maxBytes) throw malformed(`a text of ${String(length)} bytes is longer than ${String(maxBytes)}`);
    return text;
  }

  /** `length` bytes of UTF-8. */
  text(length: number): string {
    const at = this.#take(length);
    const { buffer } = this;
    const end = at + length;
    if (length <= SHORT_TEXT) {
      let i = at;
      while (i < end && (buffer[i] as number) < 0x80) i++;
      if (i === end) return buffer.toString('latin1', at, end);
    }
    if (!isUtf8(buffer.subarray(at, end))) throw malformed('a text is not valid UTF-8');
    return buffer.toString('utf8', at, end);
  }

  /** A view, not a copy. */
  bytes(): Buffer {
    const length = this.varint();
    const at = this.#take(length);
    return this.buffer.subarray(at, at + length);
  }

  id16(): string {
    const at = this.#take(16);
    return this.buffer.toString('hex', at, at + 16);
  }

  /** A number of elements that each take at least `elementBytes`: checked before anything is made of it. */
  count(elementBytes: number): number {
    const count = this.varint();
    if (count * elementBytes > this.end - this.offset)
      throw malformed('more elements are announced than there are bytes');
    return count;
  }

  /** 1.5 */
  ranges(): WireRange[] {
    const n = this.count(2);
    const ranges: WireRange[] = new Array<WireRange>(n);
    let end = -1;
    for (let i = 0; i < n; i++) {
      const first = end + 1 + this.varint();
      const count = this.varint() + 1;
      end = first + count;
      if (end > Number.MAX_SAFE_INTEGER) throw malformed('a range is out of bounds');
      ranges[i] = { first, count };
    }
    return ranges;
  }

  /** The payload must be at its end. */
  done(): void {
    if (this.offset !== this.end) throw malformed(`${String(this.end - this.offset)} bytes are left over`);
  }
}
