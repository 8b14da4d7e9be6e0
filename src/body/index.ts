/**
 * The body codec: any value that structured clone takes ⇄ MessagePack (docs/body-format.md). Nearly all values take the
 * plain path; what it cannot carry is wrapped as an extension that holds a table of nodes.
 */
import { decodePlain } from './decode-plain.js';
import { PlainEncoder } from './encode-plain.js';
import { flatten } from './flatten.js';
import { invalid } from './invalid.js';
import { decodeTable, encodeTable } from './table.js';
import { unflatten } from './unflatten.js';

/** ext 32 with type 1: a table of nodes. */
const EXT32 = 0xc9;
const GRAPH = 1;
const WRAPPER = 6;

const encoder = new PlainEncoder();
/** Most bodies need no more. */
const FIRST_SIZE = 256;

/** A body that was written: the buffer that was given, or a larger one with what was before the body, and the body's end. */
export interface WrittenBody {
  readonly buffer: Buffer;
  readonly end: number;
}

/**
 * Encodes a value into `buffer` from `at` on. What is returned is good until the next call. Throws `data-not-cloneable` with
 * the path of what cannot be sent.
 */
export function writeBody(value: unknown, buffer: Buffer, at: number): WrittenBody {
  // A getter may send a message while the one that it belongs to is encoded, perhaps into the same buffer.
  if (encoder.isBusy) return writeWith(new PlainEncoder(), value, copyOf(buffer, at, at + FIRST_SIZE), at);
  return writeWith(encoder, value, buffer, at);
}

function writeWith(encoder: PlainEncoder, value: unknown, buffer: Buffer, at: number): WrittenBody {
  if (encoder.encode(value, buffer, at)) return encoder;
  const table = encodeTable(flatten(value));
  const end = at + WRAPPER + table.length;
  const target = end > buffer.length ? copyOf(buffer, at, end) : buffer;
  target[at] = EXT32;
  target.writeUInt32BE(table.length, at + 1);
  target[at + 5] = GRAPH;
  target.set(table, at + WRAPPER);
  return { buffer: target, end };
}

/** A buffer of so many bytes, with those before `at`. */
function copyOf(buffer: Buffer, at: number, bytes: number): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes);
  buffer.copy(copy, 0, 0, at);
  return copy;
}

/** Encodes a value; the bytes are the caller's. Throws as `writeBody` does. */
export function encodeBody(value: unknown): Buffer {
  const { buffer, end } = writeBody(value, Buffer.allocUnsafe(FIRST_SIZE), 0);
  return buffer.subarray(0, end);
}

/** Decodes `bytes`, or the part of them from `start` to `end`. Nothing in the value refers to them. Throws `body-invalid`. */
export function decodeBody(bytes: Buffer, start = 0, end: number = bytes.length): unknown {
  if (start >= end) throw invalid('it is empty');
  if (bytes[start] !== EXT32) return decodePlain(bytes, start, end);
  if (end - start < WRAPPER || bytes[start + 5] !== GRAPH || bytes.readUInt32BE(start + 1) !== end - start - WRAPPER) {
    throw invalid('its extension is not known or of the wrong size');
  }
  return unflatten(decodeTable(bytes, start + WRAPPER, end), end - start);
}
