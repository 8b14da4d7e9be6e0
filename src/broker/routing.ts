/**
 * Routing: what a client sends becomes entries, and entries find their recipients. Each limit is checked here, before
 * anything is kept; each recipient that cannot have a message now, or ever, is reported to its sender.
 */
import { itemOffsets, sliceBatch, type Batch } from '../batch.js';
import type { ExpiringRun } from '../engine/engine.js';
import { queueIds, type Context } from './context.js';
import { enqueueLive, allowance, newDelivery, pump, send, sessionQueueWaits } from './delivery.js';
import { armExpiry } from './expiry.js';
import { SELF, targetOf, type Entry, type Instance, type Queue, type Sender, type Session } from './model.js';
import { isAddress } from '../names.js';
import { PeerFault, SEND_WINDOW } from './ports.js';
import { routeOf, saveSession, sessionOf, sessionQueue } from './registry.js';
import { raiseFloor, reportFailure, settle } from './senders.js';
import { finish, isCongested, storeEntries, watch, type AwayQueue } from './store.js';
import type { FailureReason } from '../receipts.js';

/** Bytes that wait in a connection above which non-persistent messages to it are held back or dropped. */
const TRANSIENT_HIGH_WATER = 1024 * 1024;

/** Takes what an instance sends. Throws `position-conflict`, `protocol-error`. */
export function publish(ctx: Context, instance: Instance, batch: Batch): void {
  const { sender } = instance;
  if (sender.unsettledBytes > SEND_WINDOW.bytes) {
    throw new PeerFault('protocol-error', 'more came than the window of unsettled bytes allows');
  }
  ctx.counters.messagesIn += batch.count;
  raiseFloor(ctx, sender, batch.floor);
  if (batch.first > sender.last) {
    sender.taken.add(batch.first, batch.count);
    sender.last = batch.first + batch.count - 1;
    route(ctx, instance, batch);
  } else {
    publishAgain(ctx, instance, batch);
  }
  if (isCongested(ctx) && !ctx.paused.has(instance)) {
    ctx.paused.add(instance);
    instance.outlet?.pauseReading(true);
  }
}

/** Some of it may have come before: on an earlier connection, or before the server was killed. */
function publishAgain(ctx: Context, instance: Instance, batch: Batch): void {
  const { sender } = instance;
  checkSame(sender, batch);
  const skip = Math.min(batch.count, Math.max(0, sender.floor - batch.first));
  if (skip === batch.count) return;
  const fresh = sender.taken.addNew(batch.first + skip, batch.count - skip);
  sender.last = Math.max(sender.last, batch.first + batch.count - 1);
  for (const { first, count } of fresh) route(ctx, instance, sliceBatch(batch, first - batch.first, count));
}

/** A position that comes again must bring the same body (docs/protocol.md, 6.4). */
function checkSame(sender: Sender, batch: Batch): void {
  let offsets: Uint32Array | undefined;
  for (const { batch: held } of sender.unsettled) {
    const from = Math.max(held.first, batch.first);
    const to = Math.min(held.first + held.count, batch.first + batch.count);
    if (from >= to) continue;
    offsets ??= itemOffsets(batch.items, batch.count);
    const heldOffsets = itemOffsets(held.items, held.count);
    for (let position = from; position < to; position++) {
      const i = position - batch.first;
      const j = position - held.first;
      const now = batch.items.subarray((offsets[i] as number) + 5, offsets[i + 1]);
      const before = held.items.subarray((heldOffsets[j] as number) + 5, heldOffsets[j + 1]);
      if (!now.equals(before))
        throw new PeerFault('position-conflict', `position ${String(position)} came with two contents`);
    }
  }
}

function route(ctx: Context, instance: Instance, batch: Batch): void {
  // What the server itself sends is not observed.
  if (instance.sender.name !== undefined) ctx.events.published?.(batch, instance);
  if (batch.envelope.persistent) routePersistent(ctx, instance, batch);
  else routeTransient(ctx, instance, batch);
}

// ---- recipients ----------------------------------------------------------------------------------------------------

/** Who gets a batch. */
interface Recipients {
  /** Instances that are or were just here, each with the lanes by which it gets the batch. */
  readonly lanes: Map<Instance, Queue[]>;
  /** Any instance of a name, one of them. */
  readonly anyOf: Queue[];
  /** Queues of names none of whose instances is here to take it. */
  readonly away: { queue: Queue; reason: FailureReason }[];
  /** Channels that nobody subscribes to. */
  readonly unheard: string[];
  /** Connections by their address. */
  readonly direct: Instance[];
  /** Targets that do not exist. */
  readonly missing: { target: { client?: string; channel?: string }; reason: FailureReason }[];
}

function recipientsOf(ctx: Context, from: Instance, batch: Batch): Recipients {
  const { channels, clients, everyone, persistent } = batch.envelope;
  const found: Recipients = { lanes: new Map(), anyOf: [], away: [], unheard: [], direct: [], missing: [] };
  for (const channel of channels) addChannel(ctx, from, channel, found);
  for (const client of clients) addClient(ctx, client, persistent, found);
  if (everyone) addEveryone(ctx, from, found);
  return found;
}

function addChannel(ctx: Context, from: Instance, name: string, found: Recipients): void {
  const channel = ctx.channels.get(name);
  if (channel === undefined) {
    found.unheard.push(name);
    return;
  }
  const { lanes, away } = routeOf(channel);
  let anybody = false;
  for (const lane of lanes) {
    const owner = lane.owner as Instance;
    if (owner === from) continue;
    anybody = true;
    addLane(found, owner, lane);
  }
  for (const queue of away) {
    if (isAlone(queue.session, from)) continue;
    anybody = true;
    found.away.push({ queue, reason: awayReason(queue.session) });
  }
  if (!anybody) found.missing.push({ target: { channel: name }, reason: 'no-subscribers' });
}

function addLane(found: Recipients, owner: Instance, lane: Queue): void {
  const known = found.lanes.get(owner);
  if (known === undefined) found.lanes.set(owner, [lane]);
  else if (!known.includes(lane)) known.push(lane);
}

/** The name's only instance is the sender: it is no recipient of its own channel messages. */
function isAlone(session: Session, from: Instance): boolean {
  return session.instances.size === 1 && session.instances.has(from.id);
}

function awayReason(session: Session): FailureReason {
  for (const instance of session.instances.values()) if (instance.outlet !== undefined) return 'no-handler';
  return 'offline';
}

function addClient(ctx: Context, name: string, persistent: boolean, found: Recipients): void {
  if (isAddress(name)) {
    const instance = ctx.addresses.get(name);
    if (instance?.outlet !== undefined) found.direct.push(instance);
    else found.missing.push({ target: { client: name }, reason: 'offline' });
    return;
  }
  let session = ctx.sessions.get(name);
  if (session === undefined) {
    if (!persistent || ctx.sessions.size >= ctx.limits.sessions) {
      found.missing.push({ target: { client: name }, reason: persistent ? 'queue-full' : 'offline' });
      return;
    }
    session = sessionOf(ctx, name, false);
    saveSession(ctx, session);
  }
  const queue = sessionQueue(session, SELF);
  for (const instance of session.instances.values()) {
    if (instance.outlet !== undefined && instance.handlers.has(SELF)) {
      found.anyOf.push(queue);
      return;
    }
  }
  found.away.push({ queue, reason: awayReason(session) });
}

function addEveryone(ctx: Context, from: Instance, found: Recipients): void {
  for (const instance of ctx.instances.values()) {
    if (instance.outlet === undefined || instance === from) continue;
    const lane = instance.handlers.get(SELF)?.lane;
    if (lane !== undefined) addLane(found, instance, lane);
    else if (
      ![...instance.session.instances.values()].some(other => other.outlet !== undefined && other.handlers.has(SELF))
    ) {
      const queue = sessionQueue(instance.session, SELF);
      if (!found.away.some(away => away.queue === queue)) found.away.push({ queue, reason: 'no-handler' });
    }
  }
}

// ---- persistent ----------------------------------------------------------------------------------------------------

function routePersistent(ctx: Context, from: Instance, batch: Batch): void {
  const entry = newEntry(ctx, from.sender, batch);
  from.sender.unsettled.push(entry);
  from.sender.unsettledBytes += batch.items.length;
  if (routeSimply(ctx, from, entry)) return;
  const found = recipientsOf(ctx, from, batch);
  const away: AwayQueue[] = [];
  for (const [instance, lanes] of found.lanes) offerLanes(ctx, entry, instance, lanes, away);
  for (const queue of found.anyOf) offerQueue(ctx, entry, queue, away);
  for (const instance of found.direct) {
    entry.recipients++;
    entry.whole++;
    deliverDirect(ctx, entry, instance);
  }
  for (const { queue, reason } of found.away) keepFor(ctx, entry, queue, reason, away);
  for (const channel of found.unheard) keepBacklog(ctx, entry, channel, away);
  for (const { target, reason } of found.missing) refuseTarget(ctx, entry, target, reason);
  if (away.length > 0) storeAway(ctx, entry, away);
  if (entry.recipients === 0) settle(ctx, entry, 0, batch.count, 'undelivered', batch.envelope.tracked);
}

/** The common case without the bookkeeping of the general one: one channel, everyone on it here and keeping up. */
function routeSimply(ctx: Context, from: Instance, entry: Entry): boolean {
  const { channels, clients, everyone } = entry.batch.envelope;
  if (channels.length !== 1 || clients.length > 0 || everyone) return false;
  const channel = ctx.channels.get(channels[0] as string);
  if (channel === undefined) return false;
  const { lanes, away } = routeOf(channel);
  if (away.length > 0) return false;
  for (const lane of lanes) if (lane.owner === from || !isLive(lane)) return false;
  if (lanes.length === 0) return false;
  entry.recipients = lanes.length;
  entry.whole = lanes.length;
  for (const lane of lanes) deliverLive(ctx, entry, [lane]);
  return true;
}

function newEntry(ctx: Context, sender: Sender, batch: Batch): Entry {
  const { ttl } = batch.envelope;
  const expiresAt = ttl === undefined ? 0 : ctx.engine.time() + ttl;
  return {
    serial: ++ctx.serial,
    batch,
    sender,
    expiresAt,
    deliveries: new Set(),
    recipients: 0,
    whole: 0,
    left: undefined,
    failed: undefined,
    settled: 0,
    handle: 0,
    committed: false,
  };
}

/** A lane whose messages go straight to its instance: it is here, and nothing stored waits before them. */
function isLive(lane: Queue): boolean {
  return lane.owner?.outlet !== undefined && !lane.waiting && !lane.reading && !sessionQueueWaits(lane);
}

function offerLanes(ctx: Context, entry: Entry, instance: Instance, lanes: Queue[], away: AwayQueue[]): void {
  const together =
    lanes.length > 1 &&
    lanes.every(lane => isLive(lane) && lane.live.size === 0 && hasRoom(ctx, instance, lane, entry.batch.count));
  if (together) {
    entry.recipients++;
    entry.whole++;
    deliverLive(ctx, entry, lanes);
    return;
  }
  for (const lane of lanes) {
    if (isLive(lane)) {
      entry.recipients++;
      entry.whole++;
      deliverLive(ctx, entry, [lane]);
    } else {
      keepFor(ctx, entry, lane, lane.owner?.outlet === undefined ? 'offline' : undefined, away);
    }
  }
}

function hasRoom(ctx: Context, instance: Instance, lane: Queue, count: number): boolean {
  const handler = instance.handlers.get(lane.subscription);
  return handler !== undefined && allowance(ctx, instance, handler) >= count;
}

/** Sends at once what fits the window, and keeps the rest in memory behind it. */
function deliverLive(ctx: Context, entry: Entry, queues: readonly Queue[]): void {
  const { batch } = entry;
  const delivery = newDelivery(entry, queues, 0, batch.count, 0);
  entry.deliveries.add(delivery);
  for (const queue of queues) watch(ctx, queue);
  const lane = queues[0] as Queue;
  const owner = lane.owner;
  const handler = owner?.handlers.get(lane.subscription);
  if (entry.expiresAt !== 0) armExpiry(ctx, entry.expiresAt, { kind: 'live', queue: lane });
  if (
    owner !== undefined &&
    handler !== undefined &&
    lane.live.size === 0 &&
    (queues.length > 1 || allowance(ctx, owner, handler) >= batch.count)
  ) {
    send(ctx, owner, delivery);
    return;
  }
  enqueueLive(ctx, lane, delivery);
  pump(ctx, lane);
}

/** To one instance of the name, the least loaded with room, in the order of the queue. */
function offerQueue(ctx: Context, entry: Entry, queue: Queue, away: AwayQueue[]): void {
  if (queue.waiting || queue.reading) {
    keepFor(ctx, entry, queue, undefined, away);
    return;
  }
  entry.recipients++;
  entry.whole++;
  deliverLive(ctx, entry, [queue]);
}

/** By address: to that connection or nobody. */
function deliverDirect(ctx: Context, entry: Entry, instance: Instance): void {
  const delivery = newDelivery(entry, [], 0, entry.batch.count, 0);
  entry.deliveries.add(delivery);
  send(ctx, instance, delivery);
}

/** It waits in the engine for a recipient that is away or behind. Without a reason the sender need not be told. */
function keepFor(ctx: Context, entry: Entry, queue: Queue, reason: FailureReason | undefined, away: AwayQueue[]): void {
  const { batch } = entry;
  const { limits } = ctx;
  const { session } = queue;
  const target =
    queue.subscription === SELF ? { client: session.name } : { client: session.name, channel: queue.subscription };
  if (session.messages + batch.count > limits.queueMessages || session.bytes + batch.items.length > limits.queueBytes) {
    refuseTarget(ctx, entry, target, 'queue-full');
    return;
  }
  entry.recipients++;
  entry.whole++;
  away.push({ queue: queue.id, target: queue });
  if (reason !== undefined) {
    reportFailure(ctx, {
      batch,
      offset: 0,
      count: batch.count,
      target,
      reason,
      final: false,
      attempts: 0,
      stored: false,
    });
  }
}

function keepBacklog(ctx: Context, entry: Entry, channel: string, away: AwayQueue[]): void {
  const { batch } = entry;
  const { limits } = ctx;
  const id = queueIds.backlog(channel);
  const usage = ctx.engine.usage(id);
  const full =
    usage.messages + batch.count > limits.backlogMessages ||
    usage.bytes + batch.items.length > limits.backlogBytes ||
    (!ctx.backlogs.has(channel) && ctx.backlogs.size >= limits.backlogChannels);
  if (full) {
    refuseTarget(ctx, entry, { channel }, 'queue-full');
    return;
  }
  ctx.backlogs.add(channel);
  entry.recipients++;
  entry.whole++;
  away.push({ queue: id, target: undefined });
  reportFailure(ctx, {
    batch,
    offset: 0,
    count: batch.count,
    target: { channel },
    reason: 'no-subscribers',
    final: false,
    attempts: 0,
    stored: false,
  });
}

function refuseTarget(
  ctx: Context,
  entry: Entry,
  target: { client?: string; channel?: string },
  reason: FailureReason,
): void {
  const { batch } = entry;
  reportFailure(ctx, { batch, offset: 0, count: batch.count, target, reason, final: true, attempts: 0, stored: false });
}

function storeAway(ctx: Context, entry: Entry, away: readonly AwayQueue[]): void {
  const { batch } = entry;
  if (storeEntries(ctx, [entry], { entry, queues: away })) {
    if (entry.expiresAt !== 0) {
      for (const { queue } of away) {
        const run: ExpiringRun = { queue, handle: entry.handle, count: batch.count, expiresAt: entry.expiresAt };
        armExpiry(ctx, entry.expiresAt, { kind: 'stored', run });
      }
    }
    for (const { target } of away)
      if (target?.owner?.outlet !== undefined || target?.owner === undefined)
        if (target !== undefined) pump(ctx, target);
    return;
  }
  for (const { queue, target } of away) {
    const who = target === undefined ? { channel: queue.slice(2) } : { client: target.session.name };
    refuseTarget(ctx, entry, who, 'queue-full');
    finish(ctx, entry, 0, batch.count, false);
  }
}

// ---- not persistent ------------------------------------------------------------------------------------------------

function routeTransient(ctx: Context, from: Instance, batch: Batch): void {
  const entry = newEntry(ctx, from.sender, batch);
  from.sender.unsettled.push(entry);
  from.sender.unsettledBytes += batch.items.length;
  const found = recipientsOf(ctx, from, batch);
  let routed = 0;
  const fail = (target: { client?: string; channel?: string }, reason: FailureReason): void =>
    refuseTarget(ctx, entry, target, reason);
  for (const [instance, lanes] of found.lanes) {
    const lane = lanes[0] as Queue;
    if (instance.outlet === undefined) fail(targetOf(lane), 'offline');
    else if (handOver(ctx, from, instance, batch)) routed++;
    else fail(targetOf(lane), 'slow-consumer');
  }
  for (const queue of found.anyOf) {
    const instance = lightest(queue.session);
    if (instance !== undefined && handOver(ctx, from, instance, batch)) routed++;
    else fail(targetOf(queue), 'slow-consumer');
  }
  for (const instance of found.direct) {
    if (handOver(ctx, from, instance, batch)) routed++;
    else fail({ client: instance.outlet?.address ?? instance.session.name }, 'slow-consumer');
  }
  for (const { queue, reason } of found.away) fail(targetOf(queue), reason);
  for (const channel of found.unheard) fail({ channel }, 'no-subscribers');
  for (const { target, reason } of found.missing) fail(target, reason);
  settle(ctx, entry, 0, batch.count, routed > 0 ? 'routed' : 'undelivered', batch.envelope.tracked);
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
function handOver(ctx: Context, from: Instance, to: Instance, batch: Batch): boolean {
  const { outlet } = to;
  if (outlet === undefined) return false;
  if (outlet.buffered > TRANSIENT_HIGH_WATER) {
    const stuck = ctx.clock.monotonic() - outlet.lastProgress > 10 * ctx.options.storeAfter;
    if (outlet.buffered > ctx.limits.windowBytes * 2 || stuck) return false;
    outlet.holdBack(from.outlet);
  }
  ctx.counters.messagesOut += batch.count;
  outlet.deliverTransient(batch);
  return true;
}
