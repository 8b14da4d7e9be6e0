/** Makes the broker's nouns anew from what the engine found when it was opened. */
import type { EngineState } from '../engine/engine.js';
import type { Context } from './context.js';
import { rewind } from './delivery.js';
import { armExpiry } from './expiry.js';
import { waitForRestored } from './lifecycle.js';
import { Instance, type Queue, type Session } from './model.js';
import { addSubscriber, declare, sessionOf, sessionQueue, type SavedSession } from './registry.js';
import { announce, flushSender, senderOf } from './senders.js';

export function restore(ctx: Context, state: EngineState): void {
  const processes = new Map<string, string>();
  const occupied = new Set<Session>();
  for (const text of state.damage) ctx.logger.error(`the store was damaged: ${text}`);
  for (const [key, value] of state.entries) {
    if (key.startsWith('s/')) restoreSession(ctx, key.slice(2), JSON.parse(value) as SavedSession, processes, occupied);
    else if (key.startsWith('u/')) restoreSubscription(ctx, key.slice(2), Number(value));
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
  for (const session of occupied) {
    for (const channel of session.subscriptions.keys()) session.subscriptions.set(channel, session.lastSeen);
  }
  for (const { queue, messages, bytes } of state.queues) restoreQueue(ctx, queue, messages, bytes);
  for (const run of state.expiring) armExpiry(ctx, run.expiresAt, { kind: 'stored', run });
  for (const { handle, instance, position, id, queues } of state.tracked) {
    // Whoever let it become a dead letter is done with it.
    const waiting = queues.filter(queue => !queue.startsWith('d/')).length;
    if (waiting > 0) ctx.tracked.set(handle, { sender: instance, position, id, waiting, delivered: 0 });
  }
  for (const instance of ctx.instances.values()) {
    instance.process = processes.get(instance.id) ?? '';
    waitForRestored(ctx, instance);
    ctx.events.restored(instance);
  }
}

function restoreSession(
  ctx: Context,
  name: string,
  saved: SavedSession,
  processes: Map<string, string>,
  occupied: Set<Session>,
): void {
  const session = sessionOf(ctx, name, saved.generated);
  session.generated = saved.generated;
  session.doubtful = saved.doubtful;
  if (saved.occupied) occupied.add(session);
  // Until when it was there is not known: until just now, in favour of what waits for it.
  session.lastSeen = saved.occupied ? ctx.engine.time() : saved.lastSeen;
  for (const [instance, process] of saved.processes) processes.set(instance, process);
}

function restoreSubscription(ctx: Context, key: string, declared: number): void {
  const [name, channel] = key.split('\0') as [string, string];
  const session = sessionOf(ctx, name, false);
  session.subscriptions.set(channel, declared);
  addSubscriber(ctx, session, channel);
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
    wait(ctx, session, sessionQueue(session, parts[1] as string), messages, bytes);
  } else if (id.startsWith('i/')) {
    const [instanceId, name, subscription] = parts as [string, string, string];
    const session = sessionOf(ctx, name, false);
    const instance = restoreInstance(ctx, instanceId, session);
    // How it handles the channel it says when it comes back; nothing is sent to it before.
    const { lane } = declare(instance, subscription, { concurrency: 1, window: 0, maxAttempts: 5 });
    wait(ctx, session, lane, messages, bytes);
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

function wait(ctx: Context, session: Session, queue: Queue, messages: number, bytes: number): void {
  session.messages += messages;
  session.bytes += bytes;
  rewind(queue, 0);
  // What was on its way when the server ended is not known, but it is no more than a window.
  queue.doubtful = session.doubtful ? ctx.limits.windowMessages : 0;
}
