/**
 * What a sender meant to send and was promised, and what receivers handled, for suites that harm the store. It never asks
 * the server what it believes: at the end the two are held against each other.
 */
import { BroadcastMessage, type BroadcastClient, type Receipt } from '../../src/index.js';

interface Body {
  readonly n: number;
  readonly fill: string;
}

interface Intent {
  readonly n: number;
  readonly bytes: number;
  /** The receivers who are to handle it. */
  readonly expected: readonly string[];
  receipt: Receipt | Error | undefined;
}

/** Who a message is for: names, channels, and the receivers that the ledger expects to handle it. */
export interface Target {
  readonly client?: string;
  readonly channel?: string;
  readonly expected: readonly string[];
}

/** Message `n` has such a body, and no other has. */
function bodyOf(n: number, bytes: number): Body {
  return { n, fill: String.fromCharCode(97 + (n % 26)).repeat(bytes) };
}

export class Ledger {
  readonly intents: Intent[] = [];
  /** By receiver: the numbers of what it handled, as its handler was started. */
  readonly handled = new Map<string, number[]>();
  /** The same, to look a number up. */
  readonly #seen = new Map<string, Set<number>>();
  /** Messages with a receipt. */
  settled = 0;
  readonly #waiters = new Set<() => void>();
  readonly #wrong: string[] = [];

  /** Sends the next message, and notes what becomes of it. */
  send(client: BroadcastClient, { client: name, channel, expected }: Target, bytes: number): Intent {
    const n = this.intents.length;
    const intent: Intent = { n, bytes, expected, receipt: undefined };
    this.intents.push(intent);
    const body = bodyOf(n, bytes);
    const message =
      name === undefined
        ? BroadcastMessage.createChannelMessage(channel as string, body)
        : channel === undefined
          ? BroadcastMessage.createClientMessage(name, body)
          : BroadcastMessage.create(name, channel, body);
    const note = (outcome: Receipt | Error): void => {
      intent.receipt = outcome;
      this.settled++;
      this.#look();
    };
    client.sendMessage(message).then(note, (error: unknown) => note(error as Error));
    return intent;
  }

  /** The handler of a receiver: checks each body, and notes its number. */
  handlerOf(receiver: string): (message: BroadcastMessage<Body>) => void {
    const numbers: number[] = [];
    const seen = new Set<number>();
    this.handled.set(receiver, numbers);
    this.#seen.set(receiver, seen);
    return ({ data }) => {
      const intent = this.intents[data.n];
      if (intent === undefined || data.fill !== bodyOf(data.n, intent.bytes).fill)
        this.#wrong.push(`${receiver} was given a body that nobody sent: number ${data.n}, ${data.fill.length} bytes`);
      numbers.push(data.n);
      seen.add(data.n);
      this.#look();
    };
  }

  #look(): void {
    for (const waiter of this.#waiters) waiter();
  }

  /** Fulfilled when `condition` is true after a receipt, or a handler's start. Rejects when it is not within a minute. */
  async until(condition: () => boolean, what: string): Promise<void> {
    if (condition()) return;
    await new Promise<void>((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`waited for a minute until ${what}`)), 60_000);
      const waiter = (): void => {
        if (!condition()) return;
        this.#waiters.delete(waiter);
        clearTimeout(late);
        resolve();
      };
      this.#waiters.add(waiter);
    });
  }

  /** Fulfilled when every message has its receipt. */
  untilSettled(): Promise<void> {
    return this.until(() => this.settled === this.intents.length, 'every message had its receipt');
  }

  /** Messages whose receipt says so. */
  counted(status: Receipt['status']): number {
    return this.intents.filter(({ receipt }) => statusOf(receipt) === status).length;
  }

  /** True when a receiver has handled a message. */
  has(receiver: string, n: number): boolean {
    return this.#seen.get(receiver)?.has(n) ?? false;
  }

  /** What no receiver handled although its sender was told that it is safe, or was not told anything. */
  lost(): string[] {
    return this.intents.flatMap(({ n, expected, receipt }) =>
      statusOf(receipt) === 'undelivered'
        ? []
        : expected
            .filter(receiver => !this.has(receiver, n))
            .map(receiver => `lost: ${n} for ${receiver}, ${statusOf(receipt) ?? 'without a receipt'}`),
    );
  }

  /** What is wrong beside what was lost: bodies, repeats, order, and what was handled though its sender heard that it is not. */
  wrong(): string[] {
    const wrong = this.#wrong.slice();
    for (const [receiver, numbers] of this.handled) {
      for (const [i, n] of numbers.entries()) {
        const intent = this.intents[n];
        if (i > 0 && n === numbers[i - 1]) wrong.push(`handled twice by ${receiver}: ${n}`);
        else if (i > 0 && n < (numbers[i - 1] as number))
          wrong.push(`${numbers.indexOf(n) < i ? 'handled twice' : 'out of order'} by ${receiver}: ${n}`);
        if (intent?.expected.includes(receiver) !== true) wrong.push(`${receiver} handled ${n}, which was not for it`);
        if (isDefinite(intent?.receipt)) wrong.push(`${receiver} handled ${n}, which was called undelivered`);
      }
    }
    for (const { n, receipt } of this.intents)
      if (receipt instanceof Error) wrong.push(`${n} was rejected: ${receipt.message}`);
    return wrong;
  }
}

function statusOf(receipt: Receipt | Error | undefined): Receipt['status'] | undefined {
  return receipt instanceof Error ? undefined : receipt?.status;
}

/** It never reached a handler, says the receipt; with attempts it may have (docs/failures.md). */
function isDefinite(receipt: Receipt | Error | undefined): boolean {
  if (receipt === undefined || receipt instanceof Error || receipt.status !== 'undelivered') return false;
  return receipt.failures.every(({ attempts }) => attempts === 0);
}
