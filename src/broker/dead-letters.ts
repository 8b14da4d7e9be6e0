/**
 * Dead letters: messages that no handler of a name would take, kept until somebody sends them again or drops them. Each
 * subscription of a name has a queue of its own for them, since one message can be refused by several.
 */
import { bytesOf, sliceBatch, type Batch } from '../batch.js';
import { BroadcastError } from '../errors.js';
import type { Context } from './context.js';
import { SELF, targetOf, type Queue, type Session } from './model.js';
import { sessionQueue } from './registry.js';
import { reportFailure } from './senders.js';
import { grow, shrink } from './store.js';
import { settleTracked, waitsAgain } from './tracking.js';
import { queueIds } from './queue-ids.js';

interface Doomed {
  /** Handle of the message in the queue. */
  readonly handle: number;
  readonly batch: Batch;
  readonly index: number;
  readonly reason: string;
  readonly attempts: number;
  /** How often it was sent again from the dead letters before. */
  readonly revival: number;
}

/** What is noted with a dead letter. */
interface DeadNote {
  readonly reason: string;
  readonly attempts: number;
  readonly at: number;
  readonly revival: number;
}

/** What is noted with a message that was sent again from the dead letters. */
interface RevivedNote {
  readonly revival: number;
}

/** A dead letter as it is listed. */
export interface DeadBatch extends DeadNote {
  /** Its handle, and for a channel `@` and the channel. */
  readonly id: string;
  readonly subscription: string;
  readonly batch: Batch;
}

/** What one read of a listing brings at most. */
const LIST_BYTES = 4 * 1024 * 1024;

/** Moves a stored message to the dead letters of its queue's name, and tells the sender. The oldest makes room when there are too many. */
export function deadLetter(ctx: Context, queue: Queue, doomed: Doomed): void {
  const { engine, limits } = ctx;
  const { session } = queue;
  const { handle, batch, index, reason, attempts, revival } = doomed;
  const target = queueIds.deadLetters(session.name, queue.subscription);
  const note: DeadNote = { reason, attempts, at: ctx.clock.now(), revival };
  const before = engine.usage(target).messages;
  engine.move(queue.id, target, handle, 1, JSON.stringify(note));
  // It came from two queues of the name, and this is the second one: the sender knows.
  const isNew = engine.usage(target).messages > before;
  session.deadLetterQueues.add(queue.subscription);
  shrink(queue, 1, bytesOf(batch, index, 1));
  settleTracked(ctx, handle, 1, false);
  if (!isNew) return;
  if (deadLetterCount(ctx, session) > limits.deadLetters)
    dropOldest(ctx, session).catch((error: unknown) => ctx.logger.error('dead letters cannot be read', error));
  ctx.logger.warn(`a message for "${session.name}" went to the dead letters: ${reason}`);
  reportFailure(ctx, {
    batch,
    offset: index,
    count: 1,
    target: targetOf(queue),
    reason: 'rejected',
    final: true,
    attempts,
    stored: true,
  });
  void engine.commit().catch(() => undefined);
}

export function deadLetterCount(ctx: Context, session: Session): number {
  let count = 0;
  for (const subscription of session.deadLetterQueues) {
    count += ctx.engine.usage(queueIds.deadLetters(session.name, subscription)).messages;
  }
  return count;
}

async function dropOldest(ctx: Context, session: Session): Promise<void> {
  const [oldest] = await list(ctx, session, 1);
  if (oldest === undefined || deadLetterCount(ctx, session) <= ctx.limits.deadLetters) return;
  ctx.engine.ack(queueIds.deadLetters(session.name, oldest.subscription), Number.parseInt(oldest.id, 10), 1);
  ctx.logger.warn(
    `the oldest dead letter of "${session.name}" was dropped: limits.deadLetters is ${String(ctx.limits.deadLetters)}`,
  );
}

/** The dead letters of a name, oldest first; none for a name that is not known. */
export async function listDeadLetters(ctx: Context, name: string, limit: number): Promise<DeadBatch[]> {
  const session = ctx.sessions.get(name);
  return session === undefined ? [] : list(ctx, session, limit);
}

async function list(ctx: Context, session: Session, limit: number): Promise<DeadBatch[]> {
  const letters: (DeadBatch & { handle: number })[] = [];
  for (const subscription of session.deadLetterQueues) {
    const id = queueIds.deadLetters(session.name, subscription);
    let from = 0;
    for (let left = limit; left > 0;) {
      const runs = await ctx.engine.read(id, from, left, LIST_BYTES);
      if (runs.length === 0) break;
      for (const { handle, batch, note } of runs) {
        for (let i = 0; i < batch.count; i++) {
          const letter = { id: idOf(handle + i, subscription), subscription, batch: sliceBatch(batch, i, 1) };
          letters.push({ ...letter, ...parseNote(note), handle: handle + i });
        }
        from = handle + batch.count;
        left -= batch.count;
      }
    }
  }
  return letters.sort((a, b) => a.handle - b.handle).slice(0, limit);
}

function idOf(handle: number, subscription: string): string {
  return subscription === SELF ? String(handle) : `${String(handle)}@${subscription}`;
}

const NO_NOTE: DeadNote = { reason: '', attempts: 0, at: 0, revival: 0 };

/** A note that cannot be read says nothing; its message is there all the same. */
function parseNote(note: string | undefined): DeadNote {
  if (note === undefined) return NO_NOTE;
  try {
    const { reason, attempts, at, revival } = { ...NO_NOTE, ...(JSON.parse(note) as Partial<DeadNote>) };
    if (typeof reason !== 'string' || ![attempts, at, revival].every(Number.isFinite)) return NO_NOTE;
    return { reason, attempts, at, revival };
  } catch {
    return NO_NOTE;
  }
}

/** How often a message was sent again from the dead letters, by its note in the engine. */
export function revivalOf(note: string | undefined): number {
  return parseNote(note).revival;
}

interface Found {
  readonly letter: DeadBatch;
  readonly handle: number;
  readonly session: Session;
}

/** Throws `not-found`. */
async function find(ctx: Context, name: string, id: string): Promise<Found> {
  const [, digits, , subscription = SELF] = /^(\d{1,15})(@(.+))?$/s.exec(id) ?? [];
  const session = ctx.sessions.get(name);
  const handle = Number(digits);
  if (session !== undefined && digits !== undefined) {
    const [run] = await ctx.engine.read(queueIds.deadLetters(name, subscription), handle, 1, 1);
    if (run?.handle === handle)
      return { letter: { id, subscription, batch: run.batch, ...parseNote(run.note) }, handle, session };
  }
  throw new BroadcastError('not-found', `"${name}" has no dead letter ${id}; list them to see their ids`);
}

/** A dead letter goes back to the queue it came from, as a new message for whichever instance of the name handles it. */
export async function retryDeadLetter(ctx: Context, name: string, id: string): Promise<Queue> {
  const { letter, handle, session } = await find(ctx, name, id);
  const { subscription, batch, revival } = letter;
  const queue = sessionQueue(session, subscription);
  const source = queueIds.deadLetters(name, subscription);
  const note: RevivedNote = { revival: revival + 1 };
  ctx.engine.attempt(source, handle, 0);
  const before = ctx.engine.usage(source).messages;
  ctx.engine.move(source, queue.id, handle, 1, JSON.stringify(note));
  // Asked for twice at a time it goes back once.
  if (ctx.engine.usage(source).messages === before) return queue;
  grow(queue, 1, batch.items.length);
  // It is new to those too that had handled it.
  queue.handled?.delete(handle, 1);
  waitsAgain(ctx, handle);
  return queue;
}

/** Drops a dead letter for good. Rejects with `not-found`. */
export async function dropDeadLetter(ctx: Context, name: string, id: string): Promise<void> {
  const { letter, handle } = await find(ctx, name, id);
  ctx.engine.ack(queueIds.deadLetters(name, letter.subscription), handle, 1);
  await ctx.engine.commit();
}
