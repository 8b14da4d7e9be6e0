/**
 * Persistent messages: delivered to who is here and keeps up, stored for who is away or behind, each limit checked before
 * anything is kept. An entry gets all of its recipients before any of it is stored, because it is stored as a whole.
 */
import { bytesOf, ITEM_HEADER, type Batch } from '../batch.js';
import type { DeliveryFailure, FailureReason } from '../receipts.js';
import type { Context } from './context.js';
import { newDelivery, pump, send, sessionQueueWaits } from './delivery.js';
import { enqueueLive } from './live.js';
import { allowance } from './takers.js';
import { armLive } from './alarms.js';
import { fewestAttempts, handlerOf, targetOf, type Entry, type Instance, type Queue, type Session } from './model.js';
import { recipientsOf } from './recipients.js';
import { newEntry, routeOf } from './registry.js';
import { refuse, reportFailure, settle } from './senders.js';
import { awaitExpiry, finish, hold, storeEntries, storeQueues, type AwayQueue } from './store.js';
import { queueIds } from './queue-ids.js';
import { watch } from './progress.js';

/** Its share of a queue, and what the sender is told once it is there. */
interface WaitingShare extends AwayQueue {
  readonly recipient: DeliveryFailure['target'];
  /** Undefined when the sender need not be told. */
  readonly reason: FailureReason | undefined;
}

/** What is to be stored without a delivery, and what of it the limits do not allow. */
interface Away {
  readonly queues: WaitingShare[];
  /** Parts of the batch that one recipient will not get. */
  readonly refused: { readonly offset: number; readonly count: number }[];
}

export function routePersistent(ctx: Context, from: Instance, batch: Batch): void {
  const entry = newEntry(ctx, from.sender, batch);
  from.sender.unsettled.push(entry);
  from.sender.unsettledBytes += batch.items.length;
  if (!routeSimply(ctx, from, entry)) routeGenerally(ctx, from, entry);
  storeOverfull(ctx);
}

/** Queues that have become too long fall behind, once the entry that made them so has all of its recipients. */
function storeOverfull(ctx: Context): void {
  if (ctx.overfull.size === 0) return;
  const now = ctx.clock.monotonic();
  // A store that was full just now is not asked for each batch.
  const queues = [...ctx.overfull].filter(({ fullAt }) => now - fullAt >= ctx.options.storeAfter);
  ctx.overfull.clear();
  if (queues.length === 0) return;
  storeQueues(ctx, queues);
  for (const queue of queues) pump(ctx, queue);
}

function routeGenerally(ctx: Context, from: Instance, entry: Entry): void {
  const { batch } = entry;
  const found = recipientsOf(ctx, from, batch);
  const away: Away = { queues: [], refused: [] };
  for (const [instance, lanes] of found.lanes) offerLanes(ctx, entry, instance, lanes, away);
  for (const queue of found.anyOf) offerQueue(ctx, entry, queue, away);
  for (const instance of found.direct) {
    entry.recipients++;
    entry.whole++;
    deliverDirect(ctx, entry, instance);
  }
  for (const { queue, reason } of found.away) keepFor(ctx, entry, queue, reason, away);
  for (const channel of found.unheard) keepBacklog(ctx, entry, channel, away);
  for (const { target, reason } of found.missing) refuse(ctx, entry, 0, batch.count, target, reason);
  if (away.queues.length > 0) storeAway(ctx, entry, away);
  if (entry.recipients === 0) settle(ctx, entry, 0, batch.count, 'undelivered', batch.envelope.tracked);
}

/** The common case without the bookkeeping of the general one: one channel, everyone on it here and keeping up. */
function routeSimply(ctx: Context, from: Instance, entry: Entry): boolean {
  const { channels, clients, everyone } = entry.batch.envelope;
  if (channels.length !== 1 || clients.length > 0 || everyone) return false;
  const channel = ctx.channels.get(channels[0] as string);
  if (channel === undefined) return false;
  const { lanes, away } = routeOf(channel);
  if (away.length > 0) return false;
  for (const lane of lanes)
    if (lane.owner === from || !isLive(lane) || !fits(ctx, lane.session, entry.batch)) return false;
  if (lanes.length === 0) return false;
  entry.recipients = lanes.length;
  entry.whole = lanes.length;
  for (const lane of lanes) deliverLive(ctx, entry, [lane]);
  return true;
}

/** A lane whose messages go straight to its instance: it is here, and nothing stored waits before them. */
function isLive(lane: Queue): boolean {
  return lane.owner?.outlet !== undefined && !lane.waiting && !lane.reading && !sessionQueueWaits(lane);
}

function offerLanes(ctx: Context, entry: Entry, instance: Instance, lanes: Queue[], away: Away): void {
  const together =
    lanes.length > 1 &&
    lanes.every(lane => isLive(lane) && lane.live.size === 0 && hasRoom(ctx, instance, lane, entry.batch.count)) &&
    fits(ctx, instance.session, entry.batch, lanes.length);
  if (together) {
    entry.recipients++;
    entry.whole++;
    deliverLive(ctx, entry, lanes);
    return;
  }
  for (const lane of lanes) {
    if (isLive(lane) && fits(ctx, lane.session, entry.batch)) {
      entry.recipients++;
      entry.whole++;
      deliverLive(ctx, entry, [lane]);
    } else {
      keepFor(ctx, entry, lane, lane.owner?.outlet === undefined ? 'offline' : undefined, away);
    }
  }
}

function hasRoom(ctx: Context, instance: Instance, lane: Queue, count: number): boolean {
  const handler = handlerOf(instance, lane);
  return handler !== undefined && allowance(ctx, instance, handler) >= count;
}

/** Sends at once what fits the window, and keeps the rest in memory behind it. */
function deliverLive(ctx: Context, entry: Entry, queues: readonly Queue[]): void {
  const { batch } = entry;
  const delivery = newDelivery(entry, queues, 0, batch.count, 0);
  entry.deliveries.add(delivery);
  for (const queue of queues) {
    watch(ctx, queue);
    hold(queue, batch.count, batch.items.length);
  }
  const lane = queues[0] as Queue;
  const owner = lane.owner;
  const handler = owner === undefined ? undefined : handlerOf(owner, lane);
  armLive(ctx, lane, entry.expiresAt);
  if (
    owner !== undefined &&
    handler !== undefined &&
    lane.live.size === 0 &&
    (queues.length > 1 || allowance(ctx, owner, handler) >= batch.count)
  ) {
    send(ctx, owner, delivery);
    return;
  }
  enqueueLive(ctx, lane, delivery);
  pump(ctx, lane);
}

/** To one instance of the name, the least loaded with room, in the order of the queue. */
function offerQueue(ctx: Context, entry: Entry, queue: Queue, away: Away): void {
  if (queue.waiting || queue.reading || !fits(ctx, queue.session, entry.batch)) {
    keepFor(ctx, entry, queue, undefined, away);
    return;
  }
  entry.recipients++;
  entry.whole++;
  deliverLive(ctx, entry, [queue]);
}

/** By address: to that connection or nobody. */
function deliverDirect(ctx: Context, entry: Entry, instance: Instance): void {
  const delivery = newDelivery(entry, [], 0, entry.batch.count, 0);
  entry.deliveries.add(delivery);
  send(ctx, instance, delivery);
}

/** How much more may wait for a name, or be on its way to it. */
function roomOf(ctx: Context, session: Session): { messages: number; bytes: number } {
  const { queueMessages, queueBytes } = ctx.limits;
  return {
    messages: queueMessages - session.messages - session.heldMessages,
    bytes: queueBytes - session.bytes - session.heldBytes,
  };
}

/** True when a name may have all of a batch, in each of so many of its queues. */
function fits(ctx: Context, session: Session, { count, items }: Batch, queues = session.instances.size): boolean {
  const { messages, bytes } = roomOf(ctx, session);
  return count * queues <= messages && items.length * queues <= bytes;
}

/** It waits in the engine for a recipient that is away or behind. Without a reason the sender need not be told. */
function keepFor(ctx: Context, entry: Entry, queue: Queue, reason: FailureReason | undefined, away: Away): void {
  const free = roomOf(ctx, queue.session);
  // What other targets of the same message take of it.
  for (const { target, count } of away.queues) {
    if (target?.session !== queue.session) continue;
    free.messages -= count;
    free.bytes -= bytesOf(entry.batch, 0, count);
  }
  const room = fitting(entry.batch, free.messages, free.bytes);
  keep(ctx, entry, { queue: queue.id, target: queue, count: room, recipient: targetOf(queue), reason }, away);
}

function keepBacklog(ctx: Context, entry: Entry, channel: string, away: Away): void {
  const { backlogMessages, backlogBytes, backlogChannels } = ctx.limits;
  const id = queueIds.backlog(channel);
  const usage = ctx.engine.usage(id);
  const isRefused = !ctx.backlogs.has(channel) && ctx.backlogs.size >= backlogChannels;
  const room = isRefused ? 0 : fitting(entry.batch, backlogMessages - usage.messages, backlogBytes - usage.bytes);
  if (room > 0) ctx.backlogs.add(channel);
  const share = {
    queue: id,
    target: undefined,
    count: room,
    recipient: { channel },
    reason: 'no-subscribers',
  } as const;
  keep(ctx, entry, share, away);
}

/** How many messages of a batch, from its first, fit into so much room. */
function fitting(batch: Batch, messages: number, bytes: number): number {
  if (batch.count <= messages && batch.items.length <= bytes) return batch.count;
  let count = 0;
  let at = 0;
  while (count < batch.count && count < messages) {
    at += ITEM_HEADER + batch.items.readUInt32LE(at);
    if (at > bytes) break;
    count++;
  }
  return count;
}

function keep(ctx: Context, entry: Entry, share: WaitingShare, away: Away): void {
  const { batch } = entry;
  const { count } = share;
  if (count < batch.count) refuseShare(ctx, entry, share, count, batch.count - count);
  if (count === 0) return;
  entry.recipients++;
  entry.whole++;
  away.queues.push(share);
  if (count < batch.count) away.refused.push({ offset: count, count: batch.count - count });
}

function refuseShare(ctx: Context, entry: Entry, share: WaitingShare, offset: number, count: number): void {
  const { recipient, target } = share;
  refuse(ctx, entry, offset, count, recipient, 'queue-full', target === undefined ? 0 : fewestAttempts(target));
}

function storeAway(ctx: Context, entry: Entry, away: Away): void {
  const { queues } = away;
  // What a queue holds in memory is older, and must be in the store before.
  const older = queues.flatMap(({ target }) => (target !== undefined && target.live.size > 0 ? [target] : []));
  const stored = (older.length === 0 || storeQueues(ctx, older)) && storeEntries(ctx, [entry], { entry, queues });
  for (const { offset, count } of away.refused) finish(ctx, entry, offset, count, false);
  for (const share of queues) {
    const { queue, target, count, recipient, reason } = share;
    if (stored) {
      if (reason !== undefined) reportWaiting(ctx, entry, count, recipient, reason);
      awaitExpiry(ctx, entry, queue, entry.handle, count);
      if (target !== undefined) pump(ctx, target);
    } else {
      refuseShare(ctx, entry, share, 0, count);
      finish(ctx, entry, 0, count, false);
      if (target === undefined && ctx.engine.usage(queue).messages === 0) ctx.backlogs.delete(queue.slice(2));
    }
  }
}

function reportWaiting(
  ctx: Context,
  { batch }: Entry,
  count: number,
  target: DeliveryFailure['target'],
  reason: FailureReason,
): void {
  reportFailure(ctx, { batch, offset: 0, count, target, reason, final: false, attempts: 0, stored: false });
}
