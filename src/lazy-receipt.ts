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

/** What knows the outcome of a receipt that nobody has looked at yet. */
export interface ReceiptSource {
  /** Tells the receipt of this index what is known, and later what becomes known. */
  watch(index: number, receipt: LazyReceipt): void;
}

/** What a receipt has been told. */
interface Told {
  status: Receipt['status'] | undefined;
  durability: Receipt['durability'];
  error: BroadcastError | undefined;
  failures: FailureRun[] | undefined;
  deferred: Deferred | undefined;
}

export class LazyReceipt implements Promise<Receipt> {
  // Not the id's text: it would live as long as the receipt, and few ask for it.
  readonly #prefix: string;
  readonly #counter: number;
  /** Where it learns its outcome when somebody looks at it; without one, or once it has asked there, it is told. */
  #source: ReceiptSource | undefined;
  #index = 0;
  /** Made when there is something to keep: most receipts are thrown away before. */
  #known: Told | undefined;

  constructor({ prefix, counter }: MessageId) {
    this.#prefix = prefix;
    this.#counter = counter;
  }

  /** Its outcome is kept there until somebody looks at it. */
  learnFrom(source: ReceiptSource, index: number): void {
    this.#source = source;
    this.#index = index;
  }

  get [Symbol.toStringTag](): string {
    return 'Promise';
  }

  get id(): string {
    return formatId(this.#prefix, this.#counter);
  }

  get isSettled(): boolean {
    const known = this.#known;
    return known !== undefined && (known.status !== undefined || known.error !== undefined);
  }

  get #told(): Told {
    return (this.#known ??= {
      status: undefined,
      durability: 'none',
      error: undefined,
      failures: undefined,
      deferred: undefined,
    });
  }

  addFailure(run: FailureRun): void {
    const told = this.#told;
    // A literal of one takes a tenth of what the first push to an empty array sets aside.
    if (told.failures === undefined) told.failures = [run];
    else told.failures.push(run);
  }

  /** Another run of the server decides anew. */
  forgetFailures(): void {
    if (this.#known !== undefined) this.#known.failures = undefined;
  }

  settle(status: Receipt['status'], durability: Receipt['durability']): void {
    if (this.isSettled) return;
    const told = this.#told;
    told.status = status;
    told.durability = durability;
    told.deferred?.resolve(this.#receipt(told, status));
  }

  fail(error: BroadcastError): void {
    if (this.isSettled) return;
    const told = this.#told;
    told.error = error;
    told.deferred?.reject(error);
  }

  #receipt(told: Told, status: Receipt['status']): Receipt {
    const { id } = this;
    const failures: DeliveryFailure[] = [];
    for (const { failure } of told.failures ?? []) {
      const { count: _, ...own } = failure;
      // Who waited for it has it by then, or has a final one.
      if (own.final || status === 'stored') failures.push({ ...own, messageId: id });
    }
    return { id, status, durability: told.durability, failures: failures.length > 0 ? failures : NO_FAILURES };
  }

  /** Somebody looks at it. */
  protected ask(): void {
    const source = this.#source;
    this.#source = undefined;
    source?.watch(this.#index, this);
  }

  #promise(): Promise<Receipt> {
    const told = this.#told;
    if (told.deferred === undefined) {
      this.ask();
      let resolve!: Deferred['resolve'];
      let reject!: Deferred['reject'];
      const promise = new Promise<Receipt>((yes, no) => {
        resolve = yes;
        reject = no;
      });
      promise.catch(() => undefined); // what nobody awaits must not end the process
      told.deferred = { promise, resolve, reject };
      if (told.error !== undefined) reject(told.error);
      else if (told.status !== undefined) resolve(this.#receipt(told, told.status));
    }
    return told.deferred.promise;
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

  override learnFrom(source: ReceiptSource, index: number): void {
    super.learnFrom(source, index);
    this.ask();
  }

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
