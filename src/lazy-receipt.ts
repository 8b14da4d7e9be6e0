/**
 * A receipt that is a promise only when somebody asks: millions of messages are sent by callers who never look at
 * theirs, and a promise for each, with a handler against unhandled rejections, would cost more than sending it.
 */
import type { BroadcastError } from './errors.js';
import { formatId, type MessageId } from './message.js';
import type { DeliveryFailure, Receipt } from './receipts.js';

/** A failure that covers a run of positions of one sender. */
export interface FailureRun {
  readonly position: number;
  readonly failure: DeliveryFailure;
}

interface Deferred {
  readonly promise: Promise<Receipt>;
  readonly resolve: (receipt: Receipt) => void;
  readonly reject: (error: BroadcastError) => void;
}

const NO_FAILURES: readonly DeliveryFailure[] = Object.freeze([]);

export class LazyReceipt implements Promise<Receipt> {
  // Not the id's text: it would live as long as the receipt, and few ask for it.
  readonly #prefix: string;
  readonly #counter: number;
  #status: Receipt['status'] | undefined;
  #durability: Receipt['durability'] = 'none';
  #error: BroadcastError | undefined;
  #failures: FailureRun[] | undefined;
  #deferred: Deferred | undefined;

  constructor({ prefix, counter }: MessageId) {
    this.#prefix = prefix;
    this.#counter = counter;
  }

  get [Symbol.toStringTag](): string {
    return 'Promise';
  }

  get id(): string {
    return formatId(this.#prefix, this.#counter);
  }

  get isSettled(): boolean {
    return this.#status !== undefined || this.#error !== undefined;
  }

  addFailure(run: FailureRun): void {
    // A literal of one takes a tenth of what the first push to an empty array sets aside.
    if (this.#failures === undefined) this.#failures = [run];
    else this.#failures.push(run);
  }

  /** Another run of the server decides anew. */
  forgetFailures(): void {
    this.#failures = undefined;
  }

  settle(status: Receipt['status'], durability: Receipt['durability']): void {
    if (this.isSettled) return;
    this.#status = status;
    this.#durability = durability;
    this.#deferred?.resolve(this.#receipt(status));
  }

  fail(error: BroadcastError): void {
    if (this.isSettled) return;
    this.#error = error;
    this.#deferred?.reject(error);
  }

  #receipt(status: Receipt['status']): Receipt {
    const { id } = this;
    const failures: DeliveryFailure[] = [];
    for (const { failure } of this.#failures ?? []) {
      const { count: _, ...own } = failure;
      // Who waited for it has it by then, or has a final one.
      if (own.final || status === 'stored') failures.push({ ...own, messageId: id });
    }
    return { id, status, durability: this.#durability, failures: failures.length > 0 ? failures : NO_FAILURES };
  }

  #promise(): Promise<Receipt> {
    if (this.#deferred === undefined) {
      let resolve!: Deferred['resolve'];
      let reject!: Deferred['reject'];
      const promise = new Promise<Receipt>((yes, no) => {
        resolve = yes;
        reject = no;
      });
      promise.catch(() => undefined); // what nobody awaits must not end the process
      this.#deferred = { promise, resolve, reject };
      if (this.#error !== undefined) reject(this.#error);
      else if (this.#status !== undefined) resolve(this.#receipt(this.#status));
    }
    return this.#deferred.promise;
  }

  then<A = Receipt, B = never>(
    onFulfilled?: ((receipt: Receipt) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.#promise().then(onFulfilled, onRejected);
  }

  catch<B = never>(onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<Receipt | B> {
    return this.#promise().catch(onRejected);
  }

  finally(onFinally?: (() => void) | null): Promise<Receipt> {
    return this.#promise().finally(onFinally);
  }
}

/** A receipt that says when it is settled, for those few that somebody must know of. */
export class WatchedReceipt extends LazyReceipt {
  onSettled: (() => void) | undefined;

  override settle(status: Receipt['status'], durability: Receipt['durability']): void {
    super.settle(status, durability);
    this.#tell();
  }

  override fail(error: BroadcastError): void {
    super.fail(error);
    this.#tell();
  }

  #tell(): void {
    const { onSettled } = this;
    this.onSettled = undefined;
    onSettled?.();
  }
}
