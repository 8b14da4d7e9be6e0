/** Subscriptions, the answers to requests (docs/protocol.md, 4), and aliases (5). */
import { malformed, Writer, type Reader } from './bytes.js';
import { FRAME } from './constants.js';
import { cutText, readIdPrefix, readName, readNameOrEmpty } from './fields.js';

/** 4.1 */
export interface Subscribe {
  readonly request: number;
  /** Empty: what is addressed to the client or to everyone. */
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
  const frame: Subscribe = {
    request: reader.varint(),
    channel: readNameOrEmpty(reader, 'the channel'),
    concurrency: reader.atLeast(1, 'concurrency'),
    window: reader.varint(),
    maxAttempts: reader.atLeast(1, 'maxAttempts'),
  };
  reader.done();
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

/** UNHANDLE; also UNSUBSCRIBE for those who treat the empty channel themselves. */
export function decodeChannelRequest(reader: Reader): ChannelRequest {
  const frame: ChannelRequest = { request: reader.varint(), channel: readNameOrEmpty(reader, 'the channel') };
  reader.done();
  return frame;
}

/** UNSUBSCRIBE: a channel's name and nothing else. */
export function decodeUnsubscribe(reader: Reader): ChannelRequest {
  const frame: ChannelRequest = { request: reader.varint(), channel: readName(reader, 'the channel') };
  reader.done();
  return frame;
}

/** 4.4 */
export interface Subscription {
  readonly present: boolean;
  readonly channel: string;
}

export function encodeSubscription({ present, channel }: Subscription): Buffer {
  return new Writer(FRAME.SUBSCRIPTION).flag(present).str(channel).finish();
}

export function decodeSubscription(reader: Reader): Subscription {
  const frame: Subscription = { present: reader.flag(), channel: readName(reader, 'the channel') };
  reader.done();
  return frame;
}

/** 4.5 */
export function encodeFlush(request: number): Buffer {
  return new Writer(FRAME.FLUSH).varint(request).finish();
}

/** 4.6 */
export function encodeOk(request: number): Buffer {
  return new Writer(FRAME.OK).varint(request).finish();
}

/** A payload that is one number: FLUSH, OK, SETTLED. */
export function decodeRequest(reader: Reader): number {
  const request = reader.varint();
  reader.done();
  return request;
}

/** 4.6 */
export interface Failed {
  readonly request: number;
  readonly code: string;
  readonly retryable: boolean;
  readonly text: string;
}

export function encodeFailed({ request, code, retryable, text }: Failed): Buffer {
  return new Writer(FRAME.FAILED).varint(request).str(code).flag(retryable).str(cutText(text, 1024)).finish();
}

export function decodeFailed(reader: Reader): Failed {
  const frame: Failed = {
    request: reader.varint(),
    code: reader.str(64),
    retryable: reader.flag(),
    text: reader.str(1024),
  };
  reader.done();
  return frame;
}

// ---- 5: aliases --------------------------------------------------------------------------------------------------------

/** 5.1 */
export const ALIAS_KIND = { CHANNEL: 0, CLIENT: 1, SENDER: 2 } as const;

export interface Alias {
  readonly alias: number;
  /** {@link ALIAS_KIND}: a channel or a client. */
  readonly kind: number;
  readonly name: string;
}

export function encodeAlias({ alias, kind, name }: Alias): Buffer {
  return new Writer(FRAME.ALIAS).varint(alias).u8(kind).str(name).finish();
}

export function decodeAlias(reader: Reader): Alias {
  const frame: Alias = { alias: reader.varint(), kind: reader.u8(), name: readName(reader, 'the name') };
  reader.done();
  if (frame.kind > ALIAS_KIND.CLIENT) throw malformed('the kind of an alias is not known');
  return frame;
}

export interface SenderAlias {
  readonly alias: number;
  readonly instance: string;
  /** Empty: the server itself. */
  readonly name: string;
  /** Empty when it is not known: then every frame of the sender carries its own. */
  readonly idPrefix: string;
}

export function encodeSender({ alias, instance, name, idPrefix }: SenderAlias): Buffer {
  return new Writer(FRAME.SENDER).varint(alias).id16(instance).str(name).str(idPrefix).finish();
}

export function decodeSender(reader: Reader): SenderAlias {
  const frame: SenderAlias = {
    alias: reader.varint(),
    instance: reader.id16(),
    name: readNameOrEmpty(reader, 'the sender'),
    idPrefix: readIdPrefix(reader, true),
  };
  reader.done();
  return frame;
}

export interface Unalias {
  readonly alias: number;
  readonly kind: number;
}

export function encodeUnalias({ alias, kind }: Unalias): Buffer {
  return new Writer(FRAME.UNALIAS).varint(alias).u8(kind).finish();
}

export function decodeUnalias(reader: Reader): Unalias {
  const frame: Unalias = { alias: reader.varint(), kind: reader.u8() };
  reader.done();
  if (frame.kind > ALIAS_KIND.SENDER) throw malformed('the kind of an alias is not known');
  return frame;
}
