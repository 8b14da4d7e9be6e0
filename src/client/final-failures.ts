/**
 * What a run of the server has said of messages that it has not stored: that some recipient will never have them. It is true
 * once they are safe, and told then. A server that ends before has forgotten it, and the next one, which is sent them again,
 * decides anew: the recipient may have them after all.
 */
import type { FailureRun } from '../lazy-receipt.js';
import type { DeliveryFailure } from '../receipts.js';
import { partsOf } from './batch-receipts.js';

interface Held {
  readonly run: FailureRun;
  /** The id of the message at a position; those that are gone from the outbox have none. */
  readonly idAt: (position: number) => string | undefined;
  /** Of its messages, so many are not safe. */
  open: number;
}

const NONE: readonly DeliveryFailure[] = [];

export class FinalFailures {
  /** By each message that is not safe. */
  readonly #held = new Map<number, Held[]>();
  /** What was said, and the first position behind it: a server that is met again says it again. */
  readonly #said = new Map<string, number>();

  get isEmpty(): boolean {
    return this.#held.size === 0;
  }

  /** Notes what is said; false when it was said before. */
  note(run: FailureRun): boolean {
    const key = keyOf(run);
    if (this.#said.has(key)) return false;
    this.#said.set(key, run.position + (run.failure.count ?? 1));
    return true;
  }

  /** The server says nothing any more of what is below. */
  passed(floor: number): void {
    for (const [key, end] of this.#said) {
      if (end > floor) return;
      this.#said.delete(key);
    }
  }

  /** Holds back what is not true before these of its messages are safe. */
  hold(run: FailureRun, idAt: Held['idAt'], unsafe: readonly number[]): void {
    const held = { run, idAt, open: unsafe.length };
    for (const position of unsafe) {
      const others = this.#held.get(position);
      if (others === undefined) this.#held.set(position, [held]);
      else others.push(held);
    }
  }

  /** A message is safe, or has its end: what is to be told because of it. */
  settled(position: number): readonly DeliveryFailure[] {
    const about = this.#held.get(position);
    if (about === undefined) return NONE;
    this.#held.delete(position);
    return about.flatMap(held => (--held.open === 0 ? [held.run.failure] : []));
  }

  /** Nobody will decide anew: everything that was held. */
  takeAll(): readonly DeliveryFailure[] {
    const all = [...new Set([...this.#held.values()].flat())];
    this.#held.clear();
    return all.map(({ run }) => run.failure);
  }

  /**
   * The run of the server that said it is gone. It stays true of messages that are safe, and of those that the next run has
   * (`isKept`), whose receipts will come; the others are decided anew. Returns what is to be told now.
   */
  forget(isKept: (position: number) => boolean, isSafe: (position: number) => boolean): readonly DeliveryFailure[] {
    this.#said.clear();
    if (this.#held.size === 0) return NONE;
    const all = [...new Set([...this.#held.values()].flat())];
    this.#held.clear();
    return all
      .flatMap(({ run, idAt }) => runsOf(run, idAt, isKept).map(part => ({ run: part, idAt })))
      .flatMap(({ run, idAt }) => {
        const unsafe = positionsOf(run).filter(position => !isSafe(position));
        if (unsafe.length === 0) return [run.failure];
        this.hold(run, idAt, unsafe);
        return NONE;
      });
  }
}

/** Several may be of the same messages, for other recipients; of a shared name there is one for each of its processes. */
function keyOf({ position, failure: { target, reason, count = 1 } }: FailureRun): string {
  return JSON.stringify([position, count, reason, target.client, target.channel]);
}

function positionsOf({ position, failure: { count = 1 } }: FailureRun): number[] {
  return Array.from({ length: count }, (_, i) => position + i);
}

/** The same failure for each run of messages that are kept. */
function runsOf(run: FailureRun, idAt: Held['idAt'], isKept: (position: number) => boolean): FailureRun[] {
  const { position, failure } = run;
  const { count = 1, ...one } = failure;
  return partsOf(position, position + count, isKept).map(({ from, end }) => {
    const messageId = from === position ? failure.messageId : (idAt(from) ?? failure.messageId);
    const own = { ...one, messageId, ...(end - from > 1 && { count: end - from }) };
    return { position: from, failure: own };
  });
}
