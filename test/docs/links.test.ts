/** What the pages point to is there: other pages, and the files that are named as the proof of a promise. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));
const below = (folder: string): string[] =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map(path => join(folder, path));
const pages = ['README.md', 'CHANGELOG.md', ...below('docs'), ...below('examples')].filter(path => path.endsWith('.md'));

it.each(pages)('%s points to nothing that is not there', page => {
  const source = readFileSync(join(root, page), 'utf8').replace(/^```[\s\S]*?^```/gm, '');
  const links = [...source.matchAll(/\]\(([^)#\s]+)[^)]*\)/g)]
    .map(match => match[1]!)
    .filter(link => !/^[a-z]+:/.test(link))
    .map(link => normalize(join(dirname(page), link)));
  const files = [...source.matchAll(/`((?:test|src|scripts|examples)\/[\w./-]+)`/g)].map(match => match[1]!);
  expect([...links, ...files].filter(path => !existsSync(join(root, path)))).toEqual([]);
});
