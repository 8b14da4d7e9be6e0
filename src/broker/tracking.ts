/**
 * Senders that wait for the final outcome of what is stored: in how many queues each message waits still, what came of it
 * in the end, and the answer to a sender that comes back and asks.
 */
import { idCounters } from '../batch.js';
import { formatId } from '../message.js';
import { RangeSet } from '../range-set.js';
import type { Context } from './context.js';
import { forgetDelivered, keepDelivered, keepGroup, keepProgress, keepUndelivered } from './followed.js';
import type { Entry, Instance, Sender, Tracked, TrackedGroup } from './model.js';
import { openParts, type Part } from './parts.js';
import type { Range } from './ports.js';
import { announce, whenDurable } from './senders.js';

/** Some messages of a batch, from its first, wait in a queue that nobody is there to take them from. */
interface AwayShare {
  readonly count: number;
}

/** Remembers in how many queues each message of a tracked, stored entry waits. */
export function follow(ctx: Context, entry: Entry, sender: Sender, away: readonly AwayShare[]): void {
  const { batch, failed } = entry;
  const waiting = new Uint32Array(batch.count);
  const recipients = new Uint32Array(batch.count);
  for (const { count } of away) {
    for (let i = 0; i < count; i++) {
      waiting[i] = (waiting[i] as number) + 1;
      recipients[i] = (recipients[i] as number) + 1;
    }
  }
  const count = (counts: Uint32Array, parts: readonly Part[]): void => {
    for (const { offset, count: n } of parts)
      for (let i = offset; i < offset + n; i++) counts[i] = (counts[i] as number) + 1;
  };
  for (const delivery of entry.deliveries) {
    count(recipients, openParts(delivery));
    for (const queue of delivery.queues) count(waiting, openParts(delivery, queue));
  }
  const group: TrackedGroup = { instance: sender.instance, first: batch.first, open: 0, ended: new RangeSet() };
  const counters = idCounters(batch);
  for (let i = 0; i < batch.count; i++) {
    const tracked: Tracked = {
      position: batch.first + i,
      id: formatId(batch.envelope.idPrefix, counters[i] as number),
      waiting: waiting[i] as number,
      delivered: entry.recipients - (recipients[i] as number) - (failed?.[i] ?? 0),
      isDeliveredKept: false,
      group,
    };
    if (tracked.waiting === 0) {
      group.ended?.add(i, 1);
      // Whoever has it still in hand was told that nobody waits for it: that is all that will be said of it.
      if (recipients[i] !== 0) announceFinal(ctx, tracked);
      continue;
    }
    group.open++;
    ctx.tracked.set(entry.handle + i, tracked);
    keepDelivered(ctx, tracked);
  }
  if (group.open > 0) keepGroup(ctx, group, batch, counters);
}

/** One recipient of tracked, stored messages is done with them. */
export function settleTracked(ctx: Context, handle: number, count: number, ok: boolean): void {
  let changed: TrackedGroup | undefined;
  for (let h = handle; h < handle + count; h++) {
    const tracked = ctx.tracked.get(h);
    if (tracked === undefined) continue;
    tracked.waiting--;
    if (ok) tracked.delivered++;
    if (tracked.waiting > 0) {
      if (ok) keepDelivered(ctx, tracked);
      continue;
    }
    ctx.tracked.delete(h);
    conclude(ctx, tracked);
    changed = tracked.group;
  }
  if (changed !== undefined) keepProgress(ctx, changed);
}

/** A recipient that was done with a message has it again, while others still wait for it. */
export function waitsAgain(ctx: Context, handle: number): void {
  const tracked = ctx.tracked.get(handle);
  if (tracked !== undefined) tracked.waiting++;
}

/** Nobody waits for a message any more. */
function conclude(ctx: Context, tracked: Tracked): void {
  const { position, group } = tracked;
  forgetDelivered(ctx, tracked);
  group.open--;
  group.ended?.add(position - group.first, 1);
  announceFinal(ctx, tracked);
}

function announceFinal(ctx: Context, { position, delivered, group }: Tracked): void {
  const status = delivered > 0 ? 'delivered' : 'undelivered';
  const say = (): void => {
    const sender = ctx.senders.get(group.instance);
    if (sender !== undefined)
      announce(ctx, sender, { first: position, count: 1, status, durability: 'none', final: true });
  };
  if (status === 'delivered') {
    // Not before what is still to be said of other recipients.
    if (ctx.unsaid === 0) say();
    else whenDurable(ctx, say);
    return;
  }
  if (ctx.senders.get(group.instance)?.left !== true) keepUndelivered(ctx, group.instance, position);
  whenDurable(ctx, say);
}

/**
 * The sender still waits for the final outcome of these positions; it is told of those that are decided. What has not
 * come yet is not: it follows in the outbox, and to call it delivered would end it there.
 */
export function answerTrack(ctx: Context, instance: Instance, ranges: readonly Range[]): void {
  const { floor, taken } = instance.sender;
  const undecided = new RangeSet();
  for (const tracked of ctx.tracked.values())
    if (tracked.group.instance === instance.id) undecided.add(tracked.position, 1);
  for (const { batch } of instance.sender.unsettled) undecided.add(batch.first, batch.count);
  for (const { first, count } of ranges) {
    const known = Math.max(first, floor);
    for (const gap of taken.missing(known, first + count - known)) undecided.add(gap.first, gap.count);
  }
  // What was lost to damage is not known to have been taken, and yet decided.
  const undelivered = new RangeSet();
  for (const position of ctx.undelivered.get(instance.id) ?? []) {
    undelivered.add(position, 1);
    undecided.delete(position, 1);
  }
  for (const { first, count } of ranges) {
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
