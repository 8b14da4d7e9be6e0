/**
 * The life of instances.
 *
 *   attach ──▶ online ──lost──▶ waiting ──deadAfter──▶ its share of the name's queue goes to others
 *                │  ▲              │ │                 ──instanceGrace──▶ retired: its lanes join the name's queue; charged
 *                │  │              │ │                                   as below, unless its process is known to run
 *                │  └──attach──────┘ └──died──▶ retired, and what its handlers could have been at is charged an attempt
 *                └──goodbye──▶ retired, nothing charged
 */
import { charge } from './acknowledgements.js';
import type { Context } from './context.js';
import { deadLetter } from './dead-letters.js';
import {
  holdUntilDurable,
  isExpired,
  newDelivery,
  pump,
  pumpInstance,
  rewind,
  send,
  takeInFlight,
} from './delivery.js';
import { giveBack, joinQueue } from './lanes.js';
import {
  type Delivery,
  type Entry,
  type Held,
  Instance,
  type Queue,
  type Session,
  type Suspect,
  targetOf,
} from './model.js';
import { attemptsOf, openHandles, openParts } from './parts.js';
import { type DetachReason, type InstanceHello, type Outlet, PeerFault } from './ports.js';
import { rerouteInstance, saveHandler, saveHandlers, saveSession, sessionOf } from './registry.js';
import { raiseFloor, repeatOutcomes, reportFailure, senderOf, sendNotices } from './senders.js';
import { Requeue } from './requeue.js';
import { endSession } from './sessions.js';
import { finish, storeEntries, storeQueues } from './store.js';
import { forgetUndelivered } from './followed.js';

// ---- coming ----------------------------------------------------------------------------------------------------------

/** An instance has introduced itself. What it is to be told follows with `resume`, once it has been welcomed. */
export function attach(ctx: Context, hello: InstanceHello, outlet: Outlet): Instance {
  const before = ctx.instances.get(hello.instance);
  if (before !== undefined && before.session.name !== hello.name) {
    throw new PeerFault('protocol-error', 'this instance is known under another name');
  }
  if (before !== undefined && hello.connection > 0 && hello.connection <= before.connection) {
    // Its bytes were on their way for long: the instance has given that connection up, and has made another one since.
    throw new PeerFault('taken-over', 'a later connection of the same instance came before');
  }
  if (before?.outlet !== undefined) {
    const older = before.outlet;
    lose(ctx, before);
    older.end('taken-over', 'the same instance has connected again');
  }
  for (const id of hello.departed) if (id !== hello.instance) depart(ctx, id, hello.name);
  const session = sessionOf(ctx, hello.name, hello.generated);
  const seen = ctx.senders.get(hello.instance);
  const sender = senderOf(ctx, hello.instance, hello.name);
  const instance = before ?? new Instance(hello.instance, session, sender);
  instance.stopWaiting?.();
  instance.stopWaiting = undefined;
  instance.suspects = [];
  instance.hasDeparted = false;
  instance.outlet = outlet;
  instance.process = hello.process;
  instance.connection = Math.max(instance.connection, hello.connection);
  sender.outlet = outlet;
  sender.left = false;
  session.instances.set(instance.id, instance);
  ctx.instances.set(instance.id, instance);
  ctx.addresses.set(outlet.address, instance);
  if (before === undefined) {
    const isShared = session.instances.size > 1;
    if (isShared && !session.shared) for (const other of session.instances.values()) saveHandlers(ctx, other);
    session.shared ||= isShared;
    saveSession(ctx, session);
    if (session.messages > 0 && session.instances.size === 1) holdUntilDurable(ctx, session);
  }
  raiseFloor(ctx, sender, hello.floor);
  instance.attached = {
    known: seen !== undefined && !instance.restored && before !== undefined,
    stored: sender.stored,
    taken: [...sender.taken.ranges()],
    subscriptions: [...session.subscriptions.keys()],
  };
  instance.restored = false;
  rerouteInstance(ctx, instance);
  return instance;
}

/** Another instance of its name says that this one has left: as if it had said goodbye, at the end of its connection. */
function depart(ctx: Context, id: string, name: string): void {
  const instance = ctx.instances.get(id);
  if (instance?.session.name !== name) return;
  instance.hasDeparted = true;
  // What it has written, its acknowledgements above all, is still to be read.
  if (instance.outlet !== undefined) return;
  leaveForGood(ctx, instance);
  retire(ctx, instance, false);
}

/** Goes on with an instance that has been welcomed: receipts, what was on its way when it was lost, and what waits. */
export function resume(ctx: Context, instance: Instance): void {
  repeatOutcomes(instance.sender);
  const { held } = instance;
  instance.held = [];
  for (const one of held) {
    const isWanted = instance.handlers.has(one.queue.subscription) && !isExpired(ctx, one.delivery.entry);
    if (isWanted) sendAgain(ctx, instance, one);
    else putBack(ctx, one);
  }
  pumpInstance(ctx, instance);
  if (instance.session.noticesWaiting)
    sendNotices(ctx, instance).catch((error: unknown) => ctx.logger.error('kept notices cannot be read', error));
}

/** What an instance had of its name's queue when it was lost is its own still: its handlers may be at it. */
function sendAgain(ctx: Context, instance: Instance, { queue, delivery }: Held): void {
  const { entry, handle, revival } = delivery;
  queue.inflight.delete(delivery);
  for (const { handle: first, count } of openHandles(delivery, queue)) {
    let from = first - handle;
    const end = from + count;
    for (let i = from + 1; i <= end; i++) {
      const attempts = attemptsOf(delivery, from, queue);
      if (i < end && attemptsOf(delivery, i, queue) === attempts) continue;
      const part = newDelivery(entry, [queue], delivery.offset + from, i - from, handle + from);
      send(ctx, instance, Object.assign(part, { attempts, revival, redelivered: true }));
      from = i;
    }
  }
}

/** What was held for an instance waits for any instance of its name again. */
function putBack(ctx: Context, { queue, delivery }: Held): void {
  queue.inflight.delete(delivery);
  for (const { handle, count } of openHandles(delivery, queue)) giveBack(ctx, queue, handle, count);
}

// ---- going -----------------------------------------------------------------------------------------------------------

/** A connection of an instance has ended. */
export function detach(ctx: Context, instance: Instance, outlet: Outlet, reason: DetachReason): void {
  if (instance.outlet !== outlet) return;
  lose(ctx, instance);
  if (ctx.stopped) return;
  if (reason === 'lost' && !instance.hasDeparted) {
    waitFor(ctx, instance);
    return;
  }
  leaveForGood(ctx, instance);
  retire(ctx, instance, reason === 'died');
  if (reason === 'finished' && instance.session.instances.size === 0)
    void endSession(ctx, instance.session, 'session-expired').catch(() => undefined);
}

function leaveForGood(ctx: Context, { id, sender }: Instance): void {
  sender.left = true;
  forgetUndelivered(ctx, id);
}

/** The instance is not connected any more: what was on its way to it is stored, and waits. */
function lose(ctx: Context, instance: Instance): void {
  const { outlet, session, sender } = instance;
  if (outlet !== undefined && ctx.addresses.get(outlet.address) === instance) ctx.addresses.delete(outlet.address);
  ctx.paused.delete(instance);
  instance.suspects = suspectsOf(instance);
  instance.outlet = undefined;
  sender.outlet = undefined;
  sender.lastSeen = ctx.engine.time();
  session.lastSeen = sender.lastSeen;
  const deliveries = takeInFlight(instance);
  if (ctx.stopped) return;
  const lanes = [...instance.handlers.values()].map(handler => handler.lane);
  const entries = new Set<Entry>(deliveries.filter(delivery => delivery.handle === 0).map(delivery => delivery.entry));
  for (const lane of lanes) for (const delivery of lane.live) entries.add(delivery.entry);
  storeEntries(ctx, entries);
  for (const delivery of deliveries) sayOffline(ctx, delivery);
  for (const lane of lanes) for (const delivery of lane.live) sayOffline(ctx, delivery);
  storeQueues(ctx, lanes);
  const requeue = new Requeue(ctx, instance.suspects);
  for (const delivery of deliveries.reverse()) takeBack(ctx, instance, delivery, requeue);
  requeue.end();
  for (const queue of session.queues.values())
    if (queue.live.size > 0 && taken(session, queue) === 0) storeQueues(ctx, [queue]);
  rerouteInstance(ctx, instance);
}

/** How many instances that are here handle the queue's subscription. */
function taken(session: Session, queue: Queue): number {
  let count = 0;
  for (const instance of session.instances.values()) {
    if (instance.outlet !== undefined && instance.handlers.has(queue.subscription)) count++;
  }
  return count;
}

/** The first `concurrency` unacknowledged messages of each subscription: their handlers could have started. */
function suspectsOf(instance: Instance): Suspect[] {
  const counts = new Map<string, number>();
  const suspects: Suspect[] = [];
  for (const delivery of instance.inflight) {
    for (const queue of delivery.queues) {
      const { subscription } = queue;
      const declaration = instance.handlers.get(subscription)?.declaration;
      if (declaration === undefined) continue;
      for (let index = delivery.done; index < delivery.count; index++) {
        const count = counts.get(subscription) ?? 0;
        if (count >= declaration.concurrency) break;
        if (delivery.later?.has(index) === true || delivery.refused?.get(index)?.has(queue) === true) continue;
        counts.set(subscription, count + 1);
        suspects.push({ delivery, index, queue, maxAttempts: declaration.maxAttempts });
      }
    }
  }
  return suspects;
}

function takeBack(ctx: Context, instance: Instance, delivery: Delivery, requeue: Requeue): void {
  const { entry, queues } = delivery;
  delivery.instance = undefined;
  if (queues.length === 0) {
    // By address: that connection or nobody.
    entry.deliveries.delete(delivery);
    for (let i = delivery.done; i < delivery.count; i++) {
      if (delivery.later?.has(i) === true) continue;
      reportFailure(ctx, {
        batch: entry.batch,
        offset: delivery.offset + i,
        count: 1,
        target: { client: instance.session.name },
        reason: 'offline',
        final: true,
        attempts: 1,
        stored: false,
      });
      finish(ctx, entry, delivery.offset + i, 1, false);
    }
    return;
  }
  if (delivery.handle === 0) {
    requeue.add(delivery);
    return;
  }
  entry.deliveries.delete(delivery);
  for (const queue of queues) {
    if (queue.owner === undefined) {
      instance.held.unshift({ queue, delivery });
      continue;
    }
    queue.inflight.delete(delivery);
    for (const { handle } of openHandles(delivery)) rewind(queue, handle);
    queue.redeliverBelow = Math.max(queue.redeliverBelow, delivery.handle + delivery.count);
  }
}

/** Tells the sender of what was not safe yet that its recipient is away, and that it waits. */
function sayOffline(ctx: Context, delivery: Delivery): void {
  const { entry, queues, handle, attempts } = delivery;
  const [queue] = queues;
  if (entry.sender === undefined || entry.committed || queue === undefined || handle === 0) return;
  for (const { offset, count } of openParts(delivery)) {
    reportFailure(ctx, {
      batch: entry.batch,
      offset,
      count,
      target: targetOf(queue),
      reason: 'offline',
      final: false,
      attempts,
      stored: false,
    });
  }
}

function waitFor(ctx: Context, instance: Instance): void {
  const { clock, options } = ctx;
  saveSession(ctx, instance.session);
  const share = clock.setTimeout(() => {
    returnHeld(ctx, instance);
    for (const queue of instance.session.queues.values()) pump(ctx, queue);
  }, options.deadAfter);
  // Of a process on another machine nobody knows whether it lives. If none of them were charged, a handler that ends its
  // process would do so for ever.
  const grace = clock.setTimeout(
    () => retire(ctx, instance, !instance.restored && !options.isRunning(instance.process)),
    options.instanceGrace,
  );
  instance.stopWaiting = () => {
    share.cancel();
    grace.cancel();
  };
}

/** Starts the waiting for an instance that the store knows and that has not come back since the server was started. */
export function waitForRestored(ctx: Context, instance: Instance): void {
  instance.restored = true;
  waitFor(ctx, instance);
}

function returnHeld(ctx: Context, instance: Instance): void {
  for (const one of instance.held) putBack(ctx, one);
  instance.held = [];
}

/** A lost instance's process is known to be dead. */
export function died(ctx: Context, id: string): void {
  const instance = ctx.instances.get(id);
  if (instance === undefined || instance.outlet !== undefined || ctx.stopped) return;
  leaveForGood(ctx, instance);
  retire(ctx, instance, !instance.restored);
}

/** The instance will not come back: what waits for it waits for its name. */
function retire(ctx: Context, instance: Instance, charged: boolean): void {
  const { session } = instance;
  instance.stopWaiting?.();
  instance.stopWaiting = undefined;
  if (ctx.stopped) return;
  if (charged && instance.suspects.length > 0) {
    for (const suspect of instance.suspects) chargeSuspect(ctx, suspect);
    // The next attempt is made once this one is on record: whatever dies of it must not begin anew with each crash.
    holdUntilDurable(ctx, session);
  }
  instance.suspects = [];
  returnHeld(ctx, instance);
  for (const { lane } of instance.handlers.values()) joinQueue(ctx, lane);
  for (const channel of instance.handlers.keys()) saveHandler(ctx, instance.id, session, channel, false);
  session.instances.delete(instance.id);
  ctx.instances.delete(instance.id);
  // Another one may still be waited for, and what this one has handled counts for it.
  if (session.instances.size === 0) for (const queue of session.queues.values()) queue.handled = undefined;
  rerouteInstance(ctx, instance);
  saveSession(ctx, session);
  for (const queue of session.queues.values()) pump(ctx, queue);
}

function chargeSuspect(ctx: Context, { delivery, index, queue, maxAttempts }: Suspect): void {
  const { entry, offset, revival } = delivery;
  const attempts = attemptsOf(delivery, index, queue) + 1;
  // It may have been stored since: what was not sent is read back then.
  const handle = entry.handle === 0 ? 0 : entry.handle + offset + index;
  charge(ctx, delivery, index, queue, attempts, handle);
  if (handle === 0 && delivery.count === 1) delivery.attempts = attempts;
  if (handle === 0 || attempts < maxAttempts) return;
  deadLetter(ctx, queue, {
    handle,
    batch: entry.batch,
    index: offset + index,
    reason: 'its process died',
    attempts,
    revival,
  });
}
