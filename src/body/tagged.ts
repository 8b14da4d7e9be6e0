/**
 * The tagged JSON form: any message data as JSON for people and pipes, and back (docs/command-line.md). Plain JSON stays
 * as it is; what JSON lacks becomes an object with one `$…` key, and a plain object that has such a key is wrapped in
 * `$object`. A value that occurs a second time is a reference to its first place, so shared and cyclic data come back.
 */
import { types } from 'node:util';
import { BroadcastError } from '../errors.js';

type Json = string | number | boolean | null | Json[] | { [key: string]: Json };

// ---- values to JSON ---------------------------------------------------------------------------------------------------

/** The tagged form of a value, ready for JSON.stringify. Throws RangeError when the value is nested too deep. */
function toTagged(value: unknown): Json {
  return tag(value, '$', new Map());
}

/** The tagged form as one line of JSON. */
export function stringifyTagged(value: unknown): string {
  return JSON.stringify(toTagged(value));
}

/** A received message with all its fields; data that cannot be decoded is said to be so. */
export function taggedMessage(message: object): Record<string, Json> {
  const form: Record<string, Json> = {};
  for (const key of Object.keys(message)) {
    try {
      const value = (message as Record<string, unknown>)[key];
      if (value !== undefined || key === 'data') form[key] = toTagged(value);
    } catch (error) {
      form[key] = { $undecodable: error instanceof Error ? error.message : String(error) };
    }
  }
  return form;
}

function tag(value: unknown, path: string, seen: Map<object, string>): Json {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return value;
    case 'number':
      if (Object.is(value, -0)) return { $number: '-0' };
      return Number.isFinite(value) ? value : { $number: String(value) };
    case 'bigint':
      return { $bigint: value.toString() };
    case 'undefined':
      return { $undefined: true };
    case 'object':
      return value === null ? null : tagObject(value, path, seen);
    default:
      throw new BroadcastError('data-not-cloneable', `a ${typeof value} has no form in JSON`);
  }
}

function tagObject(value: object, path: string, seen: Map<object, string>): Json {
  const known = seen.get(value);
  if (known !== undefined) return { $ref: known };
  seen.set(value, path);
  const inner = (member: unknown, key: string): Json => tag(member, `${path}${key}`, seen);
  if (Array.isArray(value)) return tagArray(value, inner);
  if (types.isDate(value)) return { $date: Number.isNaN(value.getTime()) ? null : value.toISOString() };
  if (types.isMap(value))
    return { $map: [...value].map(([k, v], i) => [inner(k, `<key ${String(i)}>`), inner(v, `<value ${String(i)}>`)]) };
  if (types.isSet(value)) return { $set: [...value].map((member, i) => inner(member, `<member ${String(i)}>`)) };
  if (types.isRegExp(value)) return { $regexp: [value.source, value.flags] };
  if (value instanceof Error) return tagError(value, inner);
  if (types.isBoxedPrimitive(value)) return { $boxed: inner(value.valueOf(), '<boxed>') };
  if (types.isAnyArrayBuffer(value)) return tagBytes(Buffer.from(new Uint8Array(value)), 'ArrayBuffer');
  if (ArrayBuffer.isView(value)) {
    const kind = Buffer.isBuffer(value) ? 'Buffer' : Object.prototype.toString.call(value).slice(8, -1);
    return tagBytes(Buffer.from(value.buffer, value.byteOffset, value.byteLength), kind);
  }
  const entries = Object.keys(value).map(
    key => [key, inner((value as Record<string, unknown>)[key], step(key))] as [string, Json],
  );
  if (entries.some(([key]) => key.startsWith('$') || key === '__proto__')) return { $object: entries };
  return Object.fromEntries(entries);
}

function step(key: string): string {
  return /^[A-Za-z_][\w]*$/.test(key) ? `.${key}` : `[${JSON.stringify(key)}]`;
}

function tagArray(array: unknown[], inner: (member: unknown, key: string) => Json): Json {
  // A declared length says nothing about what is there: the keys do.
  const keys = Object.keys(array);
  if (keys.length === array.length && (keys.length === 0 || keys[keys.length - 1] === String(array.length - 1)))
    return array.map((member, i) => inner(member, `[${String(i)}]`));
  const members = keys.map(key => [key, inner(array[key as unknown as number], step(key))] as [string, Json]);
  return { $sparse: [array.length, members] };
}

function tagBytes(bytes: Buffer, type: string): Json {
  return { $bytes: bytes.toString('base64'), type };
}

function tagError(error: Error, inner: (member: unknown, key: string) => Json): Json {
  const form: Record<string, Json> = { name: error.name, message: error.message };
  const type = error instanceof AggregateError ? 'AggregateError' : typeOf(error);
  if (type !== error.name) form['type'] = type;
  for (const key of ['stack', 'cause', 'code', 'errors'] as const) {
    const value = (error as unknown as Record<string, unknown>)[key];
    if (Object.hasOwn(error, key) && value !== undefined) form[key] = inner(value, `.${key}`);
  }
  return { $error: form };
}

function typeOf(error: Error): string {
  return Object.keys(ERRORS).find(name => error instanceof (ERRORS[name] as ErrorConstructor)) ?? 'Error';
}

// ---- JSON to values ---------------------------------------------------------------------------------------------------

type View = new (buffer: ArrayBuffer) => ArrayBufferView;

const VIEWS = new Map<string, View>(
  [
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
    (globalThis as { Float16Array?: View }).Float16Array,
  ].flatMap(view => (view === undefined ? [] : [[view.name, view] as const])),
);

const ERRORS: Readonly<Record<string, ErrorConstructor>> = {
  EvalError,
  RangeError,
  ReferenceError,
  SyntaxError,
  TypeError,
  URIError,
};

/**
 * The value of a tagged form. An object with a `$…` key that is not one of the tags is data like any other. Throws
 * `invalid-argument` when a tag has a value that does not fit it, RangeError when the form is nested too deep.
 */
export function fromTagged(json: unknown): unknown {
  return new Untagger().value(json, '$');
}

class Untagger {
  readonly #places = new Map<string, unknown>();

  value(json: unknown, path: string): unknown {
    if (typeof json !== 'object' || json === null) return json;
    if (Array.isArray(json)) {
      const array = this.#place(path, [] as unknown[]);
      for (let i = 0; i < json.length; i++) array.push(this.value(json[i], `${path}[${String(i)}]`));
      return array;
    }
    const keys = Object.keys(json);
    const [name = ''] = keys;
    if (TAGS.has(name) && (keys.length === 1 || (name === '$bytes' && keys.length === 2 && keys[1] === 'type')))
      return this.#tag(name, json as Record<string, unknown>, path);
    return this.#fill(this.#place(path, {}), Object.entries(json), path);
  }

  #place<T>(path: string, value: T): T {
    this.#places.set(path, value);
    return value;
  }

  #fill<T extends object>(target: T, entries: readonly (readonly [string, unknown])[], path: string): T {
    for (const [key, member] of entries) {
      const value = this.value(member, `${path}${step(key)}`);
      Object.defineProperty(target, key, { value, enumerable: true, writable: true, configurable: true });
    }
    return target;
  }

  #tag(name: string, form: Record<string, unknown>, path: string): unknown {
    const given = form[name];
    if (name === '$ref') {
      // Only what refers to a place before it is a reference: JSON schemas have this key too.
      const known = typeof given === 'string' && this.#places.has(given);
      return known ? this.#places.get(given) : this.#fill(this.#place(path, {}), Object.entries(form), path);
    }
    try {
      return this.#untag(name, given, form['type'], path);
    } catch (error) {
      if (error instanceof BroadcastError || isStackOverflow(error)) throw error;
      throw new BroadcastError(
        'invalid-argument',
        `${name} has a value that does not fit: ${(error as Error).message}`,
        {
          cause: error,
        },
      );
    }
  }

  #untag(name: string, value: unknown, type: unknown, path: string): unknown {
    switch (name) {
      case '$bigint':
        return BigInt(expect(value, 'string'));
      case '$number':
        return numberOf(value);
      case '$undefined':
        return undefined;
      case '$date':
        return this.#place(path, dateOf(value));
      case '$regexp': {
        const [source, flags] = listOf(value);
        return this.#place(path, new RegExp(expect(source, 'string'), expect(flags, 'string')));
      }
      case '$bytes':
        return this.#place(path, bytesOf(expect(value, 'string'), type));
      case '$boxed':
        return this.#place(path, Object(this.value(value, `${path}<boxed>`)));
      case '$map': {
        const map = this.#place(path, new Map());
        for (const [i, pair] of listOf(value).entries()) {
          const [key, member] = listOf(pair);
          map.set(this.value(key, `${path}<key ${String(i)}>`), this.value(member, `${path}<value ${String(i)}>`));
        }
        return map;
      }
      case '$set': {
        const set = this.#place(path, new Set());
        for (const [i, member] of listOf(value).entries()) set.add(this.value(member, `${path}<member ${String(i)}>`));
        return set;
      }
      case '$sparse': {
        const [length, members] = listOf(value);
        const array = this.#place(path, [] as unknown[]);
        array.length = length as number;
        return this.#fill(array, pairsOf(members), path);
      }
      case '$object':
        return this.#fill(this.#place(path, {}), pairsOf(value), path);
      default:
        return this.#error(value as Record<string, unknown>, path);
    }
  }

  #error(form: Record<string, unknown>, path: string): Error {
    const name = expect(form['name'], 'string');
    const message = expect(form['message'], 'string');
    const type = form['type'] === undefined ? name : expect(form['type'], 'string');
    const known = Object.hasOwn(ERRORS, type) ? (ERRORS[type] as ErrorConstructor) : Error;
    const error = type === 'AggregateError' ? new AggregateError([], message) : new known(message);
    this.#place(path, error);
    const define = (key: string, value: unknown, enumerable: boolean): void =>
      void Object.defineProperty(error, key, { value, enumerable, writable: true, configurable: true });
    if (error.name !== name) define('name', name, false);
    define('stack', undefined, false);
    for (const key of ['stack', 'cause', 'code', 'errors'])
      if (Object.hasOwn(form, key)) define(key, this.value(form[key], `${path}.${key}`), key === 'code');
    return error;
  }
}

const TAGS: ReadonlySet<string> = new Set([
  '$bigint',
  '$number',
  '$undefined',
  '$date',
  '$regexp',
  '$bytes',
  '$boxed',
  '$map',
  '$set',
  '$sparse',
  '$object',
  '$error',
  '$ref',
]);

function isStackOverflow(error: unknown): boolean {
  return error instanceof RangeError && error.message.includes('call stack');
}

function expect(value: unknown, type: 'string'): string {
  if (typeof value !== type) throw new TypeError(`a ${type} is expected, not ${JSON.stringify(value)}`);
  return value as string;
}

function listOf(value: unknown): unknown[] {
  if (!Array.isArray(value)) throw new TypeError(`a list is expected, not ${JSON.stringify(value)}`);
  return value;
}

function pairsOf(value: unknown): [string, unknown][] {
  return listOf(value).map(pair => {
    const [key, member] = listOf(pair);
    return [expect(key, 'string'), member];
  });
}

function numberOf(value: unknown): number {
  const text = expect(value, 'string');
  const number = Number(text);
  if (text.trim() === '' || (Number.isNaN(number) && text !== 'NaN'))
    throw new TypeError(`${JSON.stringify(text)} is not a number`);
  return number;
}

function dateOf(value: unknown): Date {
  if (value === null) return new Date(NaN);
  const date = new Date(expect(value, 'string'));
  if (Number.isNaN(date.getTime())) throw new TypeError(`${JSON.stringify(value)} is not a date`);
  return date;
}

function bytesOf(base64: string, type: unknown): unknown {
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(base64)) throw new TypeError('the bytes are not base64');
  const buffer = Buffer.from(base64, 'base64');
  if (type === undefined || type === 'Buffer') return buffer;
  const exact = new Uint8Array(buffer).buffer;
  if (type === 'ArrayBuffer') return exact;
  const View = VIEWS.get(type as string);
  if (View === undefined) throw new TypeError(`the type ${JSON.stringify(type)} is not known`);
  return new View(exact);
}
