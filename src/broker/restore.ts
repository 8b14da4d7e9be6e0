/** Makes the broker's nouns anew from what the engine found when it was opened. */
import type { EngineState } from '../engine/engine.js';
import type { Context } from './context.js';
import { rewind } from './delivery.js';
import { armExpiry } from './expiry.js';
import { waitForRestored } from './lifecycle.js';
import { Instance, type Queue, type Session } from './model.js';
import { addSubscriber, declare, sessionOf, sessionQueue } from './registry.js';
import { announce, flushSender, senderOf } from './senders.js';

interface SavedSession {
  readonly generated: boolean;
  readonly lastSeen: number;
  readonly subscriptions: readonly [string, number][];
}

export function restore(ctx: Context, state: EngineState): void {
  for (const text of state.damage) ctx.logger.error(`the store was damaged: ${text}`);
  for (const [key, value] of state.entries) {
    if (key.startsWith('s/')) restoreSession(ctx, key.slice(2), JSON.parse(value) as SavedSession);
    else if (key.startsWith('t/')) ctx.outcomes.add(key);
  }
  for (const { instance, name, floor, taken } of state.senders) {
    const sender = senderOf(ctx, instance, name);
    sender.stored = true;
    sender.floor = Math.max(1, floor);
    for (const { first, count } of taken) {
      sender.taken.add(first, count);
      sender.last = Math.max(sender.last, first + count - 1);
      announce(ctx, sender, { first, count, status: 'stored', durability: ctx.engine.durability, final: false });
    }
    flushSender(sender);
  }
  for (const { queue, messages, bytes } of state.queues) restoreQueue(ctx, queue, messages, bytes);
  for (const run of state.expiring) armExpiry(ctx, run.expiresAt, { kind: 'stored', run });
  for (const { handle, instance, position, id, waiting } of state.tracked) {
    ctx.tracked.set(handle, { sender: instance, position, id, waiting, delivered: 0 });
  }
  for (const instance of ctx.instances.values()) waitForRestored(ctx, instance);
}

function restoreSession(ctx: Context, name: string, saved: SavedSession): void {
  const session = sessionOf(ctx, name, saved.generated);
  session.lastSeen = saved.lastSeen;
  for (const [channel, declared] of saved.subscriptions) {
    session.subscriptions.set(channel, declared);
    addSubscriber(ctx, session, channel);
  }
}

function restoreQueue(ctx: Context, id: string, messages: number, bytes: number): void {
  const parts = id.slice(2).split('\0');
  if (id.startsWith('b/')) {
    ctx.backlogs.add(id.slice(2));
  } else if (id.startsWith('d/')) {
    sessionOf(ctx, parts[0] as string, false).deadLetterQueues.add(parts[1] as string);
  } else if (id.startsWith('n/')) {
    const session = ctx.sessions.get(id.slice(2));
    if (session !== undefined) session.noticesWaiting = true;
  } else if (id.startsWith('q/')) {
    const session = sessionOf(ctx, parts[0] as string, false);
    wait(session, sessionQueue(session, parts[1] as string), messages, bytes);
  } else if (id.startsWith('i/')) {
    const [instanceId, name, subscription] = parts as [string, string, string];
    const session = sessionOf(ctx, name, false);
    const instance = restoreInstance(ctx, instanceId, session);
    // How it handles the channel it says when it comes back; nothing is sent to it before.
    const { lane } = declare(instance, subscription, { concurrency: 1, window: 0, maxAttempts: 5 });
    wait(session, lane, messages, bytes);
  }
}

function restoreInstance(ctx: Context, id: string, session: Session): Instance {
  let instance = ctx.instances.get(id);
  if (instance === undefined) {
    instance = new Instance(id, session, senderOf(ctx, id, session.name));
    ctx.instances.set(id, instance);
    session.instances.set(id, instance);
  }
  return instance;
}

function wait(session: Session, queue: Queue, messages: number, bytes: number): void {
  session.messages += messages;
  session.bytes += bytes;
  rewind(queue, 0);
  // Whether it was on its way to somebody when the server ended is not known.
  queue.redeliverBelow = 0;
}
