/**
 * The frames but MESSAGES: for each an interface, `encodeX` and `decodeX`, pure and strict (docs/protocol.md; the clause
 * stands with each).
 */
import { checkName } from '../names.js';
import { FAILURE_REASONS, type DeliveryFailure, type Receipt } from '../receipts.js';
import { malformed, Reader, Writer, type WireRange } from './bytes.js';
import { FRAME } from './constants.js';

export type Extensions = ReadonlyMap<string, Uint8Array>;

function writeExtensions(writer: Writer, extensions: Extensions): void {
  writer.varint(extensions.size);
  for (const [key, value] of extensions) writer.str(key).bytes(value);
}

function readExtensions(reader: Reader): Extensions {
  const extensions = new Map<string, Uint8Array>();
  for (let n = reader.count(2); n > 0; n--) {
    const key = reader.str(255);
    extensions.set(key, reader.bytes());
  }
  return extensions;
}

/** 1.4 */
export function readName(reader: Reader, what: string): string {
  const name = reader.str();
  checkName(name, what);
  return name;
}

function channelOrSelf(reader: Reader): string {
  const name = reader.str();
  if (name !== '') checkName(name, 'the channel');
  return name;
}

// ---- 3: the opening exchange -------------------------------------------------------------------------------------------

/** 3.2 */
export interface Hello {
  readonly generated: boolean;
  readonly name: string;
  readonly instance: string;
  readonly idPrefix: string;
  readonly floor: number;
  readonly next: number;
  readonly store: string;
  readonly host: string;
  readonly pid: number;
  readonly pingInterval: number;
  readonly deadAfter: number;
  readonly extensions: Extensions;
}

export function encodeHello(hello: Hello): Buffer {
  const writer = new Writer(FRAME.HELLO)
    .varint(hello.generated ? 1 : 0)
    .str(hello.name)
    .id16(hello.instance)
    .str(hello.idPrefix)
    .varint(hello.floor)
    .varint(hello.next)
    .str(hello.store)
    .str(hello.host)
    .varint(hello.pid)
    .varint(hello.pingInterval)
    .varint(hello.deadAfter);
  writeExtensions(writer, hello.extensions);
  return writer.finish();
}

export function decodeHello(reader: Reader): Hello {
  const generated = (reader.varint() & 1) === 1;
  const name = reader.str();
  const instance = reader.id16();
  const idPrefix = reader.str(64);
  if (!/^[A-Za-z0-9_-]{16}$/.test(idPrefix)) throw malformed('the prefix of ids must be 16 characters of A-Z a-z 0-9 - _');
  const hello = {
    generated,
    name,
    instance,
    idPrefix,
    floor: reader.varint(),
    next: reader.varint(),
    store: reader.str(64),
    host: reader.str(255),
    pid: reader.varint(),
    pingInterval: reader.varint(),
    deadAfter: reader.varint(),
    extensions: readExtensions(reader),
  };
  reader.done();
  return hello;
}

export const DURABILITIES = ['memory', 'fsync', 'replicated'] as const;

export interface WireLimits {
  readonly messageBytes: number;
  readonly headerBytes: number;
  readonly targets: number;
  readonly nameBytes: number;
  readonly subscriptions: number;
  readonly windowMessages: number;
  readonly windowBytes: number;
  readonly sendWindow: number;
}

const WIRE_LIMITS = ['messageBytes', 'headerBytes', 'targets', 'nameBytes', 'subscriptions', 'windowMessages', 'windowBytes', 'sendWindow'] as const;

/** 3.3 */
export interface Welcome {
  readonly known: boolean;
  readonly stored: boolean;
  readonly boot: string;
  readonly store: string;
  readonly sender: number;
  readonly durability: (typeof DURABILITIES)[number];
  readonly limits: WireLimits;
  readonly pingInterval: number;
  readonly deadAfter: number;
  readonly address: string;
  readonly taken: readonly WireRange[];
  readonly extensions: Extensions;
}

export function encodeWelcome(welcome: Welcome): Buffer {
  const writer = new Writer(FRAME.WELCOME)
    .varint((welcome.known ? 1 : 0) + (welcome.stored ? 2 : 0))
    .id16(welcome.boot)
    .str(welcome.store)
    .varint(welcome.sender)
    .u8(DURABILITIES.indexOf(welcome.durability));
  for (const limit of WIRE_LIMITS) writer.varint(welcome.limits[limit]);
  writer.varint(welcome.pingInterval).varint(welcome.deadAfter).str(welcome.address).ranges(welcome.taken);
  writeExtensions(writer, welcome.extensions);
  return writer.finish();
}

export function decodeWelcome(reader: Reader): Welcome {
  const flags = reader.varint();
  const boot = reader.id16();
  const store = reader.str(64);
  const sender = reader.varint();
  const durability = DURABILITIES[reader.u8()];
  if (durability === undefined) throw malformed('the durability is not known');
  const limits = Object.fromEntries(WIRE_LIMITS.map(limit => [limit, reader.varint()])) as unknown as WireLimits;
  const welcome = {
    known: (flags & 1) !== 0,
    stored: (flags & 2) !== 0,
    boot,
    store,
    sender,
    durability,
    limits,
    pingInterval: reader.varint(),
    deadAfter: reader.varint(),
    address: reader.str(1024),
    taken: reader.ranges(),
    extensions: readExtensions(reader),
  };
  reader.done();
  return welcome;
}

// ---- 4: subscriptions ----------------------------------------------------------------------------------------------------

/** 4.1 */
export interface Subscribe {
  readonly request: number;
  readonly channel: string;
  readonly concurrency: number;
  readonly window: number;
  readonly maxAttempts: number;
}

export function encodeSubscribe(frame: Subscribe): Buffer {
  return new Writer(FRAME.SUBSCRIBE)
    .varint(frame.request)
    .str(frame.channel)
    .varint(frame.concurrency)
    .varint(frame.window)
    .varint(frame.maxAttempts)
    .finish();
}

export function decodeSubscribe(reader: Reader): Subscribe {
  const frame = {
    request: reader.varint(),
    channel: channelOrSelf(reader),
    concurrency: reader.varint(),
    window: reader.varint(),
    maxAttempts: reader.varint(),
  };
  reader.done();
  if (frame.concurrency < 1 || frame.maxAttempts < 1) throw malformed('concurrency and maxAttempts are at least 1');
  return frame;
}

/** 4.2, 4.3 */
export interface ChannelRequest {
  readonly request: number;
  readonly channel: string;
}

export function encodeUnhandle({ request, channel }: ChannelRequest): Buffer {
  return new Writer(FRAME.UNHANDLE).varint(request).str(channel).finish();
}

export function encodeUnsubscribe({ request, channel }: ChannelRequest): Buffer {
  return new Writer(FRAME.UNSUBSCRIBE).varint(request).str(channel).finish();
}

export function decodeChannelRequest(reader: Reader): ChannelRequest {
  const frame = { request: reader.varint(), channel: channelOrSelf(reader) };
  reader.done();
  return frame;
}

/** 4.4 */
export interface Subscription {
  readonly present: boolean;
  readonly channel: string;
}

export function encodeSubscription({ present, channel }: Subscription): Buffer {
  return new Writer(FRAME.SUBSCRIPTION).u8(present ? 1 : 0).str(channel).finish();
}

export function decodeSubscription(reader: Reader): Subscription {
  const frame = { present: reader.u8() === 1, channel: readName(reader, 'the channel') };
  reader.done();
  return frame;
}

/** 4.5, 4.6 */
export function encodeFlush(request: number): Buffer {
  return new Writer(FRAME.FLUSH).varint(request).finish();
}

export function encodeOk(request: number): Buffer {
  return new Writer(FRAME.OK).varint(request).finish();
}

export function decodeRequest(reader: Reader): number {
  const request = reader.varint();
  reader.done();
  return request;
}

export interface Failed {
  readonly request: number;
  readonly code: string;
  readonly retryable: boolean;
  readonly text: string;
}

export function encodeFailed({ request, code, retryable, text }: Failed): Buffer {
  return new Writer(FRAME.FAILED).varint(request).str(code).u8(retryable ? 1 : 0).str(cutText(text, 1024)).finish();
}

export function decodeFailed(reader: Reader): Failed {
  const frame = { request: reader.varint(), code: reader.str(64), retryable: reader.u8() === 1, text: reader.str() };
  reader.done();
  return frame;
}

// ---- 5: aliases ------------------------------------------------------------------------------------------------------------

export const ALIAS_KIND = { CHANNEL: 0, CLIENT: 1, SENDER: 2 } as const;

/** 5.1 */
export interface Alias {
  readonly alias: number;
  readonly kind: number;
  readonly name: string;
}

export function encodeAlias({ alias, kind, name }: Alias): Buffer {
  return new Writer(FRAME.ALIAS).varint(alias).u8(kind).str(name).finish();
}

export function decodeAlias(reader: Reader): Alias {
  const frame = { alias: reader.varint(), kind: reader.u8(), name: readName(reader, 'the name') };
  reader.done();
  if (frame.kind > ALIAS_KIND.CLIENT) throw malformed('the kind of an alias is not known');
  return frame;
}

export interface SenderAlias {
  readonly alias: number;
  readonly instance: string;
  readonly name: string;
  readonly idPrefix: string;
}

export function encodeSender({ alias, instance, name, idPrefix }: SenderAlias): Buffer {
  return new Writer(FRAME.SENDER).varint(alias).id16(instance).str(name).str(idPrefix).finish();
}

export function decodeSender(reader: Reader): SenderAlias {
  const frame = { alias: reader.varint(), instance: reader.id16(), name: reader.str(), idPrefix: reader.str(64) };
  reader.done();
  return frame;
}

export function encodeUnalias({ alias, kind }: { alias: number; kind: number }): Buffer {
  return new Writer(FRAME.UNALIAS).varint(alias).u8(kind).finish();
}

export function decodeUnalias(reader: Reader): { alias: number; kind: number } {
  const frame = { alias: reader.varint(), kind: reader.u8() };
  reader.done();
  return frame;
}

// ---- 6.7, 7: deliveries ------------------------------------------------------------------------------------------------------

/** 6.7 */
export interface DeliveryFrame {
  readonly redelivered: boolean;
  readonly attempt: number;
  readonly subscriptions: readonly string[] | undefined;
}

export function encodeDelivery({ redelivered, attempt, subscriptions }: DeliveryFrame): Buffer {
  const writer = new Writer(FRAME.DELIVERY).u8((redelivered ? 1 : 0) + (subscriptions ? 2 : 0)).varint(attempt);
  if (subscriptions !== undefined) {
    writer.varint(subscriptions.length);
    for (const channel of subscriptions) writer.str(channel);
  }
  return writer.finish();
}

export function decodeDelivery(reader: Reader): DeliveryFrame {
  const flags = reader.u8();
  const attempt = reader.varint();
  let subscriptions: string[] | undefined;
  if ((flags & 2) !== 0) {
    subscriptions = [];
    for (let n = reader.count(1); n > 0; n--) subscriptions.push(channelOrSelf(reader));
  }
  reader.done();
  return { redelivered: (flags & 1) !== 0, attempt, subscriptions };
}

/** 7.1, 7.4, 8.3, 8.5 */
export function encodeRanges(type: number, ranges: readonly WireRange[]): Buffer {
  return new Writer(type).ranges(ranges).finish();
}

export function decodeRanges(reader: Reader): WireRange[] {
  const ranges = reader.ranges();
  reader.done();
  return ranges;
}

/** 7.2 */
export interface Fail {
  readonly delivery: number;
  readonly channel: string;
  readonly attempt: number;
  readonly reason: string;
}

export function encodeFail({ delivery, channel, attempt, reason }: Fail): Buffer {
  return new Writer(FRAME.FAIL).varint(delivery).str(channel).varint(attempt).str(cutText(reason, 1024)).finish();
}

export function decodeFail(reader: Reader): Fail {
  const frame = { delivery: reader.varint(), channel: channelOrSelf(reader), attempt: reader.varint(), reason: reader.str(1024) };
  reader.done();
  return frame;
}

export interface Retry {
  readonly delivery: number;
  readonly channel: string;
  readonly attempt: number;
}

export function encodeRetry({ delivery, channel, attempt }: Retry): Buffer {
  return new Writer(FRAME.RETRY).varint(delivery).str(channel).varint(attempt).finish();
}

export function decodeRetry(reader: Reader): Retry {
  const frame = { delivery: reader.varint(), channel: channelOrSelf(reader), attempt: reader.varint() };
  reader.done();
  return frame;
}

export const REJECT_KINDS = ['rejected', 'expired', 'damaged', 'no-handler'] as const;

/** 7.3 */
export interface RejectFrame {
  readonly delivery: number;
  readonly channel: string;
  readonly kind: (typeof REJECT_KINDS)[number];
  readonly attempts: number;
  readonly reason: string;
}

export function encodeReject({ delivery, channel, kind, attempts, reason }: RejectFrame): Buffer {
  return new Writer(FRAME.REJECT)
    .varint(delivery)
    .str(channel)
    .u8(REJECT_KINDS.indexOf(kind))
    .varint(attempts)
    .str(cutText(reason, 1024))
    .finish();
}

export function decodeReject(reader: Reader): RejectFrame {
  const delivery = reader.varint();
  const channel = channelOrSelf(reader);
  const kind = REJECT_KINDS[reader.u8()];
  if (kind === undefined) throw malformed('the kind of a rejection is not known');
  const frame = { delivery, channel, kind, attempts: reader.varint(), reason: reader.str(1024) };
  reader.done();
  return frame;
}

// ---- 8: receipts -------------------------------------------------------------------------------------------------------------

const STATUSES = ['stored', 'delivered', 'routed', 'undelivered'] as const;
const RECEIPT_DURABILITIES = ['none', 'memory', 'fsync', 'replicated'] as const;

/** 8.1 */
export interface WireOutcome extends WireRange {
  readonly status: Receipt['status'];
  readonly durability: Receipt['durability'];
  readonly final: boolean;
}

export function encodeReceipts(outcomes: readonly WireOutcome[]): Buffer {
  const writer = new Writer(FRAME.RECEIPT).varint(outcomes.length);
  let end = 0;
  for (const { first, count, status, durability, final } of outcomes) {
    // A final outcome may repeat positions: the gap is counted from the start of the one before (zigzag).
    const gap = first - end;
    writer.varint(gap >= 0 ? gap * 2 : -gap * 2 - 1).varint(count - 1);
    writer.u8(STATUSES.indexOf(status) + (RECEIPT_DURABILITIES.indexOf(durability) << 4) + (final ? 0x80 : 0));
    end = first + count;
  }
  return writer.finish();
}

export function decodeReceipts(reader: Reader): WireOutcome[] {
  const outcomes: WireOutcome[] = [];
  let end = 0;
  for (let n = reader.count(3); n > 0; n--) {
    const gap = reader.varint();
    const first = end + (gap % 2 === 0 ? gap / 2 : -(gap + 1) / 2);
    const count = reader.varint() + 1;
    const flags = reader.u8();
    const status = STATUSES[flags & 0x0f];
    const durability = RECEIPT_DURABILITIES[(flags >> 4) & 7];
    if (status === undefined || durability === undefined || first < 1) throw malformed('the outcome of a receipt is not known');
    outcomes.push({ first, count, status, durability, final: (flags & 0x80) !== 0 });
    end = first + count;
  }
  reader.done();
  return outcomes;
}

/** 8.2 */
export interface FailureFrame {
  readonly notice: number;
  readonly position: number;
  readonly failure: DeliveryFailure;
}

export function encodeFailure({ notice, position, failure }: FailureFrame): Buffer {
  const { client, channel } = failure.target;
  const writer = new Writer(FRAME.FAILURE).varint(notice).str(failure.messageId).varint(position);
  // A channel's subscriber is named with both: kind 3.
  if (client !== undefined && channel !== undefined) writer.u8(3).str(client).str(channel);
  else if (client !== undefined) writer.u8(0).str(client);
  else if (channel !== undefined) writer.u8(1).str(channel);
  else writer.u8(2).str('');
  return writer
    .u8(FAILURE_REASONS.indexOf(failure.reason))
    .u8((failure.queued ? 1 : 0) + (failure.final ? 2 : 0))
    .varint(failure.attempts)
    .u48(failure.at)
    .varint(failure.count ?? 1)
    .finish();
}

export function decodeFailure(reader: Reader): FailureFrame {
  const notice = reader.varint();
  const messageId = reader.str(255);
  const position = reader.varint();
  const kind = reader.u8();
  if (kind > 3) throw malformed('the kind of a target is not known');
  const name = reader.str(1024);
  const target = kind === 0 ? { client: name } : kind === 1 ? { channel: name } : kind === 2 ? {} : { client: name, channel: reader.str(1024) };
  const reason = FAILURE_REASONS[reader.u8()];
  if (reason === undefined) throw malformed('the reason of a failure is not known');
  const flags = reader.u8();
  const failure: DeliveryFailure = {
    messageId,
    target,
    reason,
    queued: (flags & 1) !== 0,
    final: (flags & 2) !== 0,
    attempts: reader.varint(),
    at: reader.u48(),
  };
  const count = reader.varint();
  if (count > 1) failure.count = count;
  reader.done();
  return { notice, position, failure };
}

/** 8.4 */
export function encodeSettled(floor: number): Buffer {
  return new Writer(FRAME.SETTLED).varint(floor).finish();
}

// ---- 9, 10, 11 ---------------------------------------------------------------------------------------------------------------

/** 9.1 */
export const PING: Buffer = new Writer(FRAME.PING).finish();
export const PONG: Buffer = new Writer(FRAME.PONG).finish();

/** 9.2 */
export interface Goodbye {
  readonly finished: boolean;
  readonly text: string;
}

export function encodeGoodbye({ finished, text }: Goodbye): Buffer {
  return new Writer(FRAME.GOODBYE).u8(finished ? 1 : 0).str(text).finish();
}

export function decodeGoodbye(reader: Reader): Goodbye {
  const frame = { finished: (reader.u8() & 1) !== 0, text: reader.str(1024) };
  reader.done();
  return frame;
}

/** 10.1 */
export interface Admin {
  readonly request: number;
  readonly verb: string;
  readonly args: string;
}

export function encodeAdmin({ request, verb, args }: Admin): Buffer {
  return new Writer(FRAME.ADMIN).varint(request).str(verb).str(args).finish();
}

export function decodeAdmin(reader: Reader): Admin {
  const frame = { request: reader.varint(), verb: reader.str(64), args: reader.str() };
  reader.done();
  return frame;
}

export interface AdminReply {
  readonly request: number;
  readonly answer: string;
}

export function encodeAdminReply({ request, answer }: AdminReply): Buffer {
  return new Writer(FRAME.ADMIN_REPLY).varint(request).str(answer).finish();
}

export function decodeAdminReply(reader: Reader): AdminReply {
  const frame = { request: reader.varint(), answer: reader.str() };
  reader.done();
  return frame;
}

/** 11.1 */
export interface ErrorFrame {
  readonly code: string;
  readonly retryable: boolean;
  readonly text: string;
}

export function encodeError({ code, retryable, text }: ErrorFrame): Buffer {
  return new Writer(FRAME.ERROR).str(code).u8(retryable ? 1 : 0).str(cutText(text, 256)).finish();
}

export function decodeError(reader: Reader): ErrorFrame {
  const frame = { code: reader.str(64), retryable: reader.u8() === 1, text: reader.str(256) };
  reader.done();
  return frame;
}

/** Cuts a text to so many bytes of UTF-8, between characters, and makes lone surrogates harmless. */
export function cutText(text: string, maxBytes: number): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= maxBytes) return bytes.toString();
  let end = maxBytes;
  while (end > 0 && ((bytes[end] as number) & 0xc0) === 0x80) end--;
  return bytes.toString('utf8', 0, end);
}
