/**
 * A batch of the outbox: bodies are written right into its items, behind one another, and their receipts learn from it what
 * became of them. Its envelope is what its messages have in common; a message that differs opens another batch.
 */
import { idCounterAt, ITEM_HEADER, type Batch, type Envelope, type SenderIdentity } from '../batch.js';
import type { LazyReceipt } from '../lazy-receipt.js';
import { formatId, type BroadcastMessage, type MessageId } from '../message.js';
import { envelopeOf, type BodyWriter } from '../outgoing.js';
import { BatchReceipts, partsOf } from './batch-receipts.js';
import type { SpareBuffers } from './spare-buffers.js';

/** A batch is closed when it has so many bytes or messages; the server then handles it as one. */
const BATCH_BYTES = 64 * 1024;
const BATCH_MESSAGES = 1024;
const FIRST_ALLOCATION = 1024;
const FULL_ALLOCATION = BATCH_BYTES + 8192;
/** The longest delta of an id. */
export const MAX_DELTA = 8;
const NOTHING = Buffer.alloc(0);
/** Room for a body before it is known. */
const FIRST_ROOM = 256;

export class OutBatch {
  readonly envelope: Envelope;
  /** The single target of each kind, else null; the message's own lists and headers, which are compared first. */
  readonly #channel: string | null;
  readonly #client: string | null;
  readonly #headers: Readonly<Record<string, string>>;
  readonly first: number;
  readonly #spare: SpareBuffers;
  readonly #idBase: number;
  /** Monotonic time at which it was opened and its messages expire; without a time to live 0 and Infinity. */
  readonly #openedAt: number;
  readonly expiresAt: number;
  /** Of messages whose final outcome is waited for the outbox keeps the receipts. */
  readonly receipts = new BatchReceipts();
  count = 0;
  #lastId: number;
  /** The counter of each message's id is one more than that of the message before it, as is usual. */
  #isGapless = true;
  #buffer: Buffer;
  /** The message that was written last: in which buffer, and where its body begins and ends. */
  #written: Buffer;
  #bodyAt = 0;
  #end = 0;
  /** Bytes of the items. */
  size = 0;
  /** Takes no further messages. */
  isSealed = false;
  /** Written to a connection, this one or an earlier one. */
  isWritten = false;
  /** It was written to another run of the server, which may have delivered it. */
  isDoubtful = false;
  /** Messages from the start that are settled, and the settled ones behind them. */
  prefix = 0;
  #later: Set<number> | undefined;

  /** `expected`: bytes that the batch before took, as this one will probably take so many as well. */
  constructor(
    message: BroadcastMessage,
    id: MessageId,
    first: number,
    tracked: boolean,
    now: number,
    expected: number,
    spare: SpareBuffers,
  ) {
    const { headers, ttl } = message;
    this.envelope = envelopeOf(message, id.prefix, tracked);
    this.#channel = message.channel;
    this.#client = message.client;
    this.#headers = headers;
    this.first = first;
    this.#idBase = id.counter;
    this.#lastId = id.counter - 1;
    this.#openedAt = now;
    this.expiresAt = ttl === undefined ? Infinity : now + ttl;
    this.#spare = spare;
    this.#buffer = spare.take(Math.min(FULL_ALLOCATION, Math.max(FIRST_ALLOCATION, (expected * 9) >> 3)));
    this.#written = this.#buffer;
  }

  fits(message: BroadcastMessage, id: MessageId, tracked: boolean, now: number): boolean {
    const { envelope } = this;
    return (
      !this.isSealed &&
      this.count < BATCH_MESSAGES &&
      message.channel === this.#channel &&
      message.client === this.#client &&
      message.persistent === envelope.persistent &&
      message.name === envelope.name &&
      message.ttl === envelope.ttl &&
      now === this.#openedAt &&
      tracked === envelope.tracked &&
      id.prefix === envelope.idPrefix &&
      (message.headers === this.#headers || sameHeaders(message.headers, this.#headers)) &&
      (message.channel !== null || sameNames(message.channels, envelope.channels)) &&
      (message.client !== null || sameNames(message.clients, envelope.clients))
    );
  }

  get items(): Buffer {
    return this.#buffer.subarray(0, this.size);
  }

  /** The position behind its last message. */
  get end(): number {
    return this.first + this.count;
  }

  get isFull(): boolean {
    return this.size >= BATCH_BYTES;
  }

  /**
   * Writes a message behind the others, where it counts once it is taken. False when it does not belong here after all:
   * it is so large that it gets a batch of its own, or reading its data has sent another message meanwhile.
   */
  write(message: BroadcastMessage, counter: number, write: BodyWriter): boolean {
    const start = this.size;
    const at = this.#writeHead(counter, FIRST_ROOM);
    const { buffer, end } = write(message, this.#buffer, at);
    this.#written = buffer;
    this.#bodyAt = at;
    this.#end = end;
    if (this.isSealed || this.size !== start || (start > 0 && end >= BATCH_BYTES * 2)) return false;
    this.#buffer = buffer;
    return true;
  }

  /** Bytes of the body that was written last. */
  get bodyBytes(): number {
    return this.#end - this.#bodyAt;
  }

  /** The body that was written last, for another batch. */
  takeBody(): Buffer {
    return Buffer.from(this.#written.subarray(this.#bodyAt, this.#end));
  }

  /** Writes a message whose data is encoded already. */
  copy(counter: number, body: Buffer): void {
    this.#bodyAt = this.#writeHead(counter, body.length);
    this.#buffer.set(body, this.#bodyAt);
    this.#end = this.#bodyAt + body.length;
  }

  /** What stands before a body, with room for it; returns where it goes. */
  #writeHead(counter: number, bytes: number): number {
    const buffer = this.#roomFor(ITEM_HEADER + MAX_DELTA + bytes);
    const delta = counter - (this.#lastId + 1);
    const at = this.size + ITEM_HEADER;
    if (delta !== 0) {
      this.#isGapless = false;
      return writeDelta(buffer, at, delta);
    }
    buffer[at] = 0;
    return at + 1;
  }

  /** The message that was written last counts; returns by how many bytes the batch has grown. */
  take(counter: number, receipt: LazyReceipt): number {
    const start = this.size;
    const end = this.#end;
    const size = end - start - ITEM_HEADER;
    const buffer = this.#buffer;
    buffer[start] = size & 0xff;
    buffer[start + 1] = (size >>> 8) & 0xff;
    buffer[start + 2] = (size >>> 16) & 0xff;
    buffer[start + 3] = size >>> 24;
    this.size = end;
    this.#lastId = counter;
    if (!this.envelope.tracked) receipt.learnFrom(this.receipts, this.count);
    this.count++;
    return end - start;
  }

  #roomFor(bytes: number): Buffer {
    const needed = this.size + bytes;
    const buffer = this.#buffer;
    if (needed <= buffer.length) return buffer;
    const larger = this.#spare.take(Math.max(needed, Math.min(FULL_ALLOCATION, buffer.length * 4)));
    buffer.copy(larger, 0, 0, this.size);
    this.#buffer = larger;
    return larger;
  }

  /**
   * As it is written. `now`: monotonic time, from which the time to live that is left follows; `resent`: another run of
   * the server may have had it.
   */
  asBatch(sender: SenderIdentity, floor: number, now: number, resent: boolean): Batch {
    const { first, count, expiresAt } = this;
    let { envelope } = this;
    if (expiresAt !== Infinity) envelope = { ...envelope, ttl: Math.max(1, Math.ceil(expiresAt - now)) };
    if (resent) envelope = { ...envelope, resent };
    return {
      sender,
      envelope,
      first,
      count,
      idBase: this.#idBase,
      floor: Math.min(floor, first),
      timestamp: 0,
      items: this.items,
    };
  }

  // ---- what is settled -------------------------------------------------------------------------------------------------------

  isSettled(index: number): boolean {
    return index < this.prefix || this.#later?.has(index) === true;
  }

  /** False when it was settled before. */
  settle(index: number): boolean {
    if (this.isSettled(index)) return false;
    if (index > this.prefix) {
      (this.#later ??= new Set()).add(index);
      return true;
    }
    this.prefix++;
    this.#takeLater();
    return true;
  }

  /** Settles all from `from` to before `end`; returns the runs of those that were not settled before. */
  settleRun(from: number, end: number): readonly { from: number; end: number }[] {
    if (from === this.prefix && this.#later === undefined) {
      this.prefix = end;
      return [{ from, end }];
    }
    return partsOf(from, end, index => this.settle(index));
  }

  #takeLater(): void {
    while (this.#later?.delete(this.prefix) === true) this.prefix++;
    if (this.#later?.size === 0) this.#later = undefined;
  }

  get isUntouched(): boolean {
    return this.prefix === 0 && this.#later === undefined;
  }

  /** Runs of messages that are neither settled nor `taken`. */
  unsettled(taken: (position: number) => boolean): readonly { from: number; end: number }[] {
    return partsOf(this.prefix, this.count, i => !this.isSettled(i) && !taken(this.first + i));
  }

  /**
   * It is gone from the outbox: the server has told what became of it, or it was never sent, so that nothing that is still
   * to be written refers to its buffer. Where the ids cannot be counted off it is kept for them.
   */
  release(): void {
    if (!this.#isGapless) return;
    this.#spare.give(this.#buffer);
    this.#buffer = NOTHING;
    this.#written = NOTHING;
  }

  /** The id of a message. */
  idAt(index: number): string {
    const idBase = this.#idBase;
    const counter = this.#isGapless ? idBase + index : idCounterAt({ idBase, items: this.items }, index);
    return formatId(this.envelope.idPrefix, counter);
  }
}

function sameHeaders(a: Readonly<Record<string, string>>, b: Readonly<Record<string, string>>): boolean {
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every(key => a[key] === b[key]);
}

function sameNames(a: readonly string[], b: readonly string[]): boolean {
  return a === b || (a.length === b.length && a.every((name, i) => name === b[i]));
}

/** Zigzag varint (docs/protocol.md, 1.2). */
function writeDelta(buffer: Buffer, at: number, delta: number): number {
  let value = delta >= 0 ? delta * 2 : -delta * 2 - 1;
  while (value >= 0x80) {
    buffer[at++] = (value % 128) | 0x80;
    value = Math.floor(value / 128);
  }
  buffer[at++] = value;
  return at;
}
