/** Dead letters: messages that no handler of a name would take, kept until somebody sends them again or drops them. */
import { bytesOf, sliceBatch, type Batch } from '../batch.js';
import { BroadcastError } from '../errors.js';
import { queueIds, type Context } from './context.js';
import type { Queue } from './model.js';
import { reportFailure } from './senders.js';
import { settleTracked, shrink } from './store.js';

interface Doomed {
  /** Handle of the message in the queue. */
  readonly handle: number;
  readonly batch: Batch;
  readonly index: number;
  readonly reason: string;
  readonly attempts: number;
}

/** What is noted with a dead letter. */
interface DeadNote {
  readonly subscription: string;
  readonly reason: string;
  readonly attempts: number;
  readonly at: number;
}

/** A dead letter as it is listed. */
export interface DeadBatch extends DeadNote {
  /** Its handle, as text. */
  readonly id: string;
  readonly batch: Batch;
}

/** Moves a stored message to the dead letters of its queue's name, and tells the sender. The oldest makes room when there are too many. */
export function deadLetter(ctx: Context, queue: Queue, doomed: Doomed): void {
  const { engine, limits } = ctx;
  const { handle, batch, index, reason, attempts } = doomed;
  const target = queueIds.deadLetters(queue.session.name);
  const note: DeadNote = { subscription: queue.subscription, reason, attempts, at: ctx.clock.now() };
  engine.move(queue.id, target, handle, 1, JSON.stringify(note));
  shrink(queue, 1, bytesOf(batch, index, 1));
  settleTracked(ctx, handle, 1, false);
  if (engine.usage(target).messages > limits.deadLetters) void dropOldest(ctx, target);
  ctx.logger.warn(`a message for "${queue.session.name}" went to the dead letters: ${reason}`);
  reportFailure(ctx, {
    batch,
    offset: index,
    count: 1,
    target:
      queue.subscription === ''
        ? { client: queue.session.name }
        : { client: queue.session.name, channel: queue.subscription },
    reason: 'rejected',
    final: true,
    attempts,
    stored: true,
  });
  void engine.commit().catch(() => undefined);
}

async function dropOldest(ctx: Context, target: string): Promise<void> {
  const [oldest] = await ctx.engine.read(target, 0, 1, 1);
  if (oldest === undefined) return;
  ctx.engine.ack(target, oldest.handle, 1);
  ctx.logger.warn(
    `the oldest dead letter of "${target.slice(2)}" was dropped: limits.deadLetters is ${String(ctx.limits.deadLetters)}`,
  );
}

/** The dead letters of a name, oldest first. */
export async function listDeadLetters(ctx: Context, name: string, limit: number): Promise<DeadBatch[]> {
  const letters: DeadBatch[] = [];
  let from = 0;
  while (letters.length < limit) {
    const runs = await ctx.engine.read(queueIds.deadLetters(name), from, limit - letters.length, 4 * 1024 * 1024);
    if (runs.length === 0) break;
    for (const run of runs) {
      for (let i = 0; i < run.batch.count; i++) {
        letters.push({ id: String(run.handle + i), batch: sliceBatch(run.batch, i, 1), ...parseNote(run.note) });
      }
      from = run.handle + run.batch.count;
    }
  }
  return letters;
}

function parseNote(note: string | undefined): DeadNote {
  return JSON.parse(note ?? '{"subscription":"","reason":"","attempts":0,"at":0}') as DeadNote;
}

/** One dead letter; throws `not-found`. */
export async function findDeadLetter(ctx: Context, name: string, id: string): Promise<DeadBatch> {
  const handle = Number(id);
  const [run] = Number.isSafeInteger(handle) ? await ctx.engine.read(queueIds.deadLetters(name), handle, 1, 1) : [];
  if (run?.handle !== handle)
    throw new BroadcastError('not-found', `"${name}" has no dead letter ${id}; list them to see their ids`);
  return { id, batch: run.batch, ...parseNote(run.note) };
}
