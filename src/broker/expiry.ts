/** What becomes of messages whose time to live is over. What is in flight is left to its receiver. */
import type { ExpiringRun, StoredRun } from '../engine/engine.js';
import { armExpiry } from './alarms.js';
import type { Context } from './context.js';
import { giveUp, isExpired, newDelivery, pump, rewind, storedEntry } from './delivery.js';
import { mergeLive, takeLive } from './live.js';
import type { Delivery, Expiring, Queue } from './model.js';
import { saveBacklogDoubt } from './registry.js';
import { reportFailure } from './senders.js';
import { settleTracked } from './tracking.js';
import { queueIds } from './queue-ids.js';

/** In flight when its time was over: looked at again after so many milliseconds, for it may be given back. */
const LOOK_AGAIN = 1000;

/** An alarm rings. */
export function ring(ctx: Context, what: Expiring): void {
  if (what.kind === 'live') {
    expireLive(ctx, what.queue);
    return;
  }
  for (const queue of placesOf(ctx, what.run.queue))
    expireStored(ctx, { ...what.run, queue }).catch((error: unknown) => {
      if (ctx.stopped) return;
      ctx.logger.error(`reading ${JSON.stringify(queue)} failed; it is tried again`, error);
      armExpiry(ctx, ctx.engine.time() + LOOK_AGAIN, what);
    });
}

/** Where messages may be by now that were put into a queue: a lane joins its name's queue, a backlog goes to its first subscriber. */
function placesOf(ctx: Context, id: string): string[] {
  const parts = id.slice(2).split('\0');
  if (id.startsWith('i/')) return [id, queueIds.session(parts[1] as string, parts[2] as string)];
  if (!id.startsWith('q/') && !id.startsWith('b/')) return [];
  const channel = parts[id.startsWith('q/') ? 1 : 0] as string;
  if (channel === '') return [id];
  const subscribers = ctx.channels.get(channel)?.sessions ?? [];
  return [
    ...new Set([id, queueIds.backlog(channel), ...[...subscribers].map(({ name }) => queueIds.session(name, channel))]),
  ];
}

function expireLive(ctx: Context, queue: Queue): void {
  queue.expiresNext = Infinity;
  const kept: Delivery[] = [];
  for (const delivery of takeLive(queue)) {
    if (!isExpired(ctx, delivery.entry)) kept.push(delivery);
    else giveUp(ctx, queue, delivery, 'expired');
  }
  mergeLive(ctx, queue, kept);
}

async function expireStored(ctx: Context, run: ExpiringRun): Promise<void> {
  const queue = queueById(ctx, run.queue);
  const end = run.handle + run.count;
  let from = run.handle;
  while (from < end && !ctx.stopped) {
    const found: readonly StoredRun[] = await ctx.engine.read(run.queue, from, end - from, 1024 * 1024);
    const ours = found.filter(stored => stored.handle < end);
    if (ours.length === 0) return;
    const now = ctx.engine.time();
    for (const stored of ours) {
      from = stored.handle + stored.batch.count;
      // What lies between them has an alarm of its own, or lasts for ever.
      if (stored.expiresAt === 0 || stored.expiresAt > now) continue;
      if (queue !== undefined) expireWaiting(ctx, queue, stored);
      else if (run.queue.startsWith('b/')) expireBacklog(ctx, run.queue, stored);
    }
  }
}

function expireWaiting(ctx: Context, queue: Queue, stored: StoredRun): void {
  const { handle, batch, expiresAt } = stored;
  const isMeant = (delivery: Delivery): boolean =>
    delivery.handle < handle + batch.count && delivery.handle + delivery.count > handle;
  if ([...queue.inflight].some(isMeant)) {
    const run: ExpiringRun = { queue: queue.id, handle, count: batch.count, expiresAt };
    armExpiry(ctx, ctx.engine.time() + LOOK_AGAIN, { kind: 'stored', run });
    return;
  }
  // Another alarm, or its turn, may have ended it since it was read: then it is told of already.
  const { messages } = ctx.engine.usage(queue.id);
  ctx.engine.ack(queue.id, handle, batch.count);
  if (ctx.engine.usage(queue.id).messages === messages) return;
  // It may have been read for its turn already.
  if (queue.fetched.size > 0) rewind(queue, Infinity);
  const entry = storedEntry(ctx, stored, { offset: 0, count: batch.count });
  const delivery = newDelivery(entry, [queue], 0, batch.count, handle);
  delivery.attempts = stored.attempts;
  delivery.redelivered = handle < queue.redeliverBelow;
  giveUp(ctx, queue, delivery, 'expired');
  pump(ctx, queue);
}

function expireBacklog(ctx: Context, id: string, stored: StoredRun): void {
  const { messages } = ctx.engine.usage(id);
  ctx.engine.ack(id, stored.handle, stored.batch.count);
  const left = ctx.engine.usage(id).messages;
  if (left === messages) return;
  if (left === 0) {
    ctx.backlogs.delete(id.slice(2));
    saveBacklogDoubt(ctx, id.slice(2), 0);
  }
  settleTracked(ctx, stored.handle, stored.batch.count, false);
  reportFailure(ctx, {
    batch: stored.batch,
    offset: 0,
    count: stored.batch.count,
    target: { channel: id.slice(2) },
    reason: 'expired',
    final: true,
    attempts: 0,
    stored: true,
  });
}

/** The queue of a session or lane with this id, if it is known. */
export function queueById(ctx: Context, id: string): Queue | undefined {
  const parts = id.slice(2).split('\0');
  if (id.startsWith('q/')) return ctx.sessions.get(parts[0] as string)?.queues.get(parts[1] as string);
  if (id.startsWith('i/')) return ctx.instances.get(parts[0] as string)?.handlers.get(parts[2] as string)?.lane;
  return undefined;
}
