/**
 * Senders that wait for the final outcome of what is stored: in how many queues each message waits still, what came of it
 * in the end, and the answer to a sender that comes back and asks.
 */
import { idCounterAt } from '../batch.js';
import { formatId } from '../message.js';
import { RangeSet } from '../range-set.js';
import type { Context } from './context.js';
import type { Entry, Instance, Sender, Tracked } from './model.js';
import { openParts } from './parts.js';
import type { Range } from './ports.js';
import { announce } from './senders.js';

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
  for (const delivery of entry.deliveries) {
    for (const { offset, count } of openParts(delivery)) {
      for (let i = offset; i < offset + count; i++) {
        waiting[i] = (waiting[i] as number) + delivery.queues.length;
        recipients[i] = (recipients[i] as number) + 1;
      }
    }
  }
  for (let i = 0; i < batch.count; i++) {
    if (waiting[i] === 0) continue;
    ctx.tracked.set(entry.handle + i, {
      sender: sender.instance,
      position: batch.first + i,
      id: formatId(batch.envelope.idPrefix, idCounterAt(batch, i)),
      waiting: waiting[i] as number,
      delivered: entry.recipients - (recipients[i] as number) - (failed?.[i] ?? 0),
    });
  }
}

/** One recipient of tracked, stored messages is done with them. */
export function settleTracked(ctx: Context, handle: number, count: number, ok: boolean): void {
  for (let h = handle; h < handle + count; h++) {
    const tracked = ctx.tracked.get(h);
    if (tracked === undefined) continue;
    tracked.waiting--;
    if (ok) tracked.delivered++;
    if (tracked.waiting > 0) continue;
    ctx.tracked.delete(h);
    const sender = ctx.senders.get(tracked.sender);
    const status = tracked.delivered > 0 ? 'delivered' : 'undelivered';
    if (sender !== undefined) {
      announce(ctx, sender, { first: tracked.position, count: 1, status, durability: 'none', final: true });
    }
    if (status === 'undelivered' && sender?.left !== true) keepUndelivered(ctx, tracked);
  }
}

/**
 * A final outcome that is not the expected one is kept as long as its sender may come back: that it was written to a
 * connection does not say that it was heard. As many as there may be notices; then the oldest goes.
 */
function keepUndelivered(ctx: Context, { sender, position }: Tracked): void {
  let positions = ctx.undelivered.get(sender);
  if (positions === undefined) ctx.undelivered.set(sender, (positions = new Set()));
  positions.add(position);
  ctx.engine.put(outcomeKey(sender, position), 'undelivered');
  if (positions.size <= ctx.limits.notices) return;
  const [oldest] = positions;
  positions.delete(oldest as number);
  ctx.engine.put(outcomeKey(sender, oldest as number), null);
}

/** The sender will not come back. */
export function forgetUndelivered(ctx: Context, sender: string): void {
  for (const position of ctx.undelivered.get(sender) ?? []) ctx.engine.put(outcomeKey(sender, position), null);
  ctx.undelivered.delete(sender);
}

/** Where the store keeps such an outcome. */
function outcomeKey(instance: string, position: number): string {
  return `t/${instance}/${String(position)}`;
}

/**
 * The sender still waits for the final outcome of these positions; it is told of those that are decided. What has not
 * come yet is not: it follows in the outbox, and to call it delivered would end it there.
 */
export function answerTrack(ctx: Context, instance: Instance, ranges: readonly Range[]): void {
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
