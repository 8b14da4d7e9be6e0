/**
 * The life of instances.
 *
 *   attach ──▶ online ──lost──▶ waiting ──deadAfter──▶ its share of the name's queue goes to others
 *                │  ▲              │ │                 ──instanceGrace──▶ retired: its lanes join the name's queue
 *                │  └──attach──────┘ └──died──▶ retired, and what its handlers could have been at is charged an attempt
 *                └──goodbye──▶ retired, nothing charged
 */
import { bytesOf } from '../batch.js';
import { charge } from './acknowledgements.js';
import { armLive } from './alarms.js';
import type { Context } from './context.js';
import { deadLetter } from './dead-letters.js';
import { holdUntilDurable, newDelivery, pump, pumpInstance, rewind, send, takeInFlight } from './delivery.js';
import { joinQueue, noteHandled } from './lanes.js';
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
import { openHandles, openParts } from './parts.js';
import { type DetachReason, type InstanceHello, type Outlet, PeerFault } from './ports.js';
import { rerouteInstance, saveHandler, saveHandlers, saveSession, sessionOf } from './registry.js';
import { raiseFloor, repeatOutcomes, reportFailure, senderOf, sendNotices } from './senders.js';
import { endSession } from './sessions.js';
import { finish, storeEntries, storeQueues } from './store.js';
import { forgetUndelivered } from './tracking.js';

// ---- coming ----------------------------------------------------------------------------------------------------------

/** An instance has introduced itself. What it is to be told follows with `resume`, once it has been welcomed. */
export function attach(ctx: Context, hello: InstanceHello, outlet: Outlet): Instance {
  const before = ctx.instances.get(hello.instance);
  if (before !== undefined && before.session.name !== hello.name) {
    throw new PeerFault('protocol-error', 'this instance is known under another name');
  }
  if (before?.outlet !== undefined) {
    const older = before.outlet;
    lose(ctx, before);
    older.end('taken-over', 'the same instance has connected again');
  }
  const session = sessionOf(ctx, hello.name, hello.generated);
  const seen = ctx.senders.get(hello.instance);
  const sender = senderOf(ctx, hello.instance, hello.name);
  const instance = before ?? new Instance(hello.instance, session, sender);
  instance.stopWaiting?.();
  instance.stopWaiting = undefined;
  instance.suspects = [];
  instance.outlet = outlet;
  instance.process = hello.process;
  sender.outlet = outlet;
  sender.left = false;
  session.instances.set(instance.id, instance);
  ctx.instances.set(instance.id, instance);
  ctx.addresses.set(outlet.address, instance);
  if (before === undefined) {
    saveSession(ctx, session);
    if (session.messages > 0 && session.instances.size === 1) holdUntilDurable(ctx, session);
  }
  if (before === undefined && session.instances.size === 2) {
    for (const other of session.instances.values()) saveHandlers(ctx, other);
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

/** Goes on with an instance that has been welcomed: receipts, what was on its way when it was lost, and what waits. */
export function resume(ctx: Context, instance: Instance): void {
  repeatOutcomes(instance.sender);
  const { held } = instance;
  instance.held = [];
  for (const one of held) {
    if (instance.handlers.has(one.queue.subscription)) sendAgain(ctx, instance, one);
    else putBack(one);
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
      if (i < end && attemptsOf(delivery, i) === attemptsOf(delivery, from)) continue;
      const part = newDelivery(entry, [queue], delivery.offset + from, i - from, handle + from);
      send(ctx, instance, Object.assign(part, { attempts: attemptsOf(delivery, from), revival, redelivered: true }));
      from = i;
    }
  }
}

function attemptsOf({ charged, attempts }: Delivery, index: number): number {
  return charged?.get(index) ?? attempts;
}

/** What was held for an instance waits for any instance of its name again. */
function putBack({ queue, delivery }: Held): void {
  queue.inflight.delete(delivery);
  for (const { handle } of openHandles(delivery)) rewind(queue, handle);
  queue.redeliverBelow = Math.max(queue.redeliverBelow, delivery.handle + delivery.count);
}

// ---- going -----------------------------------------------------------------------------------------------------------

/** A connection of an instance has ended. */
export function detach(ctx: Context, instance: Instance, outlet: Outlet, reason: DetachReason): void {
  if (instance.outlet !== outlet) return;
  lose(ctx, instance);
  if (ctx.stopped) return;
  if (reason === 'lost') {
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
  for (const delivery of deliveries.reverse()) takeBack(ctx, instance, delivery);
  if (session.instances.size > 1) noteHandled(deliveries);
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

function takeBack(ctx: Context, instance: Instance, delivery: Delivery): void {
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
    requeueUnstored(ctx, delivery);
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

/** The store was full: what is open of a delivery stays in memory, at the front of its queue. */
function requeueUnstored(ctx: Context, delivery: Delivery): void {
  const { queues, entry, handle } = delivery;
  const [queue] = queues;
  if (queue === undefined) return;
  for (const other of queues) {
    other.inflight.delete(delivery);
    other.unstored--;
  }
  entry.deliveries.delete(delivery);
  for (const { offset, count } of openParts(delivery).reverse()) {
    const part = newDelivery(entry, queues, offset, count, handle);
    part.redelivered = true;
    entry.deliveries.add(part);
    for (const other of queues) other.unstored++;
    queue.live.unshift(part);
    armLive(ctx, queue, entry.expiresAt);
    queue.liveMessages += count;
    queue.liveBytes += bytesOf(entry.batch, offset, count);
  }
}

function waitFor(ctx: Context, instance: Instance): void {
  const { clock, options } = ctx;
  saveSession(ctx, instance.session);
  const share = clock.setTimeout(() => {
    returnHeld(instance);
    for (const queue of instance.session.queues.values()) pump(ctx, queue);
  }, options.deadAfter);
  const grace = clock.setTimeout(() => retire(ctx, instance, !instance.restored), options.instanceGrace);
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

function returnHeld(instance: Instance): void {
  for (const one of instance.held) putBack(one);
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
  if (charged) for (const suspect of instance.suspects) chargeSuspect(ctx, suspect);
  instance.suspects = [];
  returnHeld(instance);
  for (const { lane } of instance.handlers.values()) joinQueue(ctx, lane);
  for (const channel of instance.handlers.keys()) saveHandler(ctx, instance.id, session, channel, false);
  session.instances.delete(instance.id);
  ctx.instances.delete(instance.id);
  if (session.instances.size < 2) for (const queue of session.queues.values()) queue.handled = undefined;
  rerouteInstance(ctx, instance);
  saveSession(ctx, session);
  for (const queue of session.queues.values()) pump(ctx, queue);
}

function chargeSuspect(ctx: Context, { delivery, index, queue, maxAttempts }: Suspect): void {
  if (delivery.handle === 0) return;
  const attempts = attemptsOf(delivery, index) + 1;
  charge(ctx, delivery, index, queue, attempts);
  if (attempts < maxAttempts) return;
  deadLetter(ctx, queue, {
    handle: delivery.handle + index,
    batch: delivery.entry.batch,
    index: delivery.offset + index,
    reason: 'its process died',
    attempts,
    revival: delivery.revival,
  });
}
