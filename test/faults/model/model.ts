/**
 * What was promised, and no more: who must handle a message, who may, how often, in which order, and what its sender hears.
 * It knows no queues, windows or lanes. The world tells the model what it does and what it sees; what contradicts a promise
 * goes to `wrong`.
 *
 *   sent ──the server takes it──▶ a `Duty` for each name that subscribes or is addressed, or for the channel's backlog
 *     open ──a handler ends──▶ done
 *       └──the sender hears of it: expired, rejected, dropped──▶ gone
 *
 * Of a duty that is unsure nothing is promised but that it is not done twice: the message is not persistent, its sender
 * died before it was safe, it was in a server's memory, or its subscription was ended.
 */
import type { Clock } from '../../../src/clock.js';
import type { DeliveryFailure, DeliveryInfo, Receipt } from '../../../src/index.js';

export const GRACE = 30_000;
export const MAX_ATTEMPTS = 3;

/** What is sent, and how. */
export interface Shape {
  readonly channels: readonly string[];
  readonly clients: readonly string[];
  readonly persistent: boolean;
  readonly ttl: number | undefined;
  /** Until it is delivered. */
  readonly followed: boolean;
}

/** One process's client object. */
export interface Peer {
  readonly label: string;
  readonly name: string;
  /** As the server knows it: connected; gone, and waited for; not known, or no more. */
  state: 'online' | 'lost' | 'away';
  lostAt: number;
  /** Its process lives. */
  isAlive: boolean;
  isLeaving: boolean;
  /** It is connected, and nothing is held back on its way. */
  readonly isClear: boolean;
  /** Subscriptions that the server knows it handles; '' is what is addressed to the name. */
  readonly declared: Set<string>;
  readonly sent: Sent[];
  /** The latest message that it started, by sender and subscription. */
  readonly latest: Map<string, number>;
  /** What came to it was held back on its way until then. */
  delayedUntil: number;
  /** When its connection was last lost, by its own doing or the server's. */
  troubledAt: number;
}

export interface Sent {
  readonly n: number;
  readonly sender: Peer;
  /** In its sender's sequence. */
  readonly position: number;
  readonly shape: Shape;
  readonly sentAt: number;
  readonly expiresAt: number;
  /** By name and subscription; what waits in a backlog has no name yet. */
  readonly duties: Map<string, Duty>;
  /** What its sender must have heard: final notices. */
  readonly told: Set<string>;
  /** The run of the server that took it last; -1 while none has. */
  run: number;
  /** The server that took it has ended, and may have forgotten it: it may be taken again. */
  isDoubtful: boolean;
  receipt: Receipt | Error | undefined;
}

/** A name, or whoever subscribes first, must handle a message. */
export interface Duty {
  readonly sent: Sent;
  name: string;
  readonly subscription: string;
  state: 'open' | 'done' | 'gone';
  isUnsure: boolean;
  /** Its place among its sender's messages is promised: the name had no two instances meanwhile. */
  isOrdered: boolean;
  /** Its subscription was ended. */
  isEnded: boolean;
  /** A handler has failed for the last time. */
  isRefused: boolean;
  /** Instances of a shared name, each of which may handle a channel's message, and those that must. */
  readonly shares: Set<Peer>;
  readonly owed: Set<Peer>;
  /** The share of an instance that will not come back, or has no handler any more, waits for any of the name. */
  isShareLoose: boolean;
  readonly starts: {
    readonly peer: Peer;
    readonly attempt: number;
    readonly isMarked: boolean;
    readonly run: number;
    readonly at: number;
    readonly wasOnline: boolean;
  }[];
  readonly ends: Peer[];
  /** Those of which the server has certainly heard. */
  readonly heard: Set<Peer>;
  failures: number;
  /** Attempts that the deaths of processes have cost. */
  charges: number;
}

/** What the server knows of a name. */
interface Role {
  readonly subscriptions: Set<string>;
  readonly peers: Set<Peer>;
}

export class Model {
  readonly sent: Sent[] = [];
  readonly wrong: string[] = [];
  readonly counts = { messages: 0, handled: 0, gone: 0, unsure: 0, lost: 0, duplicated: 0, outOfOrder: 0 };
  /** Dead letters by key; true: certainly there. */
  readonly dead = new Map<string, boolean>();
  /** Those of the last moment: a server that is killed in it may not have kept them. */
  readonly #fresh = new Set<string>();
  readonly #roles = new Map<string, Role>();
  readonly #byId = new Map<string, Sent>();
  /** How many more attempts the deaths of processes may cost, by name and subscription: one for each death. */
  readonly #allowed = new Map<string, number>();
  readonly #clock: Clock;
  readonly isDurable: boolean;
  /** Counts the starts of the server. */
  run = 0;

  constructor(isDurable: boolean, clock: Clock) {
    this.isDurable = isDurable;
    this.#clock = clock;
  }

  get now(): number {
    return this.#clock.monotonic();
  }

  fail(text: string): void {
    this.wrong.push(text);
  }

  role(name: string): Role {
    let role = this.#roles.get(name);
    if (role === undefined) this.#roles.set(name, (role = { subscriptions: new Set(), peers: new Set() }));
    return role;
  }

  *duties(): Iterable<Duty> {
    for (const { duties } of this.sent) yield* duties.values();
  }

  // ---- sending ---------------------------------------------------------------------------------------------------------

  sends(sender: Peer, shape: Shape): Sent {
    const sent: Sent = {
      n: this.sent.length,
      sender,
      position: sender.sent.length + 1,
      shape,
      sentAt: this.now,
      expiresAt: this.now + (shape.ttl ?? Infinity),
      duties: new Map(),
      told: new Set(),
      run: -1,
      isDoubtful: false,
      receipt: undefined,
    };
    this.sent.push(sent);
    sender.sent.push(sent);
    this.counts.messages++;
    return sent;
  }

  identify(id: string, sent: Sent): void {
    this.#byId.set(id, sent);
  }

  /** The messages that a notice is about. */
  *named({ messageId, count = 1 }: DeliveryFailure): Iterable<Sent> {
    const first = this.#byId.get(messageId) as Sent;
    for (let i = 0; i < count; i++) yield first.sender.sent[first.position - 1 + i] as Sent;
  }

  /** The server has taken it, and hands it on now. */
  takes(id: string): void {
    const sent = this.#byId.get(id) as Sent;
    if (sent.run === this.run) this.fail(`#${sent.n} was taken twice by one server`);
    else if (sent.run >= 0 && !sent.isDoubtful) this.fail(`#${sent.n} was taken again, although it was safe`);
    // It was settled, and its receipt was lost with the server: who was not there then may get it now, behind later ones.
    const isAgain = sent.run >= 0;
    const isLate = sent.duties.size > 0 && [...sent.duties.values()].every(({ state }) => state !== 'open');
    sent.run = this.run;
    sent.isDoubtful = false;
    for (const client of sent.shape.clients) this.#due(sent, client, '', isAgain);
    for (const channel of sent.shape.channels) {
      const names = [...this.#roles].filter(([, { subscriptions }]) => subscriptions.has(channel));
      if (names.length === 0) this.#due(sent, '', channel, isAgain);
      for (const [name, { peers }] of names) {
        const { shares, owed, isRefused } = this.#due(sent, name, channel, isAgain);
        for (const peer of peers) {
          if (!peer.declared.has(channel)) continue;
          shares.add(peer);
          if (!isRefused && peer.state !== 'away') owed.add(peer);
        }
      }
    }
    if (isLate) for (const duty of sent.duties.values()) duty.isOrdered = false;
  }

  #due(sent: Sent, name: string, subscription: string, isAgain: boolean): Duty {
    const key = `${name}/${subscription}`;
    const isAlone = this.role(name).peers.size < 2;
    const known = sent.duties.get(key);
    if (known !== undefined) {
      // The server had forgotten it. Who has handled it does not again; what was given up may be given up again. An instance
      // that was alone is not waited for by the next server.
      if (known.isOrdered) known.owed.clear();
      known.isOrdered &&= isAlone;
      if (known.state === 'gone') Object.assign(known, { state: 'open', isUnsure: true });
      else known.isUnsure = !sent.shape.persistent;
      return known;
    }
    const duty: Duty = {
      sent,
      name,
      subscription,
      state: 'open',
      isUnsure: !sent.shape.persistent,
      // Who was none of its recipients when a server first took it may have had later ones by now.
      isOrdered: sent.shape.persistent && isAlone && !isAgain,
      isEnded: false,
      isRefused: false,
      shares: new Set(),
      owed: new Set(),
      isShareLoose: false,
      starts: [],
      ends: [],
      heard: new Set(),
      failures: 0,
      charges: 0,
    };
    sent.duties.set(key, duty);
    return duty;
  }

  receives(sent: Sent, receipt: Receipt): void {
    const duties = [...sent.duties.values()];
    // A server that has forgotten it was not asked again in time.
    if (sent.isDoubtful && receipt.status === 'undelivered' && this.now >= sent.expiresAt)
      for (const duty of duties) duty.isUnsure = true;
    sent.receipt = receipt;
    sent.isDoubtful = false;
    const { status, durability } = receipt;
    const says = (text: string): void => this.fail(`the receipt of #${sent.n} says ${status}, ${text}`);
    if (!sent.shape.persistent) {
      if (status !== 'routed' && status !== 'undelivered') says('and it is not persistent');
      return;
    }
    const left = duties.find(duty => this.isLeft(duty));
    if (status === 'routed') says('and it is persistent');
    if (status === 'delivered' && left !== undefined) says(`but ${describe(left)}`);
    if (status === 'stored' && sent.shape.followed) says('and that is not the end of it');
    if (status === 'stored' && durability !== (this.isDurable ? 'fsync' : 'memory')) says(`and ${durability}`);
    if (status === 'undelivered' && left !== undefined) says(`but ${describe(left)}`);
    if (status === 'undelivered' && duties.length > 0 && duties.every(duty => duty.state === 'done' && !duty.isUnsure))
      if (sent.told.size === 0) says('but it was handled');
  }

  refusesReceipt(sent: Sent, error: Error & { code?: string }): void {
    sent.receipt = error;
    const isOver = error.code === 'closed' && sent.sender.isLeaving;
    const isForgotten = error.code === 'different-store' && !this.isDurable && this.run > 0;
    if (!isOver && !isForgotten) this.fail(`the receipt of #${sent.n} was refused: ${String(error)}`);
  }

  /** Somebody must handle it still. */
  isLeft({ sent, state, isUnsure, owed, ends }: Duty): boolean {
    if (isUnsure) return false;
    return (
      state === 'open' || (this.now < sent.expiresAt && [...owed].some(peer => peer.isAlive && !ends.includes(peer)))
    );
  }

  // ---- handling --------------------------------------------------------------------------------------------------------

  starts(peer: Peer, n: number, subscription: string, info: DeliveryInfo): void {
    const what = `${peer.label} started #${n} for ${peer.name}/${subscription}`;
    const sent = this.sent[n];
    const duty = sent?.duties.get(`${peer.name}/${subscription}`);
    if (sent === undefined || duty === undefined) {
      this.fail(`${what}, which was not for it`);
      return;
    }
    if (duty.ends.includes(peer)) {
      this.counts.duplicated++;
      this.fail(`${what}, which it has handled before`);
    }
    if (this.now >= this.#lastMoment(sent, peer)) this.fail(`${what} after its time was over`);
    const isMarked = info.redelivered || info.attempt > 1;
    if (!this.#mayStart(duty, peer, isMarked)) this.fail(`${what}, which others have handled`);
    // What goes to each instance of the name is no repetition at the next one.
    const before = duty.starts.filter(start => start.peer === peer || (subscription === '' && !start.isMarked));
    if (before.length > 0 && !isMarked) this.fail(`${what} again, unmarked`);
    if (before.length > 0 && !sent.shape.persistent) this.fail(`${what} again, and it is not persistent`);
    this.#checkAttempt(what, duty, before, info.attempt);
    if (duty.isOrdered) this.#checkOrder(what, peer, duty);
    duty.starts.push({
      peer,
      attempt: info.attempt,
      isMarked,
      run: this.run,
      at: this.now,
      wasOnline: peer.state === 'online',
    });
  }

  /** When it is over for this one. How long the network takes nobody knows: what is left of its time begins behind that. */
  #lastMoment({ expiresAt, sentAt, sender }: Sent, peer: Peer): number {
    const delayedUntil = Math.max(sender.delayedUntil, peer.delayedUntil);
    return delayedUntil > sentAt ? Math.max(expiresAt, delayedUntil + (expiresAt - sentAt)) : expiresAt;
  }

  /** What is done comes again only to those who are in doubt about it, and says so. */
  #mayStart(duty: Duty, peer: Peer, isMarked: boolean): boolean {
    if (duty.state === 'open' || duty.isUnsure || duty.isShareLoose || duty.shares.has(peer)) return true;
    // After a crash of the server the other one may have been the one that was marked.
    const isDoubtful = isMarked || duty.starts.some(start => start.isMarked);
    const hasTrouble = this.run > 0 || duty.starts.some(start => start.peer.troubledAt > -Infinity);
    if (!isDoubtful || !hasTrouble) return false;
    // Who is not connected goes on with what it has, and is told of nothing.
    if (peer.state !== 'online') return true;
    return duty.starts.some(
      ({ run, at, wasOnline, peer: other }) => run < this.run || !wasOnline || other.troubledAt >= at,
    );
  }

  #checkAttempt(what: string, duty: Duty, before: Duty['starts'], attempt: number): void {
    if (attempt > MAX_ATTEMPTS) this.fail(`${what} as attempt ${attempt}`);
    if (!this.#charge(duty, attempt - 1))
      this.fail(`${what} as attempt ${attempt}, but only ${duty.failures + duty.charges} can have failed`);
    // From the second on, attempts are recorded before they are made; a server in memory forgets them.
    const known = before.filter(({ run }) => this.isDurable || run === this.run).map(start => start.attempt);
    const least = Math.max(0, ...known.filter(other => other > 1));
    if (attempt < least) this.fail(`${what} as attempt ${attempt} after attempt ${least}`);
  }

  /** So many attempts are over: those that failed, and no more than the deaths of processes may have cost. */
  #charge(duty: Duty, attempts: number): boolean {
    const missing = attempts - duty.failures - duty.charges;
    if (missing <= 0) return true;
    const key = `${duty.name}/${duty.subscription}`;
    const allowed = this.#allowed.get(key) ?? 0;
    if (missing > allowed) return false;
    this.#allowed.set(key, allowed - missing);
    duty.charges += missing;
    return true;
  }

  #checkOrder(what: string, peer: Peer, { sent, subscription }: Duty): void {
    const key = `${sent.sender.label}/${subscription}`;
    const latest = peer.latest.get(key) ?? -1;
    if (sent.n < latest) {
      this.counts.outOfOrder++;
      this.fail(`${what} after #${latest}, which was sent later`);
    }
    peer.latest.set(key, Math.max(latest, sent.n));
  }

  ends(peer: Peer, n: number, subscription: string): void {
    const duty = this.sent[n]?.duties.get(`${peer.name}/${subscription}`);
    if (duty === undefined) return;
    duty.ends.push(peer);
    duty.state = 'done';
    this.counts.handled++;
  }

  /** A handler has failed; with its last attempt, or for good, the message becomes a dead letter. */
  fails(peer: Peer, n: number, subscription: string, isLast: boolean): void {
    const duty = this.sent[n]?.duties.get(`${peer.name}/${subscription}`);
    if (duty === undefined) return;
    duty.failures++;
    duty.isRefused ||= isLast;
    if (isLast) duty.owed.delete(peer);
  }

  // ---- notices ---------------------------------------------------------------------------------------------------------

  /** The server says that messages will not reach a recipient. */
  tells(failure: DeliveryFailure): void {
    if (failure.final) for (const sent of this.named(failure)) this.#tell(sent, failure);
  }

  #tell(sent: Sent, { target, reason, attempts }: DeliveryFailure): void {
    if (!sent.shape.persistent) return;
    const { client = '', channel = '' } = target;
    const notice = noticeOf(reason, target);
    const isRepeated = sent.told.has(notice);
    sent.told.add(notice);
    // What has just left the backlog is spoken of as if it were there.
    const left =
      client === '' ? [...sent.duties.values()].find(({ subscription }) => subscription === channel) : undefined;
    const duty = sent.duties.get(`${client}/${channel}`) ?? left;
    if (duty !== undefined && reason === 'rejected') {
      this.dead.set(keyOf(duty), true);
      this.#fresh.add(keyOf(duty));
    }
    // A dead letter that was sent again may be refused again, and is told of in the same words.
    const isAnother = duty?.state === 'open' && duty.isRefused && reason === 'rejected';
    if (isRepeated && !isAnother) return;
    if (duty === undefined || !this.#isTrue(duty, reason, attempts)) {
      this.fail(`the sender of #${sent.n} hears "${notice}", but ${duty === undefined ? 'nobody' : describe(duty)}`);
      return;
    }
    this.counts.gone++;
    if (duty.state === 'open') duty.state = 'gone';
  }

  #isTrue(duty: Duty, reason: string, attempts: number): boolean {
    if (reason === 'rejected') return duty.isRefused || this.#charge(duty, MAX_ATTEMPTS);
    if (reason === 'dropped') return duty.isEnded;
    if (reason !== 'expired' || this.now < duty.sent.expiresAt) return false;
    // It was handled, and nobody could say so before its time was over: the notice tells that it was attempted.
    const isShared = [...duty.shares].some(peer => !duty.ends.includes(peer));
    return duty.state !== 'done' || duty.isUnsure || duty.isShareLoose || attempts > 0 || isShared;
  }

  // ---- instances and the server ----------------------------------------------------------------------------------------

  /** An instance is connected, and declares what it handles. */
  attach(peer: Peer, handlers: Iterable<string>): void {
    const { peers } = this.role(peer.name);
    peers.add(peer);
    peer.state = 'online';
    if (peers.size > 1) for (const duty of this.duties()) if (duty.name === peer.name) duty.isOrdered = false;
    const wanted = new Set(handlers);
    for (const subscription of wanted) this.declare(peer, subscription);
    for (const subscription of [...peer.declared]) if (!wanted.has(subscription)) this.undeclare(peer, subscription);
  }

  declare(peer: Peer, subscription: string): void {
    const { name } = peer;
    peer.declared.add(subscription);
    if (subscription === '') return;
    this.role(name).subscriptions.add(subscription);
    for (const { duties } of this.sent) {
      const duty = duties.get(`/${subscription}`);
      if (duty?.state !== 'open') continue;
      duties.delete(`/${subscription}`);
      const before = duties.get(`${name}/${subscription}`);
      duty.name = name;
      duty.isOrdered &&= this.role(name).peers.size < 2;
      // It was this name's already, before a server in memory forgot that.
      if (before === undefined) duties.set(`${name}/${subscription}`, duty);
    }
  }

  undeclare(peer: Peer, subscription: string): void {
    if (!peer.declared.delete(subscription)) return;
    for (const duty of this.duties()) {
      if (duty.name !== peer.name || duty.subscription !== subscription) continue;
      duty.owed.delete(peer);
      if (duty.shares.has(peer) && duty.heard.size === 0) duty.isShareLoose = true;
    }
  }

  endSubscription(name: string, channel: string): void {
    const { subscriptions, peers } = this.role(name);
    if (!subscriptions.delete(channel)) return;
    for (const duty of this.duties()) {
      if (duty.name !== name || duty.subscription !== channel) continue;
      // Where one process of a shared name has refused it, another one's copy may wait still.
      if (duty.state === 'gone' && (duty.isOrdered || !duty.isRefused)) continue;
      duty.isEnded = true;
      duty.isUnsure = true;
    }
    for (const peer of peers) this.undeclare(peer, channel);
  }

  /** Its connection is gone, and the server waits for it. */
  loses(peer: Peer): void {
    peer.state = 'lost';
    peer.lostAt = this.now;
    peer.troubledAt = this.now;
  }

  /** The server does not wait for it any longer. */
  retires(peer: Peer): void {
    for (const subscription of [...peer.declared]) this.undeclare(peer, subscription);
    this.role(peer.name).peers.delete(peer);
    peer.state = 'away';
    peer.troubledAt = this.now;
  }

  /** A process dies: what it has sent and is not safe may arrive or not, and one message of each handler is charged. */
  dies(peer: Peer): void {
    for (const { run, isDoubtful, duties } of peer.sent)
      if (run < 0 || isDoubtful) for (const duty of duties.values()) duty.isUnsure = true;
    for (const subscription of peer.declared) {
      const key = `${peer.name}/${subscription}`;
      this.#allowed.set(key, (this.#allowed.get(key) ?? 0) + 1);
    }
  }

  /** The server has ended; what it had not made safe comes again from its senders. */
  serverEnds(): void {
    this.run++;
    for (const sent of this.sent) {
      const isSafe = sent.receipt !== undefined;
      if (sent.run >= 0 && (!isSafe || !this.isDurable)) sent.isDoubtful = true;
      const isForgotten = !this.isDurable || (!isSafe && !sent.sender.isAlive);
      for (const duty of sent.duties.values()) {
        duty.isUnsure ||= isForgotten;
        if (!this.isDurable) duty.owed.clear();
      }
    }
    for (const key of this.#fresh) this.dead.set(key, false);
    this.#fresh.clear();
    if (!this.isDurable) this.dead.clear();
    for (const { peers } of this.#roles.values()) {
      for (const peer of peers) {
        Object.assign(peer, { state: 'away', lostAt: this.now, troubledAt: this.now });
        if (!this.isDurable) peer.declared.clear();
      }
    }
    // A durable one knows names and subscriptions again, and waits for the instances of which a name had several.
    if (!this.isDurable) this.#roles.clear();
  }

  /** So much time will pass, and nothing comes or goes before it has. */
  timePasses(ms: number): void {
    for (const { peers } of this.#roles.values())
      for (const peer of [...peers])
        if (peer.state !== 'online' && this.now + ms - peer.lostAt >= GRACE) this.retires(peer);
  }

  /** Nothing moves any more: what has happened is there to stay. */
  rests(): void {
    this.#fresh.clear();
    for (const { ends, heard } of this.duties()) for (const peer of ends) if (peer.isClear) heard.add(peer);
  }

  /** Nobody has, or may get, another copy of what became a dead letter. */
  isOver(key: string): boolean {
    return this.#dutyOf(key).shares.size < 2;
  }

  #dutyOf(key: string): Duty {
    return [...this.duties()].find(duty => keyOf(duty) === key) as Duty;
  }

  /** A dead letter is sent again, as a new message. */
  revives(key: string): void {
    const duty = this.#dutyOf(key);
    const { sent, name, subscription } = duty;
    sent.duties.delete(`${name}/${subscription}`);
    this.#due(sent, name, subscription, true);
  }
}

export function keyOf({ sent: { n }, name, subscription }: Duty): string {
  return `${n}/${name}/${subscription}`;
}

export function noticeOf(reason: string, { client = '', channel = '' }: DeliveryFailure['target']): string {
  return `${reason} ${client}/${channel}`;
}

export function describe({ sent, name, subscription, state, isUnsure, owed, ends }: Duty): string {
  const missing = [...owed].filter(peer => !ends.includes(peer)).map(({ label }) => label);
  return `#${sent.n} for ${name}/${subscription} is ${isUnsure ? 'perhaps ' : ''}${state}, owed to ${missing.join(', ') || 'none'}`;
}
