/** Buffers of batches that are gone are used again, and few are kept when nothing is on its way. */
import { expect, it } from 'vitest';
import { SpareBuffers } from '../../src/client/spare-buffers.js';

const KIB = 1024;

it('hands out what it was given to who needs no more, once', () => {
  const spare = new SpareBuffers();
  const buffer = spare.take(40 * KIB);
  spare.give(buffer);
  const first = spare.take(35 * KIB);
  const second = spare.take(35 * KIB);
  expect(first).toBe(buffer);
  expect(second).not.toBe(buffer);
  expect(second.length).toBeGreaterThanOrEqual(35 * KIB);
});

it('does not keep what has another size, or is small', () => {
  const spare = new SpareBuffers();
  const odd = Buffer.alloc(40 * KIB + 1);
  const small = spare.take(KIB);
  spare.give(odd);
  spare.give(small);
  expect(spare.take(40 * KIB)).not.toBe(odd);
  expect(spare.take(KIB)).not.toBe(small);
});

it.each([
  ['16 MiB at most', 16, () => undefined],
  ['1 MiB at most once nothing is on its way, and nothing of more', 0, (spare: SpareBuffers) => spare.trim()],
])('keeps %s', (_, kept, then) => {
  const spare = new SpareBuffers();
  const buffers = new Set(Array.from({ length: 400 }, () => spare.take(64 * KIB)));
  for (const buffer of buffers) spare.give(buffer);
  then(spare);
  const again = Array.from({ length: 400 }, () => spare.take(64 * KIB)).filter(buffer => buffers.has(buffer));
  expect(again.length * 64).toBe(kept * KIB);
});

it('keeps a little when nothing is on its way', () => {
  const spare = new SpareBuffers();
  const buffer = spare.take(64 * KIB);
  spare.give(buffer);
  spare.trim();
  expect(spare.take(64 * KIB)).toBe(buffer);
});
