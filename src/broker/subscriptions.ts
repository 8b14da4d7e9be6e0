/** Subscriptions of names: how they begin and end, what waits for them, and what a backlog becomes. */
import { BroadcastError } from '../errors.js';
import type { HandleRange } from '../engine/engine.js';
import type { FailureReason } from '../receipts.js';
import type { Context } from './context.js';
import { giveUp, holdUntilDurable, pump, rewind, stopReading } from './delivery.js';
import { takeLive } from './live.js';
import { joinQueue } from './lanes.js';
import { refuse } from './acknowledgements.js';
import { withdraw } from './losses.js';
import { openParts } from './parts.js';
import { type Delivery, type Instance, type Queue, SELF, type Session, targetOf } from './model.js';
import type { HandlerDeclaration } from './ports.js';
import { isAlone } from './recipients.js';
import {
  addSubscriber,
  declare,
  removeSubscriber,
  saveBacklogDoubt,
  saveHandler,
  saveSession,
  saveSubscription,
  sessionQueue,
} from './registry.js';
import { reportFailure } from './senders.js';
import { grow, leave, shrink, storeQueues } from './store.js';
import { queueIds } from './queue-ids.js';
import { watch } from './progress.js';

/** An instance handles a channel from now on, and its name subscribes to it. Fulfilled when that is durable. */
export function subscribe(
  ctx: Context,
  instance: Instance,
  channel: string,
  declaration: HandlerDeclaration,
): Promise<void> {
  const { session } = instance;
  const isNew = channel !== SELF && !session.subscriptions.has(channel);
  if (isNew && session.subscriptions.size >= ctx.limits.subscriptions) {
    throw new BroadcastError(
      'too-many-subscriptions',
      `"${session.name}" has ${String(ctx.limits.subscriptions)} subscriptions already`,
    );
  }
  const { lane } = declare(instance, channel, declaration);
  if (channel !== SELF) session.subscriptions.set(channel, ctx.engine.time());
  if (isNew) {
    addSubscriber(ctx, session, channel);
    for (const other of session.instances.values()) other.outlet?.subscription(channel, true);
    ctx.events.subscribed(instance, channel);
  }
  if (channel !== SELF) takeBacklog(ctx, session, channel);
  if (channel !== SELF && session.shared) saveHandler(ctx, instance.id, session, channel, true);
  ctx.reroute(channel);
  const queue = session.queues.get(channel);
  const aside = queue?.aside?.[0];
  if (queue !== undefined && aside !== undefined) rewind(queue, aside.handle);
  if (queue !== undefined) pump(ctx, queue);
  pump(ctx, lane);
  if (isNew) saveSubscription(ctx, session, channel, ctx.engine.time());
  return ctx.engine.commit();
}

/** The first client to subscribe gets what has waited for anybody. */
function takeBacklog(ctx: Context, session: Session, channel: string): void {
  if (!ctx.backlogs.delete(channel)) return;
  const id = queueIds.backlog(channel);
  const { messages, bytes } = ctx.engine.usage(id);
  if (messages === 0) return;
  const queue = sessionQueue(session, channel);
  ctx.engine.move(id, queue.id);
  grow(queue, messages, bytes);
  queue.redeliverBelow = Math.max(queue.redeliverBelow, ctx.backlogDoubts.get(channel) ?? 0);
  saveBacklogDoubt(ctx, channel, 0);
  rewind(queue, 0);
  if (session.generated) {
    session.backlogs.set(channel, ctx.lastHandle + 1);
    saveSession(ctx, session);
  }
  holdUntilDurable(ctx, session);
}

/**
 * What a generated name got of a channel's backlog and has not handled waits again, for whoever subscribes or will.
 * Returns the handle below which it stays where it is: the name has subscribed again meanwhile, and nobody else has.
 */
async function returnBacklog(ctx: Context, queue: Queue): Promise<number> {
  const { session, subscription } = queue;
  const below = session.backlogs.get(subscription);
  if (below === undefined) return 0;
  const subscribers = (): Session[] => [...(ctx.channels.get(subscription)?.sessions ?? [])];
  const heirsNow = (): Session[] => subscribers().filter(({ name }) => name !== session.name);
  const [only, ...others] = heirsNow();
  if (only === undefined && subscribers().length > 0) return below;
  if (others.length === 0) {
    giveBacklog(ctx, queue, below, only, { handle: 0, count: below });
    return 0;
  }
  // Each of several subscribers may be the one that sent some of it, which it never receives.
  for (let from = 0; ;) {
    const runs = (await ctx.engine.read(queue.id, from, 4096, 1024 * 1024)).filter(({ handle }) => handle < below);
    if (runs.length === 0 || ctx.stopped) return 0;
    for (const { handle, batch } of runs) {
      const heirs = heirsNow();
      if (heirs.length === 0 && subscribers().length > 0) return below;
      const heir = heirs.find(one => !isAlone(one, batch.sender.instance)) ?? heirs[0];
      from = handle + batch.count;
      giveBacklog(ctx, queue, below, heir, { handle, count: Math.min(batch.count, below - handle) });
    }
  }
}

/** Part of what came of a channel's backlog goes to another subscriber, or without one back to where it came from. */
function giveBacklog(
  ctx: Context,
  queue: Queue,
  below: number,
  heir: Session | undefined,
  { handle, count }: HandleRange,
): void {
  const { subscription } = queue;
  const before = ctx.engine.usage(queue.id);
  const target = heir === undefined ? undefined : sessionQueue(heir, subscription);
  ctx.engine.move(queue.id, target?.id ?? queueIds.backlog(subscription), handle, count);
  const after = ctx.engine.usage(queue.id);
  const [messages, bytes] = [before.messages - after.messages, before.bytes - after.bytes];
  if (messages === 0) return;
  shrink(queue, messages, bytes);
  if (target === undefined) {
    ctx.backlogs.add(subscription);
    const doubt = Math.max(ctx.backlogDoubts.get(subscription) ?? 0, Math.min(queue.redeliverBelow, below));
    saveBacklogDoubt(ctx, subscription, doubt);
    return;
  }
  grow(target, messages, bytes);
  if (heir?.generated === true && (heir.backlogs.get(subscription) ?? 0) < below) {
    heir.backlogs.set(subscription, below);
    saveSession(ctx, heir);
  }
  target.redeliverBelow = Math.max(target.redeliverBelow, queue.redeliverBelow);
  rewind(target, handle);
  pump(ctx, target);
}

/** The instance has no handler for the channel any longer; what comes waits for an instance that has. */
export function unhandle(ctx: Context, instance: Instance, channel: string): void {
  const handler = instance.handlers.get(channel);
  if (handler === undefined) return;
  const { lane } = handler;
  storeQueues(ctx, [lane]);
  instance.handlers.delete(channel);
  lane.handler = undefined;
  saveHandler(ctx, instance.id, instance.session, channel, false);
  const queue = sessionQueue(instance.session, channel);
  for (const delivery of lane.inflight) {
    delivery.queues = delivery.queues.map(other => (other === lane ? queue : other));
    for (const refusals of delivery.refused?.values() ?? []) {
      const refusal = refusals.get(lane);
      if (refusal !== undefined && refusals.delete(lane)) refusals.set(queue, refusal);
    }
    queue.inflight.add(delivery);
    if (delivery.handle !== 0) continue;
    lane.unstored--;
    watch(ctx, queue);
  }
  joinQueue(ctx, lane);
  lane.inflight.clear();
  ctx.reroute(channel);
  pump(ctx, queue);
}

/** Ends the name's subscription; what waits for it goes, and its senders hear of it. */
export async function unsubscribe(ctx: Context, instance: Instance, channel: string): Promise<void> {
  const { session } = instance;
  if (session.subscriptions.has(channel)) await dropSubscription(ctx, session, channel, 'dropped', instance);
}

export async function dropSubscription(
  ctx: Context,
  session: Session,
  channel: string,
  reason: FailureReason,
  by?: Instance,
): Promise<void> {
  endSubscription(ctx, session, channel, by);
  const bound = ctx.lastHandle;
  const queue = session.queues.get(channel);
  if (queue !== undefined) {
    endUnstored(ctx, queue, reason);
    await endStored(ctx, queue, reason, bound);
  }
  await ctx.engine.commit();
}

export function endSubscription(ctx: Context, session: Session, channel: string, by: Instance | undefined): void {
  session.subscriptions.delete(channel);
  saveSubscription(ctx, session, channel, null);
  for (const instance of session.instances.values()) {
    unhandle(ctx, instance, channel);
    instance.outlet?.subscription(channel, false);
  }
  removeSubscriber(ctx, session, channel);
  const queue = session.queues.get(channel);
  if (queue !== undefined) stopReading(queue);
  ctx.events.unsubscribed(by, channel);
}

/** What a queue has in memory because the store was full goes, and its senders hear of it. */
export function endUnstored(ctx: Context, queue: Queue, reason: FailureReason): void {
  for (const delivery of takeLive(queue)) giveUp(ctx, queue, delivery, reason);
  for (const delivery of queue.inflight) if (delivery.handle === 0) refuseUnstored(ctx, queue, delivery, reason);
}

/** What a queue has in the store up to the handle `bound` goes, and its senders hear of it. */
export async function endStored(ctx: Context, queue: Queue, reason: FailureReason, bound: number): Promise<void> {
  const kept = reason === 'session-expired' ? await returnBacklog(ctx, queue) : 0;
  await emptyQueue(ctx, queue, reason, kept, bound);
}

/** What an instance has in hand may still be handled, but nobody waits for it any more. */
function refuseUnstored(ctx: Context, queue: Queue, delivery: Delivery, reason: FailureReason): void {
  const { batch } = delivery.entry;
  for (const { offset, count } of openParts(delivery)) {
    for (let i = offset; i < offset + count; i++) {
      if (delivery.refused?.get(i - delivery.offset)?.has(queue) === true) continue;
      refuse(delivery, i - delivery.offset, queue, 'withdrawn');
      const about = { batch, offset: i, count: 1, target: targetOf(queue), attempts: 1, stored: false };
      reportFailure(ctx, { ...about, reason, final: true });
    }
  }
}

/** Takes out of a queue what lies from the handle `from` up to `bound`, and tells the senders. */
async function emptyQueue(
  ctx: Context,
  queue: Queue,
  reason: FailureReason,
  from: number,
  bound: number,
): Promise<void> {
  const { id } = queue;
  for (;;) {
    const runs = (await ctx.engine.read(id, from, 4096, 1024 * 1024)).filter(run => run.handle <= bound);
    if (runs.length === 0 || ctx.stopped) return;
    for (const run of runs) {
      const { batch, handle } = run;
      from = handle + batch.count;
      // What an instance has in hand may still be handled, but nobody waits for it any more.
      const isUnderway = withdraw(queue, handle, batch.count) > 0 || handle < queue.redeliverBelow;
      leave(ctx, queue, handle, batch.count, batch.items.length, false);
      reportFailure(ctx, {
        batch,
        offset: 0,
        count: batch.count,
        target: targetOf(queue),
        reason,
        final: true,
        attempts: Math.max(run.attempts, isUnderway ? 1 : 0),
        stored: true,
      });
    }
  }
}
