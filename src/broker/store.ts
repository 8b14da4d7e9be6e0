/**
 * Between memory and the engine: what is stored, when, and what that means for receipts.
 *
 * Invariant: the stored messages of a sender have no gap. Whenever an entry is stored, every earlier unsettled entry of
 * its sender is stored with it, in one append, which the engine keeps whole or not at all. Otherwise a server killed
 * between #6 (stored) and #5 (not stored, sent again by its sender) would turn their order round.
 *
 *   routed ──▶ unstored ──▶ every recipient acknowledged: receipt `delivered`, the disk was never touched
 *                  │
 *                  └─ a recipient is away, makes no progress, or holds too much ──▶ appended ──commit──▶ receipt `stored`
 */
import { bytesOf } from '../batch.js';
import type { AppendBatch } from '../engine/engine.js';
import { BroadcastError } from '../errors.js';
import { armStored } from './alarms.js';
import { dropStored } from './live.js';
import type { Context } from './context.js';
import { RangeSet } from '../range-set.js';
import { carryHandled, rememberHandled } from './handled.js';
import type { Delivery, Entry, Queue, Sender } from './model.js';
import { attemptsOf, openParts } from './parts.js';
import { settle, whenDurable } from './senders.js';
import { follow, settleTracked } from './tracking.js';

/** A batch's share of a queue that must be stored without a delivery, because nobody is there to take it. */
export interface AwayQueue {
  readonly queue: string;
  /** Undefined for a backlog. */
  readonly target: Queue | undefined;
  /** So many messages of the batch, from its first. */
  readonly count: number;
}

/** A sender whose appended but not yet durable bytes exceed this is not read from until the commit has ended. */
const MAX_UNCOMMITTED = 8 * 1024 * 1024;

/**
 * Appends these entries and every earlier unsettled one of their senders; `away` adds queues to one of them.
 * False when the store is full or has failed: then nothing was stored.
 */
export function storeEntries(
  ctx: Context,
  entries: Iterable<Entry>,
  away?: { entry: Entry; queues: readonly AwayQueue[] },
): boolean {
  const wanted = withPredecessors(entries);
  if (wanted.length === 0) return true;
  const appended: Entry[] = [];
  const batches: AppendBatch[] = [];
  let stored = 0;
  for (const entry of wanted) {
    const queues = queuesOf(entry);
    if (entry === away?.entry) for (const { queue, count } of away.queues) queues.push({ queue, offset: 0, count });
    if (queues.length === 0) continue; // only for addresses, which are never queued
    appended.push(entry);
    stored += messagesIn(entry, queues);
    batches.push({ batch: entry.batch, expiresAt: entry.expiresAt, queues });
  }
  if (batches.length === 0) return true;
  let handles: number[];
  try {
    handles = ctx.engine.append(batches);
  } catch (error) {
    if (!(error instanceof BroadcastError)) throw error;
    return false;
  }
  appended.forEach((entry, i) =>
    noteStored(ctx, entry, handles[i] as number, entry === away?.entry ? away.queues : []),
  );
  for (const share of away?.queues ?? []) noteAway(share, (away as { entry: Entry }).entry);
  ctx.counters.stored += stored;
  scheduleCommit(ctx);
  return true;
}

function withPredecessors(entries: Iterable<Entry>): Entry[] {
  const until = new Map<Sender, number>();
  for (const { sender, serial, handle } of entries) {
    if (sender !== undefined && handle === 0) until.set(sender, Math.max(until.get(sender) ?? 0, serial));
  }
  const wanted: Entry[] = [];
  for (const [sender, serial] of until) {
    for (const entry of sender.unsettled) {
      if (entry.serial > serial) break;
      if (entry.handle === 0 && entry.settled < entry.batch.count) wanted.push(entry);
    }
  }
  return until.size > 1 ? wanted.sort((a, b) => a.serial - b.serial) : wanted;
}

function queuesOf(entry: Entry): AppendBatch['queues'][number][] {
  const shares: { queue: string; offset: number; count: number }[] = [];
  for (const delivery of entry.deliveries) {
    for (const queue of delivery.queues) {
      for (const part of openParts(delivery, queue)) shares.push({ queue: queue.id, ...part });
    }
  }
  // The front of a delivery that was cut in two came after the rest of it.
  return shares.length > 1 ? shares.sort((a, b) => a.offset - b.offset) : shares;
}

/** How many messages of an entry are in one of its shares at least. */
function messagesIn({ batch }: Entry, shares: AppendBatch['queues']): number {
  if (shares.some(({ count }) => count === batch.count)) return batch.count;
  const messages = new RangeSet();
  for (const { offset, count } of shares) messages.add(offset, count);
  return messages.size;
}

function noteStored(ctx: Context, entry: Entry, handle: number, away: readonly AwayQueue[]): void {
  const { batch, sender } = entry;
  entry.handle = handle;
  ctx.lastHandle = Math.max(ctx.lastHandle, handle + batch.count - 1);
  for (const delivery of entry.deliveries) {
    if (delivery.queues.length === 0) continue;
    delivery.handle = handle + delivery.offset;
    for (const queue of delivery.queues) noteStoredIn(ctx, delivery, queue);
    carryHandled(delivery);
  }
  if (sender !== undefined && !sender.stored) sender.stored = true;
  if (batch.envelope.tracked && sender !== undefined) follow(ctx, entry, sender, away);
  ctx.uncommitted.push(entry);
  ctx.uncommittedBytes += batch.items.length;
}

function noteStoredIn(ctx: Context, delivery: Delivery, queue: Queue): void {
  const { entry, handle, offset: start, count: all } = delivery;
  const { batch } = entry;
  queue.unstored--;
  awaitExpiry(ctx, entry, queue.id, handle, all);
  for (const { offset, count } of openParts(delivery)) letGo(queue, count, bytesOf(batch, offset, count));
  for (const { offset, count } of openParts(delivery, queue)) {
    grow(queue, count, bytesOf(batch, offset, count));
    if (delivery.attempts === 0 && delivery.charged === undefined) continue;
    for (let index = offset - start; index < offset - start + count; index++) {
      const attempts = attemptsOf(delivery, index, queue);
      if (attempts > 0) ctx.engine.attempt(queue.id, handle + index, attempts);
    }
  }
}

/** Stored messages are looked at when they expire. */
export function awaitExpiry(ctx: Context, { expiresAt }: Entry, queue: string, handle: number, count: number): void {
  if (expiresAt !== 0) armStored(ctx, { queue, handle, count, expiresAt });
}

function noteAway({ target, count }: AwayQueue, { handle, batch }: Entry): void {
  if (target === undefined) return;
  if (!target.waiting) target.cursor = handle;
  target.behind = true;
  grow(target, count, bytesOf(batch, 0, count));
}

/** Stored messages are among what waits for a name from now on. */
export function grow(queue: Queue, messages: number, bytes: number): void {
  queue.session.messages += messages;
  queue.session.bytes += bytes;
}

/** Messages in memory are on their way to a name from now on. */
export function hold({ session }: Queue, messages: number, bytes: number): void {
  session.heldMessages += messages;
  session.heldBytes += bytes;
}

/** Messages that were only in memory have ended, or are stored. */
export function letGo({ session }: Queue, messages: number, bytes: number): void {
  session.heldMessages -= messages;
  session.heldBytes -= bytes;
}

/** Asks the engine for a commit at the end of the turn; when it has returned, the receipts are given. */
export function scheduleCommit(ctx: Context): void {
  if (ctx.commitScheduled || ctx.stopped) return;
  ctx.commitScheduled = true;
  queueMicrotask(() => {
    ctx.commitScheduled = false;
    const group = ctx.uncommitted;
    ctx.uncommitted = [];
    ctx.engine.commit().then(
      () => settleStored(ctx, group),
      () => undefined, // the engine has said so by `failed`
    );
  });
}

function settleStored(ctx: Context, group: readonly Entry[]): void {
  for (const entry of group) {
    entry.committed = true;
    ctx.uncommittedBytes -= entry.batch.items.length;
    const { batch, left } = entry;
    if (left === undefined) {
      if (entry.whole > 0) settle(ctx, entry, 0, batch.count, 'stored', false);
      continue;
    }
    forRuns(
      batch.count,
      i => (left[i] as number) > 0,
      (offset, count) => settle(ctx, entry, offset, count, 'stored', false),
    );
  }
  if (ctx.uncommittedBytes <= MAX_UNCOMMITTED / 2 && ctx.paused.size > 0) {
    for (const instance of ctx.paused) instance.outlet?.pauseReading(false);
    ctx.paused.clear();
  }
}

/** True when senders should be held back until a commit has ended. */
export function isCongested(ctx: Context): boolean {
  return ctx.uncommittedBytes > MAX_UNCOMMITTED;
}

/** Calls `visit` for each run of indexes below `count` that `test` accepts. */
function forRuns(
  count: number,
  test: (index: number) => boolean,
  visit: (offset: number, count: number) => void,
): void {
  for (let i = 0; i < count; i++) {
    if (!test(i)) continue;
    const start = i;
    while (i < count && test(i)) i++;
    visit(start, i - start);
  }
}

/**
 * A recipient is done with some messages of an entry: `ok` when it acknowledged them, otherwise it will not get them.
 * `offset` counts within the entry's batch.
 */
export function finish(ctx: Context, entry: Entry, offset: number, count: number, ok: boolean): void {
  const { batch } = entry;
  if (entry.sender === undefined) return;
  if (!ok) {
    const failed = (entry.failed ??= new Uint32Array(batch.count));
    for (let i = offset; i < offset + count; i++) failed[i] = (failed[i] as number) + 1;
  }
  if (entry.left === undefined) {
    if (count === batch.count) {
      entry.whole--;
      if (entry.whole === 0 && !entry.committed) settleDone(ctx, entry, 0, count);
      return;
    }
    entry.left = new Uint32Array(batch.count).fill(entry.whole);
  }
  const left = entry.left;
  for (let i = offset; i < offset + count; i++) left[i] = (left[i] as number) - 1;
  if (entry.committed) return;
  forRuns(
    count,
    i => left[offset + i] === 0,
    (start, n) => settleDone(ctx, entry, offset + start, n),
  );
}

function settleDone(ctx: Context, entry: Entry, offset: number, count: number): void {
  const { failed, recipients } = entry;
  if (failed === undefined) {
    sayDone(ctx, entry, offset, count, 'delivered', ctx.unsaid > 0);
    return;
  }
  for (let i = offset; i < offset + count; i++) {
    const status = failed[i] === recipients ? 'undelivered' : 'delivered';
    sayDone(ctx, entry, i, 1, status, failed[i] !== 0 || ctx.unsaid > 0);
  }
}

/** `hasNotice`: what is said of it belongs to a notice, which waits until the store knows that it is a dead letter, or has ended otherwise. */
function sayDone(
  ctx: Context,
  entry: Entry,
  offset: number,
  count: number,
  status: 'delivered' | 'undelivered',
  hasNotice: boolean,
): void {
  const say = (): void => settle(ctx, entry, offset, count, status, entry.batch.envelope.tracked);
  if (hasNotice && entry.handle !== 0) whenDurable(ctx, say);
  else say();
}

/** Stored messages leave a queue: they are acknowledged in the engine, and a sender that follows them may hear of it. */
export function leave(ctx: Context, queue: Queue, handle: number, count: number, bytes: number, ok: boolean): void {
  ctx.engine.ack(queue.id, handle, count);
  shrink(queue, count, bytes);
  if (ok) rememberHandled(queue, handle, count);
  if (ctx.tracked.size > 0) settleTracked(ctx, handle, count, ok);
}

/** Stored messages are no longer among what waits for a name. */
export function shrink(queue: Queue, count: number, bytes: number): void {
  const { session } = queue;
  session.messages = Math.max(0, session.messages - count);
  session.bytes = session.messages === 0 ? 0 : Math.max(0, session.bytes - bytes);
}

/** Messages of a queue wait in another one of the same name. What waits there already waits once from here on. */
export function join(ctx: Context, from: Queue, to: Queue, handle?: number, count?: number): void {
  const { engine, tracked } = ctx;
  const size = (): { messages: number; bytes: number } => {
    const [a, b] = [engine.usage(from.id), engine.usage(to.id)];
    return { messages: a.messages + b.messages, bytes: a.bytes + b.bytes };
  };
  const before = size();
  const known = engine.move(from.id, to.id, handle, count);
  if (known.length === 0) return;
  const after = size();
  shrink(to, before.messages - after.messages, before.bytes - after.bytes);
  if (tracked.size === 0) return;
  for (const range of known) {
    for (let h = range.handle; h < range.handle + range.count; h++) {
      const one = tracked.get(h);
      if (one !== undefined) one.waiting--;
    }
  }
}

/** Stores everything that these queues hold in memory; what was not sent is left to the engine. */
export function storeQueues(ctx: Context, queues: readonly Queue[]): boolean {
  const entries = new Set<Entry>();
  for (const queue of queues) {
    for (const delivery of queue.inflight) if (delivery.handle === 0) entries.add(delivery.entry);
    for (const delivery of queue.live) if (delivery.handle === 0) entries.add(delivery.entry);
  }
  if (!storeEntries(ctx, entries)) {
    // Full: the sender keeps its copy, the server's stays in memory within the sender's window. Look again later.
    const now = ctx.clock.monotonic();
    for (const queue of queues) queue.progressAt = queue.fullAt = now;
    return false;
  }
  for (const queue of queues) fallBehind(queue);
  return true;
}

/** What waits in memory has been stored and is read back when its turn comes. */
function fallBehind(queue: Queue): void {
  const lowest = dropStored(queue);
  if (lowest === Infinity) return;
  if (!queue.waiting) queue.cursor = lowest;
  queue.behind = true;
}
