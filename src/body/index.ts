/**
 * The body codec: any value that structured clone takes ⇄ MessagePack (docs/body-format.md). Nearly all values take the
 * plain path; what it cannot carry is wrapped as an extension that holds a table of nodes.
 */
import { flatten } from './flatten.js';
import { checkPlain, decodePlain, encodePlain, invalid, isPlain } from './plain.js';
import { unflatten } from './unflatten.js';

/** ext 32 with type 1: a table of nodes. */
const EXT32 = 0xc9;
const GRAPH = 1;
const WRAPPER = 6;

/** Encodes a value; the bytes are the caller's. Throws `data-not-cloneable` with the path of what cannot be sent. */
export function encodeBody(value: unknown): Buffer {
  if (isCertainlyPlain(value)) return encodePlain(value);
  const table = encodePlain(flatten(value));
  const body = Buffer.allocUnsafe(WRAPPER + table.length);
  body[0] = EXT32;
  body.writeUInt32BE(table.length, 1);
  body[5] = GRAPH;
  body.set(table, WRAPPER);
  return body;
}

/** A getter or proxy that throws is for the other path, which says where it is. */
function isCertainlyPlain(value: unknown): boolean {
  try {
    return isPlain(value);
  } catch {
    return false;
  }
}

/** Decodes `bytes`, or the part of them from `start` to `end`. Nothing in the value refers to them. Throws `body-invalid`. */
export function decodeBody(bytes: Buffer, start = 0, end: number = bytes.length): unknown {
  if (start >= end) throw invalid('it is empty');
  if (bytes[start] !== EXT32) {
    checkPlain(bytes, start, end, false);
    return decodePlain(bytes, start, end);
  }
  if (end - start < WRAPPER || bytes[start + 5] !== GRAPH || bytes.readUInt32BE(start + 1) !== end - start - WRAPPER) {
    throw invalid('its extension is not known or of the wrong size');
  }
  checkPlain(bytes, start + WRAPPER, end, true);
  return unflatten(decodePlain(bytes, start + WRAPPER, end), end - start);
}
