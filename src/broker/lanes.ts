/** The lanes of a name's instances: one that ends joins the queue of the name, and what another instance has handled counts. */
import { bytesOf } from '../batch.js';
import { RangeSet } from '../range-set.js';
import { armLive } from './alarms.js';
import type { Context } from './context.js';
import { rewind, stopReading } from './delivery.js';
import type { Delivery, Queue } from './model.js';
import { openHandles } from './parts.js';
import { sessionQueue } from './registry.js';
import { join, shrink, watch } from './store.js';
import { settleTracked } from './tracking.js';

/** What another instance of the name has handled already of the deliveries that were lost. */
export function noteHandled(deliveries: readonly Delivery[]): void {
  for (const delivery of deliveries) {
    if (delivery.handle === 0) continue;
    for (const { session, subscription } of delivery.queues) {
      const queue = sessionQueue(session, subscription);
      if (delivery.entry.handledBy?.has(queue) !== true) continue;
      queue.handled ??= new RangeSet();
      for (const { handle, count } of openHandles(delivery)) queue.handled.add(handle, count);
    }
  }
}

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
  for (const { first, count } of queue.handled?.ranges() ?? []) dropHandled(ctx, lane, first, count);
  stopReading(lane);
  if (ctx.engine.usage(lane.id).messages > 0) {
    // What waited for several instances of the name waits once from here on.
    join(ctx, lane, queue);
    rewind(queue, 0);
    queue.redeliverBelow = Math.max(queue.redeliverBelow, lane.redeliverBelow);
  }
  for (let delivery = lane.live.shift(); delivery !== undefined; delivery = lane.live.shift()) {
    delivery.queues = [queue];
    lane.unstored--;
    watch(ctx, queue);
    armLive(ctx, queue, delivery.entry.expiresAt);
    queue.live.push(delivery);
    queue.liveMessages += delivery.count;
    queue.liveBytes += bytesOf(delivery.entry.batch, delivery.offset, delivery.count);
  }
  lane.liveMessages = 0;
  lane.liveBytes = 0;
}
