/**
 * MESSAGES, the frame of the hot path: consecutive messages of one sender under one envelope (docs/protocol.md, 6).
 * The bodies are never looked at, and never copied.
 *
 *   flags timestamp sender first floor idBase count │ channels clients name? headers? ttl? idPrefix? │ items …
 *   └──────────────── numbers ─────────────────────┘ └─────────── the section: an Envelope ────────┘
 *
 * A publisher's frames mostly repeat the section byte for byte. An `EnvelopeMemo` recognises that, and the batches of a
 * run then share one Envelope object.
 */
import { ITEM_HEADER, sliceBatch, type Batch, type Envelope, type SenderIdentity } from '../batch.js';
import { malformed, Reader, Writer } from './bytes.js';
import { FRAME, FRAME_HEADER, MESSAGE_FLAG, MESSAGE_FLAGS } from './constants.js';
import { readIdPrefix, readNameOrEmpty, readTargetName } from './fields.js';

/** A sending instance as SENDER announces it (5.1). */
export interface KnownSender {
  readonly identity: SenderIdentity;
  readonly idPrefix: string;
}

/** What the receiver of a frame knows of aliases. An alias never changes its meaning (5.1). */
export interface AliasLookup {
  channel(alias: number): string | undefined;
  client(alias: number): string | undefined;
  sender(alias: number): KnownSender | undefined;
}

/** What the writer of a frame knows of them; undefined: the name is written in full. */
export interface AliasSource {
  channel(name: string): number | undefined;
  client(name: string): number | undefined;
}

export interface DecodedMessages {
  readonly batch: Batch;
  /** The alias under which the sender was written. */
  readonly senderAlias: number;
  /** Every target was written as an alias. */
  readonly aliased: boolean;
}

const NONE: readonly string[] = Object.freeze([]);

/**
 * Decodes a payload; the items are a view of it. `memo`, one for each connection, spares the making of equal envelopes.
 * `offset`: where the payload starts in `buffer`.
 */
export function decodeMessages(buffer: Buffer, lookup: AliasLookup, memo?: EnvelopeMemo, offset = 0): DecodedMessages {
  const reader = new Reader(buffer, offset);
  const flags = reader.flags(MESSAGE_FLAGS);
  const timestamp = reader.u48();
  const senderAlias = reader.varint();
  const sender = lookup.sender(senderAlias);
  if (sender === undefined) throw malformed('the sender’s alias is not known');
  const first = reader.varint();
  const floor = reader.varint();
  const idBase = reader.varint();
  const count = reader.varint();
  if (first < 1 || floor > first || count < 1 || first + count > Number.MAX_SAFE_INTEGER) {
    throw malformed('the positions of a batch are out of range');
  }
  let section = memo?.find(flags, senderAlias, reader);
  if (section === undefined) {
    const start = reader.offset;
    section = readSection(reader, flags, sender, lookup);
    memo?.remember(section, senderAlias, buffer, start, reader.offset);
  }
  const { envelope, aliased } = section;
  const items = buffer.subarray(reader.offset);
  checkItems(items, count, idBase);
  return {
    batch: { sender: sender.identity, envelope, first, count, idBase, floor, timestamp, items, wire: undefined },
    senderAlias,
    aliased,
  };
}

// ---- the section -----------------------------------------------------------------------------------------------------------

interface Section {
  readonly flags: number;
  readonly envelope: Envelope;
  readonly aliased: boolean;
}

function readSection(reader: Reader, flags: number, sender: KnownSender, lookup: AliasLookup): Section {
  const start = { aliased: true };
  const channels = readTargets(reader, start, lookup, 'channel');
  const clients = readTargets(reader, start, lookup, 'client');
  const everyone = (flags & MESSAGE_FLAG.EVERYONE) !== 0;
  if (everyone !== (channels.length + clients.length === 0)) throw malformed('a batch has targets, or is for everyone');
  const envelope: Envelope = {
    channels,
    clients,
    everyone,
    persistent: (flags & MESSAGE_FLAG.PERSISTENT) !== 0,
    tracked: (flags & MESSAGE_FLAG.TRACKED) !== 0,
    resent: (flags & MESSAGE_FLAG.RESENT) !== 0,
    name: (flags & MESSAGE_FLAG.NAME) !== 0 ? readNameOrEmpty(reader, 'the message name') : undefined,
    headers: (flags & MESSAGE_FLAG.HEADERS) !== 0 ? readHeaders(reader) : undefined,
    ttl: (flags & MESSAGE_FLAG.TTL) !== 0 ? reader.varint() : undefined,
    idPrefix: (flags & MESSAGE_FLAG.FOREIGN_ID) !== 0 ? readIdPrefix(reader, false) : sender.idPrefix,
  };
  return { flags, envelope, aliased: start.aliased };
}

/** 5.3 */
function readTargets(
  reader: Reader,
  state: { aliased: boolean },
  lookup: AliasLookup,
  kind: 'channel' | 'client',
): readonly string[] {
  const n = reader.count(1);
  if (n === 0) return NONE;
  const names = new Array<string>(n);
  for (let i = 0; i < n; i++) {
    const target = reader.varint();
    if (target % 2 === 0) {
      const name = kind === 'channel' ? lookup.channel(target / 2) : lookup.client(target / 2);
      if (name === undefined) throw malformed(`a ${kind}’s alias is not known`);
      names[i] = name;
    } else {
      state.aliased = false;
      names[i] = readTargetName(reader, (target - 1) / 2, kind);
    }
  }
  return Object.freeze(names);
}

function readHeaders(reader: Reader): Readonly<Record<string, string>> {
  const headers = new Map<string, string>();
  for (let n = reader.count(2); n > 0; n--) {
    const key = reader.str();
    if (headers.has(key)) throw malformed('a header is given twice');
    headers.set(key, reader.str());
  }
  // fromEntries defines own properties, so that a key `__proto__` is a key like any other.
  return Object.freeze(Object.fromEntries(headers));
}

interface Remembered {
  section: Section;
  senderAlias: number;
  /** The section's bytes are the first `length` of these. */
  bytes: Uint8Array;
  length: number;
}

/** Sections longer than this are read each time: a peer shall not make us keep them. */
const LONGEST_REMEMBERED = 256;
/** A power of two. */
const SLOTS = 8;

/**
 * The envelopes that a connection used last. Equal bytes after equal flags of the same sender mean the same, because a
 * section says by itself where it ends, and because aliases do not change their meaning.
 */
export class EnvelopeMemo {
  readonly #slots: (Remembered | undefined)[] = [];

  /** The section at the reader's place, when it is known; the reader is then behind it. */
  find(flags: number, senderAlias: number, reader: Reader): Section | undefined {
    const { buffer, offset } = reader;
    const known = this.#slots[slotOf(flags, buffer, offset)];
    if (known === undefined || known.section.flags !== flags || known.senderAlias !== senderAlias) return undefined;
    const { bytes, length } = known;
    // What is missing at the end of a buffer is undefined, which equals no byte.
    for (let i = 0; i < length; i++) if (buffer[offset + i] !== bytes[i]) return undefined;
    reader.offset = offset + length;
    return known.section;
  }

  remember(section: Section, senderAlias: number, buffer: Buffer, start: number, end: number): void {
    const length = end - start;
    if (length > LONGEST_REMEMBERED) return;
    const slot = slotOf(section.flags, buffer, start);
    let known = this.#slots[slot];
    // Copied: a view would keep a whole chunk of the socket's alive. And into the same place again: who sends to many
    // channels in turn has a new section with each frame.
    if (known === undefined || known.bytes.length < length)
      known = this.#slots[slot] = { section, senderAlias, bytes: new Uint8Array(2 * length), length };
    for (let i = 0; i < length; i++) known.bytes[i] = buffer[start + i] as number;
    known.section = section;
    known.senderAlias = senderAlias;
    known.length = length;
  }
}

/** By the flags and the first targets: enough to keep apart what one publisher alternates between. */
function slotOf(flags: number, buffer: Buffer, at: number): number {
  const a = buffer[at + 1] as number;
  const b = buffer[at + 2] as number;
  return (flags ^ (a >> 1) ^ b) & (SLOTS - 1);
}

// ---- the items -------------------------------------------------------------------------------------------------------------

/** 6.1, 6.3: the items add up, each has the delta of an id, and no id's counter leaves its range. */
function checkItems(items: Buffer, count: number, idBase: number): void {
  let at = 0;
  let drift = 0;
  const end = items.length;
  for (let i = 0; i < count; i++) {
    const body = at + ITEM_HEADER;
    if (body >= end) throw malformed('an item is cut short');
    const size =
      (items[at] as number) +
      (items[at + 1] as number) * 0x100 +
      (items[at + 2] as number) * 0x10000 +
      (items[at + 3] as number) * 0x1000000;
    const next = body + size;
    if (size < 1) throw malformed('an item is empty');
    if (next > end) throw malformed('an item is cut short');
    if (items[body] !== 0) {
      drift += new Reader(items, body, next).zigzag();
      const counter = idBase + i + drift;
      if (counter < 0 || counter > Number.MAX_SAFE_INTEGER) throw malformed('the counter of an id is out of range');
    }
    at = next;
  }
  if (at !== end) throw malformed(`${String(end - at)} bytes are left over`);
  if (idBase + count + drift > Number.MAX_SAFE_INTEGER) throw malformed('the counter of an id is out of range');
}

// ---- writing ---------------------------------------------------------------------------------------------------------------

function flagsOf({ persistent, everyone, name, headers, ttl, tracked, resent }: Envelope, foreign: boolean): number {
  return (
    (persistent ? MESSAGE_FLAG.PERSISTENT : 0) |
    (everyone ? MESSAGE_FLAG.EVERYONE : 0) |
    (name !== undefined ? MESSAGE_FLAG.NAME : 0) |
    (headers !== undefined ? MESSAGE_FLAG.HEADERS : 0) |
    (ttl !== undefined ? MESSAGE_FLAG.TTL : 0) |
    (tracked ? MESSAGE_FLAG.TRACKED : 0) |
    (foreign ? MESSAGE_FLAG.FOREIGN_ID : 0) |
    (resent ? MESSAGE_FLAG.RESENT : 0)
  );
}

/** The beginning of a frame, to be followed by `batch.items`. `senderIdPrefix`: what SENDER or HELLO has said of it. */
export function encodeMessagesHeader(
  batch: Batch,
  sender: number,
  aliases: AliasSource,
  senderIdPrefix: string,
): Buffer {
  const { envelope } = batch;
  const { channels, clients, name, headers, ttl, idPrefix } = envelope;
  const foreign = idPrefix !== senderIdPrefix;
  const writer = new Writer(FRAME.MESSAGES)
    .u8(flagsOf(envelope, foreign))
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
  if (ttl !== undefined) writer.varint(Math.max(0, Math.ceil(ttl)));
  if (foreign) writer.str(idPrefix);
  return writer.finish(batch.items.length);
}

/** Part of a batch as a frame of its own: its header, and the items as a view. */
export function encodeSlice(
  batch: Batch,
  offset: number,
  count: number,
  sender: number,
  aliases: AliasSource,
  senderIdPrefix: string,
): [header: Buffer, items: Buffer] {
  const part = sliceBatch(batch, offset, count);
  return [encodeMessagesHeader(part, sender, aliases, senderIdPrefix), part.items];
}

/** Writes the server's time into a payload as it came (6.5). */
export function patchTimestamp(payload: Buffer, at: number, offset = 0): void {
  payload.writeUIntLE(Math.floor(at), offset + 1, 6);
}

/** Where the timestamp stands in a whole frame. */
export const TIMESTAMP_OFFSET: number = FRAME_HEADER + 1;
