/** Writing and reading the protocol's notation (docs/protocol.md, 1), with every bound checked. */
import { BroadcastError } from '../errors.js';
import { FRAME_HEADER } from './constants.js';

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** A run of numbers, as `ranges` are written. */
export interface WireRange {
  readonly first: number;
  readonly count: number;
}

/** Builds one frame. */
export class Writer {
  #buffer = Buffer.allocUnsafe(256);
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
    this.#reserve(1);
    this.#buffer[this.#size++] = value;
    return this;
  }

  u48(value: number): this {
    this.#reserve(6);
    this.#size = this.#buffer.writeUIntLE(value, this.#size, 6);
    return this;
  }

  varint(value: number): this {
    this.#reserve(8);
    while (value >= 0x80) {
      this.#buffer[this.#size++] = (value % 128) | 0x80;
      value = Math.floor(value / 128);
    }
    this.#buffer[this.#size++] = value;
    return this;
  }

  str(text: string): this {
    const length = Buffer.byteLength(text);
    this.varint(length);
    this.#reserve(length);
    this.#size += this.#buffer.write(text, this.#size, 'utf8');
    return this;
  }

  bytes(value: Uint8Array): this {
    this.varint(value.length);
    return this.raw(value);
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
    this.varint(length * 2 + 1);
    this.#reserve(length);
    this.#size += this.#buffer.write(name, this.#size, 'utf8');
    return this;
  }

  id16(hex: string): this {
    this.#reserve(16);
    this.#size += this.#buffer.write(hex, this.#size, 16, 'hex');
    return this;
  }

  ranges(ranges: readonly WireRange[]): this {
    this.varint(ranges.length);
    let end = -1;
    for (const { first, count } of ranges) {
      this.varint(first - (end + 1)).varint(count - 1);
      end = first + count;
    }
    return this;
  }

  /** The finished frame; `following` more bytes of its payload are sent behind it. */
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
    let scale = 128;
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
      scale *= 128;
    }
    throw malformed('a number is too large');
  }

  str(maxBytes = this.end - this.offset): string {
    const length = this.varint();
    if (length > maxBytes && length <= this.end - this.offset) throw malformed('a text is too long');
    return this.text(length);
  }

  /** `length` bytes of UTF-8. */
  text(length: number): string {
    const at = this.#take(length);
    if (length < 24) {
      // Short names are nearly always ASCII, and then this is several times faster than the decoder.
      let text = '';
      let i = at;
      for (; i < at + length; i++) {
        const byte = this.buffer[i] as number;
        if (byte >= 0x80) break;
        text += String.fromCharCode(byte);
      }
      if (i === at + length) return text;
    }
    try {
      return utf8.decode(this.buffer.subarray(at, at + length));
    } catch {
      throw malformed('a text is not valid UTF-8');
    }
  }

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
    if (count * elementBytes > this.end - this.offset) throw malformed('more elements are announced than there are bytes');
    return count;
  }

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

export function malformed(text: string): BroadcastError {
  return new BroadcastError('protocol-error', `malformed frame: ${text}`);
}
