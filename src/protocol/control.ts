/** Life, administration and errors (docs/protocol.md, 9 to 11). */
import { BroadcastError, isErrorCode } from '../errors.js';
import { show } from '../names.js';
import { Writer, type Reader } from './bytes.js';
import { FRAME } from './constants.js';
import { cutText } from './fields.js';

/** 9.1 */
export const PING: Buffer = new Writer(FRAME.PING).finish();
export const PONG: Buffer = new Writer(FRAME.PONG).finish();

/** 9.2 */
export interface Goodbye {
  /** From a client: its session ends. */
  readonly finished: boolean;
  readonly text: string;
}

export function encodeGoodbye({ finished, text }: Goodbye): Buffer {
  return new Writer(FRAME.GOODBYE).flag(finished).str(cutText(text, 1024)).finish();
}

export function decodeGoodbye(reader: Reader): Goodbye {
  const frame: Goodbye = { finished: reader.flag(), text: reader.str(1024) };
  reader.done();
  return frame;
}

/** 10.1 */
export interface Admin {
  readonly request: number;
  readonly verb: string;
  /** JSON. */
  readonly args: string;
}

export function encodeAdmin({ request, verb, args }: Admin): Buffer {
  return new Writer(FRAME.ADMIN).varint(request).str(verb).str(args).finish();
}

export function decodeAdmin(reader: Reader): Admin {
  const frame: Admin = { request: reader.varint(), verb: reader.str(64), args: reader.str() };
  reader.done();
  return frame;
}

/** 10.1 */
export interface AdminReply {
  readonly request: number;
  /** JSON. */
  readonly answer: string;
}

export function encodeAdminReply({ request, answer }: AdminReply): Buffer {
  return new Writer(FRAME.ADMIN_REPLY).varint(request).str(answer).finish();
}

export function decodeAdminReply(reader: Reader): AdminReply {
  const frame: AdminReply = { request: reader.varint(), answer: reader.str() };
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
  return new Writer(FRAME.ERROR).str(code).flag(retryable).str(cutText(text, 256)).finish();
}

export function decodeError(reader: Reader): ErrorFrame {
  const frame: ErrorFrame = { code: reader.str(64), retryable: reader.flag(), text: reader.str(256) };
  reader.done();
  return frame;
}

/**
 * What a peer said in ERROR or FAILED, as an error. A code that this version does not know becomes `protocol-error` with
 * the code in its text, and the peer's word on whether trying again helps is kept. Control characters are taken out: the
 * text may end on a terminal.
 */
export function errorFromPeer({ code, retryable, text }: ErrorFrame): BroadcastError {
  const clean = text.replace(/[\u0000-\u001f\u007f-\u009f]/g, ' ');
  if (isErrorCode(code)) return new BroadcastError(code, clean);
  const error = new BroadcastError('protocol-error', `${show(code)}: ${clean}`);
  (error as { retryable: boolean }).retryable = retryable;
  return error;
}
