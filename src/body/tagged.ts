/**
 * The tagged JSON form: any message data as JSON for people and pipes, and back (docs/command-line.md). Plain JSON stays
 * as it is; what JSON lacks becomes an object with one `$…` key; a plain object that has such a key is wrapped in `$object`.
 */
import { types } from 'node:util';
import { BroadcastError } from '../errors.js';

type Json = string | number | boolean | null | Json[] | { [key: string]: Json };

/** The tagged form of a value, ready for JSON.stringify. A value that refers to itself is cut with `$ref`. */
export function toTagged(value: unknown): Json {
  return tag(value, '$', new Map());
}

/** The tagged form as one line of JSON. */
export function stringifyTagged(value: unknown): string {
  return JSON.stringify(toTagged(value));
}

function tag(value: unknown, path: string, seen: Map<object, string>): Json {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return value;
    case 'number':
      return Number.isFinite(value) && !Object.is(value, -0)
        ? value
        : { $number: Object.is(value, -0) ? '-0' : String(value) };
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
  if (Array.isArray(value)) return value.map((member, i) => tag(member, `${path}[${String(i)}]`, seen));
  if (types.isDate(value)) return { $date: Number.isNaN(value.getTime()) ? null : value.toISOString() };
  if (types.isMap(value))
    return {
      $map: [...value].map(([k, v], i) => [
        tag(k, `${path}.key${String(i)}`, seen),
        tag(v, `${path}.value${String(i)}`, seen),
      ]),
    };
  if (types.isSet(value))
    return { $set: [...value].map((member, i) => tag(member, `${path}.member${String(i)}`, seen)) };
  if (types.isRegExp(value)) return { $regexp: [value.source, value.flags] };
  if (value instanceof Error) return tagError(value, path, seen);
  if (types.isBoxedPrimitive(value)) return tag(value.valueOf(), path, seen);
  if (types.isArrayBuffer(value))
    return { $bytes: Buffer.from(new Uint8Array(value)).toString('base64'), type: 'ArrayBuffer' };
  if (ArrayBuffer.isView(value)) {
    const kind = Buffer.isBuffer(value) ? 'Buffer' : Object.prototype.toString.call(value).slice(8, -1);
    return { $bytes: Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64'), type: kind };
  }
  const keys = Object.keys(value);
  const entries = keys.map(key => [key, tag((value as Record<string, unknown>)[key], `${path}.${key}`, seen)] as const);
  if (keys.some(key => key.startsWith('$') || key === '__proto__'))
    return { $object: entries.map(([key, member]) => [key, member]) };
  return Object.fromEntries(entries);
}

function tagError(error: Error, path: string, seen: Map<object, string>): Json {
  const form: Record<string, Json> = { name: error.name, message: error.message };
  for (const key of ['stack', 'cause', 'code'] as const) {
    if (Object.hasOwn(error, key))
      form[key] = tag((error as unknown as Record<string, unknown>)[key], `${path}.${key}`, seen);
  }
  return { $error: form };
}

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

/** The value of a tagged form. Throws `invalid-argument` for a tag that is not known. References (`$ref`) are not followed. */
export function fromTagged(json: unknown): unknown {
  if (Array.isArray(json)) return json.map(fromTagged);
  if (typeof json !== 'object' || json === null) return json;
  const keys = Object.keys(json);
  const [first] = keys;
  if (first === undefined || !first.startsWith('$')) {
    return Object.fromEntries(Object.entries(json).map(([key, value]) => [key, fromTagged(value)]));
  }
  return untag(first, json as Record<string, unknown>);
}

function untag(name: string, form: Record<string, unknown>): unknown {
  const value = form[name];
  try {
    switch (name) {
      case '$bigint':
        return BigInt(value as string);
      case '$date':
        return new Date((value as string | null) ?? NaN);
      case '$number':
        return Number(value);
      case '$undefined':
        return undefined;
      case '$map':
        return new Map((value as [unknown, unknown][]).map(([k, v]) => [fromTagged(k), fromTagged(v)]));
      case '$set':
        return new Set((value as unknown[]).map(fromTagged));
      case '$regexp':
        return new RegExp(...(value as [string, string]));
      case '$object':
        return Object.fromEntries((value as [string, unknown][]).map(([key, member]) => [key, fromTagged(member)]));
      case '$error': {
        const { message, ...rest } = fromTagged(value) as { message: string };
        return Object.assign(new Error(message), rest);
      }
      case '$bytes':
        return bytes(value as string, form['type']);
      default:
    }
  } catch (error) {
    throw new BroadcastError('invalid-argument', `${name} has a value that does not fit: ${(error as Error).message}`, {
      cause: error,
    });
  }
  throw new BroadcastError(
    'invalid-argument',
    `the tag ${name} is not known; a plain object with such a key is written {"$object":[["${name}",…]]}`,
  );
}

function bytes(base64: string, type: unknown): unknown {
  const buffer = Buffer.from(base64, 'base64');
  if (type === undefined || type === 'Buffer') return buffer;
  const exact = new Uint8Array(buffer).buffer;
  if (type === 'ArrayBuffer') return exact;
  if (typeof type !== 'string' || !Object.hasOwn(VIEWS, type))
    throw new TypeError(`the type ${String(type)} is not known`);
  return new (VIEWS[type] as new (buffer: ArrayBuffer) => ArrayBufferView)(exact);
}
