/**
 * The other path of the body codec: any value that structured clone takes, as a table of nodes that refer to each other
 * by index, so that shared and cyclic references, depth and rare types need no special case (docs/body-format.md, 3).
 * Works on lists, not by recursion: depth costs heap, not stack.
 */
import { types } from 'node:util';
import { BroadcastError } from '../errors.js';
import { show } from '../names.js';
import { invalid } from './plain.js';

const NODE = {
  UNDEFINED: 0,
  MINUS_ZERO: 1,
  BIGINT: 2,
  DATE: 3,
  ARRAY: 4,
  SPARSE: 5,
  OBJECT: 6,
  MAP: 7,
  SET: 8,
  REGEXP: 9,
  ERROR: 10,
  ARRAY_BUFFER: 11,
  VIEW: 12,
  BUFFER: 13,
  BOXED: 14,
  UTF16: 15,
} as const;

/** A node of the table: a primitive as it is, or its kind followed by what the kind wants. */
type Node = string | number | boolean | null | unknown[];

const VIEWS: Record<string, new (buffer: ArrayBuffer) => ArrayBufferView> = {
  Int8Array,
  Uint8Array,
  Uint8ClampedArray,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
  BigUint64Array,
  DataView,
};
{
  const { Float16Array } = globalThis as { Float16Array?: new (buffer: ArrayBuffer) => ArrayBufferView };
  if (Float16Array !== undefined) VIEWS['Float16Array'] = Float16Array;
}

const ERRORS: Record<string, ErrorConstructor> = {
  Error,
  EvalError,
  RangeError,
  ReferenceError,
  SyntaxError,
  TypeError,
  URIError,
};

// ---- encoding ----------------------------------------------------------------------------------------------------------

/** Where a value was found, for error texts. */
interface Place {
  readonly parent: Place | undefined;
  readonly key: string;
}

function pathOf(place: Place | undefined): string {
  const keys: string[] = [];
  for (let at = place; at !== undefined && keys.length < 20; at = at.parent) keys.unshift(at.key);
  return `data${keys.map(key => (/^\[/.test(key) ? key : /^[\w$]+$/.test(key) ? `.${key}` : `[${show(key)}]`)).join('')}`;
}

function refuse(what: string, place: Place | undefined, cause?: unknown): BroadcastError {
  return new BroadcastError('data-not-cloneable', `${pathOf(place)} ${what} and cannot be sent`, { cause });
}

interface Pending {
  readonly value: object;
  readonly node: unknown[];
  readonly place: Place | undefined;
}

class Flattener {
  readonly nodes: Node[] = [];
  readonly #seen = new Map<object, number>();
  readonly #pending: Pending[] = [];

  flatten(root: unknown): Node[] {
    this.#add(root, undefined);
    for (let next = this.#pending.pop(); next !== undefined; next = this.#pending.pop()) this.#fill(next);
    return this.nodes;
  }

  /** The index of a value's node. */
  #add(value: unknown, place: Place | undefined): number {
    if (typeof value === 'object' && value !== null) {
      const known = this.#seen.get(value);
      if (known !== undefined) return known;
      const index = this.nodes.length;
      const node: unknown[] = [];
      this.nodes.push(node);
      this.#seen.set(value, index);
      this.#pending.push({ value, node, place });
      return index;
    }
    return this.nodes.push(primitiveNode(value, place)) - 1;
  }

  #fill({ value, node, place }: Pending): void {
    if (Array.isArray(value)) this.#fillArray(value, node, place);
    else if (types.isDate(value)) node.push(NODE.DATE, Number.isNaN(value.getTime()) ? null : value.getTime());
    else if (types.isMap(value)) {
      node.push(NODE.MAP);
      let i = 0;
      for (const [key, member] of [...value]) {
        node.push(
          this.#add(key, { parent: place, key: `[key ${String(i)}]` }),
          this.#add(member, { parent: place, key: `[value ${String(i++)}]` }),
        );
      }
    } else if (types.isSet(value)) {
      node.push(NODE.SET);
      let i = 0;
      for (const member of [...value]) node.push(this.#add(member, { parent: place, key: `[member ${String(i++)}]` }));
    } else if (types.isRegExp(value)) node.push(NODE.REGEXP, value.source, value.flags);
    else if (types.isNativeError(value) || value instanceof Error) this.#fillError(value, node, place);
    else if (Buffer.isBuffer(value)) node.push(NODE.BUFFER, Buffer.from(value));
    else if (ArrayBuffer.isView(value)) fillView(value, node, place);
    else if (types.isArrayBuffer(value)) node.push(NODE.ARRAY_BUFFER, Buffer.from(new Uint8Array(value)));
    else if (types.isBoxedPrimitive(value)) {
      const inner: unknown = value.valueOf();
      if (typeof inner === 'symbol') throw refuse('is a symbol', place);
      node.push(NODE.BOXED, this.#add(inner, place));
    } else if (isUncloneable(value)) throw refuse(`is a ${Object.prototype.toString.call(value).slice(8, -1)}`, place);
    else this.#fillObject(value, node, place);
  }

  #fillArray(array: unknown[], node: unknown[], place: Place | undefined): void {
    const keys = Object.keys(array);
    if (keys.length === array.length && (keys.length === 0 || keys[keys.length - 1] === String(array.length - 1))) {
      node.push(NODE.ARRAY);
      for (let i = 0; i < array.length; i++) node.push(this.#add(array[i], { parent: place, key: `[${String(i)}]` }));
      return;
    }
    node.push(NODE.SPARSE, array.length);
    for (const key of keys) this.#member(array, key, node, place);
  }

  #fillObject(value: object, node: unknown[], place: Place | undefined): void {
    node.push(NODE.OBJECT);
    for (const key of Object.keys(value)) this.#member(value, key, node, place);
  }

  #member(value: object, key: string, node: unknown[], parent: Place | undefined): void {
    const place = { parent, key };
    let member: unknown;
    try {
      member = (value as Record<string, unknown>)[key];
    } catch (error) {
      throw refuse('has a getter that throws', place, error);
    }
    node.push(this.#key(key), this.#add(member, place));
  }

  /** A key: a string as it is, or one that UTF-8 cannot carry as a reference to its node. */
  #key(key: string): unknown {
    return (key as string & { isWellFormed(): boolean }).isWellFormed() ? key : this.#add(key, undefined);
  }

  #fillError(error: Error, node: unknown[], place: Place | undefined): void {
    const constructor =
      Object.keys(ERRORS).find(name => name !== 'Error' && error instanceof (ERRORS[name] as ErrorConstructor)) ??
      'Error';
    const aggregate = error instanceof AggregateError;
    node.push(NODE.ERROR, aggregate ? 'AggregateError' : constructor);
    const properties = ['name', 'message', 'stack', 'cause', 'code', ...(aggregate ? ['errors'] : [])];
    for (const key of properties) {
      if (key !== 'name' && !Object.hasOwn(error, key)) continue;
      this.#member(error, key, node, place);
    }
  }
}

function primitiveNode(value: unknown, place: Place | undefined): Node {
  switch (typeof value) {
    case 'string':
      return (value as string & { isWellFormed(): boolean }).isWellFormed()
        ? value
        : [NODE.UTF16, Buffer.from(value, 'utf16le')];
    case 'number':
      return Object.is(value, -0) ? [NODE.MINUS_ZERO] : value;
    case 'bigint':
      return [NODE.BIGINT, value < 0n ? `-${(-value).toString(16)}` : value.toString(16)];
    case 'boolean':
      return value;
    case 'undefined':
      return [NODE.UNDEFINED];
    case 'function':
      throw refuse('is a function', place);
    case 'symbol':
      throw refuse('is a symbol', place);
    default:
      return null;
  }
}

function fillView(view: ArrayBufferView, node: unknown[], place: Place | undefined): void {
  const kind = Object.prototype.toString.call(view).slice(8, -1);
  if (!Object.hasOwn(VIEWS, kind)) throw refuse(`is a ${kind}`, place);
  node.push(NODE.VIEW, kind, Buffer.from(Buffer.from(view.buffer, view.byteOffset, view.byteLength)));
}

/** What structured clone refuses too: it has a life outside of its properties. */
function isUncloneable(value: object): boolean {
  return (
    types.isPromise(value) ||
    types.isWeakMap(value) ||
    types.isWeakSet(value) ||
    types.isProxy(value) ||
    types.isSharedArrayBuffer(value) ||
    types.isGeneratorObject(value) ||
    types.isModuleNamespaceObject(value) ||
    types.isExternal(value) ||
    value instanceof WeakRef
  );
}

/** The table for a value. Throws `data-not-cloneable` with the path of what cannot be sent. */
export function flatten(value: unknown): unknown[] {
  return new Flattener().flatten(value);
}

// ---- decoding ----------------------------------------------------------------------------------------------------------

/** The value of a table. Throws `body-invalid`. */
export function unflatten(table: unknown): unknown {
  if (!Array.isArray(table) || table.length === 0) throw invalid('its table is missing');
  const values: unknown[] = new Array<unknown>(table.length);
  for (let i = 0; i < table.length; i++) values[i] = shell(table[i]);
  // Boxed values take their inner one when they are made, so they come before containers are filled.
  for (let i = 0; i < table.length; i++) {
    const node = table[i] as unknown[];
    if (Array.isArray(node) && node[0] === NODE.BOXED) values[i] = box(member(values, node[1]));
  }
  for (let i = 0; i < table.length; i++) if (Array.isArray(table[i])) fill(values[i], table[i] as unknown[], values);
  return values[0];
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
  if (typeof source !== 'string' || typeof flags !== 'string') throw invalid('a regular expression is none');
  try {
    return new RegExp(source, flags);
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
    case NODE.MAP:
      for (let i = 1; i + 1 < node.length; i += 2)
        (value as Map<unknown, unknown>).set(member(values, node[i]), member(values, node[i + 1]));
      return;
    case NODE.SET:
      for (let i = 1; i < node.length; i++) (value as Set<unknown>).add(member(values, node[i]));
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
