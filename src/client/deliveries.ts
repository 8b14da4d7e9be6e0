/**
 * Deliveries: what arrives is numbered, recognised when it comes again, handed to handlers, and acknowledged when they
 * have ended (docs/protocol.md, 6.6–6.8, 7). A handler of this instance ends once per message, whatever happens to
 * connections: handled positions are kept as ranges for each sending instance, and what is being handled is joined, not
 * started again.
 */
import { idCounters, itemOffsets, type Batch } from '../batch.js';
import { decodeBody } from '../body/index.js';
import type { Clock } from '../clock.js';
import { BroadcastError } from '../errors.js';
import { formatId, receivedMessage, type BroadcastMessage } from '../message.js';
import type { DeliveryFrame, Fail, RejectFrame } from '../protocol/frames.js';
import { RangeSet } from '../range-set.js';
import type { Runner, Work } from './handlers.js';

/** Ranges kept for one sender; where a sender's messages for us lie far apart, the oldest are forgotten beyond this. */
const MAX_RANGES = 100_000;

/** What deliveries need of their client. */
export interface DeliveryHost {
  readonly clock: Clock;
  runners(channel: string): readonly Runner[] | undefined;
  /** Something is to be acknowledged at the end of the turn. */
  wake(): void;
  fail(frame: Fail): void;
  reject(frame: RejectFrame): void;
  release(ranges: readonly { first: number; count: number }[]): void;
}

/** What is remembered of a sending instance's positions, for one subscription when a message can match several. */
interface Memory {
  highest: number;
  readonly handled: RangeSet;
  readonly open: Set<Intake>;
}

/** A number on a connection. */
interface Numbered {
  readonly epoch: number;
  readonly number: number;
}

/** Counts how many subscriptions of a wire delivery have ended each message. */
interface Shared {
  readonly left: Uint8Array;
}

export class Deliveries {
  readonly #host: DeliveryHost;
  readonly #memories = new Map<string, Memory>();
  #epoch = 0;
  #next = 1;
  #acks = new RangeSet();
  /** Waits for RETRY, by number and channel. */
  readonly #retries = new Map<string, { intake: Intake; index: number; runner: Runner }>();

  constructor(host: DeliveryHost) {
    this.#host = host;
  }

  get epoch(): number {
    return this.#epoch;
  }

  get clock(): Clock {
    return this.#host.clock;
  }

  /** A new connection: numbers start again, and old ones mean nothing. */
  renew(): void {
    this.#epoch++;
    this.#next = 1;
    this.#acks = new RangeSet();
    this.#retries.clear();
  }

  /** Messages have arrived. */
  receive(batch: Batch, note: DeliveryFrame | undefined): void {
    const { envelope, count } = batch;
    const number = this.#next;
    if (envelope.persistent) this.#next += count;
    const channels = note?.subscriptions ?? matching(batch, channel => this.#host.runners(channel) !== undefined);
    const live = channels.filter(channel => this.#host.runners(channel) !== undefined);
    if (live.length < channels.length || live.length === 0) {
      if (envelope.persistent && live.length === 0) {
        this.#host.release([{ first: number, count }]);
        return;
      }
    }
    const several = envelope.channels.length + envelope.clients.length > 1;
    const shared = live.length > 1 ? { left: new Uint8Array(count).fill(live.length) } : undefined;
    for (const channel of live) {
      const memory = this.#memory(several ? `${batch.sender.instance}/${channel}` : batch.sender.instance);
      this.#admit(batch, note, channel, memory, envelope.persistent ? number : 0, shared);
    }
  }

  #memory(key: string): Memory {
    let memory = this.#memories.get(key);
    if (memory === undefined) {
      memory = { highest: 0, handled: new RangeSet(), open: new Set() };
      this.#memories.set(key, memory);
    }
    return memory;
  }

  /** The sender will not come back: nothing of it is sent again. */
  forget(instance: string): void {
    for (const key of this.#memories.keys()) {
      if (key === instance || key.startsWith(`${instance}/`)) this.#memories.delete(key);
    }
  }

  #admit(
    batch: Batch,
    note: DeliveryFrame | undefined,
    channel: string,
    memory: Memory,
    number: number,
    shared: Shared | undefined,
  ): void {
    const { first, count } = batch;
    if (first > memory.highest) {
      memory.highest = first + count - 1;
      this.#start(batch, 0, count, note, channel, memory, number, shared);
      return;
    }
    memory.highest = Math.max(memory.highest, first + count - 1);
    let from = 0;
    for (let i = 0; i < count; i++) {
      const position = first + i;
      const open = findOpen(memory, position);
      if (open === undefined && !memory.handled.has(position)) continue;
      if (i > from) this.#start(batch, from, i, note, channel, memory, number, shared);
      from = i + 1;
      if (number === 0) continue;
      const now = { epoch: this.#epoch, number: number + i };
      if (open === undefined) this.endOf(now, shared, i);
      else open.renumber(position, now, note?.attempt ?? 1);
    }
    if (from < count) this.#start(batch, from, count, note, channel, memory, number, shared);
  }

  #start(
    batch: Batch,
    from: number,
    end: number,
    note: DeliveryFrame | undefined,
    channel: string,
    memory: Memory,
    number: number,
    shared: Shared | undefined,
  ): void {
    const runners = this.#host.runners(channel) ?? [];
    const intake = new Intake(this, batch, note, channel, memory, number, shared, runners.length, end - from);
    memory.open.add(intake);
    for (const runner of runners) runner.accept(intake, from, end);
  }

  /** Handlers of one subscription have ended a message. */
  endOf({ epoch, number }: Numbered, shared: Shared | undefined, index: number): void {
    if (epoch !== this.#epoch) return;
    if (shared !== undefined) {
      shared.left[index] = (shared.left[index] as number) - 1;
      if (shared.left[index] !== 0) return;
    }
    if (this.#acks.isEmpty) this.#host.wake();
    this.#acks.add(number, 1);
  }

  /** What is to be acknowledged now. */
  takeAcks(): { first: number; count: number }[] | undefined {
    if (this.#acks.isEmpty) return undefined;
    const ranges = [...this.#acks.ranges()];
    this.#acks = new RangeSet();
    return ranges;
  }

  get hasAcks(): boolean {
    return !this.#acks.isEmpty;
  }

  fail(intake: Intake, index: number, runner: Runner, at: Numbered, attempt: number, reason: string): void {
    if (at.epoch !== this.#epoch || at.number === 0) return; // it comes again, and then it is tried again
    this.#retries.set(`${String(at.number)}/${intake.channel}`, { intake, index, runner });
    this.#host.fail({ delivery: at.number, channel: intake.channel, attempt, reason });
  }

  /** The server has recorded the next attempt. */
  retry(delivery: number, channel: string, attempt: number): void {
    const key = `${String(delivery)}/${channel}`;
    const waiting = this.#retries.get(key);
    this.#retries.delete(key);
    if (waiting === undefined) return;
    waiting.intake.retrying(waiting.index);
    waiting.runner.retry(waiting.intake, waiting.index, attempt);
  }

  reject(channel: string, at: Numbered, kind: RejectFrame['kind'], attempts: number, reason: string): void {
    if (at.epoch === this.#epoch && at.number !== 0)
      this.#host.reject({ delivery: at.number, channel, kind, attempts, reason });
  }

  /** Messages that were not started go back to the server, uncharged. */
  giveBack(rest: readonly { work: Work; from: number; end: number }[]): void {
    const ranges = new RangeSet();
    for (const { work, from, end } of rest) {
      if (!(work instanceof Intake)) continue;
      for (let i = from; i < end; i++) {
        const at = work.numberOf(i);
        if (work.abandon(i) && at.epoch === this.#epoch && at.number !== 0) ranges.add(at.number, 1);
      }
    }
    if (!ranges.isEmpty) this.#host.release([...ranges.ranges()]);
  }
}

function findOpen(memory: Memory, position: number): Intake | undefined {
  for (const intake of memory.open) if (intake.isOpen(position)) return intake;
  return undefined;
}

/** The subscriptions that a batch matches, of those that are handled. */
function matching(batch: Batch, handles: (channel: string) => boolean): string[] {
  const { channels, clients, everyone } = batch.envelope;
  const matched: string[] = [];
  for (const channel of channels) if (handles(channel)) matched.push(channel);
  if ((everyone || clients.length > 0) && handles('')) matched.push('');
  return matched;
}

/** Messages of one delivery on their way to the handlers of one subscription. */
export class Intake implements Work {
  readonly channel: string;
  readonly #owner: Deliveries;
  readonly #batch: Batch;
  readonly #note: DeliveryFrame | undefined;
  readonly #memory: Memory;
  readonly #number: number;
  readonly #epoch: number;
  readonly #shared: Shared | undefined;
  readonly #runners: number;
  readonly #offsets: Uint32Array;
  readonly #ids: number[];
  readonly #expiresAt: number;
  #left: Uint8Array | undefined;
  #open: number;
  #ended: Set<number> | undefined;
  #renumbered: Map<number, Numbered> | undefined;
  #attempts: Map<number, number> | undefined;
  #failing: Map<number, { runner: Runner; attempt: number; reason: string }> | undefined;
  #rejected: Set<number> | undefined;
  #decoded: Map<number, BroadcastMessage> | undefined;

  constructor(
    owner: Deliveries,
    batch: Batch,
    note: DeliveryFrame | undefined,
    channel: string,
    memory: Memory,
    number: number,
    shared: Shared | undefined,
    runners: number,
    open: number,
  ) {
    this.#owner = owner;
    this.#batch = batch;
    this.#note = note;
    this.channel = channel;
    this.#memory = memory;
    this.#number = number;
    this.#epoch = owner.epoch;
    this.#shared = shared;
    this.#runners = runners;
    this.#open = open;
    this.#offsets = itemOffsets(batch.items, batch.count);
    this.#ids = idCounters(batch);
    const { ttl } = batch.envelope;
    this.#expiresAt = ttl === undefined ? Infinity : owner.clock.monotonic() + ttl;
    if (runners > 1) this.#left = new Uint8Array(batch.count).fill(runners);
  }

  isOpen(position: number): boolean {
    const index = position - this.#batch.first;
    return (
      index >= 0 && index < this.#batch.count && this.#ended?.has(index) !== true && !this.#memory.handled.has(position)
    );
  }

  numberOf(index: number): Numbered {
    return (
      this.#renumbered?.get(index) ?? { epoch: this.#epoch, number: this.#number === 0 ? 0 : this.#number + index }
    );
  }

  /** The message has come again under another number while it is here. */
  renumber(position: number, at: Numbered, attempt: number): void {
    const index = position - this.#batch.first;
    (this.#renumbered ??= new Map()).set(index, at);
    const failing = this.#failing?.get(index);
    if (failing === undefined) return;
    this.#owner.fail(this, index, failing.runner, at, Math.max(failing.attempt, attempt - 1), failing.reason);
  }

  take(index: number): BroadcastMessage | undefined {
    if (this.#ended?.has(index) === true || this.#rejected?.has(index) === true) return undefined;
    if (this.#expiresAt !== Infinity && this.#owner.clock.monotonic() >= this.#expiresAt) {
      this.#refuse(index, 'expired', 'its time to live is over');
      return undefined;
    }
    const kept = this.#decoded?.get(index);
    if (kept !== undefined) return kept;
    const message = this.#decode(index);
    if (message !== undefined && this.#runners > 1) (this.#decoded ??= new Map()).set(index, message);
    return message;
  }

  #decode(index: number): BroadcastMessage | undefined {
    const { items, envelope, sender, timestamp } = this.#batch;
    let start = (this.#offsets[index] as number) + 4;
    while ((items[start++] as number) >= 0x80); // the delta of the id
    let data: unknown;
    try {
      data = decodeBody(items, start, this.#offsets[index + 1]);
    } catch (error) {
      this.#refuse(index, 'damaged', error instanceof BroadcastError ? error.message : String(error));
      return undefined;
    }
    return receivedMessage({
      id: formatId(envelope.idPrefix, this.#ids[index] as number),
      clients: envelope.clients,
      channels: envelope.channels,
      name: envelope.name,
      data,
      persistent: envelope.persistent,
      headers: envelope.headers ?? NO_HEADERS,
      ttl: envelope.ttl,
      sender: sender.name,
      timestamp,
    });
  }

  #refuse(index: number, kind: RejectFrame['kind'], reason: string): void {
    if (this.#rejected?.has(index) === true) return;
    (this.#rejected ??= new Set()).add(index);
    this.#owner.reject(this.channel, this.numberOf(index), kind, this.attemptOf(index) - 1, reason);
  }

  attemptOf(index: number): number {
    return this.#attempts?.get(index) ?? this.#note?.attempt ?? 1;
  }

  isRedelivered(_index: number): boolean {
    return this.#note?.redelivered ?? false;
  }

  end(index: number, _runner: Runner): void {
    this.#failing?.delete(index);
    if (this.#left !== undefined) {
      this.#left[index] = (this.#left[index] as number) - 1;
      if (this.#left[index] !== 0) return;
    }
    this.#decoded?.delete(index);
    const { handled } = this.#memory;
    handled.add(this.#batch.first + index, 1);
    if (handled.rangeCount > MAX_RANGES) dropOldest(handled);
    const at = this.numberOf(index);
    if (at.number !== 0) this.#owner.endOf(at, this.#renumbered?.has(index) === true ? undefined : this.#shared, index);
    this.#close();
  }

  #close(): void {
    this.#open--;
    if (this.#open === 0) this.#memory.open.delete(this);
  }

  fail(index: number, runner: Runner, attempt: number, reason: string): boolean {
    if (this.#number === 0) return false; // not persistent: at most once, so it is not tried again
    (this.#failing ??= new Map()).set(index, { runner, attempt, reason });
    this.#owner.fail(this, index, runner, this.numberOf(index), attempt, reason);
    return true;
  }

  /** The next attempt is about to be made. */
  retrying(index: number): void {
    this.#failing?.delete(index);
  }

  reject(index: number, _runner: Runner, attempts: number, reason: string): void {
    if (this.#rejected?.has(index) === true) return;
    (this.#rejected ??= new Set()).add(index);
    this.#owner.reject(this.channel, this.numberOf(index), 'rejected', attempts, reason);
  }

  /** It was not started and goes back. False when another handler of it has it. */
  abandon(index: number): boolean {
    if (this.#left !== undefined) {
      this.#left[index] = (this.#left[index] as number) - 1;
      if (this.#left[index] !== 0) return false;
    }
    (this.#ended ??= new Set()).add(index);
    this.#close();
    return true;
  }
}

const NO_HEADERS: Readonly<Record<string, string>> = Object.freeze({});

function dropOldest(set: RangeSet): void {
  for (const { first, count } of set.ranges()) {
    set.deleteBelow(first + count);
    return;
  }
}
