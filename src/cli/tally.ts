/** What became of the messages that `pub` sent, and how many are on their way: the sender waits when those are many. */
import { BroadcastError, type Limits, type Receipt } from '../index.js';

/** So many messages and bytes of input may be without their receipts, if the outbox has room for them. */
const MOST_MESSAGES = 65_536;
const MOST_BYTES = 16 * 1024 * 1024;
/** No line of JSON grows to more than this many times its size when it is encoded. */
const GROWTH = 4;
/** Codes that say that the outcome of a message is not known. */
const UNKNOWN: ReadonlySet<string> = new Set(['closed', 'different-store']);

export class Tally {
  sent = 0;
  delivered = 0;
  stored = 0;
  routed = 0;
  failed = 0;
  /** Given up before their receipts came: they may have arrived or not. */
  unknown = 0;
  /** What stands behind `stored`. */
  durability: Receipt['durability'] = 'none';
  firstFailure: string | undefined;
  readonly #mostMessages: number;
  readonly #mostBytes: number;
  #bytes = 0;
  #waiters: (() => void)[] = [];

  constructor({ outboxMessages, outboxBytes }: Pick<Limits, 'outboxMessages' | 'outboxBytes'>) {
    this.#mostMessages = Math.min(MOST_MESSAGES, outboxMessages);
    this.#mostBytes = Math.min(MOST_BYTES, outboxBytes / GROWTH);
  }

  get settled(): number {
    return this.delivered + this.stored + this.routed + this.failed + this.unknown;
  }

  get unsettled(): number {
    return this.sent - this.settled;
  }

  /** Counts a message until its receipt comes. `where` is for the text of a failure. */
  add(receipt: Promise<Receipt>, bytes: number, where: string): void {
    this.sent++;
    this.#bytes += bytes;
    receipt.then(
      value => {
        this.#count(value, where);
        this.#settle(bytes);
      },
      (error: unknown) => {
        const text = `${where}${error instanceof Error ? error.message : String(error)}`;
        if (error instanceof BroadcastError && UNKNOWN.has(error.code)) this.#fail('unknown', text);
        else this.#fail('failed', text);
        this.#settle(bytes);
      },
    );
  }

  #count({ status, durability, failures }: Receipt, where: string): void {
    if (status === 'undelivered') {
      this.#fail('failed', `${where}undelivered: ${failures.find(failure => failure.final)?.reason ?? 'no recipient'}`);
      return;
    }
    this[status]++;
    if (status === 'stored') this.durability = durability;
  }

  #fail(how: 'failed' | 'unknown', text: string): void {
    this[how]++;
    this.firstFailure ??= text;
  }

  #settle(bytes: number): void {
    this.#bytes -= bytes;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter();
  }

  #change(): Promise<void> {
    return new Promise(resolve => this.#waiters.push(resolve));
  }

  /** Fulfilled when there is room for a message of so many bytes. */
  async room(bytes: number): Promise<void> {
    while (this.unsettled >= this.#mostMessages || (this.unsettled > 0 && this.#bytes + bytes > this.#mostBytes))
      await this.#change();
  }

  /** Fulfilled when every message has its receipt. */
  async done(): Promise<void> {
    while (this.unsettled > 0) await this.#change();
  }
}
