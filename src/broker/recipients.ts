/** Who gets a batch: the targets of its envelope, resolved to instances, names, backlogs and connections. */
import type { Batch } from '../batch.js';
import { isAddress } from '../names.js';
import type { FailureReason } from '../receipts.js';
import type { Context } from './context.js';
import { SELF, type Instance, type Queue, type Session } from './model.js';
import { routeOf, saveSession, sessionOf, sessionQueue } from './registry.js';

/** Who gets a batch. */
export interface Recipients {
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

export function recipientsOf(ctx: Context, from: Instance, batch: Batch): Recipients {
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
    if (isAlone(queue.session, from.id)) continue;
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
export function isAlone(session: Session, sender: string): boolean {
  return session.instances.size === 1 && session.instances.has(sender);
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
