/**
 * The records of the log as bytes (docs/store-format.md). Pure: no files.
 *
 *   ┌──────────┬──────────┬─────────┬───────────┬─────────┐
 *   │ u32 size │ u32 crc  │ u8 type │ payload … │ 0 to 7 0│   size = type and payload; records start at multiples of 8
 *   └──────────┴──────────┴─────────┴───────────┴─────────┘
 *
 * The checksum is seeded with the segment's salt and the record's offset, so that bytes of another segment or place
 * are never taken for a record.
 */
import { crc32 } from 'node:zlib';
import type { Batch, Envelope } from '../../batch.js';

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

  u8(): number {
    return this.#bytes[this.#at++] as number;
  }

  f64(): number {
    this.#at += 8;
    return this.#bytes.readDoubleLE(this.#at - 8);
  }

  varint(): number {
    let value = 0;
    let scale = 1;
    for (;;) {
      const byte = this.#bytes[this.#at++] as number;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
      scale *= 128;
    }
  }

  str(): string {
    const length = this.varint();
    this.#at += length;
    return this.#bytes.toString('utf8', this.#at - length, this.#at);
  }

  hex16(): string {
    this.#at += 16;
    return this.#bytes.toString('hex', this.#at - 16, this.#at);
  }

  rest(): Buffer {
    return this.#bytes.subarray(this.#at, this.#end);
  }
}

// ---- batches -----------------------------------------------------------------------------------------------------------

/** Where messages of a batch are, as BATCH and REBATCH say it. */
export interface Placement {
  readonly queue: string;
  readonly offset: number;
  readonly count: number;
  readonly attempts: number;
  readonly note: string | undefined;
}

export interface BatchRecord {
  readonly handle: number;
  readonly expiresAt: number;
  readonly batch: Batch;
  readonly placements: readonly Placement[];
}

const FLAG = {
  PERSISTENT: 1,
  EVERYONE: 2,
  NAME: 4,
  HEADERS: 8,
  TTL: 16,
  TRACKED: 32,
  NAMED_SENDER: 64,
  RESENT: 128,
} as const;

export function encodeBatch(type: number, { handle, expiresAt, batch, placements }: BatchRecord): Buffer {
  const { envelope, sender } = batch;
  const writer = new RecordWriter(type, batch.items.length + 160).varint(handle).f64(expiresAt);
  writer.varint(placements.length);
  for (const { queue, offset, count, attempts, note } of placements) {
    writer
      .str(queue)
      .varint(offset)
      .varint(count)
      .varint(attempts)
      .u8(note === undefined ? 0 : 1);
    if (note !== undefined) writer.str(note);
  }
  writer
    .u8(
      (envelope.persistent ? FLAG.PERSISTENT : 0) +
        (envelope.everyone ? FLAG.EVERYONE : 0) +
        (envelope.name !== undefined ? FLAG.NAME : 0) +
        (envelope.headers !== undefined ? FLAG.HEADERS : 0) +
        (envelope.ttl !== undefined ? FLAG.TTL : 0) +
        (envelope.tracked ? FLAG.TRACKED : 0) +
        (envelope.resent ? FLAG.RESENT : 0) +
        (sender.name !== undefined ? FLAG.NAMED_SENDER : 0),
    )
    .hex16(sender.instance);
  if (sender.name !== undefined) writer.str(sender.name);
  writer
    .varint(batch.first)
    .varint(batch.count)
    .varint(batch.idBase)
    .varint(batch.floor)
    .f64(batch.timestamp)
    .str(envelope.idPrefix);
  writer.varint(envelope.channels.length);
  for (const channel of envelope.channels) writer.str(channel);
  writer.varint(envelope.clients.length);
  for (const client of envelope.clients) writer.str(client);
  if (envelope.name !== undefined) writer.str(envelope.name);
  if (envelope.headers !== undefined) {
    const headers = Object.entries(envelope.headers);
    writer.varint(headers.length);
    for (const [key, value] of headers) writer.str(key).str(value);
  }
  if (envelope.ttl !== undefined) writer.varint(envelope.ttl);
  return writer.raw(batch.items).finish();
}

/** Reads a BATCH or REBATCH record behind its type; the items are a view. */
export function decodeBatch(reader: RecordReader): BatchRecord {
  const handle = reader.varint();
  const expiresAt = reader.f64();
  const placements: Placement[] = [];
  for (let n = reader.varint(); n > 0; n--) {
    const queue = reader.str();
    const offset = reader.varint();
    const count = reader.varint();
    const attempts = reader.varint();
    placements.push({ queue, offset, count, attempts, note: reader.u8() === 1 ? reader.str() : undefined });
  }
  const flags = reader.u8();
  const instance = reader.hex16();
  const name = (flags & FLAG.NAMED_SENDER) !== 0 ? reader.str() : undefined;
  const first = reader.varint();
  const count = reader.varint();
  const idBase = reader.varint();
  const floor = reader.varint();
  const timestamp = reader.f64();
  const envelope = decodeEnvelope(reader, flags);
  const batch: Batch = {
    sender: { instance, name },
    envelope,
    first,
    count,
    idBase,
    floor,
    timestamp,
    items: reader.rest(),
  };
  return { handle, expiresAt, batch, placements };
}

function decodeEnvelope(reader: RecordReader, flags: number): Envelope {
  const idPrefix = reader.str();
  const texts = (): string[] => Array.from({ length: reader.varint() }, () => reader.str());
  const channels = texts();
  const clients = texts();
  return {
    idPrefix,
    channels,
    clients,
    everyone: (flags & FLAG.EVERYONE) !== 0,
    persistent: (flags & FLAG.PERSISTENT) !== 0,
    tracked: (flags & FLAG.TRACKED) !== 0,
    resent: (flags & FLAG.RESENT) !== 0,
    name: (flags & FLAG.NAME) !== 0 ? reader.str() : undefined,
    headers:
      (flags & FLAG.HEADERS) !== 0
        ? Object.fromEntries(Array.from({ length: reader.varint() }, () => [reader.str(), reader.str()]))
        : undefined,
    ttl: (flags & FLAG.TTL) !== 0 ? reader.varint() : undefined,
  };
}

// ---- the segment's header --------------------------------------------------------------------------------------------------

export const SEGMENT_HEADER = 64;
const MAGIC = 'BCSTLOG\n';
export const FORMAT_VERSION = 1;

export interface SegmentHeader {
  readonly number: number;
  readonly storeId: string;
  readonly salt: number;
  /** The next handle when the segment was begun: handles go on from here even when older segments are gone. */
  readonly nextHandle: number;
}

export function encodeSegmentHeader(header: SegmentHeader): Buffer {
  const bytes = Buffer.alloc(SEGMENT_HEADER);
  bytes.write(MAGIC, 0, 'latin1');
  bytes.writeUInt32LE(FORMAT_VERSION, 8);
  bytes.writeUInt32LE(header.salt, 12);
  bytes.writeDoubleLE(header.number, 16);
  bytes.writeDoubleLE(header.nextHandle, 24);
  bytes.write(header.storeId, 32, 16, 'hex');
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 60)), 60);
  return bytes;
}

/** What a segment's first bytes are. */
export function decodeSegmentHeader(bytes: Buffer): SegmentHeader | 'empty' | 'foreign' | 'newer' | 'damaged' {
  if (bytes.every(byte => byte === 0)) return 'empty';
  const magic = bytes.toString('latin1', 0, 8) === MAGIC;
  const whole = bytes.length >= SEGMENT_HEADER && bytes.readUInt32LE(60) === crc32(bytes.subarray(0, 60));
  if (!magic) return whole || bytes.length >= SEGMENT_HEADER ? 'foreign' : 'damaged';
  if (bytes.length >= 12 && bytes.readUInt32LE(8) > FORMAT_VERSION && whole) return 'newer';
  if (!whole) return 'damaged';
  return {
    salt: bytes.readUInt32LE(12),
    number: bytes.readDoubleLE(16),
    nextHandle: bytes.readDoubleLE(24),
    storeId: bytes.toString('hex', 32, 48),
  };
}
