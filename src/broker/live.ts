/** What a queue holds in memory and has not sent: it is behind everything that the queue has in the store. */
import { bytesOf } from '../batch.js';
import { armLive } from './alarms.js';
import type { Context } from './context.js';
import type { Delivery, Queue } from './model.js';

/** A lane that holds this many windows in memory beyond the window itself holds too much. */
const HELD_WINDOWS = 4;

/** Part of the first live delivery of a queue is taken out of it. */
export function forgetLive(queue: Queue, delivery: Delivery, count: number): void {
  queue.liveMessages -= count;
  queue.liveBytes -= bytesOf(delivery.entry.batch, delivery.offset, count);
}

/** Puts a live delivery behind the others of its queue; when they become too many they are stored. */
export function enqueueLive(ctx: Context, queue: Queue, delivery: Delivery): void {
  addLive(queue, delivery);
  const { windowMessages, windowBytes } = ctx.limits;
  if (queue.liveMessages > HELD_WINDOWS * windowMessages || queue.liveBytes > HELD_WINDOWS * windowBytes)
    ctx.overfull.add(queue);
}

function addLive(queue: Queue, delivery: Delivery): void {
  const { entry, offset, count } = delivery;
  queue.live.push(delivery);
  queue.session.eager.add(queue);
  queue.liveMessages += count;
  queue.liveBytes += bytesOf(entry.batch, offset, count);
}

/** The live deliveries of a queue leave it, with nothing said of them yet. */
export function takeLive(queue: Queue): Delivery[] {
  const deliveries = [...queue.live];
  queue.live.clear();
  queue.liveMessages = 0;
  queue.liveBytes = 0;
  return deliveries;
}

/**
 * What a queue holds in memory and has been stored meanwhile, with a later message of its sender for somebody else, leaves
 * memory. Returns its lowest handle, from which on the queue must be read; Infinity when there is none.
 */
export function dropStored(queue: Queue): number {
  let lowest = Infinity;
  for (const { handle } of queue.live) if (handle !== 0 && handle < lowest) lowest = handle;
  if (lowest === Infinity) return lowest;
  for (const delivery of takeLive(queue)) {
    const { entry, handle, count, redelivered } = delivery;
    if (handle === 0) {
      addLive(queue, delivery);
      continue;
    }
    entry.deliveries.delete(delivery);
    // The store keeps its attempts, and not that it may have been handled.
    if (redelivered) queue.redeliverBelow = Math.max(queue.redeliverBelow, handle + count);
  }
  return lowest;
}

/** Live deliveries come to a queue from another one, each at its place in the order in which they were routed. */
export function mergeLive(ctx: Context, queue: Queue, deliveries: readonly Delivery[]): void {
  const inOrder = (a: Delivery, b: Delivery): number => a.entry.serial - b.entry.serial || a.offset - b.offset;
  for (const delivery of [...takeLive(queue), ...deliveries].sort(inOrder)) {
    addLive(queue, delivery);
    armLive(ctx, queue, delivery.entry.expiresAt);
  }
}
