/**
 * What instances say of their deliveries: acknowledged, failed, rejected, given back.
 *
 *   in flight ──ACK──▶ done: left its queues; the receipt follows when every recipient has it
 *       ├─FAIL──▶ attempt recorded durably ──▶ RETRY: tried again by the same instance
 *       ├─REJECT─▶ dead letters, expired, or back to the queue of the name; ACK follows as usual
 *       └─RELEASE▶ back to the queue of the name, uncharged
 */
import { bytesOf } from '../batch.js';
import { BroadcastError } from '../errors.js';
import type { FailureReason } from '../receipts.js';
import { isHandled, noteLive } from './handled.js';
import type { Context } from './context.js';
import { deadLetter } from './dead-letters.js';
import { account, pump, pumpInstance } from './delivery.js';
import { giveBack } from './lanes.js';
import { SELF, targetOf, type Delivery, type Instance, type Queue, type Refusal } from './model.js';
import { PeerFault, type Range } from './ports.js';
import { progressed } from './progress.js';
import { sessionQueue } from './registry.js';
import { reportFailure } from './senders.js';
import { finish, leave, letGo, scheduleCommit, storeEntries } from './store.js';

/** Handlers have ended for these delivery numbers. Throws `invalid-ack`. */
export function acknowledge(ctx: Context, instance: Instance, ranges: readonly Range[]): void {
  for (const range of ranges) {
    let { first } = range;
    const end = range.first + range.count;
    instance.reached = Math.max(instance.reached, end - 1);
    while (first < end) {
      const delivery = inFlightAt(instance, first);
      const start = first - delivery.number;
      const count = Math.min(end - first, delivery.count - start);
      complete(ctx, instance, delivery, start, count);
      first += count;
    }
  }
  progressed(ctx, instance);
  forgetDone(instance);
  pumpInstance(ctx, instance);
}

/** The delivery that a number belongs to. */
function inFlightAt(instance: Instance, number: number): Delivery {
  const { inflight } = instance;
  let low = 0;
  let high = inflight.size - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const delivery = inflight.at(middle);
    if (number < delivery.number) high = middle - 1;
    else if (number >= delivery.number + delivery.count) low = middle + 1;
    else return delivery;
  }
  throw new PeerFault('invalid-ack', `delivery ${String(number)} is not outstanding on this connection`);
}

function complete(ctx: Context, instance: Instance, delivery: Delivery, start: number, count: number): void {
  markDone(delivery, start, count);
  const { entry, offset, refused } = delivery;
  const bytes = bytesOf(entry.batch, offset + start, count);
  account(instance, delivery, -count, -bytes);
  for (const queue of delivery.queues) {
    progressed(ctx, queue);
    if (delivery.handle !== 0) continue;
    letGo(queue, count, bytes);
    if (refused === undefined) noteLive(entry, queue, offset + start, count);
  }
  if (refused === undefined) {
    if (delivery.handle !== 0) {
      for (const queue of delivery.queues) leave(ctx, queue, delivery.handle + start, count, bytes, true);
    }
    finish(ctx, entry, offset + start, count, true);
  } else {
    for (let index = start; index < start + count; index++) concludeOne(ctx, delivery, index);
  }
  if (delivery.done === delivery.count) dismiss(delivery);
}

/** The end of one message of a delivery some of which was refused. */
function concludeOne(ctx: Context, delivery: Delivery, index: number): void {
  const { entry, offset, queues, handle, refused } = delivery;
  const refusals = refused?.get(index);
  const bytes = bytesOf(entry.batch, offset + index, 1);
  for (const queue of queues) {
    if (refusals?.has(queue) === true) continue;
    if (handle !== 0) leave(ctx, queue, handle + index, 1, bytes, true);
    else noteLive(entry, queue, offset + index, 1);
  }
  // What went back to its queue still waits for its recipient.
  if (refusals !== undefined && [...refusals.values()].includes('waits')) return;
  finish(ctx, entry, offset + index, 1, (refusals?.size ?? 0) < Math.max(1, queues.length));
}

/** Nothing of a delivery is in flight any more. */
function dismiss(delivery: Delivery): void {
  const { entry, queues, handle } = delivery;
  entry.deliveries.delete(delivery);
  for (const queue of queues) {
    queue.inflight.delete(delivery);
    if (handle === 0) queue.unstored--;
  }
}

function markDone(delivery: Delivery, start: number, count: number): void {
  if (start === delivery.done && delivery.later === undefined) {
    delivery.done += count;
    return;
  }
  const later = (delivery.later ??= new Set());
  for (let i = start; i < start + count; i++) {
    if (i < delivery.done || later.has(i)) {
      throw new PeerFault('invalid-ack', `delivery ${String(delivery.number + i)} was acknowledged before`);
    }
    later.add(i);
  }
  while (later.delete(delivery.done)) delivery.done++;
  if (later.size === 0) delivery.later = undefined;
}

function forgetDone({ inflight }: Instance): void {
  for (let head = inflight.peek(); head !== undefined && head.done === head.count; head = inflight.peek())
    inflight.shift();
}

// ---- attempts --------------------------------------------------------------------------------------------------------

interface Located {
  readonly delivery: Delivery;
  readonly index: number;
  /** Undefined for what was sent to the connection's address, which is in no queue. */
  readonly queue: Queue | undefined;
  /** It is in that queue no longer, of which its recipient knows nothing. */
  readonly isWithdrawn: boolean;
}

function locate(instance: Instance, number: number, subscription: string): Located {
  const delivery = inFlightAt(instance, number);
  const index = number - delivery.number;
  const queue = delivery.queues.find(candidate => candidate.subscription === subscription);
  const isDirect = delivery.queues.length === 0 && subscription === SELF;
  const isDone = index < delivery.done || delivery.later?.has(index) === true;
  const refusal = delivery.refused?.get(index)?.get(queue);
  const isWithdrawn = refusal === 'withdrawn';
  if (isDone || (queue === undefined && !isDirect) || (refusal !== undefined && !isWithdrawn)) {
    throw new PeerFault('invalid-ack', `delivery ${String(number)} is not outstanding for "${subscription}"`);
  }
  return { delivery, index, queue, isWithdrawn };
}

/** An attempt failed and the instance asks for another one: it is recorded before it is made. Throws `invalid-ack`. */
export function failAttempt(
  ctx: Context,
  instance: Instance,
  number: number,
  subscription: string,
  attempt: number,
): void {
  const { delivery, index, queue, isWithdrawn } = locate(instance, number, subscription);
  const { outlet } = instance;
  if (queue === undefined || isWithdrawn) {
    outlet?.retry(number, subscription, attempt + 1);
    return;
  }
  if (delivery.handle === 0) storeEntries(ctx, [delivery.entry]);
  charge(ctx, delivery, index, queue, attempt);
  ctx.engine.commit().then(
    () => {
      if (instance.outlet === outlet) outlet?.retry(number, subscription, attempt + 1);
    },
    () => undefined, // the engine has said so by `failed`
  );
}

/** Records that a message of a delivery was attempted so often. */
export function charge(
  ctx: Context,
  delivery: Delivery,
  index: number,
  queue: Queue,
  attempts: number,
  handle: number = delivery.handle === 0 ? 0 : delivery.handle + index,
): void {
  const charged = (delivery.charged ??= new Map<number, Map<string, number>>());
  const counts = charged.get(index) ?? new Map<string, number>();
  charged.set(index, counts.set(queue.subscription, attempts));
  if (handle !== 0) ctx.engine.attempt(queue.id, handle, attempts);
}

export type RejectKind = 'rejected' | 'expired' | 'damaged' | 'no-handler';

/** What an instance says with a rejection. */
export interface Rejection {
  /** The delivery's number. */
  readonly delivery: number;
  /** The subscription. */
  readonly channel: string;
  readonly kind: RejectKind;
  readonly attempts: number;
  readonly reason: string;
}

/** A handler, or the client for it, will not take a message. The acknowledgement follows as usual. Throws `invalid-ack`, `store-full`. */
export function rejectDelivery(ctx: Context, instance: Instance, rejection: Rejection): void {
  const { kind, attempts, reason } = rejection;
  const { delivery, index, queue, isWithdrawn } = locate(instance, rejection.delivery, rejection.channel);
  const { entry, offset } = delivery;
  if (isWithdrawn) {
    refuse(delivery, index, queue, 'gone');
    return;
  }
  if (queue === undefined) {
    refuse(delivery, index, queue, 'gone');
    const target = { client: instance.outlet?.address ?? instance.session.name };
    reportOne(ctx, delivery, index, target, kind === 'damaged' ? 'rejected' : kind, true, attempts);
    return;
  }
  if (kind === 'expired') {
    refuse(delivery, index, queue, 'gone');
    if (delivery.handle !== 0)
      leave(ctx, queue, delivery.handle + index, 1, bytesOf(entry.batch, offset + index, 1), false);
    reportOne(ctx, delivery, index, targetOf(queue), 'expired', true, attempts);
    return;
  }
  if (delivery.handle === 0 && !storeEntries(ctx, [entry])) {
    throw new BroadcastError('store-full', 'no room for a message that was rejected');
  }
  if (kind === 'no-handler') {
    // By its acknowledgement it ends as if this instance had handled it as well.
    if (isHandled(queue, delivery.handle + index)) return;
    refuse(delivery, index, queue, 'waits');
    reportOne(ctx, delivery, index, targetOf(queue), 'no-handler', false, attempts);
    giveBack(ctx, queue, delivery.handle + index, 1);
    return;
  }
  refuse(delivery, index, queue, 'gone');
  const { handle, revival } = delivery;
  deadLetter(ctx, queue, {
    handle: handle + index,
    batch: entry.batch,
    index: offset + index,
    reason,
    attempts,
    revival,
  });
}

/** A message of a delivery is gone for one of its queues, or waits in it again, before the delivery has ended. */
export function refuse(delivery: Delivery, index: number, queue: Queue | undefined, how: Refusal): void {
  const refused = (delivery.refused ??= new Map<number, Map<Queue | undefined, Refusal>>());
  const refusals = refused.get(index);
  if (refusals === undefined) refused.set(index, new Map([[queue, how]]));
  else refusals.set(queue, how);
}

function reportOne(
  ctx: Context,
  delivery: Delivery,
  index: number,
  target: { client?: string; channel?: string },
  reason: FailureReason,
  final: boolean,
  attempts: number,
): void {
  const { entry, offset, handle } = delivery;
  reportFailure(ctx, {
    batch: entry.batch,
    offset: offset + index,
    count: 1,
    target,
    reason,
    final,
    attempts,
    stored: handle !== 0,
  });
}

// ---- giving back -----------------------------------------------------------------------------------------------------

/** Deliveries that the instance did not handle and gives back, uncharged. Throws `invalid-ack`. */
export function release(ctx: Context, instance: Instance, ranges: readonly Range[]): void {
  const waiting = new Set<Queue>();
  for (const { first, count } of ranges) {
    for (let number = first; number < first + count; number++) releaseOne(ctx, instance, number, waiting);
  }
  forgetDone(instance);
  scheduleCommit(ctx);
  for (const queue of waiting) pump(ctx, queue);
  pumpInstance(ctx, instance);
}

function releaseOne(ctx: Context, instance: Instance, number: number, waiting: Set<Queue>): void {
  const delivery = inFlightAt(instance, number);
  const index = number - delivery.number;
  const { entry, offset, queues } = delivery;
  // While it counts as open: what is done is not stored.
  if (delivery.handle === 0 && queues.length > 0 && !storeEntries(ctx, [entry])) {
    throw new BroadcastError('store-full', 'no room for a message that was given back');
  }
  markDone(delivery, index, 1);
  account(instance, delivery, -1, -bytesOf(entry.batch, offset + index, 1));
  if (queues.length === 0) {
    reportOne(
      ctx,
      delivery,
      index,
      { client: instance.outlet?.address ?? instance.session.name },
      'no-handler',
      true,
      0,
    );
    finish(ctx, entry, offset + index, 1, false);
  }
  const refusals = delivery.refused?.get(index);
  let waits = false;
  let isDelivered = false;
  for (const queue of queues) {
    const bytes = bytesOf(entry.batch, offset + index, 1);
    // Without a handle all of its queues have refused it: there was nothing to be stored.
    if (delivery.handle === 0) letGo(queue, 1, bytes);
    const refusal = refusals?.get(queue);
    if (refusal !== undefined) {
      waits ||= refusal === 'waits';
    } else if (isHandled(queue, delivery.handle + index)) {
      leave(ctx, queue, delivery.handle + index, 1, bytes, true);
      isDelivered = true;
    } else {
      giveBack(ctx, queue, delivery.handle + index, 1);
      waiting.add(sessionQueue(queue.session, queue.subscription));
      waits = true;
    }
  }
  if (queues.length > 0 && !waits) finish(ctx, entry, offset + index, 1, isDelivered);
  if (delivery.done === delivery.count) dismiss(delivery);
}
