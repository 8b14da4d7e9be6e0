/** A seeded fault that can no longer be put into the source, or whose suite is gone, would be missed only when all are run. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const FOLDER = `${ROOT}test/faults/seeded/`;

it.each(readdirSync(FOLDER))('%s fits the source, and names a suite', name => {
  const [header = ''] = readFileSync(FOLDER + name, 'utf8').split('\n');
  const [, suite = ''] = /^# suite: ([a-z-]+); what: \S/.exec(header) ?? [];
  expect(existsSync(`${ROOT}test/faults/${suite}.test.ts`), header).toBe(true);
  const { stderr } = spawnSync('git', ['apply', '--check', FOLDER + name], { cwd: ROOT, encoding: 'utf8' });
  expect(stderr).toBe('');
});
