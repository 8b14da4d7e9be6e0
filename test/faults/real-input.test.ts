/** The short form of `npm run real-input`: real records, real processes, the server killed three times. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const SCRIPT = fileURLToPath(new URL('../../scripts/real-input.js', import.meta.url));

const run = (...args: string[]): Promise<{ stdout: string }> =>
  promisify(execFile)(process.execPath, [SCRIPT, ...args], { timeout: 110_000 });

it('brings the machine’s package index to three subscribers, whole and in order, through three kills of the server', async () => {
  const { stdout } = await run('--records', '3000');
  expect(stdout.match(/^killed when/gm)).toHaveLength(3);
  expect(stdout).toContain('present-1, present-2, away: exactly the input, in order');
}, 120_000);

it('does so too when nobody is away, and what was not stored must be sent again', async () => {
  const { stdout } = await run('--records', '3000', '--without-away', '--kills', '5');
  expect(stdout.match(/^killed when/gm)).toHaveLength(5);
  expect(stdout).toContain('present-1, present-2: exactly the input, in order');
}, 120_000);
