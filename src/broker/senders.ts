/**
 * Senders: which positions were taken, what became of them, and what the sender is told of it. Receipts and failures of
 * one turn leave together, failures first, so that a client can attach them to the receipts.
 */
import { idCounterAt, type Batch } from '../batch.js';
import { Deque } from '../deque.js';
import { formatId } from '../message.js';
import { RangeSet } from '../range-set.js';
import type { DeliveryFailure, FailureReason, Receipt } from '../receipts.js';
import type { Context } from './context.js';
import type { Entry, Instance, Sender, Session } from './model.js';
import type { FailureMessage, Outcome, Range } from './ports.js';
import { queueIds } from './queue-ids.js';

/** The state of a sending instance, made when it is first seen. */
export function senderOf(ctx: Context, instance: string, name: string | undefined): Sender {
  let sender = ctx.senders.get(instance);
  if (sender === undefined) {
    sender = {
      instance,
      name,
      outlet: undefined,
      floor: 1,
      last: 0,
      taken: new RangeSet(),
      stored: false,
      unsettled: new Deque(),
      unsettledBytes: 0,
      outcomes: [],
      fresh: [],
      failures: [],
      kept: [],
      lastSeen: ctx.engine.time(),
      left: false,
    };
    ctx.senders.set(instance, sender);
  }
  return sender;
}

/** The sender says that everything below `floor` is settled and will not be sent again. */
export function raiseFloor(ctx: Context, sender: Sender, floor: number): void {
  if (floor <= sender.floor) return;
  sender.floor = floor;
  sender.taken.deleteBelow(floor);
  let gone = 0;
  for (const outcome of sender.outcomes) {
    if (outcome.first + outcome.count > floor) break;
    gone++;
  }
  if (gone > 0) sender.outcomes.splice(0, gone);
  if (sender.kept.length > 0) sender.kept = sender.kept.filter(message => message.position >= floor);
  if (sender.stored) ctx.engine.floor(sender.instance, floor);
}

/** Gives the receipt of some messages of an entry. */
export function settle(
  ctx: Context,
  entry: Entry,
  offset: number,
  count: number,
  status: Receipt['status'],
  final: boolean,
): void {
  const { sender, batch } = entry;
  if (sender === undefined) return;
  entry.settled += count;
  if (entry.settled === batch.count) dropSettled(sender);
  announce(ctx, sender, {
    first: batch.first + offset,
    count,
    status,
    durability: status === 'stored' ? ctx.engine.durability : 'none',
    final,
  });
}

function dropSettled(sender: Sender): void {
  for (let head = sender.unsettled.peek(); head !== undefined; head = sender.unsettled.peek()) {
    if (head.settled < head.batch.count) return;
    sender.unsettled.shift();
    sender.unsettledBytes -= head.batch.items.length;
  }
}

/** Queues an outcome for the end of the turn. */
export function announce(ctx: Context, sender: Sender, outcome: Outcome): void {
  const last = sender.fresh[sender.fresh.length - 1];
  if (last !== undefined && continues(last, outcome)) {
    sender.fresh[sender.fresh.length - 1] = { ...last, count: last.count + outcome.count };
  } else {
    sender.fresh.push(outcome);
  }
  chatter(ctx, sender);
}

function continues(a: Outcome, b: Outcome): boolean {
  return a.first + a.count === b.first && a.status === b.status && a.durability === b.durability && a.final === b.final;
}

function chatter(ctx: Context, sender: Sender): void {
  ctx.chatty.add(sender);
  if (ctx.flushScheduled) return;
  ctx.flushScheduled = true;
  queueMicrotask(() => {
    ctx.flushScheduled = false;
    const senders = [...ctx.chatty];
    ctx.chatty.clear();
    for (const chatty of senders) flushSender(chatty);
  });
}

/** Hands receipts and failures to the sender, if it is here, and keeps the receipts until its floor passes them. */
export function flushSender(sender: Sender): void {
  const { fresh, failures, outlet } = sender;
  sender.failures = [];
  if (outlet !== undefined) for (const failure of failures) outlet.failure(failure);
  if (fresh.length === 0) return;
  sender.fresh = [];
  if (fresh.length > 1) fresh.sort((a, b) => a.first - b.first || Number(a.final) - Number(b.final));
  outlet?.receipts(fresh);
  for (const outcome of fresh) if (outcome.first + outcome.count > sender.floor) keepOutcome(sender, outcome);
}

function keepOutcome(sender: Sender, outcome: Outcome): void {
  const { outcomes } = sender;
  const last = outcomes[outcomes.length - 1];
  if (last !== undefined && continues(last, outcome))
    outcomes[outcomes.length - 1] = { ...last, count: last.count + outcome.count };
  else outcomes.push(outcome);
}

/** What a returning sender is told again. */
export function repeatOutcomes(sender: Sender): void {
  const { outlet } = sender;
  if (outlet === undefined) return;
  for (const message of sender.kept) outlet.failure(message);
  const outcomes = [...sender.outcomes].sort((a, b) => a.first - b.first || Number(a.final) - Number(b.final));
  if (outcomes.length > 0) outlet.receipts(outcomes);
}

/** What a failure is about. */
export interface FailureInput {
  readonly batch: Batch;
  readonly offset: number;
  readonly count: number;
  readonly target: DeliveryFailure['target'];
  readonly reason: FailureReason;
  readonly final: boolean;
  readonly attempts: number;
  /** It was safe already: a final notice then waits for a sender that is away. */
  readonly stored: boolean;
}

/** Tells the sender of a batch that some of its messages do not reach a recipient now, or never will. */
export function reportFailure(ctx: Context, input: FailureInput): void {
  const { batch, offset, count, final } = input;
  // What was written to an earlier run of the server may have been handled then.
  const fewest = final && batch.envelope.resent ? 1 : 0;
  const failure: DeliveryFailure = {
    messageId: formatId(batch.envelope.idPrefix, idCounterAt(batch, offset)),
    target: input.target,
    reason: input.reason,
    queued: !final,
    final,
    attempts: Math.max(input.attempts, fewest),
    at: ctx.clock.now(),
  };
  if (count > 1) failure.count = count;
  const { instance, name } = batch.sender;
  notify(ctx, { instance, name, position: batch.first + offset }, failure, input.stored);
}

/** The message that a failure is about, by its sender: the instance, its name, and the position in its sequence. */
export interface About {
  readonly instance: string;
  readonly name: string | undefined;
  readonly position: number;
}

/** Tells a sender of a failure. `stored`: the message was safe already, so a final notice waits for a sender that is away. */
export function notify(ctx: Context, about: About, failure: DeliveryFailure, stored: boolean): void {
  const { instance, name, position } = about;
  const { final } = failure;
  ctx.counters.failures += failure.count ?? 1;
  ctx.events.failure({ ...failure });
  const sender = ctx.senders.get(instance);
  // The sender may be leaving, or its connection broken without anybody knowing: a final notice about what was safe is
  // kept until it has confirmed it.
  if (final && stored && name !== undefined && keepNotice(ctx, name, { failure, position, instance })) return;
  if (sender === undefined) return;
  if (sender.outlet !== undefined) tell(ctx, sender, { failure, position, notice: 0 });
  // It was not safe, so the sender holds it still and learns the outcome when it comes back.
  else if (final) keepFailure(ctx, sender, { failure, position, notice: 0 });
}

/** Some messages of an entry will not reach a recipient: they were never kept for it. */
export function refuse(
  ctx: Context,
  { batch }: Entry,
  offset: number,
  count: number,
  target: DeliveryFailure['target'],
  reason: FailureReason,
  attempts = 0,
): void {
  reportFailure(ctx, { batch, offset, count, target, reason, final: true, attempts, stored: false });
}

function tell(ctx: Context, sender: Sender, message: FailureMessage): void {
  if (!mergeFailure(sender, message)) {
    sender.failures.push(message);
    if (message.failure.final && message.notice === 0) keepFailure(ctx, sender, message);
  }
  chatter(ctx, sender);
}

/** Folds a notice into the one before it when both say the same of neighbouring positions. */
function mergeFailure(sender: Sender, message: FailureMessage): boolean {
  const last = sender.failures[sender.failures.length - 1];
  if (last === undefined || last.notice !== 0 || message.notice !== 0) return false;
  const { failure: a } = last;
  const { failure: b } = message;
  const neighbours = last.position + (a.count ?? 1) === message.position;
  const alike =
    a.reason === b.reason &&
    a.final === b.final &&
    a.attempts === b.attempts &&
    a.target.client === b.target.client &&
    a.target.channel === b.target.channel;
  if (!neighbours || !alike) return false;
  a.count = (a.count ?? 1) + (b.count ?? 1);
  return true;
}

function keepFailure(ctx: Context, sender: Sender, message: FailureMessage): void {
  // What is below the floor was safe: nobody asks for it again.
  if (message.position < sender.floor) return;
  if (sender.kept.length < ctx.limits.notices) sender.kept.push(message);
}

const EMPTY_ITEM = Buffer.from([1, 0, 0, 0, 0]);

/** A final notice as it is kept. */
export interface KeptNotice {
  readonly failure: DeliveryFailure;
  /** Of the message, in the sequence of `instance`. */
  readonly position: number;
  readonly instance: string;
}

/** Keeps a final notice for a name, and hands it to an instance that is here; false when it cannot be kept. */
function keepNotice(ctx: Context, name: string, kept: KeptNotice): boolean {
  const session = ctx.sessions.get(name);
  if (session === undefined) return false;
  const queue = queueIds.notices(name);
  if (ctx.engine.usage(queue).messages >= ctx.limits.notices) {
    ctx.logger.warn(`"${name}" has ${String(ctx.limits.notices)} notices waiting; a further one is not kept`);
    return false;
  }
  let notice: number | undefined;
  try {
    [notice] = ctx.engine.append([
      { batch: noticeBatch(ctx, name, kept), expiresAt: 0, queues: [{ queue, offset: 0, count: 1 }] },
    ]);
  } catch (error) {
    ctx.logger.warn(`a notice for "${name}" could not be kept`, error);
    return false;
  }
  session.noticesWaiting = true;
  whenDurable(ctx, () => {
    const reader = readerOf(session, kept.instance);
    if (reader !== undefined) tell(ctx, reader.sender, noticeFor(reader, kept, notice as number));
  });
  return true;
}

/**
 * What has ended for good is said when the store knows it: a server that is killed before would decide anew, and say so a
 * second time. What is said of the same message in one turn is still said together.
 */
export function whenDurable(ctx: Context, say: () => void): void {
  ctx.unsaid++;
  ctx.engine.commit().then(
    () => {
      ctx.unsaid--;
      if (!ctx.stopped) say();
    },
    () => undefined, // the engine says so by `failed`
  );
}

/** The instance that a notice concerns, if it is here, or another one of its name. */
function readerOf(session: Session, instance: string): Instance | undefined {
  const own = session.instances.get(instance);
  if (own?.outlet !== undefined) return own;
  for (const other of session.instances.values()) if (other.outlet !== undefined) return other;
  return undefined;
}

/** A kept notice as one of the name's instances is told of it. */
function noticeFor(reader: Instance, { failure, position, instance }: KeptNotice, notice: number): FailureMessage {
  return { failure, position: reader.id === instance ? position : 0, notice };
}

/** A notice travels through the engine as a message without a body. */
function noticeBatch(ctx: Context, name: string, kept: KeptNotice): Batch {
  return {
    sender: NOBODY,
    envelope: {
      channels: [],
      clients: [name],
      everyone: false,
      name: undefined,
      headers: { notice: JSON.stringify(kept) },
      persistent: true,
      tracked: false,
      resent: false,
      ttl: undefined,
      idPrefix: '',
    },
    first: 1,
    count: 1,
    idBase: 1,
    floor: 1,
    timestamp: ctx.clock.now(),
    items: EMPTY_ITEM,
  };
}

const NOBODY = { instance: '0'.repeat(32), name: undefined };

/** Reads a notice back. */
function readNotice({ envelope }: Batch): KeptNotice {
  return JSON.parse((envelope.headers as { notice: string }).notice) as KeptNotice;
}

/** Tells an instance of the notices that were kept for its name, but for those of another instance that is here. */
export async function sendNotices(ctx: Context, instance: Instance): Promise<void> {
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
