/** Sending: a message is checked and encoded, gets its receipt, and goes to the outbox; and who waits for room there. */
import { AbortWatch } from '../abort-watch.js';
import type { Clock } from '../clock.js';
import type { Limits } from '../config.js';
import { BroadcastError } from '../errors.js';
import { LazyReceipt, WatchedReceipt } from '../lazy-receipt.js';
import type { Logger } from '../logger.js';
import type { BroadcastMessage, MessageId } from '../message.js';
import { checkSendOptions, Outgoing, type MessageLimits } from '../outgoing.js';
import type { DeliveryFailure, Receipt, SendOptions } from '../receipts.js';
import { quiet, rejected, Waiters } from '../waiters.js';
import { Outbox, type OutboxHost } from './outbox.js';

/** What sending needs of its client. */
export interface SendingHost extends Omit<OutboxHost, 'limits' | 'write'> {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly limits: Limits;
  failed(failure: DeliveryFailure): void;
}

const WARN_FULL_INTERVAL = 1000;

export class Sending {
  readonly outbox: Outbox;
  readonly #host: SendingHost;
  readonly #outgoing: Outgoing;
  readonly #aborts = new AbortWatch();
  readonly #room = new Waiters();
  #warnedFullAt = -Infinity;

  constructor(host: SendingHost) {
    this.#host = host;
    this.#outgoing = new Outgoing(host.limits);
    this.outbox = new Outbox({
      ...host,
      write: (message, buffer, at) => this.#outgoing.write(message, buffer, at),
      drained: () => {
        this.#room.release();
        host.drained();
      },
    });
  }

  send(message: BroadcastMessage, options: SendOptions | undefined): Promise<Receipt> {
    try {
      return this.#send(message, options);
    } catch (error) {
      if (!(error instanceof BroadcastError)) throw error;
      if (error.code === 'outbox-full') this.#onFull(message, error);
      return rejected(error);
    }
  }

  #send(message: BroadcastMessage, options: SendOptions | undefined): LazyReceipt {
    if (options !== undefined) checkSendOptions(options);
    this.#outgoing.check(message);
    const id = this.#outgoing.id(message);
    const tracked = options?.until === 'delivered';
    if (options?.signal !== undefined) return this.#sendWatched(message, id, tracked, options.signal);
    const receipt = new LazyReceipt(id);
    this.outbox.add(message, id, receipt, tracked);
    return receipt;
  }

  #sendWatched(message: BroadcastMessage, id: MessageId, tracked: boolean, signal: AbortSignal): LazyReceipt {
    const receipt = new WatchedReceipt(id);
    this.outbox.add(message, id, receipt, tracked);
    const position = this.outbox.nextPosition - 1;
    receipt.onSettled = this.#aborts.watch(signal, () => {
      const isBack = this.outbox.withdraw(position);
      if (!isBack) this.outbox.untrack(position);
      const end = isBack ? 'the message was not sent' : 'the message has left and may still arrive';
      receipt.fail(new BroadcastError('aborted', `the signal was aborted; ${end}`));
    });
    return receipt;
  }

  /** A full outbox is never silent: a rejection, a final notice, and now and then a warning. */
  #onFull(message: BroadcastMessage, error: BroadcastError): void {
    this.#host.failed(this.outbox.finalFailure(message, 'outbox-full', 0));
    const now = this.#host.clock.monotonic();
    if (now - this.#warnedFullAt < WARN_FULL_INTERVAL) return;
    this.#warnedFullAt = now;
    this.#host.logger.warn(error.message);
  }

  /** Fulfilled when there is room, unless `refusal` says that there will be none. */
  ready(refusal: BroadcastError | undefined): Promise<void> {
    if (!this.outbox.full) return Promise.resolve();
    return refusal === undefined ? quiet(this.#room.wait()) : rejected(refusal);
  }

  /** There will be no room. */
  refuse(error: BroadcastError): void {
    this.#room.reject(error);
  }

  /** Nothing is sent any more: what is not settled is rejected. */
  close(error: BroadcastError): void {
    this.outbox.close(error);
    this.#room.reject(error);
  }

  /** The smaller of both sides' limits holds; what was sent under larger ones and is not safe is looked at again. */
  adopt(theirs: MessageLimits): void {
    const own = this.#host.limits;
    const limits: MessageLimits = {
      messageBytes: Math.min(own.messageBytes, theirs.messageBytes),
      headerBytes: Math.min(own.headerBytes, theirs.headerBytes),
      targets: Math.min(own.targets, theirs.targets),
      nameBytes: Math.min(own.nameBytes, theirs.nameBytes),
    };
    this.#outgoing.limits = limits;
    this.outbox.refuseOversize(limits);
  }
}
