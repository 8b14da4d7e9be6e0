/** The index of a queue against a plain map of its messages. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { QueueIndex, type IndexRun } from '../../../src/engine/queue-index.js';

interface Source {
  readonly first: number;
}

function newIndex(): QueueIndex<Source> {
  return new QueueIndex<Source>(({ count }) => count * 10);
}

function run(
  handle: number,
  count: number,
  source: Source = { first: handle },
  offset = handle - source.first,
): IndexRun<Source> {
  return { handle, count, offset, source, attempts: 0, note: undefined };
}

function messages(index: QueueIndex<Source>, from = 0): [number, number, number][] {
  const found: [number, number, number][] = [];
  for (const { handle, count, offset, source, attempts } of index.from(from))
    for (let i = 0; i < count; i++) found.push([handle + i, source.first + offset + i, attempts]);
  return found;
}

describe('the index of a queue', () => {
  it('agrees with a map whatever is put in and taken out', () => {
    const sources = Array.from({ length: 12 }, (_, i): Source => ({ first: 1 + i * 10 }));
    const change = fc.record({
      kind: fc.constantFrom('insert', 'insert', 'remove', 'attempt'),
      source: fc.integer({ min: 0, max: 11 }),
      offset: fc.integer({ min: 0, max: 9 }),
      count: fc.integer({ min: 1, max: 25 }),
    });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 60 }), changes => {
        const index = newIndex();
        const model = new Map<number, number>();
        for (const { kind, source: i, offset, count } of changes) {
          const source = sources[i] as Source;
          const handle = source.first + offset;
          if (kind === 'insert') {
            const size = Math.min(count, 10 - offset);
            let added = 0;
            for (let h = handle; h < handle + size; h++) {
              if (model.has(h)) continue;
              model.set(h, 0);
              added++;
            }
            expect(index.insert(run(handle, size, source))).toBe(added);
          } else if (kind === 'remove') {
            const taken = index.remove(handle, count).reduce((sum, part) => sum + part.count, 0);
            let removed = 0;
            for (let h = handle; h < handle + count; h++) if (model.delete(h)) removed++;
            expect(taken).toBe(removed);
          } else {
            expect(index.setAttempts(handle, count)).toBe(model.has(handle));
            if (model.has(handle)) model.set(handle, count);
          }
          const sorted = [...model].sort(([a], [b]) => a - b);
          expect(messages(index)).toEqual(sorted.map(([h, attempts]) => [h, h, attempts]));
          expect(messages(index, handle)).toEqual(sorted.filter(([h]) => h >= handle).map(([h, a]) => [h, h, a]));
          expect(index.messages).toBe(model.size);
          expect(index.bytes).toBe(model.size * 10);
          expect(index.isEmpty).toBe(model.size === 0);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('is right with more runs than a chunk takes, from either end and out of the middle', () => {
    const index = newIndex();
    for (let h = 1; h <= 2000; h++) index.insert(run(h, 1));
    for (let h = 2; h <= 2000; h += 2) index.remove(h, 1);
    expect(index.messages).toBe(1000);
    for (let h = 2000; h >= 2; h -= 2) index.insert(run(h, 1));
    expect(messages(index).map(([h]) => h)).toEqual(Array.from({ length: 2000 }, (_, i) => i + 1));
    expect(index.remove(500, 1000)).toHaveLength(1000);
    expect(messages(index, 400)[99]).toEqual([499, 499, 0]);
    expect(messages(index, 400)[100]).toEqual([1500, 1500, 0]);
    index.remove(0, Number.MAX_SAFE_INTEGER);
    expect(index.isEmpty).toBe(true);
    expect(index.remove(1, 5)).toEqual([]);
    expect(index.setAttempts(1, 1)).toBe(false);
  });

  it('joins what was given back piece by piece', () => {
    const index = newIndex();
    const source = { first: 1 };
    for (let h = 1; h <= 500; h++) index.insert(run(h, 1, source));
    expect([...index.from(0)]).toHaveLength(1);
    index.remove(1, 400);
    for (let h = 1; h <= 400; h++) index.insert(run(h, 1, source));
    expect([...index.from(0)].length).toBeLessThanOrEqual(2);
    expect(index.messages).toBe(500);
  });
});
