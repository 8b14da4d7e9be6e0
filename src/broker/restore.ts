/** Makes the broker's nouns anew from what the engine found when it was opened. */
import type { EngineState } from '../engine/engine.js';
import type { Context } from './context.js';
import { rewind } from './delivery.js';
import { armStored } from './alarms.js';
import { waitForRestored } from './instances.js';
import { Instance, type Queue, type Session } from './model.js';
import { addSubscriber, declare, newSession, saveSession, sessionQueue, type SavedSession } from './registry.js';
import { announce, flushSender, senderOf } from './senders.js';

export function restore(ctx: Context, state: EngineState): void {
  ctx.lastHandle = state.nextHandle - 1;
  const processes = new Map<string, string>();
  const occupied = new Set<Session>();
  const handled: Handled = new Map();
  for (const text of state.damage) ctx.logger.error(`the store was damaged: ${text}`);
  for (const [key, value] of state.entries) {
    if (key.startsWith('s/')) restoreSession(ctx, key.slice(2), JSON.parse(value) as SavedSession, processes, occupied);
    else if (key.startsWith('u/')) restoreSubscription(ctx, key.slice(2), Number(value));
    else if (key.startsWith('h/')) noteHandler(handled, key.slice(2));
    else if (key.startsWith('t/')) restoreUndelivered(ctx, key.slice(2));
    else if (key.startsWith('w/')) ctx.backlogDoubts.set(key.slice(2), Number(value));
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
  for (const [name, instances] of handled) restoreHandlers(ctx, name, instances);
  for (const { queue, messages, bytes } of state.queues) restoreQueue(ctx, queue, messages, bytes);
  for (const run of state.expiring) armStored(ctx, run);
  for (const { handle, instance, position, id, queues } of state.tracked) {
    // Whoever let it become a dead letter is done with it.
    const waiting = queues.filter(queue => !queue.startsWith('d/')).length;
    if (waiting > 0) ctx.tracked.set(handle, { sender: instance, position, id, waiting, delivered: 0 });
  }
  // That they were there is said once: from here on it is known who is.
  for (const session of occupied) saveSession(ctx, session);
  for (const instance of ctx.instances.values()) {
    instance.process = processes.get(instance.id) ?? '';
    waitForRestored(ctx, instance);
    ctx.events.restored(instance);
  }
}

function restoreUndelivered(ctx: Context, key: string): void {
  const [instance, position] = key.split('/') as [string, string];
  const positions = ctx.undelivered.get(instance) ?? new Set();
  ctx.undelivered.set(instance, positions.add(Number(position)));
}

function restoreSession(
  ctx: Context,
  name: string,
  saved: SavedSession,
  processes: Map<string, string>,
  occupied: Set<Session>,
): void {
  const session = sessionFor(ctx, name);
  session.generated = saved.generated;
  // What an instance that was there had been sent is not known, nor which acknowledgements were still to be written.
  session.doubtBelow = saved.occupied ? ctx.lastHandle + 1 : saved.doubtBelow;
  if (saved.occupied) occupied.add(session);
  // Until when it was there is not known: until just now, in favour of what waits for it.
  session.lastSeen = saved.occupied ? ctx.engine.time() : saved.lastSeen;
  for (const [channel, below] of saved.backlogs) session.backlogs.set(channel, below);
  for (const [instance, process] of saved.processes) processes.set(instance, process);
}

function restoreSubscription(ctx: Context, key: string, declared: number): void {
  const [name, channel] = key.split('\0') as [string, string];
  const session = sessionFor(ctx, name);
  session.subscriptions.set(channel, declared);
  addSubscriber(ctx, session, channel);
}

/** By name and instance: the channels that it handled. */
type Handled = Map<string, Map<string, string[]>>;

function noteHandler(handled: Handled, key: string): void {
  const [instance, name, channel] = key.split('\0') as [string, string, string];
  const instances = handled.get(name) ?? new Map<string, string[]>();
  handled.set(name, instances);
  const channels = instances.get(instance);
  if (channels === undefined) instances.set(instance, [channel]);
  else channels.push(channel);
}

/** Each of several instances of a name gets its channels' messages when it comes back; they wait for it from now on. */
function restoreHandlers(ctx: Context, name: string, instances: ReadonlyMap<string, readonly string[]>): void {
  if (instances.size < 2) return;
  const session = sessionFor(ctx, name);
  for (const [id, channels] of instances) {
    const instance = restoreInstance(ctx, id, session);
    for (const channel of channels) declare(instance, channel, UNKNOWN);
  }
}

/** How an instance handles a channel it says when it comes back; nothing is sent to it before. */
const UNKNOWN = { concurrency: 1, window: 0, maxAttempts: 5 };

function sessionFor(ctx: Context, name: string): Session {
  return ctx.sessions.get(name) ?? newSession(ctx, name, false);
}

function restoreQueue(ctx: Context, id: string, messages: number, bytes: number): void {
  const parts = id.slice(2).split('\0');
  if (id.startsWith('b/')) {
    ctx.backlogs.add(id.slice(2));
  } else if (id.startsWith('d/')) {
    sessionFor(ctx, parts[0] as string).deadLetterQueues.add(parts[1] as string);
  } else if (id.startsWith('n/')) {
    const session = ctx.sessions.get(id.slice(2));
    if (session !== undefined) session.noticesWaiting = true;
  } else if (id.startsWith('q/')) {
    const session = sessionFor(ctx, parts[0] as string);
    wait(ctx, session, sessionQueue(session, parts[1] as string), messages, bytes);
  } else if (id.startsWith('i/')) {
    const [instanceId, name, subscription] = parts as [string, string, string];
    const session = sessionFor(ctx, name);
    const instance = restoreInstance(ctx, instanceId, session);
    const { lane } = declare(instance, subscription, UNKNOWN);
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
  queue.redeliverBelow = session.doubtBelow;
}
