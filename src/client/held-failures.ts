/**
 * What the server has said of messages that are not safe yet: that some recipient of theirs will not have them. It is true
 * once they are safe. A server that ends before that has forgotten it, and the next one, which is sent them again, decides
 * anew: a recipient that was refused may have them after all.
 */
import type { FailureRun, LazyReceipt } from '../lazy-receipt.js';
import type { DeliveryFailure } from '../receipts.js';

interface Held {
  readonly run: FailureRun;
  /** Of its messages, in their order. */
  readonly receipts: readonly LazyReceipt[];
}

export class HeldFailures {
  #held: Held[] = [];

  /** Holds a failure back. A server that is met again says again what it has said: false then. */
  hold(run: FailureRun, receipts: readonly LazyReceipt[]): boolean {
    if (this.#held.some(held => isSame(held.run, run))) return false;
    this.#held.push({ run, receipts });
    return true;
  }

  /** What is true now: every message that it is about is safe. */
  release(isSafe: (position: number) => boolean): DeliveryFailure[] {
    if (this.#held.length === 0) return [];
    const [ready, rest] = divide(this.#held, ({ run, receipts }) => receipts.every((_, i) => isSafe(run.position + i)));
    this.#held = rest;
    return ready.map(({ run }) => run.failure);
  }

  /** The server that said it is gone. It stays true of messages that are `kept`; the others are decided anew. */
  forget(isKept: (position: number) => boolean): void {
    this.#held = this.#held.flatMap(held => {
      for (const receipt of held.receipts) receipt.dropFailure(held.run);
      return partsOf(held, isKept);
    });
    for (const { run, receipts } of this.#held) for (const receipt of receipts) receipt.addFailure(run);
  }
}

function isSame({ position: a, failure: one }: FailureRun, { position: b, failure: other }: FailureRun): boolean {
  const { client, channel } = one.target;
  return a === b && one.reason === other.reason && client === other.target.client && channel === other.target.channel;
}

function divide<T>(all: readonly T[], isFirst: (one: T) => boolean): [T[], T[]] {
  const parts: [T[], T[]] = [[], []];
  for (const one of all) parts[isFirst(one) ? 0 : 1].push(one);
  return parts;
}

/** The same failure for each run of messages that are kept. */
function partsOf({ run: { position, failure }, receipts }: Held, isKept: (position: number) => boolean): Held[] {
  const parts: { position: number; receipts: LazyReceipt[] }[] = [];
  for (const [i, receipt] of receipts.entries()) {
    if (!isKept(position + i)) continue;
    const last = parts[parts.length - 1];
    if (last !== undefined && last.position + last.receipts.length === position + i) last.receipts.push(receipt);
    else parts.push({ position: position + i, receipts: [receipt] });
  }
  return parts.map(part => {
    const { count: _, ...one } = failure;
    const messageId = (part.receipts[0] as LazyReceipt).id;
    const count = part.receipts.length;
    return {
      run: { position: part.position, failure: { ...one, messageId, ...(count > 1 && { count }) } },
      receipts: part.receipts,
    };
  });
}
