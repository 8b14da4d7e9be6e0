/**
 * What was on its way to an instance that is lost while the store is full stays in memory, in front of what was not sent:
 * for each of its queues by itself, as whoever comes may handle one of them only.
 */
import { bytesOf } from '../batch.js';
import type { Context } from './context.js';
import { newDelivery } from './delivery.js';
import { mergeLive } from './live.js';
import type { Delivery, Queue, Suspect } from './model.js';
import { attemptsOf, openParts, type Part } from './parts.js';
import { finish, letGo } from './store.js';
import { watch } from './progress.js';

export class Requeue {
  readonly #ctx: Context;
  /** Of each delivery, the messages whose handlers could have been running: each becomes a delivery of its own. */
  readonly #suspects = new Map<Delivery, Suspect[]>();
  readonly #kept = new Map<Queue, Delivery[]>();

  constructor(ctx: Context, suspects: readonly Suspect[]) {
    this.#ctx = ctx;
    for (const suspect of suspects) {
      const others = this.#suspects.get(suspect.delivery);
      if (others === undefined) this.#suspects.set(suspect.delivery, [suspect]);
      else others.push(suspect);
    }
  }

  /** A delivery that was in flight, and is not stored. */
  add(delivery: Delivery): void {
    const { queues, entry } = delivery;
    entry.deliveries.delete(delivery);
    divide(this.#ctx, delivery);
    for (const queue of queues) {
      queue.inflight.delete(delivery);
      queue.unstored--;
      const suspects = new Map<number, Suspect>();
      for (const suspect of this.#suspects.get(delivery) ?? [])
        if (suspect.queue === queue) suspects.set(suspect.index, suspect);
      for (const part of openParts(delivery, queue)) this.#keep(delivery, queue, part, suspects);
    }
  }

  #keep(delivery: Delivery, queue: Queue, part: Part, suspects: ReadonlyMap<number, Suspect>): void {
    const { entry, offset: start } = delivery;
    let kept = this.#kept.get(queue);
    if (kept === undefined) this.#kept.set(queue, (kept = []));
    const [first, end] = [part.offset - start, part.offset - start + part.count];
    for (let from = first; from < end;) {
      const attempts = attemptsOf(delivery, from, queue);
      let to = from + 1;
      if (!suspects.has(from))
        while (to < end && !suspects.has(to) && attemptsOf(delivery, to, queue) === attempts) to++;
      const one = newDelivery(entry, [queue], start + from, to - from, 0);
      kept.push(Object.assign(one, { attempts, redelivered: true }));
      entry.deliveries.add(one);
      watch(this.#ctx, queue);
      const suspect = suspects.get(from);
      if (suspect !== undefined) Object.assign(suspect, { delivery: one, index: 0 });
      from = to;
    }
  }

  /** Everything has been added. */
  end(): void {
    for (const [queue, parts] of this.#kept) mergeLive(this.#ctx, queue, parts);
  }
}

/**
 * Each queue of a delivery is a recipient of its own from here on: one that has failed for the messages that it has
 * refused, and for those of the batch that are not open in this delivery.
 */
function divide(ctx: Context, delivery: Delivery): void {
  const { entry, queues, refused, offset: start } = delivery;
  const more = queues.length - 1;
  if (more > 0) {
    const { count } = entry.batch;
    entry.recipients += more;
    entry.left ??= new Uint32Array(count).fill(entry.whole);
    entry.failed ??= new Uint32Array(count);
    for (let i = 0; i < count; i++) entry.failed[i] = (entry.failed[i] as number) + more;
  }
  if (more === 0 && refused === undefined) return;
  for (const { offset, count } of openParts(delivery)) {
    for (let i = offset; i < offset + count; i++) {
      const gone = queues.filter(queue => refused?.get(i - start)?.has(queue) === true);
      for (const queue of gone) letGo(queue, 1, bytesOf(entry.batch, i, 1));
      const others = queues.length - gone.length - 1;
      if (others < 0) finish(ctx, entry, i, 1, false);
      if (others <= 0 || entry.left === undefined || entry.failed === undefined) continue;
      entry.left[i] = (entry.left[i] as number) + others;
      entry.failed[i] = (entry.failed[i] as number) - others;
    }
  }
}
