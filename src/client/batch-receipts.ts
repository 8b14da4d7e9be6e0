/**
 * What became of the messages of one batch, for receipts that nobody has looked at: they are told when somebody does. What
 * the server says is kept in runs, so that a batch that is settled as a whole costs as much as one message, and receipts
 * that are thrown away die young.
 */
import type { BroadcastError } from '../errors.js';
import type { FailureRun, LazyReceipt, ReceiptSource } from '../lazy-receipt.js';
import type { Receipt } from '../receipts.js';

/** What a receipt says in the end, but for failures. */
export type Verdict = Pick<Receipt, 'status' | 'durability'>;

/** Messages by their index, `end` not among them. */
interface Span {
  readonly from: number;
  end: number;
}

interface SpanOfFailure extends Span {
  readonly run: FailureRun;
}

export class BatchReceipts implements ReceiptSource {
  readonly #verdicts: (Span & Verdict)[] = [];
  #failures: SpanOfFailure[] = [];
  #error: BroadcastError | undefined;
  /** Those that somebody waits for, by index, until they are settled. */
  #watched: Map<number, LazyReceipt> | undefined;

  /** Somebody looks at a receipt: it is told what is known, and what will be. */
  watch(index: number, receipt: LazyReceipt): void {
    for (const failure of this.#failures) if (isIn(failure, index)) receipt.addFailure(failure.run);
    const verdict = this.#verdicts.find(span => isIn(span, index));
    if (verdict !== undefined) receipt.settle(verdict.status, verdict.durability);
    else if (this.#error !== undefined) receipt.fail(this.#error);
    else (this.#watched ??= new Map()).set(index, receipt);
  }

  /** Messages that had no verdict have one now. */
  settle(from: number, end: number, { status, durability }: Verdict): void {
    const last = this.#verdicts[this.#verdicts.length - 1];
    if (last?.end === from && last.status === status && last.durability === durability) last.end = end;
    else this.#verdicts.push({ from, end, status, durability });
    this.#forWatched(from, end, (receipt, index) => {
      this.#watched?.delete(index);
      receipt.settle(status, durability);
    });
  }

  addFailure(from: number, end: number, run: FailureRun): void {
    this.#failures.push({ from, end, run });
    this.#forWatched(from, end, receipt => {
      receipt.addFailure(run);
    });
  }

  /** Another run of the server decides anew of these messages. */
  forgetFailures(isForgotten: (index: number) => boolean): void {
    const kept: SpanOfFailure[] = [];
    for (const { from, end, run } of this.#failures)
      for (const part of partsOf(from, end, index => !isForgotten(index))) kept.push({ ...part, run });
    this.#failures = kept;
    for (const [index, receipt] of this.#watched ?? []) if (isForgotten(index)) receipt.forgetFailures();
  }

  /** Messages without a verdict will have none. */
  fail(error: BroadcastError): void {
    this.#error = error;
    const watched = this.#watched;
    this.#watched = undefined;
    for (const receipt of watched?.values() ?? []) receipt.fail(error);
  }

  #forWatched(from: number, end: number, tell: (receipt: LazyReceipt, index: number) => void): void {
    const watched = this.#watched;
    if (watched === undefined || watched.size === 0) return;
    for (let index = from; index < end; index++) {
      const receipt = watched.get(index);
      if (receipt !== undefined) tell(receipt, index);
    }
  }
}

function isIn({ from, end }: Span, index: number): boolean {
  return index >= from && index < end;
}

/** Runs of those from `from` to before `end` that `has` says yes to. */
export function partsOf(from: number, end: number, has: (index: number) => boolean): Span[] {
  const parts: Span[] = [];
  for (let index = from; index < end; index++) {
    if (!has(index)) continue;
    const last = parts[parts.length - 1];
    if (last?.end === index) last.end++;
    else parts.push({ from: index, end: index + 1 });
  }
  return parts;
}
