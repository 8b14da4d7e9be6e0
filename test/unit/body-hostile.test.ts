/** Bodies from a hostile encoder: refused with one code, at a cost that their size bounds, and no prototype is touched. */
import { readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Packr } from 'msgpackr';
import { describe, expect, it } from 'vitest';
import { decodeBody, encodeBody } from '../../src/body/index.js';

const packr = new Packr({ useRecords: false, variableMapSize: true });

/** A body of the table form. */
function table(nodes: unknown): Buffer {
  return wrap(packr.pack(nodes));
}

function wrap(content: Uint8Array): Buffer {
  const head = Buffer.from([0xc9, 0, 0, 0, 0, 1]);
  head.writeUInt32BE(content.length, 1);
  return Buffer.concat([head, content]);
}

const many = <T>(count: number, make: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));
const invalid = expect.objectContaining({ code: 'body-invalid' }) as Error;

/** The most memory that this process has ever had, in bytes. */
function peak(): number {
  return Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024;
}

/** A function that has everything collected that nobody holds, and returns the bytes of the heap. */
function collector(): () => number {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  return () => {
    // Layouts of objects, which name their keys, go one after the other.
    for (let i = 0; i < 4; i++) collect();
    return process.memoryUsage().heapUsed;
  };
}

/** Numbers that follow from a seed (xorshift32). */
function generator(seed: number): (below: number) => number {
  let x = seed;
  return below => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % below;
  };
}

describe('a hostile body', () => {
  it.each<[string, Buffer]>([
    ['nothing', Buffer.alloc(0)],
    ['arrays nested 100,000 deep', Buffer.concat([Buffer.alloc(100_000, 0x91), Buffer.from([0xc0])])],
    [
      'maps nested 100,000 deep',
      Buffer.concat([...many(100_000, () => Buffer.from([0x81, 0xa1, 0x61])), Buffer.from([0xc0])]),
    ],
    ['an array of 2³² − 1', Buffer.from([0xdd, 0xff, 0xff, 0xff, 0xff])],
    ['a map of 2³² − 1', Buffer.from([0xdf, 0xff, 0xff, 0xff, 0xff, 0xa1, 0x61, 1])],
    ['a text of 2³² − 1', Buffer.from([0xdb, 0xff, 0xff, 0xff, 0xff, 0x61])],
    ['bytes of 2³² − 1', wrap(Buffer.from([0x91, 0xc6, 0xff, 0xff, 0xff, 0xff]))],
    ['bytes on the plain path', Buffer.from([0xc4, 1, 0])],
    ['the byte that means nothing', Buffer.from([0xc1])],
    ['something behind its end', Buffer.from([1, 1])],
    ['a fixed extension', Buffer.from([0xd6, 0xff, 0, 0, 0, 0])],
    ['an extension of the library that defines records', Buffer.from([0xd4, 0x72, 0x40])],
    ['a long extension', Buffer.from([0xc7, 4, 0x78, 1, 2, 3, 4])],
    ['another extension of the table’s size', Buffer.from([0xc9, 0, 0, 0, 1, 2, 0x90])],
    ['a table with the wrong size', Buffer.from([0xc9, 0, 0, 0, 9, 1, 0x90])],
    ['a table that is none', wrap(packr.pack({ a: 1 }))],
    ['a table without nodes', table([])],
    ['a kind that is not known', table([[99]])],
    ['a kind that is no number', table([['x']])],
    ['a reference beyond the table', table([[4, 1]])],
    ['a reference below it', table([[4, -1]])],
    ['a reference that is no number', table([[4, 'x']])],
    ['a boxed box', table([[14, 0]])],
    ['a boxed nothing', table([[14, 1], [0]])],
    ['a key that is an object', table([[6, 0, 0]])],
    ['a bigint in letters', table([[2, 'xyz']])],
    ['a bigint that is none', table([[2, '-']])],
    ['a date that is a text', table([[3, 'now']])],
    ['a length of −1', table([[5, -1]])],
    ['a length of 2³²', table([[5, 2 ** 32]])],
    ['a length that is not whole', table([[5, 1.5]])],
    ['an element behind the end', table([[5, 1, '7', 1], 0])],
    ['two lengths', table([[5, 1, 'length', 1], 0])],
    ['an expression that is none', table([[9, '(', '']])],
    ['flags that are none', table([[9, 'a', 'gg']])],
    ['an expression of 100,000 groups', table([[9, '('.repeat(100_000) + ')'.repeat(100_000), '']])],
    ['expressions that take minutes to build', table(many(2, () => [9, '\\p{L}'.repeat(600), 'iu']))],
    ['an error of an unknown class', table([[10, 'constructor']])],
    ['an error with a method', table([[10, 'Error', 'toString', 1], 'x'])],
    ['a view of an unknown kind', table([[12, 'constructor', Buffer.alloc(8)]])],
    ['a view that does not fit', table([[12, 'Float64Array', Buffer.alloc(7)]])],
    ['a buffer without bytes', table([[13, 'text']])],
    [
      'keys of a map that all collide',
      table([
        [7, ...many(120_000, i => (i >> 1) + 1)],
        ...many(60_000, i => [2, `${(i + 1).toString(16)}${'0'.repeat(16)}`]),
      ]),
    ],
  ])(
    'with %s is refused',
    (_what, body) => {
      expect(() => decodeBody(body)).toThrow(invalid);
      expect(decodeBody(encodeBody({ still: ['fine'] }))).toEqual({ still: ['fine'] });
    },
    60_000,
  );

  it('costs no more memory than its size explains, whatever lengths it announces', () => {
    const before = peak();
    for (const length of [40, 1e6, 3e7, 2 ** 32 - 1]) {
      const arrays = decodeBody(table(many(100, () => [5, length, '3', 0]))) as unknown[];
      expect(arrays).toHaveLength(length);
      expect(Object.keys(arrays)).toEqual(['3']);
    }
    expect(peak() - before).toBeLessThan(64 * 1024 * 1024);
  });

  it('costs no more memory than its size explains, whatever its keys', () => {
    const body = packr.pack(many(100_000, i => ({ [i % 2 === 0 ? 1023 : 1013]: 1 })));
    const before = peak();
    const value = decodeBody(body) as object[];
    expect(value[1]).toEqual({ 1013: 1 });
    expect(peak() - before).toBeLessThan(256 * 1024 * 1024);
  });

  it('leaves nothing behind, however long its keys', () => {
    const collect = collector();
    const body = Buffer.alloc(1024 * 1024 + 7, 0x78);
    body[0] = 0x81;
    body[1] = 0xdb;
    body.writeUInt32BE(1024 * 1024, 2);
    body[body.length - 1] = 1;
    const keysOf = (): string[] => Object.keys(decodeBody(body) as object);
    expect(keysOf()[0]).toHaveLength(1024 * 1024);
    const before = collect();
    for (let i = 0; i < 120; i++) {
      // Where the head of a short key would say that its last byte is: it decides on the place where keys are remembered.
      body[60] = i;
      keysOf();
    }
    expect(collect() - before).toBeLessThan(32 * 1024 * 1024);
  });

  it('of a whole frame full of nodes is built at once', () => {
    const nodes: [string, unknown[]][] = [
      ['errors', many(80_000, () => [10, 'RangeError'])],
      ['maps', many(200_000, () => [7])],
      ['views', many(60_000, () => [12, 'DataView', Buffer.alloc(0)])],
      ['references', [[4, ...many(300_000, () => 0)]]],
      ['a bigint', [[2, 'f'.repeat(1_000_000)]]],
    ];
    for (const [, list] of nodes) expect(decodeBody(table(list))).toBeDefined();
    expect(new Error('x').stack).toContain('body-hostile.test.ts'); // stacks are taken again
  });

  it('reaches no prototype, whatever its keys', () => {
    const plain = Buffer.concat([
      Buffer.from([0x83]),
      ...['__proto__', 'constructor', 'prototype']
        .map(key => packr.pack(key))
        .flatMap(key => [key, packr.pack({ polluted: true })]),
    ]);
    const tables = [
      table([[6, '__proto__', 1, 'constructor', 1], [6, 'polluted', 2], true]),
      table([[5, 3, '__proto__', 1], [6, 'polluted', 2], true]),
      table([[10, 'Error', 'cause', 1], [6, '__proto__', 2], [6, 'polluted', 3], true]),
    ];
    for (const body of [plain, ...tables]) {
      const value = decodeBody(body) as object;
      expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
      expect([Object.prototype, Array.prototype, Error.prototype]).toContain(Object.getPrototypeOf(value));
      expect((value as Record<string, unknown>)['polluted']).toBeUndefined();
    }
  });

  it('of random or damaged bytes is decoded or refused with one code, 20,000 times', () => {
    const seed = 0x5eed;
    const random = generator(seed);
    const samples = [
      { id: 5, name: 'x'.repeat(40), list: [1, 2.5, null, true, undefined], deep: { a: { b: ['é'] } } },
      [
        1n,
        new Date(),
        new Map([[{}, new Set([1])]]),
        /a/gu,
        new Error('x'),
        Buffer.from('abc'),
        new Float64Array(3),
        -0,
        '\ud800',
      ],
      Object.assign([], { 7: 'sparse', name: new String('boxed') }),
    ].map(value => Buffer.from(encodeBody(value)));
    const outcomes = { decoded: 0, refused: 0 };
    for (let i = 0; i < 20_000; i++) {
      const sample = samples[i % samples.length] as Buffer;
      let body: Buffer;
      if (i % 5 === 0) body = Buffer.from(many(random(60), () => random(256)));
      else if (i % 5 === 1)
        body = wrap(Buffer.from([0x91 + random(3), 0x90 + random(6), ...many(random(40), () => random(256))]));
      else {
        body = Buffer.from(sample);
        for (let n = random(3); n >= 0; n--) body[random(body.length)] = random(256);
        if (i % 5 === 2) body = body.subarray(0, random(body.length) + 1);
      }
      try {
        decodeBody(body);
        outcomes.decoded++;
      } catch (error) {
        if ((error as { code?: string }).code !== 'body-invalid')
          throw new Error(`seed ${String(seed)}, round ${String(i)}: ${body.toString('hex')}`, { cause: error });
        outcomes.refused++;
      }
    }
    expect(outcomes.decoded).toBeGreaterThan(1000);
    expect(outcomes.refused).toBeGreaterThan(1000);
    expect(Object.keys(Object.prototype)).toEqual([]);
    expect(decodeBody(samples[0] as Buffer)).toMatchObject({ id: 5 });
  });
});
