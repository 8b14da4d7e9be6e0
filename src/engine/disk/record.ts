/**
 * The records of the log as bytes (docs/store-format.md). Pure: no files.
 *
 *   ┌──────────┬──────────┬─────────┬───────────┬─────────┐
 *   │ u32 size │ u32 crc  │ u8 type │ payload … │ 0 to 7 0│   size = type and payload; records start at multiples of 8
 *   └──────────┴──────────┴─────────┴───────────┴─────────┘
 *
 * The checksum is seeded with the segment's salt and the record's offset, so that bytes of another segment or place, or
 * of a message's body, are never taken for a record.
 */
import { crc32 } from 'node:zlib';

export const RECORD_HEADER = 8;
export const ALIGNMENT = 8;

export const RECORD = {
  BATCH: 1,
  ACK: 2,
  MOVE: 3,
  ATTEMPT: 4,
  DROP: 5,
  PUT: 6,
  FLOOR: 7,
  SENDER: 8,
  REBATCH: 9,
  COMMIT: 10,
} as const;

const LAST_TYPE = RECORD.COMMIT;

/** Size of a record with a payload of so many bytes (its type included), padding included. */
export function recordSize(size: number): number {
  return Math.ceil((RECORD_HEADER + size) / ALIGNMENT) * ALIGNMENT;
}

/** A growing buffer for one record. */
export class RecordWriter {
  #buffer: Buffer;
  #size = RECORD_HEADER;

  constructor(type: number, expected = 120) {
    this.#buffer = Buffer.allocUnsafe(RECORD_HEADER + ALIGNMENT + expected);
    this.u8(type);
  }

  #reserve(bytes: number): void {
    if (this.#size + bytes + ALIGNMENT <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#size + bytes + ALIGNMENT));
    this.#buffer.copy(larger, 0, 0, this.#size);
    this.#buffer = larger;
  }

  u8(value: number): this {
    this.#reserve(1);
    this.#buffer[this.#size++] = value;
    return this;
  }

  f64(value: number): this {
    this.#reserve(8);
    this.#size = this.#buffer.writeDoubleLE(value, this.#size);
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

  hex16(hex: string): this {
    this.#reserve(16);
    this.#size += this.#buffer.write(hex, this.#size, 16, 'hex');
    return this;
  }

  raw(bytes: Uint8Array): this {
    this.#reserve(bytes.length);
    this.#buffer.set(bytes, this.#size);
    this.#size += bytes.length;
    return this;
  }

  /** The record but for its checksum, which its place in the log decides; padded. */
  finish(): Buffer {
    const end = recordSize(this.#size - RECORD_HEADER);
    this.#buffer.fill(0, this.#size, end);
    this.#buffer.writeUInt32LE(this.#size - RECORD_HEADER, 0);
    return this.#buffer.subarray(0, end);
  }
}

function checksum(bytes: Buffer, at: number, size: number, salt: number, offset: number): number {
  const seed = (salt ^ Math.imul(offset, 0x9e3779b1)) >>> 0;
  return crc32(bytes.subarray(at + RECORD_HEADER, at + RECORD_HEADER + size), (seed ^ size) >>> 0);
}

/** Fills in the checksum of a record that lies at `at` in `bytes` and will lie at `offset` in its segment. */
export function sealRecord(bytes: Buffer, at: number, salt: number, offset: number): void {
  const size = bytes.readUInt32LE(at);
  bytes.writeUInt32LE(checksum(bytes, at, size, salt, offset), at + 4);
}

/** The size of the payload of a whole record at `at`, or 0 when there is none. */
export function readSize(bytes: Buffer, at: number, salt: number, offset: number): number {
  if (at + RECORD_HEADER >= bytes.length) return 0;
  const size = bytes.readUInt32LE(at);
  if (size === 0 || at + recordSize(size) > bytes.length) return 0;
  const type = bytes[at + RECORD_HEADER] as number;
  if (type === 0 || type > LAST_TYPE) return 0;
  return bytes.readUInt32LE(at + 4) === checksum(bytes, at, size, salt, offset) ? size : 0;
}

/** A record with the right checksum says what no record can say: it was written wrong. */
export class MalformedRecord extends Error {}

/** Reads one record, and nothing behind it. Throws `MalformedRecord`. */
export class RecordReader {
  readonly #bytes: Buffer;
  #at: number;
  readonly #end: number;

  /** `at` is where the record starts, `size` what `readSize` said. */
  constructor(bytes: Buffer, at: number, size: number) {
    this.#bytes = bytes;
    this.#at = at + RECORD_HEADER;
    this.#end = this.#at + size;
  }

  #take(bytes: number): number {
    const at = this.#at;
    if (bytes > this.#end - at) throw new MalformedRecord('a field is cut short');
    this.#at = at + bytes;
    return at;
  }

  u8(): number {
    return this.#bytes[this.#take(1)] as number;
  }

  f64(): number {
    const value = this.#bytes.readDoubleLE(this.#take(8));
    if (!Number.isFinite(value)) throw new MalformedRecord('a number is none');
    return value;
  }

  varint(): number {
    let value = 0;
    let scale = 1;
    while (this.#at < this.#end) {
      const byte = this.#bytes[this.#at++] as number;
      value += (byte & 0x7f) * scale;
      if (byte >= 0x80) scale *= 128;
      else if (value <= Number.MAX_SAFE_INTEGER) return value;
      else break;
    }
    throw new MalformedRecord('a number is cut short or too large');
  }

  /** A number of elements, each of which takes a byte at least. */
  count(): number {
    const count = this.varint();
    if (count > this.#end - this.#at) throw new MalformedRecord('more elements are announced than there are bytes');
    return count;
  }

  str(): string {
    const length = this.varint();
    const at = this.#take(length);
    return this.#bytes.toString('utf8', at, at + length);
  }

  hex16(): string {
    const at = this.#take(16);
    return this.#bytes.toString('hex', at, at + 16);
  }

  /** Passes over a text. */
  skip(): void {
    this.#take(this.varint());
  }

  rest(): Buffer {
    return this.#bytes.subarray(this.#at, this.#end);
  }
}

// ---- commits ------------------------------------------------------------------------------------------------------------

/** What a COMMIT says. It ends a group; one without records is a mark, which says how far the log is durable. */
export interface CommitRecord {
  /** Everything before this place was durable before the group was written. */
  readonly durable: { readonly segment: number; readonly offset: number };
  /** Where the group begins in this segment. */
  readonly start: number;
  readonly nextHandle: number;
  /** The wall clock, and engine time. */
  readonly wall: number;
  readonly time: number;
  /** The number of the oldest segment that is needed: those before it may be gone. Without, nobody knows. */
  readonly neededFrom?: number | undefined;
}

/** Room that a COMMIT takes at most. */
export const COMMIT_SPACE: number = recordSize(1 + 5 * 8 + 16);

export function encodeCommit({ durable, start, nextHandle, wall, time, neededFrom }: CommitRecord): Buffer {
  const writer = new RecordWriter(RECORD.COMMIT).varint(durable.segment).varint(durable.offset).varint(start);
  writer.varint(nextHandle).f64(wall).f64(time);
  return (neededFrom === undefined ? writer : writer.varint(neededFrom)).finish();
}

/** Reads a COMMIT behind its type. Throws `MalformedRecord`. */
export function decodeCommit(reader: RecordReader): CommitRecord {
  const commit: CommitRecord = {
    durable: { segment: reader.varint(), offset: reader.varint() },
    start: reader.varint(),
    nextHandle: reader.varint(),
    wall: reader.f64(),
    time: reader.f64(),
    neededFrom: reader.rest().length > 0 ? reader.varint() : undefined,
  };
  if (!(commit.time >= 0 && commit.time <= Number.MAX_SAFE_INTEGER)) throw new MalformedRecord('the time is none');
  return commit;
}
