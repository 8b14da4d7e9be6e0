/**
 * The outbox: messages from `sendMessage` until they are safe. Bodies are encoded when they come, right into the items
 * of a batch; a batch is what is sent, sent again and settled.
 *
 *   open (takes messages) ──end of turn, full, other envelope──▶ sealed ──▶ on the wire ──receipts──▶ gone
 *                                                                  ▲            │
 *                                                                  └─ lost ─────┘ in order, before anything new
 */
import { sliceBatch, type Batch, type Envelope, type SenderIdentity } from '../batch.js';
import type { Clock, Timer } from '../clock.js';
import { Deque } from '../deque.js';
import { BroadcastError } from '../errors.js';
import { LazyReceipt } from '../lazy-receipt.js';
import { processIdPrefix, type BroadcastMessage, type MessageId } from '../message.js';
import { encodeMessagesHeader, type AliasSource } from '../protocol/messages.js';
import { RangeSet } from '../range-set.js';
import { oversize, type MessageLimits } from './oversize.js';
import type { DeliveryFailure, FailureReason } from '../receipts.js';
import type { WireOutcome } from '../protocol/frames.js';

/** A batch is closed when it has so many bytes or messages; the server then handles it as one. */
const BATCH_BYTES = 32 * 1024;
const BATCH_MESSAGES = 1024;
const FIRST_ALLOCATION = 1024;
/** Bytes in front of a body, at most: its size, and the delta of its id. */
const ITEM_BYTES = 4 + 8;

interface OutBatch {
  readonly message: BroadcastMessage;
  readonly envelope: Envelope;
  readonly first: number;
  readonly idBase: number;
  /** Monotonic time at which its messages expire, or Infinity. */
  readonly expiresAt: number;
  readonly createdAt: number;
  count: number;
  lastId: number;
  buffer: Buffer;
  size: number;
  sealed: boolean;
  /** Written to a connection, this one or an earlier one. */
  written: boolean;
  readonly receipts: LazyReceipt[];
  /** Messages from the start that are settled, and the settled ones behind them. */
  prefix: number;
  later: Set<number> | undefined;
}

/** What the outbox needs of its client. */
export interface OutboxHost {
  readonly clock: Clock;
  readonly identity: SenderIdentity;
  readonly aliases: AliasSource;
  readonly limits: { readonly outboxMessages: number; readonly outboxBytes: number; readonly messageBytes: number };
  send(piece: Buffer): void;
  /** There is something to send. */
  wake(): void;
  /** A final failure that the client itself has found. */
  failed(failure: DeliveryFailure): void;
  /** There is room again. */
  drained(): void;
}

export class Outbox {
  readonly #host: OutboxHost;
  readonly #batches = new Deque<OutBatch>();
  readonly #tracked = new Map<number, LazyReceipt>();
  #nextPosition = 1;
  #messages = 0;
  #bytes = 0;
  /** Batches from the head that are on this connection. */
  #sent = 0;
  #onWire = 0;
  #onWireBytes = 0;
  #online = false;
  #alias = 0;
  #window = { sendWindow: 0, sendWindowBytes: 0 };
  #taken = new RangeSet();
  #known = false;
  #announcedFloor = 1;
  #wasFull = false;
  #expiry: Timer | undefined;

  constructor(host: OutboxHost) {
    this.#host = host;
  }

  get messages(): number {
    return this.#messages;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** A message of the largest size might be refused: who waits for room while it is full is never refused. */
  get full(): boolean {
    const { outboxMessages, messageBytes } = this.#host.limits;
    return this.#messages >= outboxMessages || !this.#hasRoom(messageBytes);
  }

  /** One message is taken whatever its size. */
  #hasRoom(bodyBytes: number): boolean {
    return this.#messages === 0 || this.#bytes + ITEM_BYTES + bodyBytes <= this.#host.limits.outboxBytes;
  }

  get nextPosition(): number {
    return this.#nextPosition;
  }

  /** Everything has been written to the connection. */
  get allSent(): boolean {
    return this.#sent === this.#batches.size;
  }

  /** Below it everything is settled. */
  get floor(): number {
    const head = this.#batches.peek();
    return head === undefined ? this.#nextPosition : head.first + head.prefix;
  }

  /** Positions whose final outcome is waited for. */
  trackedPositions(): { first: number; count: number }[] {
    const set = new RangeSet();
    for (const position of this.#tracked.keys()) set.add(position, 1);
    return [...set.ranges()];
  }

  // ---- coming in -----------------------------------------------------------------------------------------------------------

  /** Takes a message whose body is encoded. Throws `outbox-full`. */
  add(message: BroadcastMessage, id: MessageId, body: Buffer, tracked: boolean): LazyReceipt {
    if (this.#messages >= this.#host.limits.outboxMessages || !this.#hasRoom(body.length)) {
      this.#wasFull = true;
      throw new BroadcastError(
        'outbox-full',
        `the outbox holds ${String(this.#messages)} messages and ${String(this.#bytes)} bytes (limits.outboxMessages, limits.outboxBytes); wait for ready() before sending more`,
      );
    }
    const now = message.ttl === undefined ? 0 : this.#host.clock.monotonic();
    let batch = this.#batches.last();
    if (batch === undefined || batch.sealed || !fits(batch, message, id, body.length, tracked, now)) {
      batch = this.#open(message, id, tracked, now);
    }
    this.#bytes += append(batch, id.counter, body);
    const receipt = new LazyReceipt(message.id);
    batch.receipts.push(receipt);
    if (tracked) this.#tracked.set(this.#nextPosition, receipt);
    this.#nextPosition++;
    this.#messages++;
    if (batch.size >= BATCH_BYTES) {
      batch.sealed = true;
      if (this.#online) this.pump();
    } else if (batch.count === 1) this.#host.wake();
    if (this.full) this.#wasFull = true;
    return receipt;
  }

  #open(message: BroadcastMessage, id: MessageId, tracked: boolean, now: number): OutBatch {
    const { channels, clients, name, persistent, headers, ttl } = message;
    const batch: OutBatch = {
      message,
      envelope: {
        channels,
        clients,
        everyone: channels.length + clients.length === 0,
        name,
        headers: Object.keys(headers).length > 0 ? headers : undefined,
        persistent,
        tracked,
        resent: false,
        ttl,
        idPrefix: id.prefix,
      },
      first: this.#nextPosition,
      idBase: id.counter,
      expiresAt: ttl === undefined ? Infinity : now + ttl,
      createdAt: now,
      count: 0,
      lastId: id.counter - 1,
      buffer: Buffer.allocUnsafe(FIRST_ALLOCATION),
      size: 0,
      sealed: false,
      written: false,
      receipts: [],
      prefix: 0,
      later: undefined,
    };
    const before = this.#batches.last();
    if (before !== undefined) before.sealed = true;
    this.#batches.push(batch);
    if (ttl !== undefined) this.#armExpiry(batch.expiresAt - now);
    return batch;
  }

  /** Takes a message back that has not left. False when it has. */
  withdraw(receipt: LazyReceipt, error: BroadcastError): boolean {
    for (let i = this.#sent; i < this.#batches.size; i++) {
      const batch = this.#batches.at(i);
      const index = batch.receipts.indexOf(receipt);
      if (index < 0) continue;
      if (batch.written) return false;
      receipt.fail(error);
      this.#tracked.delete(batch.first + index);
      batch.sealed = true;
      this.#settleOne(batch, index);
      this.#dropSettled();
      return true;
    }
    return false;
  }

  // ---- going out -----------------------------------------------------------------------------------------------------------

  /** A connection is up: what is not settled goes again, but for what the server has. */
  online(
    alias: number,
    window: { readonly sendWindow: number; readonly sendWindowBytes: number },
    taken: readonly { first: number; count: number }[],
    known: boolean,
  ): void {
    this.#alias = alias;
    this.#window = window;
    this.#known = known;
    this.#taken = new RangeSet();
    for (const { first, count } of taken) this.#taken.add(first, count);
    this.#sent = 0;
    this.#onWire = 0;
    this.#onWireBytes = 0;
    this.#online = true;
    this.#announcedFloor = this.floor;
  }

  /** The store that had them is gone, and nobody will say what became of the messages that were safe and are followed. */
  giveUpTracked(error: BroadcastError): void {
    for (const [position, receipt] of this.#tracked) {
      const batch = this.#find(position);
      if (batch !== undefined && !isSettled(batch, position - batch.first)) continue;
      this.#tracked.delete(position);
      receipt.fail(error);
    }
  }

  /** What this server would not take, and has not taken, ends here: it would end every connection otherwise. */
  refuseOversize(limits: MessageLimits): void {
    for (let i = 0; i < this.#batches.size; i++) {
      const batch = this.#batches.at(i);
      for (const index of oversize(batch.envelope, batch.buffer.subarray(0, batch.size), batch.count, limits)) {
        if (this.#taken.has(batch.first + index) || isSettled(batch, index)) continue;
        batch.sealed = true;
        this.#endOne(batch, index, 'too-large', 0);
      }
    }
    this.#dropSettled();
  }

  offline(): void {
    this.#online = false;
    this.#sent = 0;
    this.#onWire = 0;
    this.#onWireBytes = 0;
  }

  /** Sends what the window allows. */
  pump(): void {
    if (!this.#online) return;
    const { sendWindow, sendWindowBytes } = this.#window;
    while (this.#sent < this.#batches.size) {
      const batch = this.#batches.at(this.#sent);
      if (
        this.#onWire > 0 &&
        (this.#onWire + batch.count > sendWindow || this.#onWireBytes + batch.size > sendWindowBytes)
      )
        return;
      batch.sealed = true;
      this.#sent++;
      this.#write(batch);
      this.#onWire += batch.count;
      this.#onWireBytes += batch.size;
    }
  }

  #write(batch: OutBatch): void {
    const now = batch.expiresAt === Infinity ? 0 : this.#host.clock.monotonic();
    if (now > 0 && now >= batch.expiresAt) {
      this.#expire(batch);
      return;
    }
    const whole = !batch.written && batch.prefix === 0 && batch.later === undefined;
    if (batch.written && !batch.envelope.persistent && !this.#known) {
      this.#giveUp(batch);
      return;
    }
    const full = this.#asBatch(batch, now);
    if (whole) this.#writePart(full);
    else for (const { offset, count } of this.#unsentParts(batch)) this.#writePart(sliceBatch(full, offset, count));
    batch.written = true;
  }

  #asBatch(batch: OutBatch, now: number): Batch {
    let { envelope } = batch;
    if (now > 0) envelope = { ...envelope, ttl: Math.max(1, Math.ceil(batch.expiresAt - now)) };
    if (batch.written && !this.#known) envelope = { ...envelope, resent: true };
    return {
      sender: this.#host.identity,
      envelope,
      first: batch.first,
      count: batch.count,
      idBase: batch.idBase,
      floor: Math.min(this.floor, batch.first),
      timestamp: 0,
      items: batch.buffer.subarray(0, batch.size),
    };
  }

  #writePart(part: Batch): void {
    this.#announcedFloor = Math.max(this.#announcedFloor, part.floor);
    this.#host.send(encodeMessagesHeader(part, this.#alias, this.#host.aliases, processIdPrefix));
    this.#host.send(part.items);
  }

  /** The messages that are neither settled nor with the server. */
  #unsentParts(batch: OutBatch): { offset: number; count: number }[] {
    const parts: { offset: number; count: number }[] = [];
    for (let i = batch.prefix; i < batch.count; i++) {
      if (batch.later?.has(i) === true || (batch.written && this.#taken.has(batch.first + i))) continue;
      const last = parts[parts.length - 1];
      if (last !== undefined && last.offset + last.count === i) last.count++;
      else parts.push({ offset: i, count: 1 });
    }
    return parts;
  }

  /** The floor, when no message has carried it to the server. */
  takeFloor(): number | undefined {
    const { floor } = this;
    if (!this.#online || floor <= this.#announcedFloor || !this.allSent) return undefined;
    this.#announcedFloor = floor;
    return floor;
  }

  // ---- settling ------------------------------------------------------------------------------------------------------------

  /** The server has said what became of these positions. */
  settle(outcomes: readonly WireOutcome[]): void {
    for (const { first, count, status, durability, final } of outcomes) {
      let position = first;
      const end = first + count;
      if (end > this.#nextPosition) throw new BroadcastError('protocol-error', 'a receipt for what was not sent');
      while (position < end) {
        const batch = this.#find(position);
        if (batch === undefined) {
          // Safe before: a final outcome is for a tracked message that is no longer in the outbox.
          if (final) this.#settleTracked(position, status, durability);
          position++;
          continue;
        }
        const index = position - batch.first;
        const receipt = batch.receipts[index] as LazyReceipt;
        if (!batch.envelope.tracked) receipt.settle(status, durability);
        else if (final) this.#settleTracked(position, status, durability);
        this.#settleOne(batch, index);
        position++;
      }
    }
    this.#dropSettled();
    if (this.#online) this.pump();
  }

  #settleTracked(position: number, status: WireOutcome['status'], durability: WireOutcome['durability']): void {
    this.#tracked.get(position)?.settle(status, durability);
    this.#tracked.delete(position);
  }

  #find(position: number): OutBatch | undefined {
    const head = this.#batches.peek();
    if (head === undefined || position < head.first) return undefined;
    if (position < head.first + head.count) return head;
    let low = 0;
    let high = this.#batches.size - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const batch = this.#batches.at(middle);
      if (position < batch.first) high = middle - 1;
      else if (position >= batch.first + batch.count) low = middle + 1;
      else return batch;
    }
    return undefined;
  }

  #settleOne(batch: OutBatch, index: number): void {
    if (index < batch.prefix || batch.later?.has(index) === true) return;
    if (index === batch.prefix) {
      batch.prefix++;
      while (batch.later?.delete(batch.prefix) === true) batch.prefix++;
    } else {
      (batch.later ??= new Set()).add(index);
    }
    this.#messages--;
  }

  #dropSettled(): void {
    for (
      let head = this.#batches.peek();
      head !== undefined && head.prefix === head.count && head.sealed;
      head = this.#batches.peek()
    ) {
      this.#batches.shift();
      this.#bytes -= head.size;
      if (this.#sent > 0) {
        this.#sent--;
        this.#onWire -= head.count;
        this.#onWireBytes -= head.size;
      }
    }
    const { outboxMessages, outboxBytes } = this.#host.limits;
    if (this.#wasFull && this.#messages <= outboxMessages / 2 && this.#bytes <= outboxBytes / 2 && !this.full) {
      this.#wasFull = false;
      this.#host.drained();
    }
  }

  /** A failure belongs to messages that are still here, or that are followed. */
  attach(position: number, failure: DeliveryFailure): void {
    const count = failure.count ?? 1;
    for (let p = position; p < position + count; p++) {
      const batch = this.#find(p);
      const receipt = batch?.receipts[p - batch.first] ?? this.#tracked.get(p);
      receipt?.addFailure({ position, failure });
    }
  }

  // ---- ends that the client itself finds ---------------------------------------------------------------------------------------

  #armExpiry(ms: number): void {
    if (this.#expiry !== undefined) return;
    this.#expiry = this.#host.clock.setTimeout(
      () => {
        this.#expiry = undefined;
        this.#expireDue();
      },
      Math.max(1, ms),
    );
  }

  #expireDue(): void {
    const now = this.#host.clock.monotonic();
    let next = Infinity;
    for (let i = this.#sent; i < this.#batches.size; i++) {
      const batch = this.#batches.at(i);
      if (batch.written) continue; // the server may have it, and then it decides
      if (batch.expiresAt <= now) this.#expire(batch);
      else next = Math.min(next, batch.expiresAt);
    }
    this.#dropSettled();
    if (next < Infinity) this.#armExpiry(next - now);
  }

  #expire(batch: OutBatch): void {
    this.#end(batch, 'expired', 0);
  }

  #giveUp(batch: OutBatch): void {
    this.#end(batch, 'dropped', 1);
  }

  #end(batch: OutBatch, reason: FailureReason, attempts: number): void {
    batch.sealed = true;
    for (let i = batch.prefix; i < batch.count; i++) if (!isSettled(batch, i)) this.#endOne(batch, i, reason, attempts);
  }

  #endOne(batch: OutBatch, index: number, reason: FailureReason, attempts: number): void {
    const receipt = batch.receipts[index] as LazyReceipt;
    const failure = this.finalFailure(batch.message, receipt.id, reason, attempts);
    receipt.addFailure({ position: batch.first + index, failure });
    receipt.settle('undelivered', 'none');
    this.#tracked.delete(batch.first + index);
    this.#settleOne(batch, index);
    this.#host.failed(failure);
  }

  finalFailure(message: BroadcastMessage, messageId: string, reason: FailureReason, attempts: number): DeliveryFailure {
    const target = {
      ...(message.client === null ? {} : { client: message.client }),
      ...(message.channel === null ? {} : { channel: message.channel }),
    };
    return { messageId, target, reason, queued: false, final: true, attempts, at: this.#host.clock.now() };
  }

  /** Nothing will be sent any more: what is not settled is rejected. */
  close(error: BroadcastError): void {
    this.#expiry?.cancel();
    for (const batch of this.#batches) for (const receipt of batch.receipts) receipt.fail(error);
    for (const receipt of this.#tracked.values()) receipt.fail(error);
    this.#batches.clear();
    this.#tracked.clear();
    this.#messages = 0;
    this.#bytes = 0;
  }
}

function fits(
  batch: OutBatch,
  message: BroadcastMessage,
  id: MessageId,
  bytes: number,
  tracked: boolean,
  now: number,
): boolean {
  const first = batch.message;
  return (
    batch.count < BATCH_MESSAGES &&
    batch.size + bytes < BATCH_BYTES * 2 &&
    message.channel === first.channel &&
    message.client === first.client &&
    message.persistent === first.persistent &&
    message.name === first.name &&
    message.ttl === first.ttl &&
    now === batch.createdAt &&
    tracked === batch.envelope.tracked &&
    id.prefix === batch.envelope.idPrefix &&
    (message.headers === first.headers || sameHeaders(message.headers, first.headers)) &&
    (message.channel !== null || message.channels === first.channels || sameNames(message.channels, first.channels)) &&
    (message.client !== null || message.clients === first.clients || sameNames(message.clients, first.clients))
  );
}

function sameHeaders(a: Readonly<Record<string, string>>, b: Readonly<Record<string, string>>): boolean {
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every(key => a[key] === b[key]);
}

function sameNames(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((name, i) => name === b[i]);
}

/** Puts a body into a batch; returns the bytes that it takes there. */
function append(batch: OutBatch, counter: number, body: Buffer): number {
  const delta = counter - (batch.lastId + 1);
  batch.lastId = counter;
  batch.count++;
  const needed = batch.size + ITEM_BYTES + body.length;
  if (needed > batch.buffer.length) {
    const larger = Buffer.allocUnsafe(Math.max(needed, Math.min(BATCH_BYTES + 4096, batch.buffer.length * 4)));
    batch.buffer.copy(larger, 0, 0, batch.size);
    batch.buffer = larger;
  }
  const { buffer } = batch;
  let at = batch.size + 4;
  if (delta === 0) buffer[at++] = 0;
  else at = writeDelta(buffer, at, delta);
  buffer.set(body, at);
  const end = at + body.length;
  const size = end - batch.size - 4;
  const start = batch.size;
  buffer[start] = size & 0xff;
  buffer[start + 1] = (size >>> 8) & 0xff;
  buffer[start + 2] = (size >>> 16) & 0xff;
  buffer[start + 3] = size >>> 24;
  batch.size = end;
  return end - start;
}

function writeDelta(buffer: Buffer, at: number, delta: number): number {
  let value = delta >= 0 ? delta * 2 : -delta * 2 - 1;
  while (value >= 0x80) {
    buffer[at++] = (value % 128) | 0x80;
    value = Math.floor(value / 128);
  }
  buffer[at++] = value;
  return at;
}

function isSettled(batch: OutBatch, index: number): boolean {
  return index < batch.prefix || batch.later?.has(index) === true;
}
