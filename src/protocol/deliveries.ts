/** What is said about deliveries (docs/protocol.md, 6.7 and 7) and about what became of messages (8). */
import { FAILURE_REASONS, type DeliveryFailure, type Receipt } from '../receipts.js';
import { malformed, Writer, type Reader, type WireRange } from './bytes.js';
import { FRAME } from './constants.js';
import { cutText, readName, readNameOrEmpty } from './fields.js';

/** 6.7 */
export interface DeliveryFrame {
  readonly redelivered: boolean;
  readonly attempt: number;
  /** Only for these; undefined: for every one that matches. */
  readonly subscriptions: readonly string[] | undefined;
  /** How often it was sent again from the dead letters; undefined: never. */
  readonly revival: number | undefined;
}

export function encodeDelivery({ redelivered, attempt, subscriptions, revival }: DeliveryFrame): Buffer {
  const writer = new Writer(FRAME.DELIVERY)
    .u8((redelivered ? 1 : 0) + (subscriptions !== undefined ? 2 : 0) + (revival !== undefined ? 4 : 0))
    .varint(attempt);
  if (subscriptions !== undefined) {
    writer.varint(subscriptions.length);
    for (const channel of subscriptions) writer.str(channel);
  }
  if (revival !== undefined) writer.varint(revival);
  return writer.finish();
}

export function decodeDelivery(reader: Reader): DeliveryFrame {
  const flags = reader.flags(7);
  const attempt = reader.atLeast(1, 'the attempt');
  let subscriptions: string[] | undefined;
  if ((flags & 2) !== 0) {
    subscriptions = [];
    for (let n = reader.count(1); n > 0; n--) subscriptions.push(readNameOrEmpty(reader, 'the channel'));
  }
  const revival = (flags & 4) !== 0 ? reader.atLeast(1, 'the revival') : undefined;
  reader.done();
  return { redelivered: (flags & 1) !== 0, attempt, subscriptions, revival };
}

/** 7.1, 7.4, 8.3, 8.5: ACK, RELEASE, NOTED, TRACK. */
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
  const frame: Fail = {
    delivery: reader.varint(),
    channel: readNameOrEmpty(reader, 'the channel'),
    attempt: reader.atLeast(1, 'the attempt'),
    reason: reader.str(1024),
  };
  reader.done();
  return frame;
}

/** 7.2 */
export interface Retry {
  readonly delivery: number;
  readonly channel: string;
  readonly attempt: number;
}

export function encodeRetry({ delivery, channel, attempt }: Retry): Buffer {
  return new Writer(FRAME.RETRY).varint(delivery).str(channel).varint(attempt).finish();
}

export function decodeRetry(reader: Reader): Retry {
  const frame: Retry = {
    delivery: reader.varint(),
    channel: readNameOrEmpty(reader, 'the channel'),
    attempt: reader.atLeast(1, 'the attempt'),
  };
  reader.done();
  return frame;
}

/** In the order of their numbers. */
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
  const channel = readNameOrEmpty(reader, 'the channel');
  const kind = REJECT_KINDS[reader.u8()];
  if (kind === undefined) throw malformed('the kind of a rejection is not known');
  const frame: RejectFrame = { delivery, channel, kind, attempts: reader.varint(), reason: reader.str(1024) };
  reader.done();
  return frame;
}

// ---- 8: receipts and failures ----------------------------------------------------------------------------------------------

const STATUSES = ['stored', 'delivered', 'routed', 'undelivered'] as const;
const RECEIPT_DURABILITIES = ['none', 'memory', 'fsync', 'replicated'] as const;
const FINAL = 0x80;

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
    writer
      .zigzag(first - end)
      .varint(count - 1)
      .u8(STATUSES.indexOf(status) + (RECEIPT_DURABILITIES.indexOf(durability) << 4) + (final ? FINAL : 0));
    end = first + count;
  }
  return writer.finish();
}

export function decodeReceipts(reader: Reader): WireOutcome[] {
  const outcomes: WireOutcome[] = [];
  let end = 0;
  for (let n = reader.count(3); n > 0; n--) {
    const first = end + reader.zigzag();
    const count = reader.varint() + 1;
    end = first + count;
    if (first < 1 || end > Number.MAX_SAFE_INTEGER) throw malformed('a position is out of range');
    const flags = reader.u8();
    const status = STATUSES[flags & 0x0f];
    const durability = RECEIPT_DURABILITIES[(flags >> 4) & 7];
    if (status === undefined || durability === undefined) throw malformed('the outcome of a receipt is not known');
    outcomes.push({ first, count, status, durability, final: (flags & FINAL) !== 0 });
  }
  reader.done();
  return outcomes;
}

/** 8.2 */
export interface FailureFrame {
  /** 0: need not be acknowledged. */
  readonly notice: number;
  /** 0: not of this instance. */
  readonly position: number;
  readonly failure: DeliveryFailure;
}

export function encodeFailure({ notice, position, failure }: FailureFrame): Buffer {
  const writer = new Writer(FRAME.FAILURE).varint(notice).str(failure.messageId).varint(position);
  writeTarget(writer, failure.target);
  return writer
    .u8(FAILURE_REASONS.indexOf(failure.reason))
    .u8((failure.queued ? 1 : 0) + (failure.final ? 2 : 0))
    .varint(failure.attempts)
    .u48(failure.at)
    .varint(failure.count ?? 1)
    .finish();
}

function writeTarget(writer: Writer, { client, channel }: DeliveryFailure['target']): void {
  if (client !== undefined && channel !== undefined) writer.u8(3).str(client).str(channel);
  else if (client !== undefined) writer.u8(0).str(client);
  else if (channel !== undefined) writer.u8(1).str(channel);
  else writer.u8(2);
}

function readTarget(reader: Reader): DeliveryFailure['target'] {
  switch (reader.u8()) {
    case 0:
      return { client: readName(reader, 'the client') };
    case 1:
      return { channel: readName(reader, 'the channel') };
    case 2:
      return {};
    case 3:
      return { client: readName(reader, 'the client'), channel: readName(reader, 'the channel') };
    default:
      throw malformed('the kind of a target is not known');
  }
}

export function decodeFailure(reader: Reader): FailureFrame {
  const notice = reader.varint();
  const messageId = reader.str(255);
  const position = reader.varint();
  const target = readTarget(reader);
  const reason = FAILURE_REASONS[reader.u8()];
  if (reason === undefined) throw malformed('the reason of a failure is not known');
  const flags = reader.flags(3);
  const failure: DeliveryFailure = {
    messageId,
    target,
    reason,
    queued: (flags & 1) !== 0,
    final: (flags & 2) !== 0,
    attempts: reader.varint(),
    at: reader.u48(),
  };
  const count = reader.atLeast(1, 'the count');
  if (count > 1) failure.count = count;
  reader.done();
  return { notice, position, failure };
}

/** 8.4; read by `decodeRequest`. */
export function encodeSettled(floor: number): Buffer {
  return new Writer(FRAME.SETTLED).varint(floor).finish();
}
