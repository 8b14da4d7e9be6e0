/**
 * What the store keeps for senders that wait for final outcomes, beside the messages: enough to go on after a restart, and
 * to tell them what became of messages that are found damaged then.
 *
 *   f/INSTANCE/FIRST     what a batch has in it, as long as one of its messages waits; FIRST is its first position
 *   p/INSTANCE/FIRST     which of them wait no longer
 *   o/INSTANCE/POSITION  one recipient of several has a message
 *   t/INSTANCE/POSITION  a message that no recipient has or will get, as long as its sender may come back and ask
 */
import type { Batch } from '../batch.js';
import type { EngineState, TrackedMessage } from '../engine/engine.js';
import { formatId } from '../message.js';
import { RangeSet, type NumberRange } from '../range-set.js';
import type { DeliveryFailure } from '../receipts.js';
import type { Context } from './context.js';
import type { Tracked, TrackedGroup } from './model.js';
import { SEND_WINDOW } from './ports.js';
import { notify } from './senders.js';

/** What is kept of a batch. */
interface SavedGroup {
  /** The sender's. */
  readonly name: string | undefined;
  readonly prefix: string;
  /** The id counter of the first message and, unless they follow one another, how far each is from the one before it. */
  readonly base: number;
  readonly steps?: readonly number[];
  readonly count: number;
  readonly target: DeliveryFailure['target'];
}

/** So many runs of messages are named each; of more, a bit says for each message whether it is among them. */
const MAX_RUNS = 64;

export function keepGroup(
  ctx: Context,
  group: TrackedGroup,
  { sender, count, envelope }: Batch,
  counters: readonly number[],
): void {
  const [client] = envelope.clients;
  const [channel] = envelope.channels;
  const steps = counters.map((counter, i) => (i === 0 ? 0 : counter - (counters[i - 1] as number)));
  const saved: SavedGroup = {
    name: sender.name,
    prefix: envelope.idPrefix,
    base: counters[0] as number,
    ...(steps.some((step, i) => i > 0 && step !== 1) && { steps }),
    count,
    target: { ...(client !== undefined && { client }), ...(channel !== undefined && { channel }) },
  };
  ctx.engine.put(groupKey('f', group), JSON.stringify(saved));
  if (group.ended?.isEmpty === false) keepProgress(ctx, group);
}

/** Some messages of a batch wait no longer. */
export function keepProgress(ctx: Context, group: TrackedGroup): void {
  const { ended, open } = group;
  if (ended === undefined) return;
  if (open === 0) forgetGroup(ctx, group);
  else ctx.engine.put(groupKey('p', group), encodeEnded(ended));
}

function encodeEnded(ended: RangeSet): string {
  if (ended.rangeCount <= MAX_RUNS) return JSON.stringify([...ended.ranges()]);
  const bits = Buffer.alloc(((ended.last as number) >> 3) + 1);
  for (const { first, count } of ended.ranges())
    for (let i = first; i < first + count; i++) bits[i >> 3] = (bits[i >> 3] as number) | (1 << (i & 7));
  return JSON.stringify(bits.toString('base64'));
}

/** Throws TypeError for a value of another kind. */
function decodeEnded(value: string): RangeSet {
  const ended = new RangeSet();
  const read = JSON.parse(value) as string | NumberRange[];
  if (typeof read === 'string') {
    const bits = Buffer.from(read, 'base64');
    for (let i = 0; i < Math.min(8 * bits.length, SEND_WINDOW.messages); i++)
      if (((bits[i >> 3] as number) & (1 << (i & 7))) !== 0) ended.add(i, 1);
    return ended;
  }
  for (const { first, count } of read) {
    if (!(first >= 0 && count > 0 && first + count <= SEND_WINDOW.messages)) throw new TypeError('a range is none');
    ended.add(first, count);
  }
  return ended;
}

function forgetGroup(ctx: Context, group: TrackedGroup): void {
  ctx.engine.put(groupKey('p', group), null);
  ctx.engine.put(groupKey('f', group), null);
}

function groupKey(kind: 'f' | 'p', { instance, first }: Pick<TrackedGroup, 'instance' | 'first'>): string {
  return `${kind}/${instance}/${String(first)}`;
}

/** That one recipient has a message is kept while others wait: whatever becomes of them, it was not undelivered. */
export function keepDelivered(ctx: Context, tracked: Tracked): void {
  if (tracked.delivered <= 0 || tracked.isDeliveredKept) return;
  tracked.isDeliveredKept = true;
  ctx.engine.put(deliveredKey(tracked.group.instance, tracked.position), '');
}

/** Nobody waits for it any more. */
export function forgetDelivered(ctx: Context, { isDeliveredKept, group, position }: Tracked): void {
  if (isDeliveredKept) ctx.engine.put(deliveredKey(group.instance, position), null);
}

function deliveredKey(instance: string, position: number): string {
  return `o/${instance}/${String(position)}`;
}

/**
 * A final outcome that is not the expected one is kept as long as its sender may come back: that it was written to a
 * connection does not say that it was heard. As many as there may be notices; then the oldest goes.
 */
export function keepUndelivered(ctx: Context, instance: string, position: number): void {
  let positions = ctx.undelivered.get(instance);
  if (positions === undefined) ctx.undelivered.set(instance, (positions = new Set()));
  positions.add(position);
  ctx.engine.put(outcomeKey(instance, position), 'undelivered');
  if (positions.size <= ctx.limits.notices) return;
  const [oldest] = positions;
  positions.delete(oldest as number);
  ctx.engine.put(outcomeKey(instance, oldest as number), null);
}

/** The sender will not come back. */
export function forgetUndelivered(ctx: Context, instance: string): void {
  for (const position of ctx.undelivered.get(instance) ?? []) ctx.engine.put(outcomeKey(instance, position), null);
  ctx.undelivered.delete(instance);
}

function outcomeKey(instance: string, position: number): string {
  return `t/${instance}/${String(position)}`;
}

// ---- after a restart ---------------------------------------------------------------------------------------------------

/** The pairs as they are found. */
export class Followed {
  /** By sending instance. */
  readonly groups = new Map<string, FollowedGroup[]>();
  /** Keys of those that wait no longer. */
  readonly ended = new Map<string, RangeSet>();
  /** Keys of messages that one of several recipients has. */
  readonly delivered = new Set<string>();

  /** Passes over a key of another kind. Throws TypeError when the store has something else there. */
  read(key: string, value: string): void {
    if (key.startsWith('f/')) this.#readGroup(key, value);
    else if (key.startsWith('p/')) this.ended.set(key, decodeEnded(value));
    else if (key.startsWith('o/')) this.delivered.add(key);
  }

  #readGroup(key: string, value: string): void {
    const [, instance = '', position = ''] = key.split('/');
    const first = Number(position);
    const saved = JSON.parse(value) as SavedGroup;
    const { count, prefix, base, target } = saved;
    const isSound =
      Number.isSafeInteger(first) && count > 0 && count <= SEND_WINDOW.messages && Number.isSafeInteger(base);
    if (!isSound || typeof prefix !== 'string' || typeof target !== 'object')
      throw new TypeError('a field is of another type');
    const group: FollowedGroup = { instance, first, saved, open: 0, ended: new RangeSet(), found: new RangeSet() };
    const others = this.groups.get(instance);
    if (others === undefined) this.groups.set(instance, [group]);
    else others.push(group);
  }
}

interface FollowedGroup extends TrackedGroup {
  readonly saved: SavedGroup;
  readonly ended: RangeSet;
  /** Those that are there still, by their offset in the batch. */
  readonly found: RangeSet;
}

/** Follows again what was followed before the server was started, and tells of what is no longer there. */
export function followAgain(ctx: Context, state: EngineState, followed: Followed): void {
  const { groups, ended, delivered } = followed;
  for (const ofSender of groups.values()) {
    ofSender.sort((a, b) => a.first - b.first);
    for (const group of ofSender) {
      const key = groupKey('p', group);
      for (const { first, count } of ended.get(key)?.ranges() ?? []) group.ended.add(first, count);
      ended.delete(key);
    }
  }
  for (const key of ended.keys()) ctx.engine.put(key, null);
  for (const message of state.tracked) followOne(ctx, message, groups.get(message.instance) ?? [], delivered);
  for (const ofSender of groups.values()) {
    for (const group of ofSender) {
      if (state.damage.length > 0) tellLost(ctx, group, delivered);
      if (group.open === 0) forgetGroup(ctx, group);
    }
  }
  for (const key of delivered) ctx.engine.put(key, null);
}

/** Takes the key of a message that is there out of those that are `delivered`. */
function followOne(
  ctx: Context,
  { handle, instance, position, id, queues }: TrackedMessage,
  groups: readonly FollowedGroup[],
  delivered: Set<string>,
): void {
  const found = groupAt(groups, position);
  // Whoever let it become a dead letter is done with it.
  const waiting = queues.filter(queue => !queue.startsWith('d/')).length;
  found?.found.add(position - found.first, 1);
  if (waiting === 0) {
    found?.ended.add(position - found.first, 1);
    return;
  }
  const group = found ?? { instance, first: position, open: 0, ended: undefined };
  group.open++;
  const isDelivered = delivered.delete(deliveredKey(instance, position));
  const counts = { waiting, delivered: isDelivered ? 1 : 0, isDeliveredKept: isDelivered };
  ctx.tracked.set(handle, { position, id, group, ...counts });
}

function groupAt(groups: readonly FollowedGroup[], position: number): FollowedGroup | undefined {
  let low = 0;
  let high = groups.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const group = groups[middle] as FollowedGroup;
    if (position < group.first) high = middle - 1;
    else if (position >= group.first + group.saved.count) low = middle + 1;
    else return group;
  }
  return undefined;
}

/**
 * The store was damaged. What a batch has neither still nor had an outcome was lost by that: its sender hears it, with
 * `attempts` 1, for what became of it after the last word in the store is not known.
 */
function tellLost(ctx: Context, group: FollowedGroup, delivered: ReadonlySet<string>): void {
  const { instance, first, saved, found, ended } = group;
  // What has had its outcome was taken, though the store may have lost that too.
  const taken = ctx.senders.get(instance)?.taken;
  for (const run of ended.ranges()) taken?.add(first + run.first, run.count);
  const known = new RangeSet();
  for (const set of [found, ended]) for (const run of set.ranges()) known.add(run.first, run.count);
  const lost = new RangeSet();
  for (const run of known.missing(0, saved.count)) {
    for (let i = run.first; i < run.first + run.count; i++) {
      if (delivered.has(deliveredKey(instance, first + i))) taken?.add(first + i, 1);
      else lost.add(i, 1);
    }
    ended.add(run.first, run.count);
  }
  for (const run of lost.ranges()) lose(ctx, group, run);
  if (!lost.isEmpty) keepProgress(ctx, group);
}

function lose(ctx: Context, { instance, first, saved }: FollowedGroup, { first: offset, count }: NumberRange): void {
  const { name, prefix, base, steps, target } = saved;
  for (let i = offset; i < offset + count; i++) keepUndelivered(ctx, instance, first + i);
  let counter = base;
  for (let i = 1; i <= offset; i++) counter += steps?.[i] ?? 1;
  const failure: DeliveryFailure = {
    messageId: formatId(prefix, counter),
    target,
    reason: 'dropped',
    queued: false,
    final: true,
    attempts: 1,
    at: ctx.clock.now(),
  };
  if (count > 1) failure.count = count;
  notify(ctx, { instance, name, position: first + offset }, failure, true);
}
