/**
 * The life of instances and sessions.
 *
 *   attach ──▶ online ──lost──▶ waiting ──deadAfter──▶ its share of the name's queue goes to others
 *                │  ▲              │ │                 ──instanceGrace──▶ retired: its lanes join the name's queue
 *                │  └──attach──────┘ └──died──▶ retired, and what its handlers could have been at is charged an attempt
 *                └──goodbye──▶ retired, nothing charged
 */
import { bytesOf } from '../batch.js';
import { armLive } from './alarms.js';
import { BroadcastError } from '../errors.js';
import { RangeSet } from '../range-set.js';
import type { FailureReason } from '../receipts.js';
import { queueIds, type Context } from './context.js';
import { withdraw } from './losses.js';
import { deadLetter } from './dead-letters.js';
import { charge } from './acknowledgements.js';
import { newDelivery, openHandles, pump, pumpInstance, rewind, send, stopReading, takeInFlight } from './delivery.js';
import {
  Instance,
  SELF,
  targetOf,
  type Delivery,
  type Entry,
  type Queue,
  type Session,
  type Suspect,
  type Held,
} from './model.js';
import {
  PeerFault,
  type DetachReason,
  type HandlerDeclaration,
  type InstanceHello,
  type Outlet,
  type Range,
} from './ports.js';
import {
  addSubscriber,
  declare,
  removeSubscriber,
  rerouteInstance,
  saveHandler,
  saveHandlers,
  saveSession,
  saveSubscription,
  sessionOf,
  sessionQueue,
} from './registry.js';
import { announce, noticeFor, raiseFloor, readNotice, repeatOutcomes, reportFailure, senderOf } from './senders.js';
import {
  finish,
  forgetUndelivered,
  join,
  leave,
  openParts,
  settleTracked,
  shrink,
  storeEntries,
  storeQueues,
  watch,
} from './store.js';

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
    if (session.messages > 0) arrive(ctx, session);
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

/** What waits for a name is delivered once the store knows for certain that it waits there, and that somebody is there to handle it. */
function arrive(ctx: Context, session: Session): void {
  session.arriving++;
  ctx.engine.commit().then(
    () => {
      session.arriving--;
      for (const instance of session.instances.values()) pumpInstance(ctx, instance);
    },
    () => undefined, // the engine has said so by `failed`
  );
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
  if (instance.session.noticesWaiting) void sendNotices(ctx, instance);
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

async function sendNotices(ctx: Context, instance: Instance): Promise<void> {
  const id = queueIds.notices(instance.session.name);
  const { outlet } = instance;
  let from = 0;
  for (;;) {
    const runs = await ctx.engine.read(id, from, 1024, 1024 * 1024);
    if (instance.outlet !== outlet || outlet === undefined) return;
    if (runs.length === 0) break;
    for (const run of runs) {
      from = run.handle + run.batch.count;
      const kept = readNotice(run.batch);
      const isOthers =
        kept.instance !== instance.id && instance.session.instances.get(kept.instance)?.outlet !== undefined;
      if (!isOthers) outlet.failure(noticeFor(instance, kept, run.handle));
    }
  }
}

/** The application has had these notices. */
export function noted(ctx: Context, instance: Instance, ranges: readonly Range[]): void {
  const id = queueIds.notices(instance.session.name);
  for (const { first, count } of ranges) ctx.engine.ack(id, first, count);
  if (ctx.engine.usage(id).messages === 0) instance.session.noticesWaiting = false;
}

/**
 * The sender still waits for the final outcome of these positions; it is told of those that are decided. What has not
 * come yet is not: it follows in the outbox, and to call it delivered would end it there.
 */
export function track(ctx: Context, instance: Instance, ranges: readonly Range[]): void {
  const { floor, taken } = instance.sender;
  const undecided = new RangeSet();
  for (const tracked of ctx.tracked.values()) if (tracked.sender === instance.id) undecided.add(tracked.position, 1);
  for (const { batch } of instance.sender.unsettled) undecided.add(batch.first, batch.count);
  const undelivered = new RangeSet();
  for (const position of ctx.undelivered.get(instance.id) ?? []) undelivered.add(position, 1);
  for (const { first, count } of ranges) {
    const known = Math.max(first, floor);
    for (const gap of taken.missing(known, first + count - known)) undecided.add(gap.first, gap.count);
    for (const run of undecided.missing(Math.max(1, first), first + count - Math.max(1, first)))
      announceTracked(ctx, instance, run, undelivered);
  }
}

/** By ranges, and not one by one: a client may name as many as it likes. */
function announceTracked(ctx: Context, { sender }: Instance, run: Range, undelivered: RangeSet): void {
  const tell = (status: 'delivered' | 'undelivered', part: Range): void =>
    announce(ctx, sender, { ...part, status, durability: 'none', final: true });
  const failed = new RangeSet();
  failed.add(run.first, run.count);
  for (const part of undelivered.missing(run.first, run.count)) {
    failed.delete(part.first, part.count);
    tell('delivered', part);
  }
  for (const part of failed.ranges()) tell('undelivered', part);
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
    void endSession(ctx, instance.session, 'session-expired');
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

/** What another instance of the name has handled already of the deliveries that were lost. */
function noteHandled(deliveries: readonly Delivery[]): void {
  for (const delivery of deliveries) {
    if (delivery.handle === 0) continue;
    for (const { session, subscription } of delivery.queues) {
      const queue = sessionQueue(session, subscription);
      if (delivery.entry.handledBy?.has(queue) !== true) continue;
      queue.handled ??= new RangeSet();
      for (const { handle, count } of openHandles(delivery)) queue.handled.add(handle, count);
    }
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

/** What another instance of the name has handled counts as delivered. */
function dropHandled(ctx: Context, lane: Queue, handle: number, count: number): void {
  const before = ctx.engine.usage(lane.id);
  if (before.messages === 0) return;
  for (const tracked of [...ctx.tracked.keys()]) {
    if (tracked < handle || tracked >= handle + count) continue;
    const { messages } = ctx.engine.usage(lane.id);
    ctx.engine.ack(lane.id, tracked, 1);
    if (ctx.engine.usage(lane.id).messages < messages) settleTracked(ctx, tracked, 1, true);
  }
  ctx.engine.ack(lane.id, handle, count);
  const after = ctx.engine.usage(lane.id);
  shrink(lane, before.messages - after.messages, before.bytes - after.bytes);
}

/** A lane's messages join the queue of the name, but for those that another instance has handled. */
function joinQueue(ctx: Context, lane: Queue): void {
  const { session } = lane;
  const queue = sessionQueue(session, lane.subscription);
  for (const { first, count } of queue.handled?.ranges() ?? []) dropHandled(ctx, lane, first, count);
  stopReading(lane);
  if (ctx.engine.usage(lane.id).messages > 0) {
    // What waited for several instances of the name waits once from here on.
    join(ctx, lane, queue);
    rewind(queue, 0);
    queue.redeliverBelow = Math.max(queue.redeliverBelow, lane.redeliverBelow);
  }
  for (let delivery = lane.live.shift(); delivery !== undefined; delivery = lane.live.shift()) {
    delivery.queues = [queue];
    lane.unstored--;
    watch(ctx, queue);
    armLive(ctx, queue, delivery.entry.expiresAt);
    queue.live.push(delivery);
    queue.liveMessages += delivery.count;
    queue.liveBytes += bytesOf(delivery.entry.batch, delivery.offset, delivery.count);
  }
  lane.liveMessages = 0;
  lane.liveBytes = 0;
}

// ---- subscriptions -----------------------------------------------------------------------------------------------------

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
  session.messages += messages;
  session.bytes += bytes;
  rewind(queue, 0);
  arrive(ctx, session);
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

async function dropSubscription(
  ctx: Context,
  session: Session,
  channel: string,
  reason: FailureReason,
  by?: Instance,
): Promise<void> {
  endSubscription(ctx, session, channel, by);
  const queue = session.queues.get(channel);
  if (queue !== undefined) await emptyQueue(ctx, queue, reason);
  await ctx.engine.commit();
}

function endSubscription(ctx: Context, session: Session, channel: string, by: Instance | undefined): void {
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
async function emptyQueue(ctx: Context, queue: Queue, reason: FailureReason): Promise<void> {
  const { id } = queue;
  const bound = ctx.lastHandle;
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

// ---- sessions ----------------------------------------------------------------------------------------------------------

/** Ends a session: subscriptions, queues, dead letters. */
export async function endSession(ctx: Context, session: Session, reason: 'session-expired' | 'dropped'): Promise<void> {
  const { name } = session;
  for (const channel of [...session.subscriptions.keys()]) endSubscription(ctx, session, channel, undefined);
  if (session.instances.size === 0) ctx.sessions.delete(name);
  ctx.engine.put(`s/${name}`, null);
  for (const queue of [...session.queues.values()]) {
    stopReading(queue);
    await emptyQueue(ctx, queue, reason);
  }
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
