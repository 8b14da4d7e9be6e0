/**
 * Who makes progress: what recipients hold in memory that make none is stored (docs/decisions/0004-storing-and-receipts.md).
 * The progress of a queue is what was acknowledged of it; and, until its first message has been reached on the connection
 * that it was sent on, what was acknowledged before it there: with many subscriptions each has a message now and then.
 */
import type { Context } from './context.js';
import type { Progress, Queue } from './model.js';
import { storeQueues } from './store.js';

/** A queue in memory whose oldest message waited this many times `storeAfter` holds too much. */
const HELD_TOO_LONG = 50;

/** Something was acknowledged, or is sent after a pause. */
export function progressed(ctx: Context, on: Progress): void {
  on.progressAt = ctx.clock.monotonic();
  on.progressTick = ctx.tick;
}

/** A delivery that exists only in memory has come to a queue; from now on its progress is looked at. */
export function watch(ctx: Context, queue: Queue): void {
  if (queue.unstored++ > 0) return;
  progressed(ctx, queue);
  ctx.unstoredQueues.add(queue);
  ctx.progressTimer ??= ctx.clock.setInterval(() => lookAtProgress(ctx), Math.max(1, ctx.options.storeAfter / 2));
}

/**
 * Stores what recipients without progress hold. A queue is only judged when two looks have passed since its last
 * progress: between two timers the event loop polls its sockets, so that a server which was itself held up reads the
 * acknowledgements that wait before it blames anyone.
 */
function lookAtProgress(ctx: Context): void {
  ctx.tick++;
  const now = ctx.clock.monotonic();
  const { storeAfter } = ctx.options;
  const stuck: Queue[] = [];
  for (const queue of ctx.unstoredQueues) {
    if (queue.unstored <= 0) {
      ctx.unstoredQueues.delete(queue);
      continue;
    }
    takeTurn(queue);
    if (now - queue.progressAt >= storeAfter && ctx.tick - queue.progressTick >= 2) stuck.push(queue);
    else if (now - Math.max(oldestOf(queue, now), queue.fullAt) >= HELD_TOO_LONG * storeAfter) stuck.push(queue);
  }
  if (stuck.length > 0) storeQueues(ctx, stuck);
  if (ctx.unstoredQueues.size === 0) {
    ctx.progressTimer?.cancel();
    ctx.progressTimer = undefined;
  }
}

/** What its recipient has not come to yet progresses with what is before it. */
function takeTurn(queue: Queue): void {
  const { first } = queue.inflight;
  const instance = first === undefined ? queue.owner : first.instance;
  if (instance === undefined || (first !== undefined && first.number <= instance.reached)) return;
  if (instance.progressAt <= queue.progressAt) return;
  queue.progressAt = instance.progressAt;
  queue.progressTick = instance.progressTick;
}

/** When the oldest message came that waits in memory to be sent. */
function oldestOf({ live }: Queue, now: number): number {
  return live.peek()?.entry.takenAt ?? now;
}
