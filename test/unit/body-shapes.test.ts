/** Objects whose keys come again and again are read by compiled readers: what they make is what anybody would make of the bytes. */
import { execFileSync } from 'node:child_process';
import { Packr } from 'msgpackr';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { encodeBody } from '../../src/body/index.js';

const packr = new Packr({ useRecords: false, variableMapSize: true, int64AsType: 'bigint' });
/** So often that a reader has been compiled, if one ever is. */
const OFTEN = 40;

const BUILT = require.resolve('../../dist/cjs/body/index.js');

type Decode = (bytes: Buffer, start?: number, end?: number) => unknown;

/** A decoder that has not seen anything yet. */
async function newDecoder(): Promise<Decode> {
  vi.resetModules();
  return (await import('../../src/body/index.js')).decodeBody;
}

/** A decoder, and how many readers it has compiled. */
async function watchedDecoder(): Promise<{ decode: Decode; compiled: () => number }> {
  vi.resetModules();
  const { ShapeTable } = await import('../../src/body/shapes.js');
  const compile = vi.spyOn(ShapeTable.prototype, 'compile');
  const decode = (await import('../../src/body/index.js')).decodeBody;
  return { decode, compiled: () => compile.mock.results.filter(({ value }) => value !== undefined).length };
}

const STRANGE = [
  '',
  'constructor',
  'toString',
  'hasOwnProperty',
  '1',
  '0',
  'a"b',
  "a'b",
  'a\\',
  '\u2028',
  '${x}',
  'é',
  '你',
  '\0',
];
const key = fc
  .oneof(fc.constantFrom(...STRANGE), fc.string({ maxLength: 6, unit: 'grapheme' }))
  .filter(k => k !== '__proto__');
const member = fc.oneof(
  { weight: 4, arbitrary: fc.jsonValue({ maxDepth: 2 }).filter(value => !JSON.stringify(value).includes('__proto__')) },
  fc.double(),
  fc.integer(),
  fc.constantFrom(undefined, 2 ** 40, -(2 ** 40), 1e300, 0.5),
  fc.string({ maxLength: 60, unit: 'grapheme' }),
);

describe('objects with the same keys', () => {
  it('are what msgpackr makes of their bytes, whatever the keys and values', async () => {
    const decode = await newDecoder();
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(key, { minLength: 1, maxLength: 8 }),
        fc.array(member, { minLength: 8, maxLength: 24 }),
        (keys, members) => {
          for (let i = 0; i < OFTEN; i++) {
            const value = Object.fromEntries(keys.map((k, j) => [k, members[(i + j) % members.length]]));
            const bytes = packr.pack([value, { inner: value }]);
            const seen = decode(bytes) as object[];
            expect(seen).toEqual(packr.unpack(bytes));
            expect(Object.keys(seen[0] as object)).toEqual(Object.keys(value));
          }
          return Promise.resolve();
        },
      ),
      { numRuns: 60 },
    );
  });

  it('are read by one reader from some on, which is compiled once', async () => {
    const { decode, compiled } = await watchedDecoder();
    for (let i = 0; i < 1000; i++) expect(decode(encodeBody({ n: i, t: 'text' }))).toEqual({ n: i, t: 'text' });
    expect(compiled()).toBe(1);
  });

  it('are compiled for once where they lie in each other', async () => {
    const { decode, compiled } = await watchedDecoder();
    let value: object = { a: 1 };
    for (let i = 0; i < 60; i++) value = { a: value };
    expect(decode(encodeBody(value))).toEqual(value);
    expect(compiled()).toBe(1);
    expect(decode(encodeBody(value))).toEqual(value);
  });

  it('keep their reader while most of them have these keys', async () => {
    const { decode, compiled } = await watchedDecoder();
    const bodies = Array.from({ length: 10 }, (_, i) => encodeBody(i === 0 ? { a: 1, c: 2 } : { a: 1, b: 2 }));
    for (let i = 0; i < 100_000; i++) decode(bodies[i % 10] as Buffer);
    expect(compiled()).toBe(1);
  });

  it('get one, whatever objects with another number of members came before them', async () => {
    const { decode, compiled } = await watchedDecoder();
    for (const first of 'klmnopqr')
      for (let byte = 0x20; byte < 0x7f; byte++) decode(encodeBody({ [first + String.fromCharCode(byte)]: 1 }));
    for (let i = 0; i < OFTEN; i++) decode(encodeBody({ n: i, t: 'text' }));
    expect(compiled()).toBe(1);
  });

  it('are taken where the prototype of all objects is frozen', () => {
    const script = `
      Object.freeze(Object.prototype);
      const { decodeBody } = require(${JSON.stringify(BUILT)});
      const text = value => Buffer.from([0xa0 + value.length, ...Buffer.from(value)]);
      const body = Buffer.concat([Buffer.from([0x82]), text('toString'), text('x'), text('constructor'), text('y')]);
      for (let i = 0; i < 40; i++) process.stdout.write(i === 0 || i === 39 ? JSON.stringify(decodeBody(body)) : '');`;
    const said = execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' });
    expect(said).toBe('{"toString":"x","constructor":"y"}'.repeat(2));
  });

  it('say the same as to a decoder that has not seen them, when their bytes are damaged anywhere', async () => {
    const known = await newDecoder();
    const fresh = await newDecoder();
    const value = { n: 1, kind: 'transfer', at: 12.5, who: { name: 'alice', tags: ['a', 'b'] }, memo: 'x'.repeat(40) };
    const whole = encodeBody(value);
    for (let i = 0; i < OFTEN; i++) known(whole);
    const answer = (decode: Decode, bytes: Buffer): unknown => {
      try {
        return decode(bytes);
      } catch (error) {
        return (error as Error).message;
      }
    };
    for (let at = 0; at < whole.length; at++) {
      for (const byte of [0, 1, 0x80, 0xa1, 0xbf, 0xc1, 0xc9, 0xd4, 0xd9, 0xde, 0xff, (whole[at] as number) ^ 1]) {
        const damaged = Buffer.from(whole);
        damaged[at] = byte;
        expect(answer(known, damaged)).toEqual(answer(fresh, damaged));
      }
      const cut = whole.subarray(0, at);
      expect(answer(known, cut)).toEqual(answer(fresh, cut));
      // What follows is another one's, and goes on as this one would.
      expect(() => known(whole, 0, at)).toThrow(expect.objectContaining({ code: 'body-invalid' }));
    }
  });

  it('may have other keys from some place on', async () => {
    const { decode, compiled } = await watchedDecoder();
    for (let i = 0; i < OFTEN; i++) decode(encodeBody({ a: i, b: 2, c: 3 }));
    expect(compiled()).toBe(1);
    const others = [
      { a: 1, b: 2, d: { a: 1, b: 2, c: 3 } },
      { a: 1, c: 2, b: 3 },
      { a: 1, b: 2, cc: 3 },
      { a: 'a', bb: 'b', c: 'c' },
    ];
    for (const other of others) {
      const back = decode(encodeBody(other));
      expect(back).toEqual(other);
      expect(Object.keys(back as object)).toEqual(Object.keys(other));
    }
  });

  it('get a reader of their own where the keys that were usual before are no longer', async () => {
    const { decode, compiled } = await watchedDecoder();
    for (let i = 0; i < OFTEN; i++) decode(encodeBody({ a: i, b: 2 }));
    const now = encodeBody({ a: 1, c: 2 });
    for (let i = 0; i < 4096; i++) decode(now);
    expect(compiled()).toBe(1);
    for (let i = 0; i < OFTEN; i++) expect(decode(now)).toEqual({ a: 1, c: 2 });
    expect(compiled()).toBe(2);
  });
});

describe('no reader is compiled', () => {
  it.each([
    ['for keys that are never the same', (i: number) => ({ a: 1, [`user-${String(i)}`]: i })],
    ['for keys that are long', (i: number) => ({ a: i, ['x'.repeat(32)]: i })],
    [
      'for objects with many members',
      (i: number) => Object.fromEntries(Array.from({ length: 33 }, (_, j) => [`k${String(j)}`, i])),
    ],
    ['for empty ones', () => ({})],
  ])('%s', async (_, make) => {
    const { decode, compiled } = await watchedDecoder();
    for (let i = 0; i < 5000; i++) expect(decode(encodeBody(make(i)))).toEqual(make(i));
    expect(compiled()).toBe(0);
  });

  it('for an own key __proto__, which is a property like any other', async () => {
    const { decode, compiled } = await watchedDecoder();
    const body = Buffer.from([0x82, 0xa1, 0x61, 1, 0xa9, ...Buffer.from('__proto__'), 0x81, 0xa1, 0x62, 2]);
    for (let i = 0; i < OFTEN; i++) {
      const value = decode(body) as object;
      expect(Object.getPrototypeOf(value)).toBe(Object.prototype);
      expect(Object.entries(value)).toEqual([
        ['a', 1],
        ['__proto__', { b: 2 }],
      ]);
    }
    expect(compiled()).toBe(1); // the reader of { b }
  });

  it('beyond a number of them, for whoever chooses keys to that end', async () => {
    const { decode, compiled } = await watchedDecoder();
    for (let i = 0; i < 700; i++) {
      const first = encodeBody({ a: i, [`k${String(i)}`]: i });
      // The reader that is there is given up, so that another one can come.
      for (let j = 0; j < 4096 + OFTEN; j++) decode(first);
    }
    expect(compiled()).toBe(512);
    expect(decode(encodeBody({ a: 1, other: 2 }))).toEqual({ a: 1, other: 2 });
  });

  it('where Node may make no code from text', () => {
    const script = `
      const { encodeBody, decodeBody } = require(${JSON.stringify(BUILT)});
      for (let i = 0; i < 100; i++) {
        const { n, t } = decodeBody(encodeBody({ n: i, t: 'text' }));
        if (n !== i || t !== 'text') throw new Error('other data');
      }
      process.stdout.write('fine');`;
    const flags = ['--disallow-code-generation-from-strings', '-e', script];
    expect(execFileSync(process.execPath, flags, { encoding: 'utf8' })).toBe('fine');
  });
});
