/**
 * The outbox: messages from `sendMessage` until they are safe. A batch is what is sent, sent again and settled.
 *
 *   open (takes messages) ──end of turn, full, other envelope──▶ sealed ──▶ on the wire ──receipts──▶ gone
 *                                                                  ▲            │
 *                                                                  └─ lost ─────┘ in order, before anything new
 */
import { ITEM_HEADER, sliceBatch, type Batch, type SenderIdentity } from '../batch.js';
import type { Clock, Timer } from '../clock.js';
import { Deque } from '../deque.js';
import { BroadcastError } from '../errors.js';
import type { LazyReceipt } from '../lazy-receipt.js';
import { processIdPrefix, type BroadcastMessage, type MessageId } from '../message.js';
import type { BodyWriter, MessageLimits } from '../outgoing.js';
import type { WireOutcome } from '../protocol/frames.js';
import { encodeMessagesHeader, type AliasSource } from '../protocol/messages.js';
import { RangeSet } from '../range-set.js';
import type { DeliveryFailure, FailureReason } from '../receipts.js';
import type { Verdict } from './batch-receipts.js';
import { FinalFailures } from './final-failures.js';
import { MAX_DELTA, OutBatch } from './out-batch.js';
import { oversize } from './oversize.js';
import { SpareBuffers } from './spare-buffers.js';

/** What the outbox needs of its client. */
export interface OutboxHost {
  readonly clock: Clock;
  readonly identity: SenderIdentity;
  /** Of the connection that is up. */
  readonly aliases: AliasSource;
  readonly limits: { readonly outboxMessages: number; readonly outboxBytes: number; readonly messageBytes: number };
  /** Writes the data of a message. */
  readonly write: BodyWriter;
  send(piece: Buffer): void;
  /** There is something to send. */
  wake(): void;
  /** A final failure that the client itself has found. */
  failed(failure: DeliveryFailure): void;
  /** There is room again. */
  drained(): void;
  /** Everything is safe. */
  emptied(): void;
}

/** What the server says of this instance when a connection opens. */
export interface Known {
  /** Number of this instance in frames. */
  readonly sender: number;
  /** Unsettled messages that may be on the wire. */
  readonly sendWindow: number;
  /** And their bytes. */
  readonly sendWindowBytes: number;
  /** Positions that the server has. */
  readonly taken: readonly { readonly first: number; readonly count: number }[];
  /** What was written since the connection before went to this run of the server: `taken` tells what of it has arrived. */
  readonly known: boolean;
  /** The run of the server is that of the connection before, whether it still knows this instance or not. */
  readonly sameRun: boolean;
}

const NOT_DELIVERED: Verdict = { status: 'undelivered', durability: 'none' };

export class Outbox {
  readonly #host: OutboxHost;
  readonly #batches = new Deque<OutBatch>();
  readonly #spare = new SpareBuffers();
  /** Receipts that wait for the final outcome, by position. */
  readonly #tracked = new Map<number, LazyReceipt>();
  #nextPosition = 1;
  /** Bytes of the batch before the one that is open. */
  #lastSize = 0;
  #messages = 0;
  #bytes = 0;
  /** Batches from the head that are on this connection, and their messages. */
  #sent = 0;
  #onWire = 0;
  #onWireBytes = 0;
  #connection: Known | undefined;
  #taken = new RangeSet();
  #announcedFloor = 1;
  #wasFull = false;
  /** The data of a message is being read, which may send others. */
  #isWriting = false;
  readonly #final = new FinalFailures();
  /** Failures that are reported once the batches are in order: who hears of them may send something. */
  #ended: DeliveryFailure[] = [];
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
    const needed = ITEM_HEADER + MAX_DELTA + bodyBytes;
    return this.#messages === 0 || this.#bytes + needed <= this.#host.limits.outboxBytes;
  }

  get nextPosition(): number {
    return this.#nextPosition;
  }

  /** Messages below it are settled or on this connection. */
  get writtenBelow(): number {
    return this.#sent === this.#batches.size ? this.#nextPosition : this.#batches.at(this.#sent).first;
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

  /** Takes a message and writes its data. Throws `outbox-full` and what the writer throws. */
  add(message: BroadcastMessage, id: MessageId, receipt: LazyReceipt, tracked: boolean): void {
    if (this.#messages >= this.#host.limits.outboxMessages) this.#refuse();
    const now = message.ttl === undefined ? 0 : this.#host.clock.monotonic();
    const { counter } = id;
    let batch = this.#batches.last();
    // What is sent while another message is written does not go behind it, where it is being written.
    if (this.#isWriting || batch?.fits(message, id, tracked, now) !== true)
      batch = this.#newBatch(message, id, tracked, now);
    const isFirst = batch.count === 0;
    const isHere = this.#write(batch, message, counter) && (!isFirst || batch.first === this.#nextPosition);
    if (!this.#hasRoom(batch.bodyBytes)) this.#refuse();
    if (!isHere) {
      const body = batch.takeBody();
      batch = this.#newBatch(message, id, tracked, now);
      batch.copy(counter, body);
    }
    if (batch.count === 0) this.#open(batch, now);
    this.#bytes += batch.take(counter, receipt);
    if (tracked) this.#tracked.set(this.#nextPosition, receipt);
    this.#nextPosition++;
    this.#messages++;
    if (batch.isFull) {
      batch.isSealed = true;
      this.pump();
    } else if (batch.count === 1) this.#host.wake();
    if (this.full) this.#wasFull = true;
  }

  #write(batch: OutBatch, message: BroadcastMessage, counter: number): boolean {
    const wasWriting = this.#isWriting;
    this.#isWriting = true;
    try {
      return batch.write(message, counter, this.#host.write);
    } finally {
      this.#isWriting = wasWriting;
    }
  }

  #refuse(): never {
    this.#wasFull = true;
    throw new BroadcastError(
      'outbox-full',
      `the outbox holds ${String(this.#messages)} messages and ${String(this.#bytes)} bytes (limits.outboxMessages, limits.outboxBytes); wait for ready() before sending more`,
    );
  }

  #newBatch(message: BroadcastMessage, id: MessageId, tracked: boolean, now: number): OutBatch {
    const size = this.#batches.last()?.size ?? this.#lastSize;
    return new OutBatch(message, id, this.#nextPosition, tracked, now, size, this.#spare);
  }

  #open(batch: OutBatch, now: number): void {
    const before = this.#batches.last();
    if (before !== undefined) {
      before.isSealed = true;
      this.#lastSize = before.size;
    }
    this.#batches.push(batch);
    if (batch.expiresAt !== Infinity) this.#armExpiry(batch.expiresAt - now);
  }

  /** Takes a message back that has not left; false when it has. Its receipt is the caller's business. */
  withdraw(position: number): boolean {
    const batch = this.#find(position);
    if (batch === undefined || batch.isWritten || !batch.settle(position - batch.first)) return false;
    this.#messages--;
    this.#tracked.delete(position);
    batch.isSealed = true;
    this.#dropSettled();
    return true;
  }

  /** Nobody waits for a final outcome any longer. */
  untrack(position: number): void {
    this.#tracked.delete(position);
  }

  // ---- going out -----------------------------------------------------------------------------------------------------------

  /** A connection is up: what is not settled goes again, but for what the server has. */
  online(connection: Known): void {
    this.#connection = connection;
    this.#taken = new RangeSet();
    for (const { first, count } of connection.taken) this.#taken.add(first, count);
    this.#sent = 0;
    this.#onWire = 0;
    this.#onWireBytes = 0;
    this.#announcedFloor = this.floor;
    if (!connection.known) for (const batch of this.#batches) batch.isDoubtful ||= batch.isWritten;
    if (!connection.sameRun) this.#decideAnew();
  }

  /** What another run of the server has said of messages that this one is sent again. */
  #decideAnew(): void {
    const isSafe = (position: number): boolean => this.#isSafe(position);
    this.#ended.push(...this.#final.forget(position => isSafe(position) || this.#taken.has(position), isSafe));
    for (const batch of this.#batches) {
      if (!batch.isWritten) continue;
      batch.receipts.forgetFailures(i => !batch.isSettled(i) && !this.#taken.has(batch.first + i));
    }
    for (const [position, receipt] of this.#tracked)
      if (!isSafe(position) && !this.#taken.has(position) && this.#find(position)?.isWritten === true)
        receipt.forgetFailures();
  }

  offline(): void {
    this.#connection = undefined;
    this.#sent = 0;
    this.#onWire = 0;
    this.#onWireBytes = 0;
  }

  /** Sends what the window allows. */
  pump(): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    while (this.#sent < this.#batches.size) {
      const batch = this.#batches.at(this.#sent);
      if (this.#onWire > 0 && !this.#hasWindow(batch, connection)) break;
      batch.isSealed = true;
      this.#sent++;
      this.#onWire += batch.count;
      this.#onWireBytes += batch.size;
      this.#transmit(batch, connection);
    }
    this.#dropSettled();
  }

  #hasWindow({ count, size }: OutBatch, { sendWindow, sendWindowBytes }: Known): boolean {
    return this.#onWire + count <= sendWindow && this.#onWireBytes + size <= sendWindowBytes;
  }

  #transmit(batch: OutBatch, connection: Known): void {
    const now = batch.expiresAt === Infinity ? 0 : this.#host.clock.monotonic();
    if (batch.isDoubtful && !batch.envelope.persistent) {
      this.#end(batch, 'dropped', 1);
      return;
    }
    const { isWritten } = batch;
    const isWhole = !isWritten && batch.isUntouched && now < batch.expiresAt;
    const whole = batch.asBatch(this.#host.identity, this.floor, now, batch.isDoubtful);
    if (isWhole) this.#transmitPart(whole, connection);
    else {
      const isTaken = (position: number): boolean => isWritten && this.#taken.has(position);
      for (const { from, end } of batch.unsettled(isTaken)) {
        if (now < batch.expiresAt) this.#transmitPart(sliceBatch(whole, from, end - from), connection);
        else this.#end(batch, 'expired', isWritten ? 1 : 0, from, end);
      }
    }
    batch.isWritten = true;
  }

  #transmitPart(part: Batch, connection: Known): void {
    this.#announcedFloor = Math.max(this.#announcedFloor, part.floor);
    this.#host.send(encodeMessagesHeader(part, connection.sender, this.#host.aliases, processIdPrefix));
    this.#host.send(part.items);
  }

  /** The floor, when no message has carried it to the server. */
  takeFloor(): number | undefined {
    const { floor } = this;
    const isAllSent = this.#sent === this.#batches.size;
    if (this.#connection === undefined || floor <= this.#announcedFloor || !isAllSent) return undefined;
    this.#announcedFloor = floor;
    return floor;
  }

  // ---- settling ------------------------------------------------------------------------------------------------------------

  /** The server has said what became of these positions. */
  settle(outcomes: readonly WireOutcome[]): void {
    for (const outcome of outcomes) {
      const end = outcome.first + outcome.count;
      if (end > this.#nextPosition) throw new BroadcastError('protocol-error', 'a receipt for what was not sent');
      // A tracked message is safe first, and has its final outcome then or later, perhaps when its batch is gone.
      if (outcome.final && this.#tracked.size > 0)
        for (let p = outcome.first; p < end; p++) this.#settleTracked(p, outcome);
      for (const batch of this.#within(outcome.first, end)) {
        const from = Math.max(outcome.first - batch.first, 0);
        this.#settlePart(batch, from, Math.min(end - batch.first, batch.count), outcome);
      }
    }
    this.#dropSettled();
    this.pump();
  }

  #settleTracked(position: number, { status, durability }: Verdict): void {
    this.#tracked.get(position)?.settle(status, durability);
    this.#tracked.delete(position);
  }

  #settlePart(batch: OutBatch, from: number, end: number, outcome: Verdict): void {
    for (const run of batch.settleRun(from, end)) {
      batch.receipts.settle(run.from, run.end, outcome);
      this.#ends(batch.first + run.from, batch.first + run.end);
    }
  }

  #isSafe(position: number): boolean {
    const batch = this.#find(position);
    return batch === undefined || batch.isSettled(position - batch.first);
  }

  /** Messages are not this outbox's any more. */
  #ends(first: number, end: number): void {
    this.#messages -= end - first;
    if (this.#final.isEmpty) return;
    for (let position = first; position < end; position++)
      for (const failure of this.#final.settled(position)) this.#ended.push(failure);
  }

  /** The batches that have any of these positions, the first one first. */
  *#within(first: number, end: number): Iterable<OutBatch> {
    for (let i = this.#indexOf(first); i < this.#batches.size; i++) {
      const batch = this.#batches.at(i);
      if (batch.first >= end) return;
      yield batch;
    }
  }

  #find(position: number): OutBatch | undefined {
    const index = this.#indexOf(position);
    const batch = index < this.#batches.size ? this.#batches.at(index) : undefined;
    return batch !== undefined && position >= batch.first ? batch : undefined;
  }

  /** Index of the first batch that ends behind a position; their number when there is none. */
  #indexOf(position: number): number {
    let low = 0;
    let high = this.#batches.size;
    // It is usually the oldest one.
    if (high > 0 && this.#batches.at(0).end > position) return 0;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#batches.at(middle).end <= position) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #dropSettled(): void {
    for (
      let head = this.#batches.peek();
      head !== undefined && head.prefix === head.count && head.isSealed;
      head = this.#batches.peek()
    ) {
      this.#batches.shift();
      this.#bytes -= head.size;
      this.#lastSize = head.size;
      head.release();
      if (this.#sent === 0) continue;
      this.#sent--;
      this.#onWire -= head.count;
      this.#onWireBytes -= head.size;
    }
    const { outboxMessages, outboxBytes } = this.#host.limits;
    if (this.#wasFull && this.#messages <= outboxMessages / 2 && this.#bytes <= outboxBytes / 2 && !this.full) {
      this.#wasFull = false;
      this.#host.drained();
    }
    this.#final.passed(this.floor);
    if (this.#messages === 0) {
      this.#spare.trim();
      this.#host.emptied();
    }
    if (this.#ended.length > 0) for (const failure of this.#ended.splice(0)) this.#host.failed(failure);
  }

  /**
   * A failure belongs to messages that are still here, or that are followed. False when it is not to be told now: it was said
   * before, or is true only when they are safe. `isStored`: the server keeps it, so that it stays true.
   */
  attach(position: number, failure: DeliveryFailure, isStored: boolean): boolean {
    const run = { position, failure };
    const isOfThisRun = failure.final && !isStored;
    if (isOfThisRun && !this.#final.note(run)) return false;
    // With attempts it says that the message may arrive.
    const isDecision = isOfThisRun && failure.attempts === 0;
    const end = position + (failure.count ?? 1);
    const batches = [...this.#within(position, end)];
    for (const { receipts, first, count } of batches)
      receipts.addFailure(Math.max(position - first, 0), Math.min(end - first, count), run);
    if (this.#tracked.size > 0) for (let p = position; p < end; p++) this.#tracked.get(p)?.addFailure(run);
    if (!isDecision) return true;
    const unsafe: number[] = [];
    for (const batch of batches)
      for (const part of batch.unsettled(p => p < position || p >= end))
        for (let i = part.from; i < part.end; i++) unsafe.push(batch.first + i);
    if (unsafe.length > 0) this.#final.hold(run, p => idIn(batches, p), unsafe);
    return unsafe.length === 0;
  }

  // ---- ends that the client itself finds ---------------------------------------------------------------------------------------

  #armExpiry(ms: number): void {
    this.#expiry ??= this.#host.clock.setTimeout(
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
      if (batch.isWritten) continue; // the server may have it, and then it decides
      if (batch.expiresAt <= now) this.#end(batch, 'expired', 0);
      else next = Math.min(next, batch.expiresAt);
    }
    this.#dropSettled();
    if (next < Infinity) this.#armExpiry(next - now);
  }

  /** What this server would not take, and has not taken, ends here: it would end every connection otherwise. */
  refuseOversize(limits: MessageLimits): void {
    for (const batch of this.#batches) {
      for (const index of oversize(batch.envelope, batch.items, batch.count, limits)) {
        if (!this.#taken.has(batch.first + index)) this.#end(batch, 'too-large', 0, index, index + 1);
      }
    }
    this.#dropSettled();
  }

  /** The store that had them is gone, and nobody will say what became of the messages that were safe and are followed. */
  giveUpTracked(error: BroadcastError): void {
    for (const [position, receipt] of this.#tracked) {
      const batch = this.#find(position);
      if (batch?.isSettled(position - batch.first) === false) continue;
      this.#tracked.delete(position);
      receipt.fail(error);
    }
  }

  /** Messages of a batch will not arrive: their receipts and a notice say so. */
  #end(batch: OutBatch, reason: FailureReason, attempts: number, from = 0, to = batch.count): void {
    batch.isSealed = true;
    const { channels, clients } = batch.envelope;
    for (let i = from; i < to; i++) {
      if (batch.isSettled(i)) continue;
      const position = batch.first + i;
      const failure = this.finalFailure({ id: batch.idAt(i), channels, clients }, reason, attempts);
      const run = { position, failure };
      batch.receipts.addFailure(i, i + 1, run);
      this.#tracked.get(position)?.addFailure(run);
      this.#settleTracked(position, NOT_DELIVERED);
      this.#settlePart(batch, i, i + 1, NOT_DELIVERED);
      this.#ended.push(failure);
    }
  }

  finalFailure(
    { id, channels, clients }: Pick<BroadcastMessage, 'id' | 'channels' | 'clients'>,
    reason: FailureReason,
    attempts: number,
  ): DeliveryFailure {
    const target: DeliveryFailure['target'] = {};
    if (clients.length === 1) target.client = clients[0] as string;
    if (channels.length === 1) target.channel = channels[0] as string;
    return { messageId: id, target, reason, queued: false, final: true, attempts, at: this.#host.clock.now() };
  }

  /** Nothing will be sent any more: what is not settled is rejected. */
  close(error: BroadcastError): void {
    this.#expiry?.cancel();
    // Nobody decides anew of what is not sent again.
    for (const failure of this.#final.takeAll()) this.#host.failed(failure);
    const batches = [...this.#batches];
    const tracked = [...this.#tracked.values()];
    this.#batches.clear();
    this.#tracked.clear();
    this.#messages = 0;
    this.#bytes = 0;
    for (const receipt of tracked) receipt.fail(error);
    for (const { receipts } of batches) receipts.fail(error);
  }
}

function idIn(batches: readonly OutBatch[], position: number): string | undefined {
  const batch = batches.find(({ first, end }) => position >= first && position < end);
  return batch?.idAt(position - batch.first);
}
