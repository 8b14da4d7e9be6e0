/** When messages with a time to live are looked at: one timer for the next of them, in engine time. */
import type { Timer } from '../clock.js';
import type { Context } from './context.js';
import type { ExpiringRun } from '../engine/engine.js';
import type { Expiring, Queue } from './model.js';

/** Stored messages of a queue that expire within so many milliseconds, or this part of their time, are looked at together. */
const GRAIN = 1000;
const GRAIN_PART = 0.01;

/** Mutable: what expires soon after it joins it. */
type StoredRun = { -readonly [K in keyof ExpiringRun]: ExpiringRun[K] };

interface Alarm {
  readonly at: number;
  readonly what: Expiring;
}

/** Alarms of one broker, soonest first, as a binary heap. */
class Alarms {
  readonly heap: Alarm[] = [];
  /** The one that was made last for the stored messages of a queue, and when it is to ring. */
  readonly latest = new Map<string, { readonly run: StoredRun; readonly at: number }>();
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

function alarmsFor(ctx: Context): Alarms {
  let alarms = alarmsOf.get(ctx);
  if (alarms === undefined) {
    alarms = new Alarms();
    alarmsOf.set(ctx, alarms);
  }
  return alarms;
}

/** Looks at these messages when they expire. */
export function armExpiry(ctx: Context, at: number, what: Expiring): void {
  const alarms = alarmsFor(ctx);
  alarms.push({ at, what });
  arm(ctx, alarms);
}

/**
 * Looks at stored messages when they expire. An alarm stays when its messages are acknowledged long before, so those of a
 * queue share a few: they ring a little late, which nobody can tell but by the notice, as what is over is never delivered.
 */
export function armStored(ctx: Context, { queue, handle, count, expiresAt }: ExpiringRun): void {
  const { latest } = alarmsFor(ctx);
  const last = latest.get(queue);
  const grain = Math.min(GRAIN, (expiresAt - ctx.engine.time()) * GRAIN_PART);
  if (last !== undefined && handle >= last.run.handle && expiresAt >= last.at && expiresAt - last.at <= grain) {
    const { run } = last;
    run.count = Math.max(run.count, handle + count - run.handle);
    run.expiresAt = Math.max(run.expiresAt, expiresAt);
    return;
  }
  const run = { queue, handle, count, expiresAt };
  latest.set(queue, { run, at: expiresAt });
  armExpiry(ctx, expiresAt, { kind: 'stored', run });
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
    const { what } = next;
    if (what.kind === 'stored') {
      const { run } = what;
      if (alarms.latest.get(run.queue)?.run === run) alarms.latest.delete(run.queue);
      // It has been joined by some that expire a little later.
      if (run.expiresAt > now) {
        alarms.push({ at: run.expiresAt, what });
        continue;
      }
    }
    ctx.expired?.(what);
  }
  arm(ctx, alarms);
}

/** Looks at what a queue holds in memory when the first of it expires: one alarm for each queue, however much passes it. */
export function armLive(ctx: Context, queue: Queue, at: number): void {
  if (at === 0 || at >= queue.expiresNext) return;
  queue.expiresNext = at;
  armExpiry(ctx, at, { kind: 'live', queue });
}
