/** BATCH and REBATCH records as bytes: a batch of messages, and the queues that they are in. */
import { ITEM_HEADER, type Batch, type Bytes, type Envelope } from '../../batch.js';
import { MalformedRecord, RecordWriter, type RecordReader } from './record.js';

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

/** A time and a time to live, each as large as a number can be and still be exact. */
const MAX_EXPIRY = 2 ** 54;

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
  const placements = decodePlacements(reader);
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
  const texts = (): string[] => Array.from({ length: reader.count() }, () => reader.str());
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
        ? Object.fromEntries(Array.from({ length: reader.count() }, () => [reader.str(), reader.str()]))
        : undefined,
    ttl: (flags & FLAG.TTL) !== 0 ? reader.varint() : undefined,
  };
}

function decodePlacements(reader: RecordReader): Placement[] {
  const placements: Placement[] = [];
  for (let n = reader.varint(); n > 0; n--) {
    const queue = reader.str();
    const offset = reader.varint();
    const count = reader.varint();
    const attempts = reader.varint();
    placements.push({ queue, offset, count, attempts, note: reader.u8() === 1 ? reader.str() : undefined });
  }
  return placements;
}

/** What the index keeps of a batch. */
export interface BatchSummary {
  readonly handle: number;
  readonly expiresAt: number;
  readonly placements: readonly Placement[];
  readonly instance: string;
  readonly name: string | undefined;
  readonly first: number;
  readonly count: number;
  readonly idBase: number;
  readonly idPrefix: string;
  readonly tracked: boolean;
  readonly items: Bytes;
}

/**
 * Reads no more of a BATCH or REBATCH than the index needs: a restart reads all of them. Throws `MalformedRecord` unless
 * the rest can be read later as well.
 */
export function summarizeBatch(reader: RecordReader): BatchSummary {
  const handle = reader.varint();
  const expiresAt = reader.f64();
  const placements = decodePlacements(reader);
  const flags = reader.u8();
  const instance = reader.hex16();
  const name = (flags & FLAG.NAMED_SENDER) !== 0 ? reader.str() : undefined;
  const first = reader.varint();
  const count = reader.varint();
  const idBase = reader.varint();
  reader.varint();
  reader.f64();
  const tracked = (flags & FLAG.TRACKED) !== 0;
  let idPrefix = '';
  if (tracked) idPrefix = reader.str();
  else reader.skip();
  for (let lists = 0; lists < 2; lists++) for (let n = reader.varint(); n > 0; n--) reader.skip();
  if ((flags & FLAG.NAME) !== 0) reader.skip();
  if ((flags & FLAG.HEADERS) !== 0) for (let n = 2 * reader.varint(); n > 0; n--) reader.skip();
  if ((flags & FLAG.TTL) !== 0) reader.varint();
  const items = reader.rest();
  if (
    handle + count > Number.MAX_SAFE_INTEGER ||
    first + count > Number.MAX_SAFE_INTEGER ||
    !(expiresAt >= 0 && expiresAt <= MAX_EXPIRY)
  )
    throw new MalformedRecord('a number is out of range');
  for (const placement of placements) {
    if (placement.count === 0 || placement.offset + placement.count > count)
      throw new MalformedRecord('a place lies outside of the batch');
  }
  checkItems(items, count);
  return { handle, expiresAt, placements, instance, name, first, count, idBase, idPrefix, tracked, items };
}

/** The items fill the batch, and each has the distance of its id. */
function checkItems(items: Bytes, count: number): void {
  let at = 0;
  let left = count;
  for (; left > 0 && at + ITEM_HEADER < items.length; left--) {
    let delta = at + ITEM_HEADER;
    at = delta + items.readUInt32LE(at);
    if (at > items.length) break;
    while (delta < at && (items[delta] as number) >= 0x80) delta++;
    if (delta >= at) break;
  }
  if (count === 0 || left > 0 || at !== items.length) throw new MalformedRecord('the items do not fill the batch');
}
