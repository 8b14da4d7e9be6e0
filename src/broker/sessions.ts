/** The end of sessions and senders that nobody comes back to. */
import type { Context } from './context.js';
import { stopReading } from './delivery.js';
import type { Session } from './model.js';
import { saveSession } from './registry.js';
import { storeQueues } from './store.js';
import { dropSubscription, endStored, endSubscription, endUnstored } from './subscriptions.js';
import { forgetUndelivered } from './followed.js';
import { queueIds } from './queue-ids.js';

/** Ends a session: subscriptions, queues, dead letters. */
export async function endSession(ctx: Context, session: Session, reason: 'session-expired' | 'dropped'): Promise<void> {
  const { name } = session;
  for (const channel of [...session.subscriptions.keys()]) endSubscription(ctx, session, channel, undefined);
  const queues = [...session.queues.values()];
  // Of what an instance that is here is sent itself, too.
  for (const { handlers } of session.instances.values()) for (const { lane } of handlers.values()) queues.push(lane);
  // What is on its way in memory ends as well; what comes from here on does not.
  storeQueues(ctx, queues);
  const bound = ctx.lastHandle;
  if (session.instances.size > 0) saveSession(ctx, session);
  else {
    ctx.sessions.delete(name);
    ctx.engine.put(`s/${name}`, null);
  }
  for (const queue of queues) {
    stopReading(queue);
    endUnstored(ctx, queue, reason);
  }
  for (const queue of queues) await endStored(ctx, queue, reason, bound);
  if (ctx.stopped) return;
  for (const subscription of session.deadLetterQueues) ctx.engine.drop(queueIds.deadLetters(name, subscription));
  ctx.engine.drop(queueIds.notices(name));
  await ctx.engine.commit();
}

/** Milliseconds for which receivers still recognise what a sender that has left sent; its acknowledgements take far less. */
const SENDER_LINGERS = 10 * 60 * 1000;

/** Ends what nobody has come back to for long enough. */
export function sweep(ctx: Context): void {
  if (ctx.stopped) return;
  const now = ctx.engine.time();
  const { sessionTtl, anonymousSessionTtl } = ctx.limits;
  for (const session of ctx.sessions.values()) {
    const ttl = session.generated ? anonymousSessionTtl : sessionTtl;
    if (session.instances.size === 0) {
      if (now - session.lastSeen >= ttl) void endSession(ctx, session, 'session-expired').catch(() => undefined);
      continue;
    }
    for (const [channel, declared] of session.subscriptions) {
      if ([...session.instances.values()].some(instance => instance.handlers.has(channel)))
        session.subscriptions.set(channel, now);
      else if (now - declared >= ttl)
        void dropSubscription(ctx, session, channel, 'session-expired').catch(() => undefined);
    }
  }
  for (const sender of ctx.senders.values()) {
    if (sender.outlet !== undefined || ctx.instances.has(sender.instance) || sender.unsettled.size > 0) continue;
    if (now - sender.lastSeen < (sender.left ? SENDER_LINGERS : sessionTtl)) continue;
    ctx.senders.delete(sender.instance);
    forgetUndelivered(ctx, sender.instance);
    if (sender.stored) ctx.engine.floor(sender.instance, null);
    ctx.events.senderGone(sender.instance);
  }
}
