/**
 * A batch: consecutive messages of one sending instance that share an envelope (targets, name, headers, …), as it is
 * encoded once by the sender, routed, stored and delivered as one unit. The bodies are opaque bytes to all but the ends.
 *
 *   items   ┌────────────┬──────────────┬──────────┐
 *           │ u32le size │ id delta     │ body …   │  × count        size = bytes behind it in this item
 *           └────────────┴──────────────┴──────────┘
 *
 * The id delta is the zigzag varint of (id counter − (previous id counter + 1)); see docs/protocol.md, clause 6.
 */

/** `Buffer` where the types of Node are there, as they are here; the published declarations compile without them. */
export type Bytes = typeof globalThis extends { Buffer: { isBuffer(value: unknown): value is infer B } }
  ? B
  : Uint8Array;

/** What the messages of a batch have in common. */
export interface Envelope {
  readonly channels: readonly string[];
  readonly clients: readonly string[];
  /** True: to every client that is connected when it is routed; then there are no other targets. */
  readonly everyone: boolean;
  readonly name: string | undefined;
  readonly headers: Readonly<Record<string, string>> | undefined;
  readonly persistent: boolean;
  /** The sender also wants to know the final outcome (`until: 'delivered'`). */
  readonly tracked: boolean;
  /** Remaining time to live in milliseconds when the batch was written, or undefined. */
  readonly ttl: number | undefined;
  /** The sender has sent it before, to a run of the server that is gone: it may have been handled. */
  readonly resent: boolean;
  /** The prefix of the messages' ids. */
  readonly idPrefix: string;
}

/** Who sent a batch; the server's own messages have an instance id too, and no name. */
export interface SenderIdentity {
  /** The instance's id: 32 hexadecimal digits. */
  readonly instance: string;
  /** The client's name; undefined for the server itself. */
  readonly name: string | undefined;
}

/** Consecutive messages of one sender under one envelope. */
export interface Batch {
  readonly sender: SenderIdentity;
  readonly envelope: Envelope;
  /** Position of the first message in its sender's sequence, from 1. */
  readonly first: number;
  /** Number of messages, at least 1. */
  readonly count: number;
  /** Id counter of the first message minus the delta of its item, that is: the counter that a delta of 0 means. */
  readonly idBase: number;
  /** The sender's floor when the batch was written: below it everything is settled and nothing is sent again. */
  readonly floor: number;
  /** When the server took it, in epoch milliseconds. */
  readonly timestamp: number;
  /** The items, one behind the other. */
  readonly items: Bytes;
  /** The batch as the layer that speaks the wire keeps it to forward it as it came; nobody else looks at it. */
  wire?: unknown;
}

/** Bytes in front of each item. */
export const ITEM_HEADER = 4;

/** Where each item of a batch starts, plus the end: `count + 1` offsets into `items`. Throws RangeError when they do not add up. */
export function itemOffsets(items: Bytes, count: number): Uint32Array {
  const offsets = new Uint32Array(count + 1);
  let offset = 0;
  for (let i = 0; i < count; i++) {
    offsets[i] = offset;
    offset += ITEM_HEADER + items.readUInt32LE(offset);
  }
  offsets[count] = offset;
  if (offset !== items.length) throw new RangeError('the items do not fill the batch');
  return offsets;
}

/** Part of a batch: `count` messages from `offset` on. The items are a view, not a copy. */
export function sliceBatch(batch: Batch, offset: number, count: number): Batch {
  if (offset === 0 && count === batch.count) return batch;
  const { items } = batch;
  let at = 0;
  let idBase = batch.idBase;
  for (let i = 0; i < offset; i++) {
    idBase += 1 + readDelta(items, at + ITEM_HEADER);
    at += ITEM_HEADER + items.readUInt32LE(at);
  }
  const start = at;
  for (let i = 0; i < count; i++) at += ITEM_HEADER + items.readUInt32LE(at);
  return {
    sender: batch.sender,
    envelope: batch.envelope,
    first: batch.first + offset,
    count,
    idBase,
    floor: batch.floor,
    timestamp: batch.timestamp,
    items: items.subarray(start, at),
  };
}

/** The id delta of an item: a zigzag varint (docs/protocol.md, 1.2). */
function readDelta(items: Bytes, at: number): number {
  let value = 0;
  let scale = 1;
  for (;;) {
    const byte = items[at++] as number;
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) break;
    scale *= 128;
  }
  return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
}

/** The id counter of each message, in order. */
export function idCounters(batch: Pick<Batch, 'idBase' | 'count' | 'items'> & Partial<Batch>): number[] {
  const counters: number[] = [];
  let at = 0;
  let next = batch.idBase;
  for (let i = 0; i < batch.count; i++) {
    next += readDelta(batch.items, at + ITEM_HEADER);
    counters.push(next++);
    at += ITEM_HEADER + batch.items.readUInt32LE(at);
  }
  return counters;
}

/** The id counter of one message of a batch. */
export function idCounterAt(batch: Pick<Batch, 'idBase' | 'items'>, index: number): number {
  let at = 0;
  let next = batch.idBase;
  for (let i = 0; ; i++) {
    next += readDelta(batch.items, at + ITEM_HEADER);
    if (i === index) return next;
    next++;
    at += ITEM_HEADER + batch.items.readUInt32LE(at);
  }
}

/** Bytes of some messages of a batch, with the bytes in front of each. */
export function bytesOf(batch: Batch, offset: number, count: number): number {
  if (count === batch.count) return batch.items.length;
  let at = 0;
  for (let i = 0; i < offset; i++) at += ITEM_HEADER + batch.items.readUInt32LE(at);
  const start = at;
  for (let i = 0; i < count; i++) at += ITEM_HEADER + batch.items.readUInt32LE(at);
  return at - start;
}
