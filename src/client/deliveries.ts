/**
 * Deliveries: what arrives is numbered, recognised when it comes again, handed to handlers, and acknowledged when they
 * have ended (docs/protocol.md, 6.6–6.8, 7). A handler of this instance ends once per message, whatever happens to
 * connections: handled positions are kept as ranges for each sending instance, and what is being handled is joined, not
 * started again. What was not started when a connection was lost is forgotten: the server has it, and sends it again in
 * its order.
 */
import type { Batch } from '../batch.js';
import type { Clock } from '../clock.js';
import type { Logger } from '../logger.js';
import type { DeliveryFrame, Fail, RejectFrame } from '../protocol/frames.js';
import { RangeSet } from '../range-set.js';
import { ReceivedBatch } from '../received.js';
import { Intake, type IntakeInput, type IntakeOwner, type Memory, type Rejection, type Waiting } from './intake.js';
import type { Runner } from './runner.js';
import { TransientRoom, type WindowLimits } from './transient-room.js';
import type { Acceptor, Place, Rest, Work } from './work.js';

/**
 * So many deliveries are acknowledged before the turn has ended: it reads megabytes when they wait in the socket. A quarter of
 * the default window, as each write costs as much as tens of messages.
 */
const HURRIED_ACKS = 4096;

/** What deliveries need of their client. */
export interface DeliveryHost {
  readonly clock: Clock;
  /** Who takes what comes for a channel. */
  takers(channel: string): readonly Acceptor[] | undefined;
  /** Something is to be acknowledged at the end of the turn. */
  wake(): void;
  /** Much is to be acknowledged: at once, or the server takes a long turn for a recipient that makes no progress. */
  hurry(): void;
  fail(frame: Fail): void;
  reject(frame: RejectFrame): void;
  release(ranges: readonly { first: number; count: number }[]): void;
  /** The server may have taken this process for dead, and given others of its name what is here. */
  mayBeGivenUp(): boolean;
  readonly logger: Logger;
}

/** A delivery as it came, for each subscription that it is for. */
type Arrival = Pick<IntakeInput, 'batch' | 'messages' | 'note' | 'number' | 'shared' | 'isInDoubt'>;

export class Deliveries implements IntakeOwner {
  readonly #host: DeliveryHost;
  readonly #memories = new Map<string, Memory>();
  #epoch = 0;
  /** The server of this connection has what it delivered before. */
  #remembers = true;
  #next = 1;
  #acks = new RangeSet();
  readonly #transient: TransientRoom;
  /** Deliveries that have ended since acknowledgements left. */
  #unacknowledged = 0;
  /**
   * A message came that was attempted before: perhaps a process died of one of those that come again. Whatever has ended
   * is acknowledged before and after each of them, or what has succeeded would be charged if it kills this process too.
   */
  #isWary = false;
  /** What is here may be others' by now, and is marked. */
  #isInDoubt = false;
  /**
   * Channels whose work was kept when the connection was lost: some of it has ended at one of several handlers, and what is
   * before that must not come behind it.
   */
  readonly #kept = new Set<string>();
  /** Those that wait for RETRY, by number and channel, in the order of their FAILs. */
  readonly #retries = new Map<string, Waiting[]>();

  constructor(host: DeliveryHost) {
    this.#host = host;
    this.#transient = new TransientRoom(host.clock, host.logger);
  }

  /** Counts the connections: a place of an earlier one means nothing any more. */
  get epoch(): number {
    return this.#epoch;
  }

  get clock(): Clock {
    return this.#host.clock;
  }

  /**
   * A new connection: numbers start again. `remembers`: the server is one that has what it delivered before and sends it
   * again; otherwise (a server in memory that was restarted) what is here is all that there is, and goes on.
   */
  renew(remembers: boolean, runners: Iterable<Runner>, limits: WindowLimits): void {
    this.#transient.adopt(limits);
    this.#remembers = remembers;
    this.#epoch++;
    this.#next = 1;
    this.#acks = new RangeSet();
    this.#unacknowledged = 0;
    this.#isWary = false;
    this.#isInDoubt = false;
    const waiting = [...this.#retries.values()].flat();
    this.#retries.clear();
    this.#kept.clear();
    if (remembers) {
      const all = [...runners];
      for (const runner of all) if (runner.isShared) this.#kept.add(runner.channel);
      for (const runner of all) {
        if (this.#kept.has(runner.channel)) continue;
        for (const { work, from, end } of runner.takeBack(isExpectedAgain)) {
          for (let i = from; i < end; i++) work.abandon(i);
        }
      }
    } else {
      // Its senders may send it again, and another instance of the name may have it before this one is at it.
      this.#markAll();
    }
    for (const failed of waiting) this.#goOn(failed);
  }

  #markAll(): void {
    for (const { open } of this.#memories.values())
      for (const intake of open) if (intake.isPersistent) intake.isRedelivered = true;
  }

  /** Looks whether others of the name may have what is here, before handlers are started. */
  look(): void {
    const wasInDoubt = this.#isInDoubt;
    this.#isInDoubt = this.#host.mayBeGivenUp();
    if (this.#isInDoubt && !wasInDoubt) this.#markAll();
  }

  /** Messages have arrived. */
  receive(batch: Batch, note: DeliveryFrame | undefined): void {
    const { envelope, count } = batch;
    const number = envelope.persistent ? this.#next : 0;
    if (number !== 0) this.#next += count;
    if ((note?.attempt ?? 1) > 1) this.#isWary = true;
    const handles = (channel: string): boolean => this.#host.takers(channel) !== undefined;
    const channels = note?.subscriptions ?? matching(batch, handles);
    const live = channels.filter(handles);
    if (number !== 0 && live.length === 0) {
      this.#host.release([{ first: number, count }]);
      return;
    }
    if (number !== 0 && live.length < channels.length) {
      const missing = channels.filter(channel => !handles(channel));
      for (const channel of missing) this.#declineAll(channel, number, count, note?.attempt ?? 1);
    }
    if (number === 0 && !this.#transient.admits(batch)) return;
    const several = envelope.channels.length + envelope.clients.length > 1;
    const shared = live.length > 1 ? { left: new Uint16Array(count).fill(live.length) } : undefined;
    this.look();
    const isInDoubt = this.#isInDoubt && number !== 0;
    const arrival: Arrival = { batch, messages: new ReceivedBatch(batch), note, number, shared, isInDoubt };
    for (const channel of live)
      this.#admit(arrival, channel, this.#memoryOf(batch, note, several ? channel : undefined));
  }

  /** An intake of messages that are not persistent has begun, or all of its messages have ended. */
  transient(messages: number, bytes: number): void {
    this.#transient.count(messages, bytes);
  }

  /** The handler was taken away while these were on their way: they wait apart. */
  #declineAll(channel: string, number: number, count: number, attempt: number): void {
    for (let i = 0; i < count; i++) {
      this.#host.reject({ delivery: number + i, channel, kind: 'no-handler', attempts: attempt - 1, reason: '' });
    }
  }

  /** A message that can match several subscriptions is remembered for each; a dead letter that was sent again is a new one. */
  #memoryOf({ sender }: Batch, note: DeliveryFrame | undefined, channel: string | undefined): Memory {
    const revived = note?.revival === undefined ? '' : `+${String(note.revival)}`;
    const key = `${sender.instance}${revived}${channel === undefined ? '' : `/${channel}`}`;
    let memory = this.#memories.get(key);
    if (memory === undefined) {
      memory = { highest: 0, handled: new RangeSet(), open: new Set(), rejected: new Map(), attempted: new Map() };
      this.#memories.set(key, memory);
    }
    return memory;
  }

  /** The sender will not come back. What is being handled is remembered on: it comes again if this connection is lost. */
  forget(instance: string): void {
    for (const [key, { open }] of this.#memories) {
      if (key.startsWith(instance) && open.size === 0) this.#memories.delete(key);
    }
  }

  /** Starts what is new and passes over what is known; usually everything is new. */
  #admit(arrival: Arrival, channel: string, memory: Memory): void {
    const { batch, number, shared } = arrival;
    const { first, count } = batch;
    const isNew = first > memory.highest;
    memory.highest = Math.max(memory.highest, first + count - 1);
    let from = 0;
    for (let i = 0; i < count && !isNew; i++) {
      const position = first + i;
      const open = openAt(memory, position);
      if (open === undefined && !memory.handled.has(position)) continue;
      if (i > from) this.#start(arrival, channel, memory, from, i);
      from = i + 1;
      if (number === 0) continue;
      const place = { epoch: this.#epoch, number: number + i, shared, index: i };
      const rejection = open === undefined ? memory.rejected.get(position) : open.rejectionOf(position);
      if (rejection !== undefined) this.reject(channel, place, rejection);
      if (open === undefined) this.ended(place);
      else open.comeAgain(position, place);
    }
    if (from < count) this.#start(arrival, channel, memory, from, count);
  }

  #start(arrival: Arrival, channel: string, memory: Memory, from: number, end: number): void {
    const takers = this.#host.takers(channel) ?? [];
    const { batch, messages, note, number, shared, isInDoubt } = arrival;
    const count = takers.length;
    // Named one by one: to spread an object takes as long as some ten messages of the batch.
    const input = { batch, messages, note, number, shared, isInDoubt, channel, memory, runners: count, from, end };
    const intake = new Intake(this, input);
    memory.open.add(intake);
    for (const taker of takers) taker.accept(intake, from, end);
  }

  // ---- what intakes report ------------------------------------------------------------------------------------------------

  beginsAgain(): void {
    if (this.#isWary && this.#unacknowledged > 0) this.#host.hurry();
  }

  /** The handlers of one subscription have ended a message. */
  ended({ epoch, number, shared, index }: Place, isRedelivered = false): void {
    if (epoch !== this.#epoch || number === 0) return;
    if (shared !== undefined) {
      shared.left[index] = (shared.left[index] as number) - 1;
      if (shared.left[index] !== 0) return;
    }
    this.endedAt(number, isRedelivered);
  }

  endedAt(number: number, isRedelivered: boolean): void {
    if (this.#acks.isEmpty) this.#host.wake();
    this.#acks.add(number, 1);
    if (++this.#unacknowledged === HURRIED_ACKS || (isRedelivered && this.#isWary)) this.#host.hurry();
  }

  /** What is to be acknowledged now. */
  takeAcks(): { first: number; count: number }[] | undefined {
    this.#unacknowledged = 0;
    if (this.#acks.isEmpty) return undefined;
    const ranges = [...this.#acks.ranges()];
    this.#acks = new RangeSet();
    return ranges;
  }

  /**
   * Asks for another attempt, unless the connection is gone that could be asked. It is recorded at each place where the
   * message waits; answers come in order, so that the last one says that all of them have it.
   */
  fail(waiting: Waiting, places: readonly Place[], reason: string): void {
    const open = places.filter(({ epoch }) => epoch === this.#epoch);
    const last = open[open.length - 1];
    if (last === undefined) {
      this.#goOn(waiting);
      return;
    }
    const { attempt } = waiting;
    const { channel } = waiting.work;
    const key = `${String(last.number)}/${channel}`;
    const before = this.#retries.get(key);
    if (before === undefined) this.#retries.set(key, [waiting]);
    else before.push(waiting);
    for (const { number } of open) this.#host.fail({ delivery: number, channel, attempt, reason });
  }

  /** An attempt that failed and whose record was not confirmed by the connection that is gone, and will not be. */
  #goOn({ work, index, runner, attempt }: Waiting): void {
    if (this.#remembers && isExpectedAgain(work) && !this.#kept.has(work.channel)) {
      work.noteAttempt(index, attempt);
      work.abandon(index);
      runner.giveUp();
    } else {
      runner.retry(work, index, attempt + 1);
    }
  }

  /** The server has recorded an attempt, and the next one is to be made. */
  retry(delivery: number, channel: string, attempt: number): void {
    const key = `${String(delivery)}/${channel}`;
    const waiting = this.#retries.get(key);
    const next = waiting?.shift();
    if (waiting?.length === 0) this.#retries.delete(key);
    if (next !== undefined) next.runner.retry(next.work, next.index, attempt);
  }

  /** A handler will not have a message. Where the connection is gone that could be told, it is told when the message comes again. */
  reject(channel: string, { epoch, number }: Place, rejection: Rejection): void {
    if (epoch === this.#epoch && number !== 0) this.#host.reject({ delivery: number, channel, ...rejection });
  }

  /** Messages that were not started go back to the server, uncharged. */
  giveBack(rest: readonly Rest[]): void {
    const ranges = new RangeSet();
    for (const { work, from, end } of rest) {
      for (let i = from; i < end; i++) {
        const places = work.placesOf(i);
        if (!work.abandon(i)) continue;
        for (const place of places) {
          if (place.epoch !== this.#epoch || place.number === 0) continue;
          if (place.shared === undefined) ranges.add(place.number, 1);
          else this.release(work.channel, place, work.attemptOf(i));
        }
      }
    }
    if (!ranges.isEmpty) this.#host.release([...ranges.ranges()]);
  }

  /** The same for one message; where other subscriptions of this client have it too, only this one declines. */
  release(channel: string, place: Place, attempt: number): void {
    const { epoch, number, shared } = place;
    if (epoch !== this.#epoch || number === 0) return;
    if (shared === undefined) {
      this.#host.release([{ first: number, count: 1 }]);
      return;
    }
    this.#host.reject({ delivery: number, channel, kind: 'no-handler', attempts: attempt - 1, reason: '' });
    this.ended(place);
  }
}

/** The server will send it again as a whole; with several handlers, some of which may have ended, it is kept and joined. */
function isExpectedAgain(work: Work): boolean {
  return work.isPersistent && !work.hasSeveralRunners;
}

function openAt(memory: Memory, position: number): Intake | undefined {
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
