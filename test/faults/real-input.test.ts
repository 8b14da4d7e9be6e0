/** The short form of `npm run real-input`: real records, real processes, the server killed three times. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const SCRIPT = fileURLToPath(new URL('../../scripts/real-input.js', import.meta.url));

it('brings the machine’s package index to three subscribers, whole and in order, through three kills of the server', async () => {
  const { stdout } = await promisify(execFile)(process.execPath, [SCRIPT, '--records', '3000']);
  expect(stdout.match(/^killed when/gm)).toHaveLength(3);
  expect(stdout).toContain('present-1, present-2 and away have exactly the input, in order');
}, 120_000);
