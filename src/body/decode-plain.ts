/**
 * The plain path's decoder: reads MessagePack as docs/body-format.md allows it, and refuses everything else in the same pass.
 * Declared lengths are held against the bytes that are there, and depth is bounded, so that hostile input costs no more
 * than its length. Our own, because messages of one kind have the same keys one after the other, and whoever knows them
 * makes an object in half the time (shapes.ts, docs/decisions/0010-reading-known-shapes.md).
 */
import { invalid } from './invalid.js';
import { ShapeTable, type Shape, type ShapeReader } from './shapes.js';
import { TextTable } from './texts.js';

/** Arrays and maps in each other; an encoder of ours goes to 64. */
export const MAX_DEPTH = 68;

/** `__proto__`, `constructor` and the like. */
const INHERITED: ReadonlySet<string> = new Set(Object.getOwnPropertyNames(Object.prototype));
const SHORTEST_INHERITED = Math.min(...[...INHERITED].map(({ length }) => length));
/** Indexes up to here take no more room than names do. */
const FEW_INDEXES = 8;
const LAST_INDEX = 2 ** 32 - 2;

// What is being decoded; one for all, as decoding never waits and runs nobody's code.
let bytes: Buffer = Buffer.alloc(0);
let at = 0;
let end = 0;
let depth = 0;

const float = new Float64Array(1);
const floatBytes = new Uint8Array(float.buffer);
const keys = new TextTable('keys');
const texts = new TextTable('values');
const shapes = new ShapeTable({ valueAt, position: () => at, otherwise });

/** Decodes the bytes from `start` to `stop`. Nothing in the value refers to them. Throws `body-invalid`. */
export function decodePlain(buffer: Buffer, start: number, stop: number): unknown {
  bytes = buffer;
  at = start;
  end = stop;
  depth = 0;
  const value = readValue();
  if (at !== end) throw invalid('bytes are left over');
  return value;
}

/** For compiled readers: the value that begins at a place. */
function valueAt(start: number): unknown {
  at = start;
  return readValue();
}

function readValue(): unknown {
  if (at >= end) throw cutShort();
  const byte = bytes[at++] as number;
  if (byte < 0x80) return byte;
  if (byte < 0x90) return readMap(byte & 0x0f);
  if (byte < 0xa0) return readArray(byte & 0x0f);
  if (byte < 0xc0) return readText(byte & 0x1f);
  if (byte >= 0xe0) return byte - 0x100;
  switch (byte) {
    case 0xc0:
      return null;
    case 0xc2:
      return false;
    case 0xc3:
      return true;
    case 0xca:
      return bytes.readFloatBE(skip(4));
    case 0xcb:
      return readDouble(skip(8));
    case 0xcc:
      return bytes[skip(1)];
    case 0xcd:
      return readSize(2);
    case 0xce:
      return readSize(4);
    case 0xcf:
      return bytes.readBigUInt64BE(skip(8));
    case 0xd0:
      return bytes.readInt8(skip(1));
    case 0xd1:
      return bytes.readInt16BE(skip(2));
    case 0xd2:
      return bytes.readInt32BE(skip(4));
    case 0xd3:
      return bytes.readBigInt64BE(skip(8));
    case 0xd4:
      expectUndefined(skip(2));
      return undefined;
    case 0xd9:
      return readText(readSize(1));
    case 0xda:
      return readText(readSize(2));
    case 0xdb:
      return readText(readSize(4));
    case 0xdc:
      return readArray(readSize(2));
    case 0xdd:
      return readArray(readSize(4));
    case 0xde:
      return readMap(readSize(2));
    case 0xdf:
      return readMap(readSize(4));
    case 0xc4:
    case 0xc5:
    case 0xc6:
      throw invalid('it has a byte string on the plain path');
    default:
      throw invalid('it has an extension that is not known');
  }
}

function cutShort(): Error {
  return invalid('it is cut short');
}

/** Where the next bytes begin, so many of which are taken. */
function skip(count: number): number {
  const start = at;
  at += count;
  if (at > end) throw cutShort();
  return start;
}

/** A whole number of so many bytes. */
function readSize(width: number): number {
  const start = skip(width);
  let size = 0;
  for (let i = start; i < at; i++) size = size * 256 + (bytes[i] as number);
  return size;
}

function readDouble(start: number): number {
  for (let i = 0; i < 8; i++) floatBytes[7 - i] = bytes[start + i] as number;
  return float[0] as number;
}

/** The one extension that there is: type 0, data 0. */
function expectUndefined(start: number): void {
  if (bytes[start] !== 0 || bytes[start + 1] !== 0) throw invalid('it has an extension that is not known');
}

function readText(length: number): string {
  const start = skip(length);
  return texts.at(bytes, start, at) ?? bytes.toString('utf8', start, at);
}

function enter(children: number): void {
  if (children > end - at) throw invalid('it announces more than it has');
  if (++depth > MAX_DEPTH) throw invalid('it is nested too deep');
}

function readArray(count: number): unknown[] {
  enter(count);
  const array = count > 0 && count < 4 ? readFew(count) : [];
  for (let i = array.length; i < count; i++) array.push(readValue());
  depth--;
  return array;
}

/** What `push` makes has room for 17, which is much for a pair. */
function readFew(count: number): unknown[] {
  if (count === 1) return [readValue()];
  if (count === 2) return [readValue(), readValue()];
  return [readValue(), readValue(), readValue()];
}

function readMap(count: number): object {
  enter(2 * count);
  const shape = shapes.shapeAt(bytes, at, count);
  const object = shape?.reader === undefined ? readMembers({}, count, shape) : readKnown(shape, shape.reader);
  depth--;
  return object;
}

function readKnown(shape: Shape, reader: ShapeReader): object {
  shape.uses++;
  return reader(bytes, at);
}

function readMembers(object: Record<string, unknown>, count: number, shape: Shape | undefined): object {
  const seen = shape?.watch();
  for (let i = 0; i < count; i++) {
    const key = readKey();
    seen?.push(key);
    if (key.length >= SHORTEST_INHERITED && INHERITED.has(key)) {
      setOwn(object, key, readValue());
      continue;
    }
    if (isFarIndex(key, count)) makeSparse(object);
    object[key] = readValue();
  }
  if (seen !== undefined) shape?.learn(seen);
  return object;
}

/** An index far beyond what so many members need. */
function isFarIndex(key: string, count: number): boolean {
  const first = key.charCodeAt(0);
  return first >= 0x31 && first <= 0x39 && Number(key) > 2 * count + FEW_INDEXES;
}

/** Or the engine makes room up to an index, which is a thousand times the bytes that it came in: `{ 1023: 1 }` takes 12 KB. */
function makeSparse(object: Record<string, unknown>): void {
  object[LAST_INDEX] = 0;
  // The one way to have it dense no longer.
  // eslint-disable-next-line @typescript-eslint/no-dynamic-delete
  delete object[LAST_INDEX];
}

/** An assignment would set the prototype, or fail where the prototype is frozen. */
function setOwn(object: Record<string, unknown>, key: string, value: unknown): void {
  Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });
}

/** For compiled readers: an object that begins like those that they know, and does not go on so; its members up to there. */
function otherwise(known: Record<string, unknown>, count: number, start: number): object {
  at = start;
  return readMembers(known, count, undefined);
}

function readKey(): string {
  if (at >= end) throw cutShort();
  const byte = bytes[at++] as number;
  let length: number;
  if (byte >= 0xa0 && byte < 0xc0) length = byte & 0x1f;
  else if (byte === 0xd9) length = readSize(1);
  else if (byte === 0xda) length = readSize(2);
  else if (byte === 0xdb) length = readSize(4);
  else throw invalid('it has a key that is no string');
  const start = skip(length);
  return keys.at(bytes, start, at) ?? bytes.toString('utf8', start, at);
}
