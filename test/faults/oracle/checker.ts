/**
 * The oracle: holds what senders were promised against what receivers have handled, by their histories alone. It never
 * asks the server. Each message is classified for each of its recipients:
 *
 *   delivered   a handler of the recipient has ended it        unknown  its sender was killed before it had an answer
 *   waiting     it is safe, and the run has not been drained   noticed  its sender was told that it will not arrive
 *   lost        none of these
 *
 * and whatever contradicts a promise is listed: lost, duplicated in a living process, out of order, phantom and so on.
 */
import type { DeliveryFailure } from '../../../src/index.js';
import type { Entry, History, HistoryRecord } from './records.js';
import { checkHandling, type Handling } from './handling.js';

/** What the checker must know of a scenario. */
export interface Cast {
  /** Names under which several processes run, now or at some time: no order across them, and each gets the channels. */
  readonly shared: readonly string[];
  /** Subscriptions, as `name/channel`, whose handlers run at the same time: no order. */
  readonly unordered: readonly string[];
  /** Everything was running at the end, no faults, and there was time: nothing may wait any longer. */
  readonly drained: boolean;
  /** Milliseconds that may pass after the time to live of a message until its handler is noted as started. */
  readonly expirySlack?: number;
  /** Why persistent messages may fail here; for any reason by default. */
  readonly reasons?: readonly string[];
}

/** What can be wrong. */
export const WRONGS = [
  'lost',
  'duplicated',
  'outOfOrder',
  'phantom',
  'contradicted',
  'premature',
  'unmarked',
  'late',
  'overlapped',
  'unanswered',
  'failed',
] as const;
export type Wrong = (typeof WRONGS)[number];

export interface Verdict {
  /** Messages that were to be sent. */
  readonly messages: number;
  /** Persistent messages, for each recipient. */
  readonly delivered: number;
  readonly waiting: number;
  readonly noticed: number;
  readonly unknown: number;
  /** Final notices by their reason. */
  readonly reasons: Readonly<Record<string, number>>;
  /** Handlers that were started, and those of them that were told that it may not be the first time. */
  readonly handlings: number;
  readonly redelivered: number;
  /** Of messages that are not persistent. */
  readonly transient: { readonly messages: number; readonly handlings: number };
  /** How often each promise was broken. */
  readonly wrong: Readonly<Record<Wrong, number>>;
  /** The same in words, the first of each. */
  readonly text: readonly string[];
}

/** A message as its sender knows it. */
export interface Message extends Extract<Entry, { k: 'intent' }> {
  readonly key: string;
  readonly process: string;
  readonly sentAt: number;
  /** Its sender has left in order, so that it has noted every answer. */
  readonly isAnswered: boolean;
  receipt: Extract<HistoryRecord, { k: 'receipt' }> | undefined;
  refused: string | undefined;
  readonly notices: Extract<HistoryRecord, { k: 'notice' }>[];
}

/** By which the clocks of a server's runs may differ, which count the time between them. */
const CLOCKS_MS = 100;

/** Findings are counted, and the first of each kind kept. */
export class Findings {
  readonly counts = Object.fromEntries(WRONGS.map(name => [name, 0])) as Record<Wrong, number>;
  readonly text: string[] = [];

  add(wrong: Wrong, text: string): void {
    if (this.counts[wrong]++ < 5) this.text.push(`${wrong}: ${text}`);
  }
}

export function check(histories: readonly History[], cast: Cast): Verdict {
  const findings = new Findings();
  const messages = readMessages(histories);
  const handling = checkHandling(histories, messages, cast, findings);
  const counts = { delivered: 0, waiting: 0, noticed: 0, unknown: 0, lost: 0 };
  const reasons: Record<string, number> = {};
  let transient = 0;
  for (const message of messages.values()) {
    checkAnswer(message, cast, findings);
    if (!message.persistent) transient++;
    for (const recipient of message.to) {
      const fate = fateOf(message, recipient, handling, cast);
      if (fate === 'noticed') {
        const reason = finalNotice(message, recipient)?.reason ?? message.refused ?? 'undelivered';
        reasons[reason] = (reasons[reason] ?? 0) + 1;
        const isPossible =
          cast.reasons?.includes(reason) !== false &&
          (reason !== 'expired' || mayHaveExpired(message)) &&
          (reason !== 'queue-full' || !wasStored(message));
        if (message.persistent && !isPossible) findings.add('failed', `${message.key} for ${recipient}: ${reason}`);
      }
      checkRecipient(message, recipient, handling, findings);
      if (!message.persistent) continue;
      counts[fate]++;
      if (fate === 'lost') findings.add('lost', `${message.key} for ${recipient}, ${answerOf(message)}`);
    }
    if (message.persistent) checkLiving(message, handling, cast, findings);
  }
  const { lost: _, ...fates } = counts;
  return {
    messages: messages.size,
    ...fates,
    reasons,
    handlings: handling.started,
    redelivered: handling.redelivered,
    transient: { messages: transient, handlings: handling.transient },
    wrong: findings.counts,
    text: findings.text,
  };
}

// ---- reading -----------------------------------------------------------------------------------------------------------

function readMessages(histories: readonly History[]): Map<string, Message> {
  const messages = new Map<string, Message>();
  const byId = new Map<string, Message>();
  for (const history of histories) {
    const [begin] = history;
    if (begin?.k !== 'sender') continue;
    const { process } = begin;
    const isAnswered = history.at(-1)?.k === 'closed';
    for (const record of history) {
      if (record.k === 'intent') {
        const key = `${process}:${String(record.n)}`;
        const rest = { receipt: undefined, refused: undefined, notices: [] };
        const message = { ...record, key, process, sentAt: record.t, isAnswered, ...rest };
        messages.set(key, message);
        byId.set(record.id, message);
        continue;
      }
      const message = 'n' in record ? messages.get(`${process}:${String(record.n)}`) : undefined;
      if (message !== undefined && record.k === 'receipt') message.receipt = record;
      if (message !== undefined && record.k === 'refused') message.refused = record.code;
    }
  }
  // A notice about what a process of before has sent comes to a later one of its name.
  for (const record of histories.flat()) if (record.k === 'notice') noteNotice(record, byId, messages);
  return messages;
}

/** One that stands for several is about those that were sent one after another, the first of which it names. */
function noteNotice(
  notice: Extract<HistoryRecord, { k: 'notice' }>,
  byId: ReadonlyMap<string, Message>,
  messages: ReadonlyMap<string, Message>,
): void {
  const first = byId.get(notice.messageId);
  if (first === undefined) return;
  for (let i = 0; i < (notice.count ?? 1); i++) {
    messages.get(`${first.process}:${String(first.n + i)}`)?.notices.push(notice);
  }
}

// ---- each message, each recipient ----------------------------------------------------------------------------------------

type Fate = 'delivered' | 'waiting' | 'noticed' | 'unknown' | 'lost';

function fateOf(message: Message, recipient: string, handling: Handling, { drained }: Cast): Fate {
  if (handling.endedFor(message.key, recipient) !== undefined) return 'delivered';
  if (isRefused(message) || finalNotice(message, recipient) !== undefined) return 'noticed';
  const { receipt, refused, isAnswered } = message;
  if (receipt === undefined) {
    if (refused !== undefined || !isAnswered) return 'unknown';
    return drained ? 'lost' : 'waiting';
  }
  return receipt.status === 'stored' && !drained ? 'waiting' : 'lost';
}

/** It has a time to live, and nobody was told that it is over before it was. */
function mayHaveExpired({ ttl, sentAt, notices, receipt }: Message): boolean {
  if (ttl === undefined) return false;
  const isIt = ({ final, reason }: DeliveryFailure): boolean => final && reason === 'expired';
  const told = notices.filter(isIt).map(({ t }) => t);
  if (receipt?.failures.some(isIt) === true) told.push(receipt.t);
  return told.every(t => t >= sentAt + ttl - CLOCKS_MS);
}

/** It was safe: there was room for it. Of one with several recipients the receipt does not say for whom it is stored. */
function wasStored({ to, receipt }: Message): boolean {
  return to.length === 1 && receipt?.status === 'stored';
}

/** Codes of refusals that say for certain that a message was not sent. */
const NOT_SENT = ['outbox-full', 'too-large', 'invalid-argument'];

function isRefused({ receipt, refused }: Message): boolean {
  return receipt?.status === 'undelivered' || (refused !== undefined && NOT_SENT.includes(refused));
}

/** A failure with attempts says that it may have arrived. */
function isRefusedForCertain(message: Message): boolean {
  const failures = [...message.notices, ...(message.receipt?.failures ?? [])];
  return isRefused(message) && !failures.some(({ final, attempts }) => final && attempts > 0);
}

/** The notice, or the failure in the receipt, which says that a message will not reach a recipient. */
function finalNotice({ notices, receipt }: Message, recipient: string): DeliveryFailure | undefined {
  const isIt = (failure: DeliveryFailure): boolean => failure.final && concerns(failure, recipient);
  return notices.find(isIt) ?? receipt?.failures.find(isIt);
}

function concerns({ target: { client, channel } }: DeliveryFailure, recipient: string): boolean {
  const [name, subscription] = recipient.split('/');
  if (client === undefined && channel === undefined) return true;
  return (client === undefined || client === name) && (channel ?? '') === subscription;
}

function checkRecipient(message: Message, recipient: string, handling: Handling, findings: Findings): void {
  const { key, receipt } = message;
  const started = handling.startedFor(key, recipient);
  const ended = handling.endedFor(key, recipient);
  const notice = finalNotice(message, recipient);
  if (started !== undefined && (notice?.attempts === 0 || (notice === undefined && isRefusedForCertain(message)))) {
    const why = notice === undefined ? answerOf(message) : `${notice.reason}, never attempted`;
    findings.add('contradicted', `${key} was handled by ${recipient}, and its sender was told: ${why}`);
  }
  if (receipt?.status !== 'delivered' || notice !== undefined) return;
  if (ended !== undefined && ended <= receipt.t) return;
  const when = ended === undefined ? 'never' : `${(ended - receipt.t).toFixed(1)} ms later`;
  findings.add('premature', `${key} was said to be delivered, and a handler of ${recipient} ended it ${when}`);
}

/** What a living sender must have heard at the end. */
function checkAnswer(message: Message, { drained }: Cast, findings: Findings): void {
  const { key, until, receipt, refused, persistent, isAnswered } = message;
  if (drained && isAnswered && receipt === undefined && refused === undefined)
    findings.add('unanswered', `${key} has no receipt`);
  // A client that leaves rejects what it still waits for: nobody had answered that.
  if (drained && isAnswered && refused !== undefined && !NOT_SENT.includes(refused))
    findings.add('unanswered', `${key} was rejected with ${refused}`);
  if (receipt === undefined) return;
  const isPossible = persistent
    ? receipt.status !== 'routed' &&
      !(receipt.status === 'stored' && (until === 'delivered' || receipt.durability !== 'fsync'))
    : receipt.status === 'routed' || receipt.status === 'undelivered';
  if (!isPossible)
    findings.add('unanswered', `${key}, until ${until}, persistent ${String(persistent)}: ${answerOf(message)}`);
}

/** A process of a shared name that was there before the message was sent, and to the end, has its own copy of a channel's. */
function checkLiving(message: Message, handling: Handling, { shared, drained }: Cast, findings: Findings): void {
  if (!drained || message.receipt === undefined) return;
  for (const recipient of message.to) {
    const [name = '', channel = ''] = recipient.split('/');
    if (channel === '' || !shared.includes(name) || finalNotice(message, recipient) !== undefined) continue;
    for (const { process, onlineAt } of handling.survivors(name)) {
      if (onlineAt < message.sentAt && !handling.hasEnded(process, message.key, channel))
        findings.add('lost', `${message.key} for ${recipient} in the living process ${process}, ${answerOf(message)}`);
    }
  }
}

function answerOf({ receipt, refused, isAnswered }: Message): string {
  if (receipt !== undefined) return `${receipt.status} (${receipt.durability})`;
  if (refused !== undefined) return `rejected with ${refused}`;
  return isAnswered ? 'no receipt' : 'its sender was killed before its receipt';
}
