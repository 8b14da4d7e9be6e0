/** Messages that have a time to live: one timer for the next of them, in engine time. What is in flight is left to its receiver. */
import type { Timer } from '../clock.js';
import type { ExpiringRun, StoredRun } from '../engine/engine.js';
import type { Context } from './context.js';
import { expire, isExpired, newDelivery, pump, storedEntry } from './delivery.js';
import type { Delivery, Queue } from './model.js';
import { reportFailure } from './senders.js';
import { settleTracked } from './store.js';

export type Expiring =
  { readonly kind: 'live'; readonly queue: Queue } | { readonly kind: 'stored'; readonly run: ExpiringRun };

interface Alarm {
  readonly at: number;
  readonly what: Expiring;
}

/** Alarms of one broker, soonest first, as a binary heap. */
class Alarms {
  readonly heap: Alarm[] = [];
  timer: Timer | undefined;
  armedFor = Infinity;

  push(alarm: Alarm): void {
    const { heap } = this;
    heap.push(alarm);
    let i = heap.length - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if ((heap[parent] as Alarm).at <= alarm.at) break;
      heap[i] = heap[parent] as Alarm;
      i = parent;
    }
    heap[i] = alarm;
  }

  pop(): Alarm | undefined {
    const { heap } = this;
    const first = heap[0];
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return first;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && (heap[child + 1] as Alarm).at < (heap[child] as Alarm).at) child++;
      if ((heap[child] as Alarm).at >= last.at) break;
      heap[i] = heap[child] as Alarm;
      i = child;
    }
    heap[i] = last;
    return first;
  }
}

const alarmsOf = new WeakMap<Context, Alarms>();

/** Looks at these messages when they expire. */
export function armExpiry(ctx: Context, at: number, what: Expiring): void {
  let alarms = alarmsOf.get(ctx);
  if (alarms === undefined) {
    alarms = new Alarms();
    alarmsOf.set(ctx, alarms);
  }
  const last = alarms.heap[alarms.heap.length - 1];
  // One alarm serves all live messages of a lane that expire together.
  if (
    last !== undefined &&
    last.at === at &&
    what.kind === 'live' &&
    last.what.kind === 'live' &&
    last.what.queue === what.queue
  )
    return;
  alarms.push({ at, what });
  arm(ctx, alarms);
}

function arm(ctx: Context, alarms: Alarms): void {
  const next = alarms.heap[0];
  if (next === undefined || next.at >= alarms.armedFor || ctx.stopped) return;
  alarms.timer?.cancel();
  alarms.armedFor = next.at;
  alarms.timer = ctx.clock.setTimeout(() => ring(ctx, alarms), Math.max(1, Math.ceil(next.at - ctx.engine.time())));
}

/** Stops the timer, when the broker closes. */
export function disarm(ctx: Context): void {
  alarmsOf.get(ctx)?.timer?.cancel();
}

function ring(ctx: Context, alarms: Alarms): void {
  alarms.armedFor = Infinity;
  if (ctx.stopped) return;
  const now = ctx.engine.time();
  for (let next = alarms.heap[0]; next !== undefined && next.at <= now; next = alarms.heap[0]) {
    alarms.pop();
    if (next.what.kind === 'live') expireLive(ctx, next.what.queue);
    else void expireStored(ctx, next.what.run);
  }
  arm(ctx, alarms);
}

function expireLive(ctx: Context, queue: Queue): void {
  const kept: Delivery[] = [];
  for (let delivery = queue.live.shift(); delivery !== undefined; delivery = queue.live.shift()) {
    if (!isExpired(ctx, delivery.entry)) kept.push(delivery);
    else expire(ctx, queue, delivery);
  }
  queue.liveMessages = 0;
  queue.liveBytes = 0;
  for (const delivery of kept) {
    queue.live.push(delivery);
    queue.liveMessages += delivery.count;
    queue.liveBytes += delivery.entry.batch.items.length;
  }
}

async function expireStored(ctx: Context, run: ExpiringRun): Promise<void> {
  const queue = queueById(ctx, run.queue);
  const end = run.handle + run.count;
  let from = run.handle;
  while (from < end && !ctx.stopped) {
    const found: readonly StoredRun[] = await ctx.engine.read(run.queue, from, end - from, 1024 * 1024);
    const ours = found.filter(stored => stored.handle < end);
    if (ours.length === 0) return;
    for (const stored of ours) {
      from = stored.handle + stored.batch.count;
      if (queue !== undefined) expireWaiting(ctx, queue, stored);
      else if (run.queue.startsWith('b/')) expireBacklog(ctx, run.queue, stored);
    }
  }
}

function expireWaiting(ctx: Context, queue: Queue, stored: StoredRun): void {
  for (const delivery of queue.inflight) {
    if (delivery.handle < stored.handle + stored.batch.count && delivery.handle + delivery.count > stored.handle)
      return;
  }
  for (let i = 0; i < queue.fetched.size; i++) {
    // It has been read for its turn already: there it is found to be expired.
    if (
      queue.fetched.at(i).handle <= stored.handle &&
      queue.fetched.at(i).handle + queue.fetched.at(i).count > stored.handle
    ) {
      pump(ctx, queue);
      return;
    }
  }
  const entry = storedEntry(ctx, stored, { offset: 0, count: stored.batch.count });
  expire(ctx, queue, newDelivery(entry, [queue], 0, stored.batch.count, stored.handle));
}

function expireBacklog(ctx: Context, id: string, stored: StoredRun): void {
  ctx.engine.ack(id, stored.handle, stored.batch.count);
  settleTracked(ctx, stored.handle, stored.batch.count, false);
  reportFailure(ctx, {
    batch: stored.batch,
    offset: 0,
    count: stored.batch.count,
    target: { channel: id.slice(2) },
    reason: 'expired',
    final: true,
    attempts: 0,
    stored: true,
  });
}

/** The queue of a session or lane with this id, if it is known. */
export function queueById(ctx: Context, id: string): Queue | undefined {
  const parts = id.slice(2).split('\0');
  if (id.startsWith('q/')) return ctx.sessions.get(parts[0] as string)?.queues.get(parts[1] as string);
  if (id.startsWith('i/')) return ctx.instances.get(parts[0] as string)?.handlers.get(parts[2] as string)?.lane;
  return undefined;
}
