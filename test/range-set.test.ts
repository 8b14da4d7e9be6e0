import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RangeSet } from '../src/range-set.js';

const pairs = (set: RangeSet): number[][] => [...set.ranges()].map(({ first, count }) => [first, count]);

describe('RangeSet', () => {
  it('is empty at first', () => {
    const set = new RangeSet();
    expect(set.isEmpty).toBe(true);
    expect(set.size).toBe(0);
    expect(set.first).toBeUndefined();
    expect(set.last).toBeUndefined();
    expect(set.has(1)).toBe(false);
  });

  it('joins ranges that touch or overlap', () => {
    const set = new RangeSet();
    set.add(1, 3);
    set.add(10, 2);
    set.add(6, 2);
    expect(pairs(set)).toEqual([
      [1, 3],
      [6, 2],
      [10, 2],
    ]);
    set.add(4, 2);
    expect(pairs(set)).toEqual([
      [1, 7],
      [10, 2],
    ]);
    set.add(0, 20);
    expect(pairs(set)).toEqual([[0, 20]]);
    expect([set.first, set.last, set.size]).toEqual([0, 19, 20]);
  });

  it('adds only what is new and says what that was', () => {
    const set = new RangeSet();
    set.add(5, 5);
    expect(set.addNew(1, 20)).toEqual([
      { first: 1, count: 4 },
      { first: 10, count: 11 },
    ]);
    expect(set.addNew(1, 20)).toEqual([]);
  });

  it('passes over an empty range', () => {
    const set = new RangeSet();
    set.add(5, 0);
    expect(set.isEmpty).toBe(true);
    set.add(5, 5);
    set.delete(7, 0);
    expect(pairs(set)).toEqual([[5, 5]]);
  });

  it('cuts a range at deleteBelow and deletes from the middle', () => {
    const set = new RangeSet();
    set.add(1, 10);
    set.deleteBelow(4);
    expect(pairs(set)).toEqual([[4, 7]]);
    set.delete(6, 2);
    expect(pairs(set)).toEqual([
      [4, 2],
      [8, 3],
    ]);
    set.deleteBelow(100);
    expect(set.isEmpty).toBe(true);
    set.add(3, 1);
    expect(pairs(set)).toEqual([[3, 1]]);
  });

  it('takes numbers up to 2^53', () => {
    const set = new RangeSet();
    const top = Number.MAX_SAFE_INTEGER - 10;
    set.add(top, 5);
    set.add(0, 1);
    expect(set.has(top + 4)).toBe(true);
    expect(set.has(top + 5)).toBe(false);
    expect(set.has(top - 1)).toBe(false);
  });

  it('does not grow when it is filled at the end and emptied at the front', () => {
    const set = new RangeSet();
    for (let i = 0; i < 100_000; i++) {
      set.add(i * 2, 1);
      set.deleteBelow(i * 2 - 100);
    }
    expect(set.rangeCount).toBeLessThan(60);
    expect(set.size).toBe(51);
  });

  it('does what a plain set of numbers does', () => {
    const step = fc.record({
      kind: fc.constantFrom('add', 'addNew', 'delete', 'deleteBelow', 'missing'),
      first: fc.nat(400),
      count: fc.nat(30),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 300 }), steps => {
        const set = new RangeSet();
        const model = new Set<number>();
        for (const { kind, first, count } of steps) {
          const numbers = Array.from({ length: count }, (_, i) => first + i);
          const fresh = numbers.filter(n => !model.has(n));
          if (kind === 'add') set.add(first, count);
          else if (kind === 'delete') set.delete(first, count);
          else if (kind === 'deleteBelow') set.deleteBelow(first);
          else expect(expand(set[kind](first, count))).toEqual(fresh);
          for (const n of numbers) {
            if (kind.startsWith('add')) model.add(n);
            if (kind === 'delete') model.delete(n);
          }
          if (kind === 'deleteBelow') for (const n of [...model]) if (n < first) model.delete(n);
          const sorted = [...model].sort((a, b) => a - b);
          expect(expand(set.ranges())).toEqual(sorted);
          expect(set.size).toBe(sorted.length);
          expect(set.isEmpty).toBe(sorted.length === 0);
          expect(set.first).toBe(sorted[0]);
          expect(set.last).toBe(sorted[sorted.length - 1]);
          expect(set.has(first)).toBe(model.has(first));
          let before = -1;
          for (const range of set.ranges()) {
            expect(range.count).toBeGreaterThan(0);
            expect(range.first).toBeGreaterThan(before);
            before = range.first + range.count;
          }
        }
      }),
      { numRuns: 300 },
    );
  });
});

function expand(ranges: Iterable<{ first: number; count: number }>): number[] {
  const numbers: number[] = [];
  for (const { first, count } of ranges) for (let i = 0; i < count; i++) numbers.push(first + i);
  return numbers;
}
