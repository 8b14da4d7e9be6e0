/**
 * What one instance of a shared name has handled: while another one is waited for that was to have it too, it is kept, for
 * there it counts as delivered when that one does not come back.
 *
 *   in memory: by entry (`Entry.handledBy`) ──the entry is stored──▶ in the store: by the name's queue (`Queue.handled`)
 */
import { RangeSet } from '../range-set.js';
import type { Delivery, Entry, Queue } from './model.js';
import { openParts } from './parts.js';
import { sessionQueue } from './registry.js';

/** Ranges of handled messages of a name after which those are forgotten that nobody waits for. */
const HANDLED_RANGES = 4096;

/** An instance has handled what is not stored. */
export function noteLive(entry: Entry, { session, subscription }: Queue, offset: number, count: number): void {
  if (session.instances.size < 2) return;
  const queue = sessionQueue(session, subscription);
  const handledBy = (entry.handledBy ??= new Map<Queue, RangeSet>());
  const handled = handledBy.get(queue) ?? new RangeSet();
  handled.add(offset, count);
  handledBy.set(queue, handled);
}

/** An instance has handled what is stored. */
export function rememberHandled({ session, subscription }: Queue, handle: number, count: number): void {
  if (session.instances.size < 2) return;
  const handled = (sessionQueue(session, subscription).handled ??= new RangeSet());
  handled.add(handle, count);
  if (handled.rangeCount % HANDLED_RANGES !== 0) return;
  let lowest = handle + count;
  for (const { handlers } of session.instances.values()) {
    const lane = handlers.get(subscription)?.lane;
    if (lane !== undefined) lowest = Math.min(lowest, lowestWaiting(lane));
  }
  handled.deleteBelow(lowest);
}

/** An instance of the name has handled what is stored, and another one may have been waited for since. */
export function isHandled({ session, subscription }: Queue, handle: number): boolean {
  return session.queues.get(subscription)?.handled?.has(handle) === true;
}

function lowestWaiting(lane: Queue): number {
  let lowest = lane.behind ? lane.cursor : Infinity;
  for (const delivery of lane.inflight) if (delivery.handle !== 0) lowest = Math.min(lowest, delivery.handle);
  return Math.min(lowest, lane.fetched.peek()?.handle ?? Infinity);
}

/** A delivery has been stored: what others have had of it before is kept by its handles from here on. */
export function carryHandled(delivery: Delivery): void {
  const { entry, queues } = delivery;
  if (entry.handledBy === undefined) return;
  for (const { session, subscription } of queues) {
    const queue = sessionQueue(session, subscription);
    const known = entry.handledBy.get(queue);
    if (known === undefined) continue;
    const handled = (queue.handled ??= new RangeSet());
    for (const { offset, count } of openParts(delivery))
      for (const part of known.within(offset, count)) handled.add(entry.handle + part.first, part.count);
  }
}
