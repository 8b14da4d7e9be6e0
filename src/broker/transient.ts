/** Messages that are not persistent: handed to who is here, at most once, and dropped for who is not, with a notice. */
import type { Batch } from '../batch.js';
import type { FailureReason } from '../receipts.js';
import type { Context } from './context.js';
import { SELF, targetOf, type Instance, type Queue, type Session } from './model.js';
import { recipientsOf } from './recipients.js';
import { newEntry } from './registry.js';
import { refuse, settle } from './senders.js';

/** Bytes that wait in a connection above which messages to it are held back or dropped. */
const TRANSIENT_HIGH_WATER = 1024 * 1024;

export function routeTransient(ctx: Context, from: Instance, batch: Batch): void {
  const entry = newEntry(ctx, from.sender, batch);
  from.sender.unsettled.push(entry);
  from.sender.unsettledBytes += batch.items.length;
  const found = recipientsOf(ctx, from, batch);
  let routed = 0;
  const fail = (target: { client?: string; channel?: string }, reason: FailureReason): void =>
    refuse(ctx, entry, 0, batch.count, target, reason);
  for (const [instance, lanes] of found.lanes) {
    const lane = lanes[0] as Queue;
    if (instance.outlet === undefined) fail(targetOf(lane), 'offline');
    else if (handOver(ctx, from, instance, batch)) routed++;
    else fail(targetOf(lane), 'slow-consumer');
  }
  for (const queue of found.anyOf) {
    const instance = lightest(queue.session);
    if (instance !== undefined && handOver(ctx, from, instance, batch)) routed++;
    else fail(targetOf(queue), 'slow-consumer');
  }
  for (const instance of found.direct) {
    if (handOver(ctx, from, instance, batch)) routed++;
    else fail({ client: instance.outlet?.address ?? instance.session.name }, 'slow-consumer');
  }
  for (const { queue, reason } of found.away) fail(targetOf(queue), reason);
  for (const channel of found.unheard) fail({ channel }, 'no-subscribers');
  for (const { target, reason } of found.missing) fail(target, reason);
  settle(ctx, entry, 0, batch.count, routed > 0 ? 'routed' : 'undelivered', batch.envelope.tracked);
}

function lightest(session: Session): Instance | undefined {
  let best: Instance | undefined;
  for (const instance of session.instances.values()) {
    if (instance.outlet === undefined || !instance.handlers.has(SELF)) continue;
    if (best === undefined || instance.outlet.buffered < (best.outlet?.buffered ?? 0)) best = instance;
  }
  return best;
}

/**
 * Gives messages to a connection, at most once. One that has much to write already, but goes on writing, holds its
 * senders back; one that does not write at all loses them, so that nobody else feels it.
 */
function handOver(ctx: Context, from: Instance, to: Instance, batch: Batch): boolean {
  const { outlet } = to;
  if (outlet === undefined) return false;
  if (outlet.buffered > TRANSIENT_HIGH_WATER) {
    const stuck = ctx.clock.monotonic() - outlet.lastProgress > 10 * ctx.options.storeAfter;
    if (outlet.buffered > ctx.limits.windowBytes * 2 || stuck) return false;
    outlet.holdBack(from.outlet);
  }
  ctx.counters.messagesOut += batch.count;
  outlet.deliverTransient(batch);
  return true;
}
