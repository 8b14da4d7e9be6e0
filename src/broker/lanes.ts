/** From the lanes of a name's instances back to the queue of the name, but for what another instance has handled. */
import { bytesOf } from '../batch.js';
import type { NumberRange } from '../range-set.js';
import type { Context } from './context.js';
import { newDelivery, rewind, stopReading } from './delivery.js';
import { dropStored, mergeLive, takeLive } from './live.js';
import type { Delivery, Queue } from './model.js';
import { notInFlight } from './parts.js';
import { sessionQueue } from './registry.js';
import { finish, join, letGo, shrink } from './store.js';
import { settleTracked } from './tracking.js';
import { watch } from './progress.js';

/**
 * Of stored messages of a queue, what another instance of the name has handled counts as delivered, and leaves it.
 * Returns the rest.
 */
function dropHandled(ctx: Context, queue: Queue, first: number, count: number): NumberRange[] {
  const { handled } = sessionQueue(queue.session, queue.subscription);
  if (handled === undefined) return [{ first, count }];
  for (const part of handled.within(first, count)) countAsDelivered(ctx, queue, part.first, part.count);
  return handled.missing(first, count);
}

function countAsDelivered(ctx: Context, queue: Queue, handle: number, count: number): void {
  const before = ctx.engine.usage(queue.id);
  if (before.messages === 0) return;
  for (const tracked of trackedAmong(ctx, handle, count)) {
    const { messages } = ctx.engine.usage(queue.id);
    ctx.engine.ack(queue.id, tracked, 1);
    if (ctx.engine.usage(queue.id).messages < messages) settleTracked(ctx, tracked, 1, true);
  }
  ctx.engine.ack(queue.id, handle, count);
  const after = ctx.engine.usage(queue.id);
  shrink(queue, before.messages - after.messages, before.bytes - after.bytes);
}

/** The handles of a range whose senders wait for the final outcome, by whichever is the shorter way. */
function trackedAmong({ tracked }: Context, first: number, count: number): number[] {
  if (count > tracked.size) return [...tracked.keys()].filter(handle => handle >= first && handle < first + count);
  return Array.from({ length: count }, (_, i) => first + i).filter(handle => tracked.has(handle));
}

/** Stored messages that were on their way from a queue wait again, for whichever instance handles them. */
export function giveBack(ctx: Context, queue: Queue, handle: number, count: number): void {
  const target = sessionQueue(queue.session, queue.subscription);
  for (const rest of dropHandled(ctx, queue, handle, count)) {
    if (queue !== target) join(ctx, queue, target, rest.first, rest.count);
    rewind(target, rest.first);
    target.redeliverBelow = Math.max(target.redeliverBelow, rest.first + rest.count);
  }
}

/** A lane's messages join the queue of the name. */
export function joinQueue(ctx: Context, lane: Queue): void {
  const { session } = lane;
  const queue = sessionQueue(session, lane.subscription);
  const isInDoubt = othersMayHaveHandled(lane);
  // What the instance has in hand still ends by a word of its own.
  for (const { first, count } of queue.handled?.ranges() ?? [])
    for (const part of notInFlight(lane, { handle: first, batch: { count } }))
      countAsDelivered(ctx, lane, first + part.offset, part.count);
  dropStored(lane);
  stopReading(lane);
  if (ctx.engine.usage(lane.id).messages > 0) {
    // What waited for several instances of the name waits once from here on.
    join(ctx, lane, queue);
    rewind(queue, 0);
    queue.redeliverBelow = Math.max(queue.redeliverBelow, isInDoubt ? ctx.lastHandle + 1 : lane.redeliverBelow);
  }
  const deliveries = takeLive(lane).flatMap(delivery => withoutHandled(ctx, lane, queue, delivery));
  for (const delivery of deliveries) {
    delivery.redelivered ||= isInDoubt;
    delivery.queues = [queue];
    lane.unstored--;
    watch(ctx, queue);
  }
  mergeLive(ctx, queue, deliveries);
}

/** Another instance, which has not said so yet, may have handled what a lane waits for: it had it in hand, or was lost with it. */
function othersMayHaveHandled({ session, subscription, owner }: Queue): boolean {
  for (const instance of session.instances.values()) {
    const other = instance.handlers.get(subscription);
    if (instance !== owner && other !== undefined && (instance.outlet === undefined || other.lane.inflight.size > 0))
      return true;
  }
  return false;
}

/** Of what was neither stored nor sent, as the store is full, the parts that no other instance of the name has handled. */
function withoutHandled(ctx: Context, lane: Queue, queue: Queue, delivery: Delivery): Delivery[] {
  const { entry, offset, count } = delivery;
  const handled = entry.handledBy?.get(queue)?.within(offset, count) ?? [];
  if (handled.length === 0) return [delivery];
  entry.deliveries.delete(delivery);
  lane.unstored--;
  for (const part of handled) {
    letGo(lane, part.count, bytesOf(entry.batch, part.first, part.count));
    finish(ctx, entry, part.first, part.count, true);
  }
  const rest = entry.handledBy?.get(queue)?.missing(offset, count) ?? [];
  return rest.map(part => {
    const one = newDelivery(entry, [lane], part.first, part.count, 0);
    const { attempts, revival, redelivered } = delivery;
    entry.deliveries.add(one);
    lane.unstored++;
    return Object.assign(one, { attempts, revival, redelivered });
  });
}
