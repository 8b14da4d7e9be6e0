/**
 * The body codec: any value that structured clone takes ⇄ MessagePack (docs/body-format.md). Nearly all values take the
 * plain path; what it cannot carry is wrapped as an extension that holds a table of nodes.
 */
import { PlainEncoder } from './encode-plain.js';
import { flatten } from './flatten.js';
import { checkPlain, decodePlain, encodeTable, invalid } from './plain.js';
import { unflatten } from './unflatten.js';

/** ext 32 with type 1: a table of nodes. */
const EXT32 = 0xc9;
const GRAPH = 1;
const WRAPPER = 6;

const encoder = new PlainEncoder();

/** Encodes a value. The bytes may be overwritten by the next call. Throws `data-not-cloneable` with the path of what cannot be sent. */
export function encodeBody(value: unknown): Buffer {
  // A getter may send a message while the one that it belongs to is encoded.
  const plain = encoder.isBusy ? new PlainEncoder().encode(value) : encoder.encode(value);
  if (plain !== undefined) return plain;
  const table = encodeTable(flatten(value));
  const body = Buffer.allocUnsafe(WRAPPER + table.length);
  body[0] = EXT32;
  body.writeUInt32BE(table.length, 1);
  body[5] = GRAPH;
  body.set(table, WRAPPER);
  return body;
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
