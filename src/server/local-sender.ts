/** The server as a sender: its own positions and receipts. What it sends is routed like everything else. */
import { randomBytes } from 'node:crypto';
import { AbortWatch } from '../abort-watch.js';
import { ITEM_HEADER, type Batch } from '../batch.js';
import type { Broker } from '../broker/broker.js';
import type { Instance } from '../broker/model.js';
import type { FailureMessage, Outcome, Outlet } from '../broker/ports.js';
import type { Limits } from '../config.js';
import { BroadcastError } from '../errors.js';
import { LazyReceipt, WatchedReceipt } from '../lazy-receipt.js';
import type { BroadcastMessage, MessageId } from '../message.js';
import { checkSendOptions, envelopeOf, Outgoing } from '../outgoing.js';
import type { DeliveryFailure, Receipt, SendOptions } from '../receipts.js';
import { rejected } from '../waiters.js';

/** Most messages need no more. */
const FIRST_SIZE = 256;

export class LocalSender implements Outlet {
  readonly address = 'server';
  readonly buffered = 0;
  readonly lastProgress = 0;
  readonly #broker: Broker;
  readonly #instance: Instance;
  readonly #outgoing: Outgoing;
  readonly #aborts = new AbortWatch();
  /** Receipts of what is not safe, and of what is followed until its final outcome, by position. */
  readonly #unsafe = new Map<number, LazyReceipt>();
  readonly #tracked = new Map<number, LazyReceipt>();
  readonly #onFailure: (failure: DeliveryFailure) => void;
  readonly #now: () => number;
  #position = 0;

  constructor(broker: Broker, limits: Limits, now: () => number, onFailure: (failure: DeliveryFailure) => void) {
    this.#broker = broker;
    this.#outgoing = new Outgoing(limits);
    this.#now = now;
    this.#onFailure = onFailure;
    this.#instance = broker.attachServer(randomBytes(16).toString('hex'), this);
  }

  send(message: BroadcastMessage, options: SendOptions): Promise<Receipt> {
    try {
      return this.#send(message, options);
    } catch (error) {
      if (error instanceof BroadcastError) return rejected(error);
      throw error;
    }
  }

  #send(message: BroadcastMessage, options: SendOptions): LazyReceipt {
    checkSendOptions(options);
    const { until, signal } = options;
    this.#outgoing.check(message);
    const tracked = until === 'delivered';
    const id = this.#outgoing.id(message);
    const batch = this.#batchOf(message, id, tracked);
    const receipt = signal === undefined ? new LazyReceipt(id) : this.#watched(id, batch.first, signal);
    this.#unsafe.set(batch.first, receipt);
    if (tracked) this.#tracked.set(batch.first, receipt);
    this.#broker.publish(this.#instance, batch);
    return receipt;
  }

  /** What the server sends is routed at once, so a signal only ends the waiting. */
  #watched(id: MessageId, position: number, signal: AbortSignal): LazyReceipt {
    const receipt = new WatchedReceipt(id);
    receipt.onSettled = this.#aborts.watch(signal, () => {
      this.#tracked.delete(position);
      receipt.fail(new BroadcastError('aborted', 'the signal was aborted; the message was sent and may arrive'));
    });
    return receipt;
  }

  #batchOf(message: BroadcastMessage, id: MessageId, tracked: boolean): Batch {
    const { buffer, end } = this.#outgoing.write(message, Buffer.allocUnsafe(FIRST_SIZE), ITEM_HEADER + 1);
    buffer.writeUInt32LE(end - ITEM_HEADER, 0);
    buffer[ITEM_HEADER] = 0; // the delta of the id
    const items = buffer.subarray(0, end);
    const first = ++this.#position;
    return {
      sender: this.#instance.sender,
      envelope: envelopeOf(message, id.prefix, tracked),
      first,
      count: 1,
      idBase: id.counter,
      floor: this.#floor(first),
      timestamp: this.#now(),
      items,
    };
  }

  /** The lowest position that is not safe. */
  #floor(first: number): number {
    for (const position of this.#unsafe.keys()) return position;
    return first;
  }

  /** What is not settled is rejected: the server has stopped. */
  close(): void {
    const error = new BroadcastError('closed', 'the server has stopped; the outcome is unknown');
    const receipts = [...this.#unsafe.values(), ...this.#tracked.values()];
    this.#unsafe.clear();
    this.#tracked.clear();
    for (const receipt of receipts) receipt.fail(error);
  }

  // ---- Outlet ------------------------------------------------------------------------------------------------------------

  receipts(outcomes: readonly Outcome[]): void {
    for (const outcome of outcomes) {
      const end = outcome.first + outcome.count;
      for (let position = outcome.first; position < end; position++) this.#settle(position, outcome);
    }
  }

  #settle(position: number, { status, durability, final }: Outcome): void {
    const unsafe = this.#unsafe.get(position);
    this.#unsafe.delete(position);
    const tracked = this.#tracked.get(position);
    if (tracked === undefined) unsafe?.settle(status, durability);
    else if (final) {
      this.#tracked.delete(position);
      tracked.settle(status, durability);
    }
  }

  failure({ failure, position }: FailureMessage): void {
    const end = position + (failure.count ?? 1);
    for (let p = position; p < end; p++)
      (this.#unsafe.get(p) ?? this.#tracked.get(p))?.addFailure({ position: p, failure });
    this.#onFailure(failure);
  }

  deliver(): void {
    // The server receives nothing.
  }

  deliverTransient(): void {
    // As above.
  }

  retry(): void {
    // As above.
  }

  subscription(): void {
    // As above.
  }

  pauseReading(): void {
    // It is not read from.
  }

  holdBack(): void {
    // As above.
  }

  end(): void {
    // It has no connection.
  }
}
