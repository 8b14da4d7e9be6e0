/** MESSAGES, the frame of the hot path: consecutive messages of one sender under one envelope (docs/protocol.md, 6). */
import { ITEM_HEADER, type Batch, type Envelope } from '../batch.js';
import { checkName } from '../names.js';
import { malformed, Reader, Writer } from './bytes.js';
import { FRAME, FRAME_HEADER, MESSAGE_FLAG } from './constants.js';

/** What the receiver of a frame knows of aliases. */
export interface AliasLookup {
  channel(alias: number): string | undefined;
  client(alias: number): string | undefined;
  sender(alias: number): { readonly identity: Batch['sender']; readonly idPrefix: string } | undefined;
}

/** What the writer of a frame knows of them; undefined: the name is written in full. */
export interface AliasSource {
  channel(name: string): number | undefined;
  client(name: string): number | undefined;
}

export interface DecodedMessages {
  readonly batch: Batch;
  /** Every target was written as an alias: the frame can be forwarded as it is. */
  readonly aliased: boolean;
}

const NONE: readonly string[] = Object.freeze([]);

/** Decodes a payload; the items are a view of it, not a copy. */
export function decodeMessages(payload: Buffer, lookup: AliasLookup): DecodedMessages {
  const reader = new Reader(payload);
  const flags = reader.u8();
  const timestamp = reader.u48();
  const sender = lookup.sender(reader.varint());
  if (sender === undefined) throw malformed('the sender’s alias is not known');
  const first = reader.varint();
  const floor = reader.varint();
  const idBase = reader.varint();
  const count = reader.varint();
  if (first < 1 || floor > first || count < 1) throw malformed('the positions of a batch are out of range');
  const targets = { aliased: true };
  const channels = readTargets(reader, targets, alias => lookup.channel(alias), 'the channel');
  const clients = readTargets(reader, targets, alias => lookup.client(alias), 'the client');
  const everyone = (flags & MESSAGE_FLAG.EVERYONE) !== 0;
  if (everyone !== (channels.length + clients.length === 0)) throw malformed('a batch has targets, or is for everyone');
  const envelope: Envelope = {
    channels,
    clients,
    everyone,
    persistent: (flags & MESSAGE_FLAG.PERSISTENT) !== 0,
    tracked: (flags & MESSAGE_FLAG.TRACKED) !== 0,
    name: (flags & MESSAGE_FLAG.NAME) !== 0 ? reader.str() : undefined,
    headers: (flags & MESSAGE_FLAG.HEADERS) !== 0 ? readHeaders(reader) : undefined,
    ttl: (flags & MESSAGE_FLAG.TTL) !== 0 ? reader.varint() : undefined,
    idPrefix: (flags & MESSAGE_FLAG.FOREIGN_ID) !== 0 ? reader.str(64) : sender.idPrefix,
  };
  const items = payload.subarray(reader.offset);
  checkItems(items, count);
  return { batch: { sender: sender.identity, envelope, first, count, idBase, floor, timestamp, items }, aliased: targets.aliased };
}

function readTargets(reader: Reader, state: { aliased: boolean }, lookup: (alias: number) => string | undefined, what: string): readonly string[] {
  const n = reader.count(1);
  if (n === 0) return NONE;
  const names = new Array<string>(n);
  for (let i = 0; i < n; i++) {
    const t = reader.varint();
    if (t % 2 === 0) {
      const name = lookup(t / 2);
      if (name === undefined) throw malformed(`an alias of ${what} is not known`);
      names[i] = name;
    } else {
      state.aliased = false;
      const name = reader.text((t - 1) / 2);
      checkName(name, what);
      names[i] = name;
    }
  }
  return Object.freeze(names);
}

function readHeaders(reader: Reader): Readonly<Record<string, string>> {
  const headers: [string, string][] = [];
  for (let n = reader.count(2); n > 0; n--) headers.push([reader.str(), reader.str()]);
  // fromEntries defines own properties, so that a key `__proto__` is a key like any other.
  return Object.freeze(Object.fromEntries(headers));
}

/** 6.1: the items add up, and each has an id delta. */
function checkItems(items: Buffer, count: number): void {
  let at = 0;
  const end = items.length;
  for (let i = 0; i < count; i++) {
    if (at + ITEM_HEADER > end) throw malformed('an item is cut short');
    const size = (items[at] as number) + (items[at + 1] as number) * 0x100 + (items[at + 2] as number) * 0x10000 + (items[at + 3] as number) * 0x1000000;
    if (size < 2) throw malformed('an item has no body');
    const next = at + ITEM_HEADER + size;
    if (next > end) throw malformed('an item is cut short');
    if ((items[at + ITEM_HEADER] as number) >= 0x80) checkDelta(items, at + ITEM_HEADER, next);
    at = next;
  }
  if (at !== end) throw malformed(`${String(end - at)} bytes are left over`);
}

function checkDelta(items: Buffer, at: number, end: number): void {
  new Reader(items, at, end).varint();
}

/** The header of a frame, to be followed by `batch.items`. */
export function encodeMessagesHeader(batch: Batch, sender: number, aliases: AliasSource, senderIdPrefix: string): Buffer {
  const { envelope } = batch;
  const { channels, clients, name, headers, ttl, idPrefix } = envelope;
  const foreign = idPrefix !== senderIdPrefix;
  const writer = new Writer(FRAME.MESSAGES)
    .u8(
      (envelope.persistent ? MESSAGE_FLAG.PERSISTENT : 0) +
        (envelope.everyone ? MESSAGE_FLAG.EVERYONE : 0) +
        (name !== undefined ? MESSAGE_FLAG.NAME : 0) +
        (headers !== undefined ? MESSAGE_FLAG.HEADERS : 0) +
        (ttl !== undefined ? MESSAGE_FLAG.TTL : 0) +
        (envelope.tracked ? MESSAGE_FLAG.TRACKED : 0) +
        (foreign ? MESSAGE_FLAG.FOREIGN_ID : 0),
    )
    .u48(batch.timestamp)
    .varint(sender)
    .varint(batch.first)
    .varint(batch.floor)
    .varint(batch.idBase)
    .varint(batch.count)
    .varint(channels.length);
  for (const channel of channels) writer.target(aliases.channel(channel), channel);
  writer.varint(clients.length);
  for (const client of clients) writer.target(aliases.client(client), client);
  if (name !== undefined) writer.str(name);
  if (headers !== undefined) {
    const entries = Object.entries(headers);
    writer.varint(entries.length);
    for (const [key, value] of entries) writer.str(key).str(value);
  }
  if (ttl !== undefined) writer.varint(ttl);
  if (foreign) writer.str(idPrefix);
  return writer.finish(batch.items.length);
}

/** Writes the server's time into a frame as it came (6.5). */
export function patchTimestamp(payload: Buffer, at: number): void {
  payload.writeUIntLE(at, 1, 6);
}

/** Bytes of a payload in front of the timestamp's end; for those who patch frames. */
export const TIMESTAMP_OFFSET: number = FRAME_HEADER + 1;
