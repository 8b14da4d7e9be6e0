/** Deep equality that forgives nothing: order of keys, holes, -0, prototypes, and which places hold the same object. */
import { types } from 'node:util';

/** Where two values differ, or undefined. `loose` objects (errors' stacks) are compared by the caller. */
export function difference(a: unknown, b: unknown): string | undefined {
  return compare(a, b, 'data', new Map(), new Map());
}

function compare(
  a: unknown,
  b: unknown,
  path: string,
  left: Map<object, object>,
  right: Map<object, object>,
): string | undefined {
  if (typeof a !== 'object' || a === null || typeof b !== 'object' || b === null)
    return Object.is(a, b) ? undefined : `${path}: ${String(a)} and ${String(b)}`;
  if (left.has(a) || right.has(b))
    return left.get(a) === b && right.get(b) === a ? undefined : `${path}: not the same object`;
  left.set(a, b);
  right.set(b, a);
  if (Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) return `${path}: prototypes`;
  const inner = insideOf(a);
  const other = insideOf(b);
  if (inner.length !== other.length) return `${path}: sizes ${String(inner.length)} and ${String(other.length)}`;
  for (const [i, value] of inner.entries()) {
    const found = compare(value, other[i], `${path}<${String(i)}>`, left, right);
    if (found !== undefined) return found;
  }
  const keys = ownKeys(a);
  const others = ownKeys(b);
  if (keys.join('\0') !== others.join('\0')) return `${path}: keys ${keys.join()} and ${others.join()}`;
  for (const key of keys) {
    const found = compare((a as never)[key], (b as never)[key], `${path}.${key}`, left, right);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Own keys, in order; errors have theirs hidden, and in no order that anybody promises. */
function ownKeys(value: object): string[] {
  if (value instanceof Error) return Object.getOwnPropertyNames(value).sort();
  if (ArrayBuffer.isView(value)) return [];
  return Array.isArray(value) ? ['length', ...Object.keys(value)] : Object.keys(value);
}

/** What an object holds besides its properties. */
function insideOf(value: object): unknown[] {
  if (types.isDate(value)) return [value.getTime()];
  if (types.isMap(value)) return [...value].flat();
  if (types.isSet(value)) return [...value];
  if (types.isRegExp(value)) return [value.source, value.flags, value.lastIndex];
  if (types.isBoxedPrimitive(value)) return [value.valueOf()];
  if (types.isArrayBuffer(value)) return [...new Uint8Array(value)];
  if (ArrayBuffer.isView(value)) return [...new Uint8Array(value.buffer, value.byteOffset, value.byteLength)];
  return [];
}
