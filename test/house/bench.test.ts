/** The benchmarks run, count right and keep the order. What they measure is judged by people, on a quiet machine. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const run = promisify(execFile);
const script = (path: string): string => fileURLToPath(new URL(`../../bench/${path}`, import.meta.url));

it('npm run bench counts every message of every scenario, in order', { timeout: 120_000 }, async () => {
  const { stdout, stderr } = await run(process.execPath, [script('run.js'), '--smoke']);
  for (const bare of ['bare-one', 'bare-many', 'bare-store-drain', 'bare-latency'])
    expect(stderr).toContain(`${bare}-128`);
  expect(stdout).toMatch(/^\d+ scenarios: every count is right, and every order\.\n$/);
});

it.each([
  ['growth', /^\d+ runs: every count is right, and every order\.\n$/],
  ['waiting', /^\d+ messages waited: every one came once, in order\.\n$/],
  ['endurance', /^\d+ messages of mixed load: every count is right, and every order\.\n$/],
])('npm run bench:%s counts every message, in order', { timeout: 120_000 }, async (name, said) => {
  const { stdout } = await run(process.execPath, [script(`${name}.js`), '--smoke']);
  expect(stdout).toMatch(said);
});

it('the pieces are timed one by one', { timeout: 60_000 }, async () => {
  const { stdout } = await run(process.execPath, [script('micro/run.js'), '--smoke']);
  expect(stdout).toContain('128 bytes, ns for one message');
});

it('an unknown scenario is refused with the names that there are', async () => {
  await expect(run(process.execPath, [script('run.js'), '--only', 'two'])).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringContaining('"two" is no scenario; there are one,'),
  });
});
