/** Messages that leave a name's queues unhandled, and not by a word of their recipient: damaged in the store, or dropped with their subscription. */
import { refuse } from './acknowledgements.js';
import type { Context } from './context.js';
import { rewind } from './delivery.js';
import { queueById } from './expiry.js';
import { targetOf, type Queue } from './model.js';
import { notify } from './senders.js';
import { shrink } from './store.js';
import { settleTracked } from './tracking.js';

/**
 * Stored messages are no longer in a queue, whatever comes back of those that are on their way from it: they are not
 * counted a second time. Returns how many of them are on their way.
 */
export function withdraw(queue: Queue, handle: number, count: number): number {
  let underway = 0;
  for (const delivery of queue.inflight) {
    if (delivery.handle === 0) continue;
    const from = Math.max(handle, delivery.handle) - delivery.handle;
    const to = Math.min(handle + count, delivery.handle + delivery.count) - delivery.handle;
    for (let index = from; index < to; index++) {
      if (index < delivery.done || delivery.later?.has(index) === true) continue;
      if (delivery.refused?.get(index)?.has(queue) === true) continue;
      refuse(delivery, index, queue, 'withdrawn');
      underway++;
    }
  }
  return underway;
}

/** The engine could not read messages of a queue, and has left them out. Who followed one is told; of the others nothing is known. */
export function damaged(ctx: Context, id: string, handle: number, count: number, bytes: number): void {
  const [name = '', subscription = ''] = id.slice(id.startsWith('i/') ? id.indexOf('\0') + 1 : 2).split('\0');
  ctx.logger.error(
    `${String(count)} damaged in the store: lost for "${name}"${subscription && ` on "${subscription}"`}`,
  );
  // A dead letter was told of as rejected, and nobody follows a notice.
  if (id.startsWith('d/') || id.startsWith('n/')) return;
  const queue = queueById(ctx, id);
  let attempts = 0;
  if (queue !== undefined) {
    attempts = Math.min(1, withdraw(queue, handle, count));
    shrink(queue, count, bytes);
    // What was read before goes by what is there now.
    if (queue.fetched.size > 0) rewind(queue, Infinity);
  }
  const target = queue === undefined ? { channel: name } : targetOf(queue);
  for (let h = handle; h < handle + count; h++) {
    const tracked = ctx.tracked.get(h);
    if (tracked === undefined) continue;
    const { id: messageId, position, group } = tracked;
    settleTracked(ctx, h, 1, false);
    const failure = {
      messageId,
      target,
      reason: 'dropped',
      queued: false,
      final: true,
      attempts,
      at: ctx.clock.now(),
    } as const;
    const { instance } = group;
    notify(ctx, { instance, name: ctx.senders.get(instance)?.name, position }, failure, true);
  }
}
