/** The examples of docs/body-format.md are what the code does. */
import { readFileSync } from 'node:fs';
import { runInNewContext } from 'node:vm';
import { expect, it } from 'vitest';
import { decodeBody, encodeBody } from '../../src/body/index.js';

const page = readFileSync(new URL('../../docs/body-format.md', import.meta.url), 'utf8');
const rows = [...page.matchAll(/^\| `(.+?)`(?:, where `(.+?)`)? \| `([0-9a-f ]+)` \|$/gm)];

it('has its examples', () => expect(rows).toHaveLength(7));

it.each(rows.map(([, expression = '', setup = '', hex = '']) => [expression, setup, hex] as const))('writes %s as its page says', (expression, setup, hex) => {
  const value: unknown = runInNewContext(`${setup === '' ? '' : `var ${setup};`}(${expression})`, {
    Set,
    Date,
  });
  const bytes = Buffer.from(hex.replaceAll(' ', ''), 'hex');
  // Plain values of another context would take the long path: they are made anew here.
  const local = typeof value === 'object' && value !== null && Object.keys(value).includes('b') ? { ...value } : value;
  expect(encodeBody(local).toString('hex')).toBe(bytes.toString('hex'));
  expect(encodeBody(decodeBody(bytes)).toString('hex')).toBe(bytes.toString('hex'));
});
