/** Every kind of data comes back as it was sent: by random values, against structuredClone, and one by one. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeBody, encodeBody } from '../../src/body/index.js';
import { fromTagged, stringifyTagged } from '../../src/body/tagged.js';
import { difference } from '../helpers/same.js';

const back = (value: unknown): unknown => decodeBody(encodeBody(value));

const text = fc.oneof(
  fc.string(),
  fc.string({ unit: 'binary' }),
  fc.array(fc.integer({ min: 0xd700, max: 0xe000 }), { maxLength: 5 }).map(codes => String.fromCharCode(...codes)),
  fc.constantFrom('', 'x'.repeat(31), 'x'.repeat(32), 'é'.repeat(255), '\0'),
);
const key = fc.oneof(
  text,
  fc.constantFrom(
    '__proto__',
    'constructor',
    'toJSON',
    'length',
    'then',
    'hasOwnProperty',
    '0',
    '1',
    '-1',
    '4294967295',
  ),
);
const primitive = fc.oneof(
  text,
  fc.double(),
  fc.integer(),
  fc.maxSafeInteger(),
  fc.bigInt(),
  fc.bigInt({ min: -(2n ** 600n), max: 2n ** 600n }),
  fc.boolean(),
  fc.constantFrom(null, undefined, -0, NaN, Infinity, 2 ** 53, -(2 ** 63), 2n ** 64n, -(2n ** 63n)),
);

const bytes = fc.uint8Array({ maxLength: 40 });
const VIEWS = [Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, Float32Array, Float64Array, BigInt64Array, BigUint64Array, DataView] as const; // prettier-ignore
const view = fc.tuple(bytes, fc.constantFrom(...VIEWS), fc.nat(3)).map(([content, View, skip]) => {
  // A view somewhere in a larger buffer.
  const size = View === DataView ? 1 : (View as typeof Int8Array).BYTES_PER_ELEMENT;
  const buffer = new ArrayBuffer(skip * size + Math.ceil(content.length / size) * size + 16);
  new Uint8Array(buffer).set(content, skip * size);
  return new (View as typeof DataView)(buffer, skip * size, Math.ceil(content.length / size));
});
const leaf = fc.oneof(
  { weight: 6, arbitrary: primitive },
  fc.date({ noInvalidDate: false }),
  fc.constantFrom(/a/g, /\p{L}+(?<name>x)\/\n/giu, new RegExp('', 'dsmy'), new RegExp('/')).map(source => {
    const copy = new RegExp(source);
    copy.lastIndex = 3;
    return copy;
  }),
  primitive.filter(value => value !== null && value !== undefined).map(value => Object(value) as object),
  bytes.map(content => content.buffer.slice(0)),
  view,
);

function objectOf(entries: readonly (readonly [string, unknown])[], prototype: object | null): object {
  const object = Object.create(prototype) as object;
  for (const [name, value] of entries)
    Object.defineProperty(object, name, { value, enumerable: true, writable: true, configurable: true });
  return object;
}

class Point {
  readonly x: unknown;
  #secret = 1;
  constructor(x: unknown) {
    this.x = x;
  }
  get secret(): number {
    return this.#secret;
  }
  toJSON(): string {
    throw new Error('it is not asked');
  }
}

const { value: anything } = fc.letrec<{ value: unknown }>(tie => {
  const members = fc.array(tie('value'), { maxLength: 6 });
  const entries = fc.array(fc.tuple(key, tie('value')), { maxLength: 6 });
  return {
    value: fc.oneof(
      { maxDepth: 5, depthSize: 'small' },
      { weight: 4, arbitrary: leaf },
      { weight: 2, arbitrary: members },
      { weight: 2, arbitrary: entries.map(list => objectOf(list, Object.prototype)) },
      entries.map(list => objectOf(list, null)),
      tie('value').map(inner => new Point(inner)),
      fc.array(fc.tuple(tie('value'), tie('value')), { maxLength: 5 }).map(list => new Map(list)),
      members.map(list => new Set(list)),
      fc.sparseArray(tie('value'), { maxNumElements: 4, maxLength: 4_000_000_000 }),
      fc.tuple(members, key, tie('value')).map(([list, name, value]) => {
        if (name !== 'length')
          Object.defineProperty(list, name, { value, enumerable: true, writable: true, configurable: true });
        return list;
      }),
    ),
  };
});

/** Containers that refer to each other at random. */
const graph = fc
  .tuple(
    fc.array(fc.constantFrom('array', 'object', 'map', 'set'), { minLength: 1, maxLength: 8 }),
    fc.array(fc.tuple(fc.nat(), fc.nat(), primitive), { maxLength: 20 }),
  )
  .map(([kinds, edges]) => {
    const makers = { array: () => [], object: () => ({}), map: () => new Map(), set: () => new Set() };
    const nodes: (unknown[] | Map<unknown, unknown> | Set<unknown> | Record<string, unknown>)[] = kinds.map(kind =>
      makers[kind](),
    );
    for (const [i, [from, to, extra]] of edges.entries()) {
      const node = nodes[from % nodes.length];
      const target = nodes[to % nodes.length];
      if (Array.isArray(node)) node.push(target, extra);
      else if (node instanceof Map) node.set(i % 2 === 0 ? target : extra, i % 2 === 0 ? extra : target);
      else if (node instanceof Set) node.add(target).add(extra);
      else if (node !== undefined) node[`k${String(i)}`] = target;
    }
    return nodes[0];
  });

describe('the body codec', () => {
  it('gives back what structuredClone gives', () => {
    fc.assert(
      fc.property(anything, value => difference(back(value), structuredClone(value)) === undefined),
      { numRuns: 2000 },
    );
  });

  it('keeps which places hold the same object, also in circles', () => {
    fc.assert(
      fc.property(graph, value => difference(back(value), structuredClone(value)) === undefined),
      { numRuns: 1000 },
    );
  });

  it('goes through the tagged form of JSON and back', () => {
    fc.assert(
      fc.property(fc.oneof(anything, graph), value => {
        // Everything on the way is exact but the class of a plain object, which JSON has no need to know.
        const clone = structuredClone(value);
        return difference(fromTagged(JSON.parse(stringifyTagged(clone))), clone) === undefined;
      }),
      { numRuns: 1000 },
    );
  });

  it('takes plain JSON in the tagged form as it is, whatever its keys', () => {
    const lines = [
      '{"$schema":"x","a":{"$ref":"#/definitions/a"}}',
      '{"$oid":"1"}',
      '{"$date":"2020","b":1}',
      '[{"a":1,"$set":[1]}]',
    ];
    for (const line of lines) expect(fromTagged(JSON.parse(line))).toEqual(JSON.parse(line));
    fc.assert(fc.property(fc.json(), json => difference(fromTagged(JSON.parse(json)), JSON.parse(json)) === undefined));
  });

  it('keeps the named properties of an array, however long it is', () => {
    for (const length of [0, 3, 5000]) {
      const rows = Object.assign(
        Array.from({ length }, (_, i) => ({ i })),
        { columns: ['i'] },
      );
      expect(difference(back(rows), rows)).toBeUndefined();
    }
  });

  it('gives back a Buffer as a Buffer, with bytes of its own', () => {
    const body = encodeBody({ bytes: Buffer.from('hello') });
    const { bytes: received } = decodeBody(body) as { bytes: Buffer };
    expect(Buffer.isBuffer(received)).toBe(true);
    body.fill(0);
    expect(received.toString()).toBe('hello');
  });

  it('gives back errors with class, name, message, stack, cause, code and errors', () => {
    class OwnError extends RangeError {
      override name = 'OwnError';
      readonly code = 'E_OWN';
    }
    const own = new OwnError('own', { cause: { deep: [1n] } });
    const circle = new Error('circle');
    circle.cause = circle;
    const all = [
      own,
      circle,
      new AggregateError([new TypeError('a'), 5], 'many'),
      new SyntaxError('s'),
      new Error('no cause'),
    ];
    const received = back(all) as (Error & { code?: string; errors?: unknown[] })[];
    for (const [i, error] of all.entries()) {
      const { name, message, stack } = error;
      expect(received[i]).toMatchObject({ name, message, stack });
    }
    const [first, second, aggregate] = received as [Error & { code: string }, Error, AggregateError];
    expect(first).toBeInstanceOf(RangeError);
    expect(first).toMatchObject({ code: 'E_OWN', cause: { deep: [1n] } });
    expect(second.cause).toBe(second);
    expect(aggregate).toBeInstanceOf(AggregateError);
    expect(aggregate.errors).toEqual([new TypeError('a'), 5]);
    expect(Object.hasOwn(received[4] as Error, 'cause')).toBe(false);
    const tagged = fromTagged(JSON.parse(stringifyTagged(received))) as unknown[];
    expect(difference(tagged, received)).toBeUndefined();
  });

  it('looks at what a value is, not at what a class has overridden', () => {
    class Liar extends Map<string, number> {
      override *entries(): MapIterator<[string, number]> {
        yield ['lie', 0];
      }
      override [Symbol.iterator] = this.entries;
    }
    class Clock extends Date {
      override getTime(): number {
        return 0;
      }
    }
    expect(back([new Liar([['truth', 1]]), new Clock(5)])).toEqual([new Map([['truth', 1]]), new Date(5)]);
  });

  it('calls getters once each on the long path, and leaves symbols, inherited and hidden properties out', () => {
    let calls = 0;
    const value = Object.defineProperty(
      { map: new Map(), get now() { return ++calls; }, [Symbol('s')]: 1 }, // prettier-ignore
      'hidden',
      { value: 1, enumerable: false },
    );
    expect(back(Object.assign(Object.create({ inherited: 1 }) as object, { a: 1 }))).toEqual({ a: 1 });
    const { now, ...rest } = back(value) as { now: number };
    expect(now).toBe(calls);
    expect(rest).toEqual({ map: new Map() });
  });

  it('goes as deep as the data, without recursion', () => {
    let deep: unknown = 'bottom';
    for (let i = 0; i < 100_000; i++) deep = i % 2 === 0 ? [deep] : { deep };
    let at = back(deep);
    for (let i = 99_999; i >= 0; i--) at = i % 2 === 0 ? (at as unknown[])[0] : (at as { deep: unknown }).deep;
    expect(at).toBe('bottom');
  });

  it.each([
    ['data.user.save', { user: { name: 'x', save: () => 1 } }],
    ['data[1].a', [0, { a: Symbol('s') }]],
    ['data["odd key"][0]', { 'odd key': [Promise.resolve()] }],
    ['data.m[key 0]', { m: new Map([[() => 1, 1]]) }],
    ['data.m[value 0].x', { m: new Map([[1, { x: new WeakMap() }]]) }],
    ['data.s[member 1]', { s: new Set([1, new WeakRef({})]) }],
    ['data.cause', new Error('x', { cause: () => 1 })],
    ['data', () => 1],
    ['data', Symbol('x')],
    ['data.shared', { shared: new SharedArrayBuffer(8) }],
    ['data.broken', { get broken() { throw new Error('no'); } }], // prettier-ignore
    ['data.p', { p: revoked() }],
    ['data.r', { r: new RegExp('\\p{L}'.repeat(1025), 'u') }],
  ])('refuses what cannot be sent, and names it: %s', (path, value) => {
    expect(() => encodeBody(value)).toThrow(
      expect.objectContaining({
        code: 'data-not-cloneable',
        message: expect.stringContaining(`${path} `) as string,
      }) as Error,
    );
  });

  it('does not change what it encodes', () => {
    const value = { a: [1, { b: 'x' }], c: undefined };
    const copy = structuredClone(value);
    encodeBody(value);
    expect(value).toEqual(copy);
  });

  it('may be called again by a getter of what it encodes', () => {
    const value = {
      before: 'x'.repeat(30),
      get inner() {
        return decodeBody(encodeBody({ inner: true }));
      },
      after: [1, 2, 3],
    };
    expect(back(value)).toEqual({ before: 'x'.repeat(30), inner: { inner: true }, after: [1, 2, 3] });
  });

  // Around every length at which a text's head grows, in characters of one, two, three and four bytes.
  it.each(['x', 'ä', '€', '😀'])('writes texts of %s of any length in their shortest form', character => {
    for (const edge of [16, 32, 64, 128, 256, 342, 512, 1024, 16_384, 21_846, 32_768, 65_536]) {
      for (const length of [edge - 1, edge, edge + 1]) {
        const text = character.repeat(Math.ceil(length / character.length));
        const bytes = encodeBody(text);
        const size = Buffer.byteLength(text);
        expect(bytes.length - size).toBe(size < 32 ? 1 : size < 256 ? 2 : size < 65_536 ? 3 : 5);
        expect(decodeBody(bytes) === text).toBe(true);
      }
    }
  });

  it.each([20, 40, 2000])('keeps half a character at the end of a text of %i characters', length => {
    const text = `${'x'.repeat(length)}\ud800`;
    expect(back({ text, after: 1 })).toEqual({ text, after: 1 });
  });

  it('takes values that are larger than what it keeps between calls', () => {
    const large = { text: 'ä'.repeat(200_000), list: Array.from({ length: 70_000 }, (_, i) => i) };
    const first = encodeBody(large);
    encodeBody({ small: 1 });
    expect(decodeBody(first)).toEqual(large);
    const many = Object.fromEntries(Array.from({ length: 70_000 }, (_, i) => [`key ${String(i)}`, i]));
    expect(back(many)).toEqual(many);
  });
});

function revoked(): object {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}
