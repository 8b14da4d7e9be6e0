/** The tables of the documentation are those of the code; `node scripts/docs-tables.js` writes them. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { FAILURES_PAGE, pages, tables, withTables } from '../../scripts/docs-tables.js';
import { root } from '../../scripts/prepare.js';
import { FAILURE_REASONS } from '../../src/index.js';

const read = (page: string) => readFileSync(join(root, page), 'utf8');

describe('the tables of the documentation', () => {
  const all = tables();

  for (const [page, names] of pages()) {
    it(`${page} shows ${names.join(' and ')} as the code has them`, () => {
      const text = read(page);
      for (const name of names) expect(text).toContain(`<!-- table:${name} -->`);
      expect(text, 'node scripts/docs-tables.js writes it').toBe(withTables(text, all));
    });
  }

  it(`${FAILURES_PAGE} explains every reason and no other`, () => {
    const [, block = ''] = /<!-- table:failures -->\n([^]*?)<!-- \/table -->/.exec(read(FAILURES_PAGE)) ?? [];
    const reasons = [...block.matchAll(/^\| `([^`]+)` \|/gm)].map(([, reason]) => reason);
    expect(reasons.sort()).toEqual([...FAILURE_REASONS].sort());
  });

  it('no block is left without its end, or with a name that no table has', () => {
    expect(() => withTables('<!-- table:errors -->\n| a |\n', all)).toThrow('no end');
    expect(() => withTables('<!-- table:eror -->\n<!-- /table -->\n', all)).toThrow('there is no table eror');
  });

  it('a drifted block is seen', () => {
    const text = '<!-- table:errors -->\n| code |\n<!-- /table -->\nmore';
    expect(withTables(text, all)).toBe(`<!-- table:errors -->\n${all['errors']!}\n<!-- /table -->\nmore`);
  });
});
