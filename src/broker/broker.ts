/** The broker: sessions, routing, queues and receipts behind one façade. What happens is in the other files of this folder. */
import type { Batch } from '../batch.js';
import type { Timer } from '../clock.js';
import { BroadcastError } from '../errors.js';
import { Context, type BrokerOptions } from './context.js';
import { deadLetterCount, dropDeadLetter, listDeadLetters, retryDeadLetter, type DeadBatch } from './dead-letters.js';
import { acknowledge, failAttempt, rejectDelivery, release, type Rejection } from './acknowledgements.js';
import { pump, rewind } from './delivery.js';
import { disarm } from './alarms.js';
import { ring } from './expiry.js';
import { attach, detach, died, resume } from './instances.js';
import { damaged } from './losses.js';
import { Instance, Session, type Entry } from './model.js';
import type { DetachReason, HandlerDeclaration, InstanceHello, Outlet, Range } from './ports.js';
import { sessionQueue } from './registry.js';
import { restore } from './restore.js';
import { publish } from './routing.js';
import { noted, raiseFloor, senderOf } from './senders.js';
import { endSession, sweep } from './sessions.js';
import { storeEntries } from './store.js';
import { subscribe, unhandle, unsubscribe } from './subscriptions.js';
import { answerTrack } from './tracking.js';

/** How often sessions are looked at that nobody has come back to. */
const MAX_SWEEP_INTERVAL = 60_000;

/** What `sessions` tells of one. */
export interface SessionSummary {
  name: string;
  instances: number;
  subscriptions: readonly string[];
  queued: number;
  queuedBytes: number;
  deadLetters: number;
  lastSeen: number;
}

export class Broker {
  readonly #ctx: Context;
  #storeId = '';
  #sweeper: Timer | undefined;

  constructor(options: BrokerOptions) {
    const ctx = new Context(options);
    ctx.expired = what => ring(ctx, what);
    this.#ctx = ctx;
  }

  /** Opens the engine and finds everything again. Rejects with the engine's errors. */
  async open(): Promise<void> {
    const ctx = this.#ctx;
    const state = await ctx.engine.open({
      clock: ctx.clock,
      storeBytes: ctx.limits.storeBytes === 0 ? undefined : ctx.limits.storeBytes,
      failed: error => {
        ctx.stopped = true;
        ctx.events.engineFailed(error);
      },
      roomAgain: () => ctx.logger.info('the store has room again'),
      arrived: queue => this.#arrived(queue),
      damaged: (queue, handle, count, bytes) => damaged(ctx, queue, handle, count, bytes),
      warn: text => ctx.logger.warn(text),
    });
    this.#storeId = state.storeId;
    restore(ctx, state);
    const { sessionTtl, anonymousSessionTtl } = ctx.limits;
    const interval = Math.max(1, Math.min(MAX_SWEEP_INTERVAL, Math.min(sessionTtl, anonymousSessionTtl) / 4));
    this.#sweeper = ctx.clock.setInterval(() => sweep(ctx), interval);
  }

  #arrived(id: string): void {
    if (!id.startsWith('q/')) return;
    const [name, subscription] = id.slice(2).split('\0') as [string, string];
    const session = this.#ctx.sessions.get(name);
    if (session === undefined) return;
    const queue = sessionQueue(session, subscription);
    queue.behind = true;
    queue.arrivals++;
    pump(this.#ctx, queue);
  }

  get storeId(): string {
    return this.#storeId;
  }

  get durability(): 'memory' | 'fsync' | 'replicated' {
    return this.#ctx.engine.durability;
  }

  /** Somebody observes what clients send. */
  set observer(observer: ((batch: Batch, instance: Instance) => void) | undefined) {
    this.#ctx.events.published = observer;
  }

  attach(hello: InstanceHello, outlet: Outlet): Instance {
    return attach(this.#ctx, hello, outlet);
  }

  resume(instance: Instance): void {
    resume(this.#ctx, instance);
  }

  detach(instance: Instance, outlet: Outlet, reason: DetachReason): void {
    detach(this.#ctx, instance, outlet, reason);
  }

  died(instanceId: string): void {
    died(this.#ctx, instanceId);
  }

  subscribe(instance: Instance, channel: string, declaration: HandlerDeclaration): Promise<void> {
    return subscribe(this.#ctx, instance, channel, declaration);
  }

  /** Fulfilled when that is durable: a handler that came back with the store would be sent what nobody there takes. */
  unhandle(instance: Instance, channel: string): Promise<void> {
    unhandle(this.#ctx, instance, channel);
    return this.flush();
  }

  unsubscribe(instance: Instance, channel: string): Promise<void> {
    return unsubscribe(this.#ctx, instance, channel);
  }

  /** Fulfilled when everything that came before is as durable as it will be. */
  flush(): Promise<void> {
    return this.#ctx.engine.commit();
  }

  publish(instance: Instance, batch: Batch): void {
    publish(this.#ctx, instance, batch);
  }

  ack(instance: Instance, ranges: readonly Range[]): void {
    acknowledge(this.#ctx, instance, ranges);
  }

  fail(instance: Instance, delivery: number, channel: string, attempt: number): void {
    failAttempt(this.#ctx, instance, delivery, channel, attempt);
  }

  reject(instance: Instance, rejection: Rejection): void {
    rejectDelivery(this.#ctx, instance, rejection);
  }

  release(instance: Instance, ranges: readonly Range[]): void {
    release(this.#ctx, instance, ranges);
  }

  settled(instance: Instance, floor: number): void {
    raiseFloor(this.#ctx, instance.sender, floor);
  }

  track(instance: Instance, ranges: readonly Range[]): void {
    answerTrack(this.#ctx, instance, ranges);
  }

  noted(instance: Instance, ranges: readonly Range[]): void {
    noted(this.#ctx, instance, ranges);
  }

  /** The server itself as a sender: it has no name and no session, and receives nothing. */
  attachServer(id: string, outlet: Outlet): Instance {
    const sender = senderOf(this.#ctx, id, undefined);
    sender.outlet = outlet;
    return new Instance(id, new Session('', true), sender);
  }

  async forget(name: string): Promise<void> {
    const session = this.#ctx.sessions.get(name);
    if (session === undefined) throw new BroadcastError('not-found', `there is no session "${name}"`);
    await endSession(this.#ctx, session, 'dropped');
  }

  sessions(): SessionSummary[] {
    const { engine, clock } = this.#ctx;
    const offset = clock.now() - engine.time();
    return [...this.#ctx.sessions.values()].map(session => {
      const online = [...session.instances.values()].filter(instance => instance.outlet !== undefined).length;
      return {
        name: session.name,
        instances: online,
        subscriptions: [...session.subscriptions.keys()],
        queued: session.messages,
        queuedBytes: session.bytes,
        deadLetters: deadLetterCount(this.#ctx, session),
        lastSeen: Math.round((online > 0 ? engine.time() : session.lastSeen) + offset),
      };
    });
  }

  channels(): string[] {
    return [...this.#ctx.channels.keys()];
  }

  listDeadLetters(name: string, limit = 100): Promise<DeadBatch[]> {
    return listDeadLetters(this.#ctx, name, limit);
  }

  /** A dead letter goes back to the queue it came from. Rejects with `not-found`. */
  async retryDeadLetter(name: string, id: string): Promise<void> {
    const queue = await retryDeadLetter(this.#ctx, name, id);
    rewind(queue, Number.parseInt(id, 10));
    pump(this.#ctx, queue);
    await this.#ctx.engine.commit();
  }

  dropDeadLetter(name: string, id: string): Promise<void> {
    return dropDeadLetter(this.#ctx, name, id);
  }

  stats(): {
    sessions: number;
    channels: number;
    messagesIn: number;
    messagesOut: number;
    stored: number;
    queued: number;
    backlog: number;
    failures: number;
    deadLetters: number;
  } {
    const { counters, sessions, channels, engine } = this.#ctx;
    const sum = (prefix: string): number => {
      let messages = 0;
      for (const queue of engine.queues(prefix)) messages += engine.usage(queue).messages;
      return messages;
    };
    let queued = 0;
    for (const session of sessions.values()) queued += session.messages;
    return {
      ...counters,
      sessions: sessions.size,
      channels: channels.size,
      queued,
      backlog: sum('b/'),
      deadLetters: sum('d/'),
    };
  }

  /** Stores what is not safe yet, so that its senders need not send it again, and closes the engine. */
  async close(): Promise<void> {
    const ctx = this.#ctx;
    this.#sweeper?.cancel();
    ctx.progressTimer?.cancel();
    if (!ctx.stopped) {
      const entries: Entry[] = [];
      for (const sender of ctx.senders.values()) entries.push(...sender.unsettled);
      storeEntries(ctx, entries);
      await ctx.engine.commit().catch(() => undefined);
      // The receipts of that commit leave in microtasks.
      await new Promise<void>(resolve => setImmediate(resolve));
    }
    ctx.stopped = true;
    disarm(ctx);
    for (const instance of ctx.instances.values()) instance.stopWaiting?.();
    await ctx.engine.close();
  }
}
