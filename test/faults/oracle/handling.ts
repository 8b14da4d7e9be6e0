/** The receivers' side of the oracle: what each process has handled, how often, in which order, and how it was marked. */
import type { Cast, Findings, Message } from './checker.js';
import type { History, HistoryRecord } from './records.js';

type Got = Extract<HistoryRecord, { k: 'got' }>;

/** A handling of one message in one process. */
interface Started extends Got {
  readonly process: string;
  /** When that process came online. */
  readonly onlineAt: number;
}

/** A process that handles. */
interface Receiver {
  readonly name: string;
  readonly process: string;
  readonly startedAt: number;
  readonly onlineAt: number;
  readonly hasLeft: boolean;
  readonly history: History;
}

/** What was handled, for the classes of messages. */
export class Handling {
  /** Handlers that were started. */
  started = 0;
  redelivered = 0;
  /** Of messages that are not persistent. */
  transient = 0;
  readonly #receivers: readonly Receiver[];
  /** When the first handler of a recipient started, and when the first one ended, by message and recipient. */
  readonly #started = new Map<string, number>();
  readonly #ended = new Map<string, number>();
  /** By process, message and subscription. */
  readonly #endedIn = new Set<string>();

  constructor(receivers: readonly Receiver[]) {
    this.#receivers = receivers;
  }

  startedFor(key: string, recipient: string): number | undefined {
    return this.#started.get(`${key} ${recipient}`);
  }

  endedFor(key: string, recipient: string): number | undefined {
    return this.#ended.get(`${key} ${recipient}`);
  }

  hasEnded(process: string, key: string, sub: string): boolean {
    return this.#endedIn.has(`${process} ${key} ${sub}`);
  }

  /** The processes of a name that were there to the end. */
  survivors(name: string): Receiver[] {
    return this.#receivers.filter(receiver => receiver.name === name && receiver.hasLeft);
  }

  noteStart({ key, sub, t, redelivered }: Got, { name }: Receiver): void {
    this.started++;
    if (redelivered) this.redelivered++;
    keepEarlier(this.#started, `${key} ${name}/${sub}`, t);
  }

  noteEnd(key: string, sub: string, t: number, { name, process }: Receiver): void {
    keepEarlier(this.#ended, `${key} ${name}/${sub}`, t);
    this.#endedIn.add(`${process} ${key} ${sub}`);
  }
}

function keepEarlier(times: Map<string, number>, key: string, t: number): void {
  const before = times.get(key);
  if (before === undefined || t < before) times.set(key, t);
}

export function checkHandling(
  histories: readonly History[],
  messages: ReadonlyMap<string, Message>,
  cast: Cast,
  findings: Findings,
): Handling {
  const receivers = histories.flatMap(readReceiver).sort((a, b) => a.startedAt - b.startedAt);
  const handling = new Handling(receivers);
  const byRecipient = new Map<string, Started[]>();
  for (const receiver of receivers) {
    checkOnce(receiver, findings);
    checkOneAfterAnother(receiver, cast, findings);
    for (const record of receiver.history) {
      if (record.k === 'done') handling.noteEnd(record.key, record.sub, record.t, receiver);
      if (record.k !== 'got') continue;
      handling.noteStart(record, receiver);
      const message = messages.get(record.key);
      const recipient = `${receiver.name}/${record.sub}`;
      if (!checkWhat(record, message, recipient, receiver.process, findings)) continue;
      if (message?.persistent === false) handling.transient++;
      checkExpiry(record, message as Message, recipient, cast, findings);
      const list = byRecipient.get(recipient) ?? [];
      byRecipient.set(recipient, list);
      list.push({ ...record, process: receiver.process, onlineAt: receiver.onlineAt });
    }
  }
  for (const [recipient, started] of byRecipient) {
    checkMarks(recipient, started, messages, cast, findings);
    checkOrder(recipient, started, messages, cast, findings);
  }
  return handling;
}

function readReceiver(history: History): Receiver[] {
  const [begin] = history;
  if (begin?.k !== 'receiver') return [];
  const { name, process, t } = begin;
  const onlineAt = history.find(({ k }) => k === 'online')?.t ?? Infinity;
  return [{ name, process, startedAt: t, onlineAt, hasLeft: history.at(-1)?.k === 'closed', history }];
}

/** It was meant to be sent, as it came, to whom it came. */
function checkWhat(
  { key, crc }: Got,
  message: Message | undefined,
  recipient: string,
  process: string,
  findings: Findings,
): boolean {
  if (message === undefined) findings.add('phantom', `${process} got ${key}, which nobody sent`);
  else if (message.crc !== crc) findings.add('phantom', `${process} got ${key} with another body than was sent`);
  else if (!message.to.includes(recipient)) findings.add('phantom', `${recipient} got ${key}, which is not for it`);
  else return true;
  return false;
}

function checkExpiry({ t }: Got, message: Message, recipient: string, cast: Cast, findings: Findings): void {
  const { key, ttl, sentAt } = message;
  if (ttl === undefined || cast.expirySlack === undefined) return;
  const over = t - sentAt - ttl;
  if (over > cast.expirySlack)
    findings.add('late', `${recipient} got ${key} ${over.toFixed(0)} ms after it had expired`);
}

/** In one process a message is handled again only after its handler has failed. */
function checkOnce({ process, history }: Receiver, findings: Findings): void {
  const states = new Map<string, 'got' | 'threw' | 'done'>();
  for (const record of history) {
    if (record.k !== 'got' && record.k !== 'threw' && record.k !== 'done') continue;
    const what = `${record.key} on "${record.sub}"`;
    const before = states.get(what);
    if (record.k === 'got' && (before === 'done' || before === 'got'))
      findings.add('duplicated', `${process} handled ${what} again, after ${before === 'got' ? 'a start' : 'its end'}`);
    states.set(what, record.k);
  }
}

/** In one process the next message of a subscription starts when the one before has ended. */
function checkOneAfterAnother({ name, process, history }: Receiver, { unordered }: Cast, findings: Findings): void {
  const running = new Map<string, string>();
  for (const record of history) {
    if (record.k === 'done' || record.k === 'threw') {
      if (running.get(record.sub) === record.key) running.delete(record.sub);
    } else if (record.k === 'got' && !unordered.includes(`${name}/${record.sub}`)) {
      const before = running.get(record.sub);
      if (before !== undefined)
        findings.add('overlapped', `${process} started ${record.key} on "${record.sub}" before ${before} had ended`);
      running.set(record.sub, record.key);
    }
  }
}

/**
 * Where one process gets a message (that of a name, or one of a shared name's own messages), a second one that gets it is
 * told that it may not be the first. One that is not persistent is handled once at most.
 */
function checkMarks(
  recipient: string,
  started: readonly Started[],
  messages: ReadonlyMap<string, Message>,
  { shared }: Cast,
  findings: Findings,
): void {
  const [name = '', channel] = recipient.split('/');
  if (channel !== '' && shared.includes(name)) return;
  const first = new Map<string, Started>();
  for (const got of [...started].sort((a, b) => a.t - b.t)) {
    const before = first.get(got.key);
    if (before === undefined) {
      first.set(got.key, got);
      continue;
    }
    if (messages.get(got.key)?.persistent === false)
      findings.add('duplicated', `${got.key}, not persistent, was handled twice for ${recipient}`);
    else if (before.process !== got.process && !got.redelivered)
      findings.add('unmarked', `${got.process} got ${got.key} for ${recipient} after ${before.process}, unmarked`);
  }
}

/**
 * The messages of one sender are started in the order in which they were sent, in each process and over all of them. Each
 * process of a shared name has its own copy of what comes on a channel while it is there; what others leave comes to it late.
 */
function checkOrder(
  recipient: string,
  started: readonly Started[],
  messages: ReadonlyMap<string, Message>,
  { shared, unordered }: Cast,
  findings: Findings,
): void {
  const [name = '', channel] = recipient.split('/');
  const isShared = shared.includes(name);
  if ((isShared && channel === '') || unordered.includes(recipient)) return;
  const seen = new Set<string>();
  const highest = new Map<string, number>();
  const last = new Map<string, number>();
  for (const { key, process, redelivered, onlineAt } of started) {
    const { n, process: sender, persistent, sentAt } = messages.get(key) as Message;
    if (!persistent || (isShared && (redelivered || sentAt < onlineAt))) continue;
    const here = `${process} ${sender}`;
    const isOnlyHere = isShared || seen.has(key);
    const before = Math.max(last.get(here) ?? 0, isOnlyHere ? 0 : (highest.get(sender) ?? 0));
    // The same once more is another attempt.
    if (n < before) findings.add('outOfOrder', `${process} started ${key} for ${recipient} after ${String(before)}`);
    seen.add(key);
    last.set(here, Math.max(last.get(here) ?? 0, n));
    highest.set(sender, Math.max(highest.get(sender) ?? 0, n));
  }
}
