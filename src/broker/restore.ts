/**
 * Makes the broker's nouns anew from what the engine found when it was opened. What cannot be read of it is named in the
 * log and passed over; the rest is served.
 */
import type { EngineState } from '../engine/engine.js';
import { show } from '../names.js';
import type { Context } from './context.js';
import { rewind } from './delivery.js';
import { armStored } from './alarms.js';
import { waitForRestored } from './instances.js';
import { Instance, type Queue, type Session } from './model.js';
import { addSubscriber, declare, newSession, saveSession, sessionQueue, type SavedSession } from './registry.js';
import { announce, flushSender, senderOf } from './senders.js';
import { followAgain, Followed } from './followed.js';

export function restore(ctx: Context, state: EngineState): void {
  ctx.lastHandle = state.nextHandle - 1;
  const processes = new Map<string, string>();
  const occupied = new Set<Session>();
  /** Of names that have had several instances, each is waited for: also the last one, for a new process may come before it. */
  const shared = new Map<string, SavedSession>();
  const handled: Handled = new Map();
  const followed = new Followed();
  for (const text of state.damage) ctx.logger.error(`the store was damaged: ${text}`);
  for (const [key, value] of state.entries) {
    attempt(ctx, 'the entry', key, () => {
      if (key.startsWith('s/')) {
        const saved = readSession(value);
        restoreSession(ctx, key.slice(2), saved, processes, occupied);
        if (saved.shared) shared.set(key.slice(2), saved);
      } else if (key.startsWith('u/')) restoreSubscription(ctx, key.slice(2), readNumber(value));
      else if (key.startsWith('h/')) noteHandler(handled, key.slice(2));
      else if (key.startsWith('t/')) restoreUndelivered(ctx, key.slice(2));
      else if (key.startsWith('w/')) ctx.backlogDoubts.set(key.slice(2), readNumber(value));
      else followed.read(key, value);
    });
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
  for (const [name, { processes: ids }] of shared)
    for (const [id] of ids) restoreInstance(ctx, id, sessionFor(ctx, name));
  for (const [name, instances] of handled) restoreHandlers(ctx, name, instances);
  for (const { queue, messages, bytes } of state.queues) {
    attempt(ctx, 'the queue', queue, () => restoreQueue(ctx, queue, messages, bytes));
  }
  for (const run of state.expiring) armStored(ctx, run);
  followAgain(ctx, state, followed);
  // That they were there is said once: from here on it is known who is.
  for (const session of occupied) saveSession(ctx, session);
  for (const instance of ctx.instances.values()) {
    instance.process = processes.get(instance.id) ?? '';
    waitForRestored(ctx, instance);
    ctx.events.restored(instance);
  }
}

function attempt(ctx: Context, what: string, key: string, read: () => void): void {
  try {
    read();
  } catch (error) {
    ctx.logger.error(`the store was damaged: ${what} ${show(key)} cannot be read and is passed over`, error);
  }
}

/** Throws unless there are so many parts. */
function partsOf(key: string, separator: string, count: number): string[] {
  const parts = key.split(separator);
  if (parts.length !== count) throw new TypeError('its key has other parts');
  return parts;
}

function readNumber(text: string): number {
  const value = Number(text);
  if (text === '' || !Number.isFinite(value)) throw new TypeError('its value is no number');
  return value;
}

function readSession(text: string): SavedSession {
  const saved = JSON.parse(text) as SavedSession;
  const isSound =
    [saved.lastSeen, saved.doubtBelow, ...saved.backlogs.map(([, below]) => below)].every(Number.isFinite) &&
    [...saved.backlogs.map(([channel]) => channel), ...saved.processes.flat()].every(part => typeof part === 'string');
  if (!isSound) throw new TypeError('a field is of another type');
  return saved;
}

function restoreUndelivered(ctx: Context, key: string): void {
  const [instance, position] = partsOf(key, '/', 2) as [string, string];
  const positions = ctx.undelivered.get(instance) ?? new Set();
  ctx.undelivered.set(instance, positions.add(readNumber(position)));
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
  session.shared = saved.shared;
  // What an instance that was there had been sent is not known, nor which acknowledgements were still to be written.
  session.doubtBelow = saved.occupied ? ctx.lastHandle + 1 : saved.doubtBelow;
  if (saved.occupied) occupied.add(session);
  // Until when it was there is not known: until just now, in favour of what waits for it.
  session.lastSeen = saved.occupied ? ctx.engine.time() : saved.lastSeen;
  for (const [channel, below] of saved.backlogs) session.backlogs.set(channel, below);
  for (const [instance, process] of saved.processes) processes.set(instance, process);
}

function restoreSubscription(ctx: Context, key: string, declared: number): void {
  const [name, channel] = partsOf(key, '\0', 2) as [string, string];
  const session = sessionFor(ctx, name);
  session.subscriptions.set(channel, declared);
  addSubscriber(ctx, session, channel);
}

/** By name and instance: the channels that it handled. */
type Handled = Map<string, Map<string, string[]>>;

function noteHandler(handled: Handled, key: string): void {
  const [instance, name, channel] = partsOf(key, '\0', 3) as [string, string, string];
  const instances = handled.get(name) ?? new Map<string, string[]>();
  handled.set(name, instances);
  const channels = instances.get(instance);
  if (channels === undefined) instances.set(instance, [channel]);
  else channels.push(channel);
}

/** Such an instance gets its channels' messages when it comes back; they wait for it from now on. */
function restoreHandlers(ctx: Context, name: string, instances: ReadonlyMap<string, readonly string[]>): void {
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
  const parts = (count: number): string[] => partsOf(id.slice(2), '\0', count);
  if (id.startsWith('b/')) {
    ctx.backlogs.add(id.slice(2));
  } else if (id.startsWith('d/')) {
    const [name, subscription] = parts(2) as [string, string];
    sessionFor(ctx, name).deadLetterQueues.add(subscription);
  } else if (id.startsWith('n/')) {
    const session = ctx.sessions.get(id.slice(2));
    if (session !== undefined) session.noticesWaiting = true;
  } else if (id.startsWith('q/')) {
    const [name, subscription] = parts(2) as [string, string];
    const session = sessionFor(ctx, name);
    wait(ctx, session, sessionQueue(session, subscription), messages, bytes);
  } else if (id.startsWith('i/')) {
    const [instanceId, name, subscription] = parts(3) as [string, string, string];
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
