/** The server as a sender: its own positions and receipts. What it sends is routed like everything else. */
import { randomBytes } from 'node:crypto';
import type { Batch } from '../batch.js';
import { encodeBody } from '../body/index.js';
import type { Broker } from '../broker/broker.js';
import type { Instance } from '../broker/model.js';
import type { FailureMessage, Outcome, Outlet } from '../broker/ports.js';
import type { Limits } from '../config.js';
import { BroadcastError } from '../errors.js';
import { LazyReceipt } from '../lazy-receipt.js';
import { parseId, type BroadcastMessage } from '../message.js';
import { checkName } from '../names.js';
import type { DeliveryFailure, Receipt, SendOptions } from '../receipts.js';

interface Waiting {
  readonly receipt: LazyReceipt;
  readonly tracked: boolean;
}

export class LocalSender implements Outlet {
  readonly address = 'server';
  readonly buffered = 0;
  readonly lastProgress = 0;
  readonly #broker: Broker;
  readonly #limits: Limits;
  readonly #instance: Instance;
  readonly #waiting = new Map<number, Waiting>();
  readonly #onFailure: (failure: DeliveryFailure) => void;
  readonly #now: () => number;
  #position = 0;

  constructor(broker: Broker, limits: Limits, now: () => number, onFailure: (failure: DeliveryFailure) => void) {
    this.#broker = broker;
    this.#limits = limits;
    this.#now = now;
    this.#onFailure = onFailure;
    this.#instance = broker.attachServer(randomBytes(16).toString('hex'), this);
  }

  send(message: BroadcastMessage, options: SendOptions): Promise<Receipt> {
    const receipt = new LazyReceipt(message.id);
    try {
      const tracked = options.until === 'delivered';
      const batch = this.#batchOf(message, tracked);
      this.#waiting.set(batch.first, { receipt, tracked });
      options.signal?.addEventListener(
        'abort',
        () => receipt.fail(new BroadcastError('aborted', 'the waiting for the receipt was aborted')),
        { once: true },
      );
      this.#broker.publish(this.#instance, batch);
    } catch (error) {
      if (!(error instanceof BroadcastError)) throw error;
      receipt.fail(error);
    }
    return receipt;
  }

  #batchOf(message: BroadcastMessage, tracked: boolean): Batch {
    const { channels, clients, name, persistent, headers, ttl } = message;
    for (const channel of channels) checkName(channel, 'the channel', this.#limits.nameBytes);
    for (const client of clients) checkName(client, 'the client', this.#limits.nameBytes);
    if (name !== undefined) checkName(name, 'the message name', this.#limits.nameBytes);
    const id = parseId(message.id);
    if (id === undefined) throw new BroadcastError('invalid-argument', `${message.id} is not the id of a message`);
    const body = encodeBody(message.data);
    if (body.length > this.#limits.messageBytes) {
      throw new BroadcastError(
        'message-too-large',
        `the data has ${String(body.length)} bytes; limits.messageBytes is ${String(this.#limits.messageBytes)}`,
      );
    }
    const items = Buffer.allocUnsafe(5 + body.length);
    items.writeUInt32LE(1 + body.length, 0);
    items[4] = 0;
    items.set(body, 5);
    const hasHeaders = Object.keys(headers).length > 0;
    return {
      sender: this.#instance.sender,
      envelope: {
        channels,
        clients,
        everyone: channels.length + clients.length === 0,
        name,
        headers: hasHeaders ? headers : undefined,
        persistent,
        tracked,
        resent: false,
        ttl,
        idPrefix: id.prefix,
      },
      first: ++this.#position,
      count: 1,
      idBase: id.counter,
      floor: this.#floor(),
      timestamp: this.#now(),
      items,
    };
  }

  /** The lowest position that is not settled. */
  #floor(): number {
    for (const position of this.#waiting.keys()) return position;
    return this.#position;
  }

  /** What is not settled is rejected: the server has stopped. */
  close(): void {
    for (const { receipt } of this.#waiting.values())
      receipt.fail(new BroadcastError('closed', 'the server has stopped; the outcome is unknown'));
    this.#waiting.clear();
  }

  // ---- Outlet ------------------------------------------------------------------------------------------------------------

  receipts(outcomes: readonly Outcome[]): void {
    for (const { first, count, status, durability, final } of outcomes) {
      for (let position = first; position < first + count; position++) {
        const waiting = this.#waiting.get(position);
        if (waiting === undefined || (waiting.tracked && !final)) continue;
        this.#waiting.delete(position);
        waiting.receipt.settle(status, durability);
      }
    }
  }

  failure({ failure, position }: FailureMessage): void {
    this.#waiting.get(position)?.receipt.addFailure({ position, failure });
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
