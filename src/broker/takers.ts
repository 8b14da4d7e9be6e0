/** Which instance takes a message, and how many it can take: windows, shared names, and that nobody receives what is its own. */
import type { Context } from './context.js';
import { SELF, handlerOf, type Entry, type Handler, type Instance, type Queue } from './model.js';

/**
 * How many messages of a subscription an instance can take now. The window is shared by the rule of dynamic thresholds
 * (Choudhury and Hahne, 1998): a subscription may hold as much as is still free, so one that is stuck leaves half of the
 * window to the others, two leave a third, and one alone has all of it.
 */
export function allowance(ctx: Context, instance: Instance, handler: Handler): number {
  const { windowMessages, windowBytes } = ctx.limits;
  const free = windowMessages - instance.messages;
  if (free <= 0 || (instance.bytes >= windowBytes && instance.messages > 0)) return 0;
  let share = free;
  if (instance.handlers.size > 1) {
    share = Math.floor((free - handler.messages) / 2);
    if (handler.messages > 0 && handler.bytes >= windowBytes - instance.bytes) return 0;
    if (handler.messages === 0) share = Math.max(1, share);
  }
  const { window } = handler.declaration;
  if (window > 0) share = Math.min(share, window - handler.messages);
  return Math.max(0, share);
}

/** Who takes the next messages of a queue. */
interface Taker {
  readonly instance: Instance;
  readonly handler: Handler;
  /** How many it can take. */
  readonly room: number;
  /** How many instances could, this one included. */
  readonly ready: number;
}

/** The instance of the queue's session that takes its next message: the least loaded one with room. */
export function taker(ctx: Context, queue: Queue, entry?: Entry): Taker | undefined {
  if (queue.owner !== undefined) return readyTaker(ctx, queue.owner, queue);
  let best: Taker | undefined;
  let ready = 0;
  for (const instance of queue.session.instances.values()) {
    const candidate = readyTaker(ctx, instance, queue);
    if (candidate === undefined || (entry !== undefined && isOwn(entry, instance, queue))) continue;
    ready++;
    if (best === undefined || candidate.handler.messages < best.handler.messages) best = candidate;
  }
  return best === undefined ? undefined : { ...best, ready };
}

function readyTaker(ctx: Context, instance: Instance, queue: Queue): Taker | undefined {
  if (instance.outlet === undefined) return undefined;
  const handler = handlerOf(instance, queue);
  if (handler === undefined) return undefined;
  const room = allowance(ctx, instance, handler);
  return room > 0 ? { instance, handler, room, ready: 1 } : undefined;
}

/** An instance never receives its own channel messages and broadcasts. */
function isOwn({ batch }: Entry, instance: Instance, queue: Queue): boolean {
  return batch.sender.instance === instance.id && (queue.subscription !== SELF || batch.envelope.everyone);
}

/** The only instance that handles a queue's subscription is the one that sent the message. */
export function isOnlyForOthers(ctx: Context, queue: Queue, entry: Entry): boolean {
  const sender = queue.session.instances.get(entry.batch.sender.instance);
  if (sender === undefined || !isOwn(entry, sender, queue) || readyTaker(ctx, sender, queue) === undefined)
    return false;
  for (const other of queue.session.instances.values()) {
    if (other !== sender && other.outlet !== undefined && other.handlers.has(queue.subscription)) return false;
  }
  return true;
}
