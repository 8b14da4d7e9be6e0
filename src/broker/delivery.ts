/**
 * From queues to instances: windows, sending, reading on from the engine. What comes back is in acknowledgements.ts.
 *
 *   stored, away ─┐
 *                 ├─▶ fetched ─▶ live ─▶ in flight
 *   routed ───────┘
 */
import { bytesOf, sliceBatch, type Batch } from '../batch.js';
import type { StoredRun } from '../engine/engine.js';
import type { Context } from './context.js';
import { revivalOf } from './dead-letters.js';
import {
  SELF,
  fewestAttempts,
  handlerOf,
  targetOf,
  type Delivery,
  type Entry,
  type Instance,
  type Queue,
  type Session,
} from './model.js';
import { dropStored, forgetLive } from './live.js';
import { notInFlight } from './parts.js';
import { progressed } from './progress.js';
import type { FailureReason } from '../receipts.js';
import type { DeliveryNote } from './ports.js';
import { reportFailure } from './senders.js';
import { finish, leave, letGo, shrink } from './store.js';
import { isOnlyForOthers, taker } from './takers.js';
import { queueIds } from './queue-ids.js';
import { SmallSet } from '../small-set.js';

/** What one read from the engine brings at most. */
const FETCH_MESSAGES = 4096;
const FETCH_BYTES = 1024 * 1024;
/** Milliseconds after which a read is made again that failed, while the store has not. */
const READ_AGAIN_AFTER = 1000;

export function newDelivery(
  entry: Entry,
  queues: readonly Queue[],
  offset: number,
  count: number,
  handle: number,
): Delivery {
  return {
    entry,
    queues,
    offset,
    count,
    handle,
    attempts: 0,
    revival: 0,
    redelivered: false,
    number: 0,
    instance: undefined,
    done: 0,
    later: undefined,
    refused: undefined,
    charged: undefined,
  };
}

// ---- sending -------------------------------------------------------------------------------------------------------

/** Sends what a queue holds while there is room. */
export function pump(ctx: Context, queue: Queue): void {
  if (ctx.stopped) return;
  for (;;) {
    // What waits for any instance of the name is older than what waits for one of them.
    if (queue.owner !== undefined && sessionQueueWaits(queue)) return;
    if (queue.waiting && queue.session.arriving > 0) return;
    if (queue.fetched.size === 0 && queue.behind) {
      if (taker(ctx, queue) === undefined || !fetch(ctx, queue)) return;
      continue;
    }
    const source = queue.fetched.size > 0 ? queue.fetched : queue.live;
    const next = source.peek();
    if (next === undefined) return;
    const to = taker(ctx, queue, next.entry);
    if (to === undefined) {
      if (source !== queue.fetched || !isOnlyForOthers(ctx, queue, next.entry)) return;
      source.shift();
      setAside(ctx, queue, next);
      continue;
    }
    if (isExpired(ctx, next.entry)) {
      source.shift();
      if (source === queue.live) forgetLive(queue, next, next.count);
      giveUp(ctx, queue, next, 'expired');
      continue;
    }
    // What comes as one batch is dealt out among the instances of a shared name.
    const share = Math.min(to.room, Math.ceil(next.count / to.ready));
    if (next.count <= share) {
      source.shift();
      if (source === queue.live) forgetLive(queue, next, next.count);
      send(ctx, to.instance, next);
    } else {
      const part = splitFront(next, share);
      if (source === queue.live) forgetLive(queue, part, part.count);
      send(ctx, to.instance, part);
    }
  }
}

/** What waits for a name is delivered once the store knows for certain that it waits there, and that somebody is there to handle it. */
export function holdUntilDurable(ctx: Context, session: Session): void {
  session.arriving++;
  ctx.engine.commit().then(
    () => {
      session.arriving--;
      for (const instance of session.instances.values()) pumpInstance(ctx, instance);
    },
    () => undefined, // the engine has said so by `failed`
  );
}

/** Such a message waits apart for another instance of the name, or in the channel's backlog when there is no other subscriber. */
function setAside(ctx: Context, queue: Queue, delivery: Delivery): void {
  const { session, subscription } = queue;
  if (session.instances.size > 1 || ctx.channels.get(subscription)?.sessions.size !== 1) {
    (queue.aside ??= []).push(delivery);
    return;
  }
  const { handle, count, entry, offset } = delivery;
  ctx.engine.move(queue.id, queueIds.backlog(subscription), handle, count);
  ctx.backlogs.add(subscription);
  shrink(queue, count, bytesOf(entry.batch, offset, count));
}

/** True while older messages of the same subscription wait for any instance of the name: they go first. */
export function sessionQueueWaits(lane: Queue): boolean {
  const { queues } = lane.session;
  return queues.size > 0 && queues.get(lane.subscription)?.waiting === true;
}

/** Cuts the first `count` messages off a delivery that has not been sent. */
function splitFront(delivery: Delivery, count: number): Delivery {
  const part = newDelivery(delivery.entry, delivery.queues, delivery.offset, count, delivery.handle);
  part.attempts = delivery.attempts;
  part.revival = delivery.revival;
  part.redelivered = delivery.redelivered;
  delivery.offset += count;
  delivery.count -= count;
  if (delivery.handle !== 0) delivery.handle += count;
  if (delivery.entry.sender !== undefined) delivery.entry.deliveries.add(part);
  if (part.handle === 0) for (const queue of part.queues) queue.unstored++;
  return part;
}

/** Sends a delivery to an instance. */
export function send(ctx: Context, instance: Instance, delivery: Delivery): void {
  const { entry, offset, count } = delivery;
  const { batch } = entry;
  const bytes = bytesOf(batch, offset, count);
  delivery.number = instance.nextNumber;
  delivery.instance = instance;
  instance.nextNumber += count;
  instance.inflight.push(delivery);
  account(instance, delivery, count, bytes);
  for (const queue of delivery.queues) {
    if (queue.inflight.size === 0) progressed(ctx, queue);
    queue.inflight.add(delivery);
  }
  ctx.counters.messagesOut += count;
  instance.outlet?.deliver(timed(ctx, entry), offset, count, noteFor(delivery));
}

/** The batch with the time that is left for it; as it came, while none of it to speak of has passed. */
function timed(ctx: Context, { batch, expiresAt }: Entry): Batch {
  const { ttl } = batch.envelope;
  if (expiresAt === 0 || ttl === undefined) return batch;
  const left = Math.max(1, Math.ceil(expiresAt - ctx.engine.time()));
  if (left >= ttl) return batch;
  const { wire: _, ...rest } = batch;
  return { ...rest, envelope: { ...batch.envelope, ttl: left } };
}

function noteFor(delivery: Delivery): DeliveryNote | undefined {
  const { envelope } = delivery.entry.batch;
  const several = envelope.channels.length + envelope.clients.length > 1;
  if (!several && !delivery.redelivered && delivery.attempts === 0 && delivery.revival === 0) return undefined;
  return {
    redelivered: delivery.redelivered,
    attempt: delivery.attempts + 1,
    revival: delivery.revival === 0 ? undefined : delivery.revival,
    subscriptions: several ? subscriptionsOf(delivery) : undefined,
  };
}

/** What was sent to a connection's address is for the client itself, and in no queue. */
function subscriptionsOf({ queues }: Delivery): string[] {
  return queues.length === 0 ? [SELF] : queues.map(({ subscription }) => subscription);
}

export function account(instance: Instance, delivery: Delivery, messages: number, bytes: number): void {
  instance.messages += messages;
  instance.bytes = instance.messages === 0 ? 0 : instance.bytes + bytes;
  for (const queue of delivery.queues) {
    const handler = handlerOf(instance, queue);
    if (handler === undefined) continue;
    handler.messages = Math.max(0, handler.messages + messages);
    handler.bytes = handler.messages === 0 ? 0 : Math.max(0, handler.bytes + bytes);
  }
}

/** Reads on from the engine; false when that takes a while or brought nothing to send yet. */
function fetch(ctx: Context, queue: Queue): boolean {
  if (queue.reading) return false;
  let answer: readonly StoredRun[] | Promise<readonly StoredRun[]>;
  try {
    answer = ctx.engine.read(queue.id, queue.cursor, FETCH_MESSAGES, FETCH_BYTES);
  } catch (error) {
    readAgainLater(ctx, queue, error);
    return false;
  }
  if (!(answer instanceof Promise)) return takeFetched(ctx, queue, answer);
  queue.reading = true;
  const { lastHandle } = ctx;
  const { arrivals, rewinds } = queue;
  answer.then(
    runs => {
      queue.reading = false;
      // What has come back to the queue meanwhile may be missing from the answer: it is read again. And what was stored
      // meanwhile may have come too late for an answer with nothing in it.
      const isLate = runs.length === 0 && (ctx.lastHandle !== lastHandle || queue.arrivals !== arrivals);
      if (queue.rewinds === rewinds && !isLate) takeFetched(ctx, queue, runs);
      pump(ctx, queue);
      if (!queue.waiting) pumpLanes(ctx, queue);
    },
    (error: unknown) => readAgainLater(ctx, queue, error),
  );
  return false;
}

/** A store that has failed says so itself; from any other, what could not be read now is asked for again. */
function readAgainLater(ctx: Context, queue: Queue, error: unknown): void {
  queue.reading = true;
  if (ctx.stopped) return;
  ctx.logger.error(`reading ${JSON.stringify(queue.id)} failed; it is tried again`, error);
  ctx.clock.setTimeout(() => {
    queue.reading = false;
    pump(ctx, queue);
  }, READ_AGAIN_AFTER);
}

function takeFetched(ctx: Context, queue: Queue, runs: readonly StoredRun[]): boolean {
  const last = runs[runs.length - 1];
  if (last === undefined) {
    queue.behind = false;
    if (queue.owner === undefined) pumpLanes(ctx, queue);
    return true;
  }
  queue.cursor = last.handle + last.batch.count;
  for (const run of runs) {
    for (const part of notInFlight(queue, run)) {
      const entry = storedEntry(ctx, run, part);
      const delivery = newDelivery(entry, [queue], 0, part.count, run.handle + part.offset);
      delivery.attempts = run.attempts;
      delivery.revival = revivalOf(run.note);
      delivery.redelivered = run.attempts > 0 || delivery.handle < queue.redeliverBelow;
      queue.fetched.push(delivery);
    }
  }
  return true;
}

/** An entry for what is read back from the engine: its receipt was given. */
export function storedEntry(ctx: Context, run: StoredRun, part: { offset: number; count: number }): Entry {
  return {
    serial: ++ctx.serial,
    batch: sliceBatch(run.batch, part.offset, part.count),
    sender: undefined,
    takenAt: ctx.clock.monotonic(),
    expiresAt: run.expiresAt,
    deliveries: new SmallSet(),
    recipients: 1,
    whole: 1,
    left: undefined,
    failed: undefined,
    settled: 0,
    handle: run.handle + part.offset,
    committed: true,
  };
}

/** The session's queue has run empty: its instances' own lanes go on. */
function pumpLanes(ctx: Context, queue: Queue): void {
  for (const instance of queue.session.instances.values()) {
    const lane = instance.handlers.get(queue.subscription)?.lane;
    if (lane !== undefined) pump(ctx, lane);
  }
}

/** Goes on with everything that may wait for room at an instance. */
export function pumpInstance(ctx: Context, instance: Instance): void {
  const { session, handlers } = instance;
  for (const queue of session.eager) {
    if ((!queue.waiting && queue.live.size === 0) || !isKept(queue)) session.eager.delete(queue);
    else if (queue.owner === undefined ? handlers.has(queue.subscription) : queue.owner === instance) pump(ctx, queue);
  }
}

/** The queue is still its session's, or the lane its instance's. */
function isKept(queue: Queue): boolean {
  const { session, subscription, owner } = queue;
  if (owner === undefined) return session.queues.get(subscription) === queue;
  return session.instances.get(owner.id) === owner && queue.handler !== undefined;
}

// ---- expiry --------------------------------------------------------------------------------------------------------

export function isExpired(ctx: Context, entry: Entry): boolean {
  return entry.expiresAt !== 0 && ctx.engine.time() >= entry.expiresAt;
}

/** A delivery that was not sent will not be made. */
export function giveUp(ctx: Context, queue: Queue, delivery: Delivery, reason: FailureReason): void {
  const { entry, offset, count, handle } = delivery;
  drop(ctx, queue, delivery);
  reportFailure(ctx, {
    batch: entry.batch,
    offset,
    count,
    target: targetOf(queue),
    reason,
    final: true,
    attempts: Math.max(delivery.attempts, delivery.redelivered ? 1 : fewestAttempts(queue)),
    stored: handle !== 0,
  });
}

function drop(ctx: Context, queue: Queue, delivery: Delivery): void {
  const { entry, offset, count, handle } = delivery;
  entry.deliveries.delete(delivery);
  const bytes = bytesOf(entry.batch, offset, count);
  if (handle !== 0) leave(ctx, queue, handle, count, bytes, false);
  else {
    queue.unstored--;
    letGo(queue, count, bytes);
  }
  finish(ctx, entry, offset, count, false);
}

// ---- back to the queue ---------------------------------------------------------------------------------------------

/** The queue is read again from `handle` on, at the latest, and what it holds in memory of what is in the store is read too. */
export function rewind(queue: Queue, handle: number): void {
  const { fetched, aside } = queue;
  const first = Math.min(fetched.peek()?.handle ?? Infinity, aside?.[0]?.handle ?? Infinity, dropStored(queue));
  const next = queue.waiting ? Math.min(queue.cursor, first) : first;
  queue.fetched.clear();
  queue.aside = undefined;
  queue.cursor = Math.min(next, handle);
  queue.rewinds++;
  queue.behind = true;
}

/** Nothing is read from the queue any longer. */
export function stopReading(queue: Queue): void {
  queue.fetched.clear();
  queue.rewinds++;
  queue.behind = false;
}

/** Everything in flight at an instance that is no longer connected, oldest first; its window is free again. */
export function takeInFlight(instance: Instance): Delivery[] {
  const deliveries = [...instance.inflight].filter(delivery => delivery.done < delivery.count);
  instance.inflight.clear();
  instance.nextNumber = 1;
  instance.reached = 0;
  instance.messages = 0;
  instance.bytes = 0;
  for (const handler of instance.handlers.values()) {
    handler.messages = 0;
    handler.bytes = 0;
  }
  return deliveries;
}
