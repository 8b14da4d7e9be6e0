/** The lanes of a name's instances: one that ends joins the queue of the name, and what another instance has handled counts. */
import type { Context } from './context.js';
import { rewind, stopReading } from './delivery.js';
import { mergeLive, takeLive } from './live.js';
import type { Queue } from './model.js';
import { notInFlight } from './parts.js';
import { sessionQueue } from './registry.js';
import { join, shrink } from './store.js';
import { settleTracked } from './tracking.js';
import { watch } from './progress.js';

/** What another instance of the name has handled counts as delivered. */
function dropHandled(ctx: Context, lane: Queue, handle: number, count: number): void {
  const before = ctx.engine.usage(lane.id);
  if (before.messages === 0) return;
  for (const tracked of [...ctx.tracked.keys()]) {
    if (tracked < handle || tracked >= handle + count) continue;
    const { messages } = ctx.engine.usage(lane.id);
    ctx.engine.ack(lane.id, tracked, 1);
    if (ctx.engine.usage(lane.id).messages < messages) settleTracked(ctx, tracked, 1, true);
  }
  ctx.engine.ack(lane.id, handle, count);
  const after = ctx.engine.usage(lane.id);
  shrink(lane, before.messages - after.messages, before.bytes - after.bytes);
}

/** A lane's messages join the queue of the name, but for those that another instance has handled. */
export function joinQueue(ctx: Context, lane: Queue): void {
  const { session } = lane;
  const queue = sessionQueue(session, lane.subscription);
  // What the instance has in hand still ends by a word of its own.
  for (const { first, count } of queue.handled?.ranges() ?? [])
    for (const part of notInFlight(lane, { handle: first, batch: { count } }))
      dropHandled(ctx, lane, first + part.offset, part.count);
  stopReading(lane);
  if (ctx.engine.usage(lane.id).messages > 0) {
    // What waited for several instances of the name waits once from here on.
    join(ctx, lane, queue);
    rewind(queue, 0);
    queue.redeliverBelow = Math.max(queue.redeliverBelow, lane.redeliverBelow);
  }
  const deliveries = takeLive(lane);
  for (const delivery of deliveries) {
    delivery.queues = [queue];
    lane.unstored--;
    watch(ctx, queue);
  }
  mergeLive(ctx, queue, deliveries);
}
