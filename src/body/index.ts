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

/** An array of up to 65,535 values: 0xdc and their number. */
const ARRAY16 = 0xdc;
const ARRAY_HEADER = 3;
/** A number of four bytes behind its first: as long as what usually stands between two bodies of a batch. */
const UINT32 = 0xce;
const GAP = 5;
/**
 * Bodies are decoded together up to so many bytes. Not more: the decoder may make strings as parts of one that holds the
 * text of all of them, which lives as long as the last of them.
 */
const together = Buffer.allocUnsafeSlow(8 * 1024);

/**
 * Decodes several bodies by one call of the decoder, as the elements of an array; a small one costs a third less so. They
 * are copied at once, with the five bytes between two of them, which become an element that nobody looks at. Takes as many
 * from the first on as are plain, sound, so far apart and not too large together; of the rest nothing is said.
 */
export function decodeBodies(bytes: Buffer, starts: readonly number[], ends: readonly number[]): unknown[] {
  const count = countTogether(bytes, starts, ends);
  if (count < 2) return [];
  const base = (starts[0] as number) - ARRAY_HEADER;
  const end = bytes.copy(together, ARRAY_HEADER, starts[0], ends[count - 1]) + ARRAY_HEADER;
  together[0] = ARRAY16;
  together.writeUInt16BE(2 * count - 1, 1);
  for (let i = 1; i < count; i++) together[(starts[i] as number) - GAP - base] = UINT32;
  try {
    const elements = decodePlain(together, 0, end) as unknown[];
    const bodies: unknown[] = [];
    for (let i = 0; i < count; i++) bodies.push(elements[2 * i]);
    return bodies;
  } catch {
    return [];
  }
}

/** How many bodies, from the first on, can be decoded together. */
function countTogether(bytes: Buffer, starts: readonly number[], ends: readonly number[]): number {
  const limit = (starts[0] as number) + together.length - ARRAY_HEADER;
  let count = 0;
  try {
    for (; count < starts.length; count++) {
      const start = starts[count] as number;
      const end = ends[count] as number;
      if (start >= end || end > limit || bytes[start] === EXT32) break;
      if (count > 0 && start - (ends[count - 1] as number) !== GAP) break;
      // What is not plain fails here too.
      checkPlain(bytes, start, end, false);
    }
  } catch {
    // The first that is damaged says so when its turn comes.
  }
  return count;
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
