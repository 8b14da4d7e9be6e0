/**
 * The table form of the body codec to values. The table may come from anybody: what it costs to build is bounded by its
 * size, and nothing in it reaches a prototype.
 */
import { ERRORS, MAX_PROPERTY_ESCAPES, NODE, propertyEscapes, VIEWS } from './nodes.js';
import { invalid } from './invalid.js';

/**
 * What building may cost in processor time: generous, as only keys of maps and sets that were chosen to collide come
 * near it (their hashes are not secret, and each one more is compared with all of them).
 */
const MICROSECONDS_PER_BYTE = 2;
const LEAST_MICROSECONDS = 1_000_000;
const LOOK_EVERY = 2048;

/** The value of a table that took `bytes` bytes. Throws `body-invalid`. */
export function unflatten(table: unknown, bytes: number): unknown {
  if (!Array.isArray(table) || table.length === 0) throw invalid('its table is missing');
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0; // the stacks of received errors are the senders': none is taken here
  try {
    return new Builder(table, bytes).build();
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}

class Builder {
  readonly #table: readonly unknown[];
  readonly #values: unknown[];
  readonly #most: number;
  readonly #started = process.cpuUsage();
  #escapes = 0;
  #inserted = 0;

  constructor(table: readonly unknown[], bytes: number) {
    this.#table = table;
    this.#values = new Array<unknown>(table.length);
    this.#most = Math.max(LEAST_MICROSECONDS, bytes * MICROSECONDS_PER_BYTE);
  }

  build(): unknown {
    const table = this.#table;
    const values = this.#values;
    for (let i = 0; i < table.length; i++) values[i] = this.#shell(table[i]);
    // Boxed values take their inner one when they are made, so they come before containers are filled.
    for (let i = 0; i < table.length; i++) {
      const node = table[i] as unknown[];
      if (Array.isArray(node) && node[0] === NODE.BOXED) values[i] = box(member(values, node[1]));
    }
    for (let i = 0; i < table.length; i++) {
      const node = table[i] as unknown[];
      if (!Array.isArray(node)) continue;
      if (node[0] === NODE.MAP) this.#fillMap(values[i] as Map<unknown, unknown>, node);
      else if (node[0] === NODE.SET) this.#fillSet(values[i] as Set<unknown>, node);
      else fill(values[i], node, values);
    }
    return values[0];
  }

  #shell(node: unknown): unknown {
    if (Array.isArray(node) && node[0] === NODE.REGEXP) {
      const [, source, flags] = node as unknown[];
      if (typeof source !== 'string' || typeof flags !== 'string') throw invalid('a regular expression is none');
      this.#escapes += propertyEscapes(source, flags);
      if (this.#escapes > MAX_PROPERTY_ESCAPES) throw invalid('its regular expressions have too many property escapes');
    }
    return shell(node);
  }

  #fillMap(map: Map<unknown, unknown>, node: readonly unknown[]): void {
    for (let i = 1; i + 1 < node.length; i += 2) {
      map.set(member(this.#values, node[i]), member(this.#values, node[i + 1]));
      this.#look();
    }
  }

  #fillSet(set: Set<unknown>, node: readonly unknown[]): void {
    for (let i = 1; i < node.length; i++) {
      set.add(member(this.#values, node[i]));
      this.#look();
    }
  }

  #look(): void {
    if (++this.#inserted % LOOK_EVERY !== 0) return;
    const { user, system } = process.cpuUsage(this.#started);
    if (user + system > this.#most) throw invalid('its keys are chosen to collide');
  }
}

function member(values: readonly unknown[], index: unknown): unknown {
  if (typeof index !== 'number' || !Number.isInteger(index) || index < 0 || index >= values.length)
    throw invalid('a reference leads nowhere');
  return values[index];
}

function box(value: unknown): unknown {
  if (typeof value === 'object' || value === undefined) throw invalid('what is boxed is not a primitive');
  return Object(value) as unknown;
}

/** The value of a node, containers still empty. */
function shell(node: unknown): unknown {
  if (!Array.isArray(node)) return node;
  const [kind, a, b] = node as unknown[];
  switch (kind) {
    case NODE.UNDEFINED:
      return undefined;
    case NODE.MINUS_ZERO:
      return -0;
    case NODE.BIGINT:
      return parseBigint(a);
    case NODE.DATE:
      if (a !== null && typeof a !== 'number') throw invalid('a date is none');
      return new Date(a ?? NaN);
    case NODE.ARRAY:
    case NODE.SPARSE:
      return [];
    case NODE.OBJECT:
    case NODE.BOXED:
      return {};
    case NODE.MAP:
      return new Map();
    case NODE.SET:
      return new Set();
    case NODE.REGEXP:
      return parseRegExp(a, b);
    case NODE.ERROR:
      return newError(a);
    case NODE.ARRAY_BUFFER:
      return exactBuffer(a);
    case NODE.VIEW:
      return newView(a, b);
    case NODE.BUFFER:
      return Buffer.from(bytesOf(a));
    case NODE.UTF16:
      return bytesOf(a).toString('utf16le');
    default:
      throw invalid('the kind of a node is not known');
  }
}

function bytesOf(value: unknown): Buffer {
  if (!(value instanceof Uint8Array)) throw invalid('bytes are missing');
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
}

function exactBuffer(value: unknown): ArrayBuffer {
  const bytes = bytesOf(value);
  const exact = new ArrayBuffer(bytes.length);
  new Uint8Array(exact).set(bytes);
  return exact;
}

function newView(kind: unknown, value: unknown): ArrayBufferView {
  if (typeof kind !== 'string' || !Object.hasOwn(VIEWS, kind)) throw invalid('the kind of a view is not known');
  try {
    return new (VIEWS[kind] as new (buffer: ArrayBuffer) => ArrayBufferView)(exactBuffer(value));
  } catch (error) {
    throw invalid('a view does not fit its bytes', error);
  }
}

function parseBigint(text: unknown): bigint {
  if (typeof text !== 'string' || !/^-?[0-9a-f]+$/.test(text)) throw invalid('a bigint is none');
  return text.startsWith('-') ? -BigInt(`0x${text.slice(1)}`) : BigInt(`0x${text}`);
}

function parseRegExp(source: unknown, flags: unknown): RegExp {
  try {
    return new RegExp(source as string, flags as string);
  } catch (error) {
    throw invalid('a regular expression is not valid', error);
  }
}

function newError(constructor: unknown): Error {
  if (constructor === 'AggregateError') return withoutStack(new AggregateError([]));
  if (typeof constructor !== 'string' || !Object.hasOwn(ERRORS, constructor))
    throw invalid('the kind of an error is not known');
  return withoutStack(new (ERRORS[constructor] as ErrorConstructor)());
}

/** The stack of a received error is the one that was sent, or none: never the decoder's. */
function withoutStack<E extends Error>(error: E): E {
  Object.defineProperty(error, 'stack', { value: undefined, writable: true, configurable: true, enumerable: false });
  return error;
}

function fill(value: unknown, node: readonly unknown[], values: readonly unknown[]): void {
  switch (node[0]) {
    case NODE.ARRAY:
      for (let i = 1; i < node.length; i++) (value as unknown[]).push(member(values, node[i]));
      return;
    case NODE.SPARSE:
      fillSparse(value as unknown[], node, values);
      return;
    case NODE.OBJECT:
      for (let i = 1; i + 1 < node.length; i += 2)
        define(value as object, keyOf(node[i], values), member(values, node[i + 1]), true);
      return;
    case NODE.ERROR:
      for (let i = 2; i + 1 < node.length; i += 2)
        fillErrorProperty(value as Error, keyOf(node[i], values), member(values, node[i + 1]));
      return;
    default:
  }
}

function keyOf(key: unknown, values: readonly unknown[]): string {
  const text = typeof key === 'string' ? key : member(values, key);
  if (typeof text !== 'string') throw invalid('a key is not a text');
  return text;
}

function define(target: object, key: string, value: unknown, enumerable: boolean): void {
  if (key !== '__proto__' && enumerable) (target as Record<string, unknown>)[key] = value;
  else Object.defineProperty(target, key, { value, enumerable, writable: true, configurable: true });
}

function fillSparse(array: unknown[], node: readonly unknown[], values: readonly unknown[]): void {
  const length = node[1];
  if (typeof length !== 'number' || !Number.isInteger(length) || length < 0 || length > 2 ** 32 - 1)
    throw invalid('the length of an array is out of range');
  // A long array that is empty takes its memory at once, unless it was a sparse one before.
  if (length > node.length) array.length = 2 ** 32 - 1;
  array.length = length;
  for (let i = 2; i + 1 < node.length; i += 2) {
    const key = keyOf(node[i], values);
    if (key === 'length') throw invalid('an array has its length twice');
    define(array, key, member(values, node[i + 1]), true);
  }
  if (array.length !== length) throw invalid('an array has an element behind its end');
}

const ERROR_PROPERTIES = new Set(['name', 'message', 'stack', 'cause', 'code', 'errors']);

function fillErrorProperty(error: Error, key: string, value: unknown): void {
  if (!ERROR_PROPERTIES.has(key)) throw invalid('a property of an error is not known');
  if (key === 'name' && value === error.name) return;
  if (key === 'code') define(error, key, value, true);
  else Object.defineProperty(error, key, { value, writable: true, configurable: true, enumerable: false });
}
