/** Finds and makes the nouns of the broker by their names: sessions, their queues, instances' lanes, channels, routes. */
import type { Context } from './context.js';
import type { Batch } from '../batch.js';
import {
  Queue,
  Session,
  type Channel,
  type Entry,
  type Handler,
  type Instance,
  type Route,
  SELF,
  type Sender,
} from './model.js';
import { PeerFault, type HandlerDeclaration } from './ports.js';
import { SmallSet } from '../small-set.js';

/** The session of a name, made when it is first needed. Throws `too-many-sessions`. */
export function sessionOf(ctx: Context, name: string, generated: boolean): Session {
  const known = ctx.sessions.get(name);
  if (known !== undefined) return known;
  if (ctx.sessions.size >= ctx.limits.sessions) {
    throw new PeerFault('too-many-sessions', `the server keeps ${String(ctx.limits.sessions)} sessions already`);
  }
  return newSession(ctx, name, generated);
}

/** What the store knows comes back, whatever the limit is now. */
export function newSession(ctx: Context, name: string, generated: boolean): Session {
  const session = new Session(name, generated);
  session.lastSeen = ctx.engine.time();
  ctx.sessions.set(name, session);
  return session;
}

/** What is kept of a session, and found again. Its subscriptions are pairs of their own. */
export interface SavedSession {
  readonly generated: boolean;
  readonly shared: boolean;
  readonly lastSeen: number;
  /** An instance was there: if the server was killed then, it may have been there until the end. */
  readonly occupied: boolean;
  /** What waits below this handle may have been delivered before; of an occupied one that is true of everything. */
  readonly doubtBelow: number;
  /** What a generated name got of channels' backlogs lies below these handles. */
  readonly backlogs: readonly (readonly [channel: string, below: number])[];
  /** Ids of its instances, and the processes they run in; '' where that is not known. */
  readonly processes: readonly (readonly [instance: string, process: string])[];
}

/** Writes what must be found again of a session. */
export function saveSession(ctx: Context, session: Session): void {
  const { name, generated, shared, lastSeen, instances } = session;
  const processes: [string, string][] = [];
  for (const instance of instances.values()) processes.push([instance.id, instance.process]);
  const occupied = instances.size > 0;
  let isEmpty = true;
  for (const queue of session.queues.values()) {
    session.doubtBelow = Math.max(session.doubtBelow, queue.redeliverBelow);
    isEmpty &&= ctx.engine.usage(queue.id).messages === 0;
  }
  if (isEmpty) session.doubtBelow = 0;
  const { doubtBelow, backlogs } = session;
  const saved: SavedSession = { generated, shared, lastSeen, occupied, doubtBelow, backlogs: [...backlogs], processes };
  ctx.engine.put(`s/${name}`, JSON.stringify(saved));
}

/** Writes that a session subscribes to a channel, and when that was last declared; null: it does no longer. */
export function saveSubscription(ctx: Context, { name }: Session, channel: string, declared: number | null): void {
  ctx.engine.put(`u/${name}\0${channel}`, declared === null ? null : String(declared));
}

/**
 * Writes which channels an instance handles, where the name has several: after a crash of the server the channels' messages
 * wait for each of them. Of a name's only instance nothing need be known: they wait for the name.
 */
export function saveHandlers(ctx: Context, { id, session, handlers }: Instance): void {
  for (const channel of handlers.keys()) if (channel !== SELF) saveHandler(ctx, id, session, channel, true);
}

/** Writes below which handle a channel's backlog may have been handled before; 0: it was not. */
export function saveBacklogDoubt(ctx: Context, channel: string, below: number): void {
  if (below === 0 && !ctx.backlogDoubts.has(channel)) return;
  if (below === 0) ctx.backlogDoubts.delete(channel);
  else ctx.backlogDoubts.set(channel, below);
  ctx.engine.put(`w/${channel}`, below === 0 ? null : String(below));
}

export function saveHandler(
  ctx: Context,
  instance: string,
  { name }: Session,
  channel: string,
  handled: boolean,
): void {
  ctx.engine.put(`h/${instance}\0${name}\0${channel}`, handled ? '' : null);
}

/** What waits for any instance of a session under a subscription. */
export function sessionQueue(session: Session, subscription: string): Queue {
  let queue = session.queues.get(subscription);
  if (queue === undefined) {
    queue = new Queue(session, subscription, undefined);
    // What is moved into it later may be from a run that was killed.
    queue.redeliverBelow = session.doubtBelow;
    session.queues.set(subscription, queue);
  }
  return queue;
}

/** Notes that an instance handles a subscription. */
export function declare(instance: Instance, subscription: string, declaration: HandlerDeclaration): Handler {
  const known = instance.handlers.get(subscription);
  if (known !== undefined) {
    known.declaration = declaration;
    return known;
  }
  const lane = new Queue(instance.session, subscription, instance);
  const handler: Handler = { declaration, messages: 0, bytes: 0, lane };
  lane.handler = handler;
  instance.handlers.set(subscription, handler);
  return handler;
}

/** The session subscribes to a channel. */
export function addSubscriber(ctx: Context, session: Session, channel: string): void {
  let known = ctx.channels.get(channel);
  if (known === undefined) {
    known = { name: channel, sessions: new SmallSet(), route: undefined };
    ctx.channels.set(channel, known);
  }
  known.sessions.add(session);
  known.route = undefined;
}

/** The session subscribes to it no longer. */
export function removeSubscriber(ctx: Context, session: Session, channel: string): void {
  const known = ctx.channels.get(channel);
  if (known === undefined) return;
  known.sessions.delete(session);
  known.route = undefined;
  if (known.sessions.size === 0) ctx.channels.delete(channel);
}

/** Where a channel's messages go now. */
export function routeOf(channel: Channel): Route {
  if (channel.route !== undefined) return channel.route;
  const lanes: Queue[] = [];
  const away: Queue[] = [];
  for (const session of channel.sessions) {
    const before = lanes.length;
    for (const instance of session.instances.values()) {
      const lane = instance.handlers.get(channel.name)?.lane;
      if (lane !== undefined) lanes.push(lane);
    }
    if (lanes.length === before) away.push(sessionQueue(session, channel.name));
  }
  channel.route = { lanes, away };
  return channel.route;
}

/** An instance has come, gone, or been lost: the routes of what it handles change. */
export function rerouteInstance(ctx: Context, instance: Instance): void {
  for (const subscription of instance.handlers.keys()) ctx.reroute(subscription);
  for (const subscription of instance.session.subscriptions.keys()) ctx.reroute(subscription);
}

/** A batch that is to be routed. */
export function newEntry(ctx: Context, sender: Sender, batch: Batch): Entry {
  const { ttl } = batch.envelope;
  const expiresAt = ttl === undefined ? 0 : ctx.engine.time() + ttl;
  return {
    serial: ++ctx.serial,
    batch,
    sender,
    takenAt: ctx.clock.monotonic(),
    expiresAt,
    deliveries: new SmallSet(),
    recipients: 0,
    whole: 0,
    left: undefined,
    failed: undefined,
    settled: 0,
    handle: 0,
    committed: false,
  };
}
