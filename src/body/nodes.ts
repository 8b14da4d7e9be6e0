/** The kinds of nodes of the table form (docs/body-format.md, 3), and what both directions know of them. */

export const NODE = {
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
export type Node = string | number | boolean | null | unknown[];

export const VIEWS: Record<string, new (buffer: ArrayBuffer) => ArrayBufferView> = {
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

export const ERRORS: Record<string, ErrorConstructor> = {
  Error,
  EvalError,
  RangeError,
  ReferenceError,
  SyntaxError,
  TypeError,
  URIError,
};

/** Building a regular expression costs up to a tenth of a millisecond for each of its Unicode property escapes. */
export const MAX_PROPERTY_ESCAPES = 1024;

/** How many escapes like `\\p{L}` a regular expression has. */
export function propertyEscapes(source: string, flags: string): number {
  return /[uv]/.test(flags) ? (source.match(/\\p\{/gi)?.length ?? 0) : 0;
}
