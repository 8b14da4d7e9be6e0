/** Messages that are not persistent: handed to who is here, at most once, and dropped for who is not, with a notice. */
import type { Batch } from '../batch.js';
import type { FailureReason } from '../receipts.js';
import type { Context } from './context.js';
import { SELF, targetOf, type Instance, type Queue, type Session } from './model.js';
import type { DeliveryNote } from './ports.js';
import { recipientsOf, type Recipients } from './recipients.js';
import { newEntry } from './registry.js';
import { refuse, settle } from './senders.js';

/** Bytes that wait in a connection above which messages to it are held back or dropped. */
const TRANSIENT_HIGH_WATER = 1024 * 1024;

export function routeTransient(ctx: Context, from: Instance, batch: Batch): void {
  const entry = newEntry(ctx, from.sender, batch);
  from.sender.unsettled.push(entry);
  from.sender.unsettledBytes += batch.items.length;
  const found = recipientsOf(ctx, from, batch);
  const fail = (target: Target, reason: FailureReason, attempts = 0): void =>
    refuse(ctx, entry, 0, batch.count, target, reason, attempts);
  const several = batch.envelope.channels.length + batch.envelope.clients.length > 1;
  const { handovers, gone } = handoversOf(found);
  const taken = new Set<string>();
  let routed = 0;
  for (const [to, { subscriptions, targets }] of handovers) {
    if (handOver(ctx, from, to, batch, several ? onlyFor(subscriptions) : undefined)) {
      routed++;
      if (to.session.instances.size > 1) for (const one of subscriptions) taken.add(keyOf(to.session, one));
    } else for (const target of targets) fail(target, 'slow-consumer', fewest(to, target));
  }
  for (const lane of gone) {
    // Another instance of the name has it, or it was said already.
    const key = keyOf(lane.session, lane.subscription);
    if (taken.has(key)) continue;
    taken.add(key);
    fail(targetOf(lane), 'offline');
  }
  for (const { queue, reason } of found.away) fail(targetOf(queue), reason);
  for (const channel of found.unheard) fail({ channel }, 'no-subscribers');
  for (const { target, reason } of found.missing) fail(target, reason);
  settle(ctx, entry, 0, batch.count, routed > 0 ? 'routed' : 'undelivered', batch.envelope.tracked);
}

type Target = { client?: string; channel?: string };

/** As `fewestAttempts` of a queue: what comes on a channel another process of the name may have had. */
function fewest({ session }: Instance, { channel }: Target): number {
  return channel !== undefined && session.shared ? 1 : 0;
}

/** What an instance that is here gets a batch for, and how a notice would name it. */
interface Handover {
  readonly subscriptions: string[];
  readonly targets: Target[];
}

/** An instance that is reached in several ways gets the batch once, for all of them. `gone`: ways to those who were here. */
function handoversOf({ lanes, anyOf, direct }: Recipients): { handovers: Map<Instance, Handover>; gone: Queue[] } {
  const handovers = new Map<Instance, Handover>();
  const gone: Queue[] = [];
  const add = (instance: Instance, subscription: string, target: Target): void => {
    const known = handovers.get(instance);
    if (known === undefined) handovers.set(instance, { subscriptions: [subscription], targets: [target] });
    else if (!known.subscriptions.includes(subscription)) {
      known.subscriptions.push(subscription);
      known.targets.push(target);
    }
  };
  for (const [instance, ways] of lanes) {
    if (instance.outlet === undefined) gone.push(...ways);
    else for (const lane of ways) add(instance, lane.subscription, targetOf(lane));
  }
  for (const queue of anyOf) {
    const instance = lightest(queue.session);
    if (instance !== undefined) add(instance, SELF, targetOf(queue));
  }
  for (const instance of direct) add(instance, SELF, { client: instance.outlet?.address ?? instance.session.name });
  return { handovers, gone };
}

function keyOf({ name }: Session, subscription: string): string {
  return `${name}\0${subscription}`;
}

/** A message of several targets says to whom it is addressed, not which of them its receiver is. */
function onlyFor(subscriptions: readonly string[]): DeliveryNote {
  return { redelivered: false, attempt: 1, revival: undefined, subscriptions };
}

function lightest(session: Session): Instance | undefined {
  let best: Instance | undefined;
  for (const instance of session.instances.values()) {
    if (instance.outlet === undefined || !instance.handlers.has(SELF)) continue;
    if (best === undefined || instance.outlet.buffered < (best.outlet?.buffered ?? 0)) best = instance;
  }
  return best;
}

/**
 * Gives messages to a connection, at most once. One that has much to write already, but goes on writing, holds its
 * senders back; one that does not write at all loses them, so that nobody else feels it.
 */
function handOver(ctx: Context, from: Instance, to: Instance, batch: Batch, note: DeliveryNote | undefined): boolean {
  const { outlet } = to;
  if (outlet === undefined) return false;
  if (outlet.buffered > TRANSIENT_HIGH_WATER) {
    const stuck = ctx.clock.monotonic() - outlet.lastProgress > 10 * ctx.options.storeAfter;
    if (outlet.buffered > ctx.limits.windowBytes * 2 || stuck) return false;
    outlet.holdBack(from.outlet);
  }
  ctx.counters.messagesOut += batch.count;
  outlet.deliverTransient(batch, note);
  return true;
}
