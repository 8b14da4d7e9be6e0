/** Subscriptions of names: how they begin and end, what waits for them, and what a backlog becomes. */
import { BroadcastError } from '../errors.js';
import type { FailureReason } from '../receipts.js';
import { type Context, queueIds } from './context.js';
import { holdUntilDurable, pump, rewind, stopReading } from './delivery.js';
import { joinQueue } from './lanes.js';
import { withdraw } from './losses.js';
import { type Instance, type Queue, SELF, type Session, targetOf } from './model.js';
import type { HandlerDeclaration } from './ports.js';
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
  if (channel !== SELF && session.instances.size > 1) saveHandler(ctx, instance.id, session, channel, true);
  ctx.reroute(channel);
  const queue = session.queues.get(channel);
  const [aside] = queue?.aside ?? [];
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

/** What a generated name got of a channel's backlog and has not handled waits again, for whoever subscribes or will. */
export function returnBacklog(ctx: Context, queue: Queue): void {
  const { session, subscription } = queue;
  const below = session.backlogs.get(subscription);
  if (below === undefined) return;
  const before = ctx.engine.usage(queue.id);
  const [heir] = ctx.channels.get(subscription)?.sessions ?? [];
  const target = heir === undefined ? undefined : sessionQueue(heir, subscription);
  ctx.engine.move(queue.id, target?.id ?? queueIds.backlog(subscription), 0, below);
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
  if (heir?.generated === true) {
    heir.backlogs.set(subscription, Math.max(below, heir.backlogs.get(subscription) ?? 0));
    saveSession(ctx, heir);
  }
  target.redeliverBelow = Math.max(target.redeliverBelow, queue.redeliverBelow);
  rewind(target, 0);
  pump(ctx, target);
}

/** The instance has no handler for the channel any longer; what comes waits for an instance that has. */
export function unhandle(ctx: Context, instance: Instance, channel: string): void {
  const handler = instance.handlers.get(channel);
  if (handler === undefined) return;
  const { lane } = handler;
  storeQueues(ctx, [lane]);
  instance.handlers.delete(channel);
  saveHandler(ctx, instance.id, instance.session, channel, false);
  const queue = sessionQueue(instance.session, channel);
  for (const delivery of lane.inflight) {
    delivery.queues = delivery.queues.map(other => (other === lane ? queue : other));
    queue.inflight.add(delivery);
    if (delivery.handle === 0) queue.unstored++;
  }
  joinQueue(ctx, lane);
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
  const queue = session.queues.get(channel);
  if (queue !== undefined) {
    if (reason === 'session-expired') returnBacklog(ctx, queue);
    await emptyQueue(ctx, queue, reason);
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

/** Takes everything out of a queue that was there when it was called, and tells the senders. */
export async function emptyQueue(
  ctx: Context,
  queue: Queue,
  reason: FailureReason,
  bound = ctx.lastHandle,
): Promise<void> {
  const { id } = queue;
  let from = 0;
  for (;;) {
    const runs = (await ctx.engine.read(id, from, 4096, 1024 * 1024)).filter(run => run.handle <= bound);
    if (runs.length === 0 || ctx.stopped) return;
    for (const run of runs) {
      const { batch, handle } = run;
      from = handle + batch.count;
      // What an instance has in hand may still be handled, but nobody waits for it any more.
      const isUnderway = withdraw(queue, handle, batch.count) > 0;
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
