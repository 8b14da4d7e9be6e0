/** A set that mostly holds one item, against a Set. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { SmallSet } from '../../src/small-set.js';

const ITEMS = Array.from({ length: 4 }, (_, n) => ({ n }));

it('says what a Set says, whatever is done with it', () => {
  const step = fc.tuple(fc.constantFrom('add', 'delete', 'clear'), fc.constantFrom(...ITEMS));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), steps => {
      const small = new SmallSet<{ n: number }>();
      const set = new Set<{ n: number }>();
      for (const [what, item] of steps) {
        if (what === 'add') {
          small.add(item);
          set.add(item);
        } else if (what === 'delete') expect(small.delete(item)).toBe(set.delete(item));
        else {
          small.clear();
          set.clear();
        }
        expect([...small]).toEqual([...set]);
        expect([small.size, small.first]).toEqual([set.size, [...set][0]]);
        expect(ITEMS.map(one => small.has(one))).toEqual(ITEMS.map(one => set.has(one)));
      }
    }),
  );
});
