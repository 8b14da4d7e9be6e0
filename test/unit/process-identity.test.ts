/** Whether the process of an instance runs on this machine: by its number, and by when it was started. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, it } from 'vitest';
import { isAlive, machineIdentity, processHere, processIdentity } from '../../src/process-identity.js';

it.runIf(process.platform === 'linux')('a process that has the number of an earlier one is another one', () => {
  const identity = processIdentity(machineIdentity(), process.pid);
  const here = processHere(identity);
  expect(here).toMatchObject({ pid: process.pid });
  expect(here && isAlive(here)).toBe(true);
  const before = processHere(identity.replace(/#\d+$/, '#1'));
  expect(before).toEqual({ pid: process.pid, start: '1' });
  expect(before && isAlive(before)).toBe(false);
});

it('a process that has ended does not live, and one whose start is not known lives by its number', async () => {
  const child = spawn(process.execPath, ['-e', '']);
  const pid = child.pid as number;
  await once(child, 'exit');
  expect(isAlive({ pid, start: '' })).toBe(false);
  expect(isAlive({ pid: process.pid, start: '' })).toBe(true);
});

it('a process elsewhere is none of this machine', () => {
  expect(processHere(processIdentity('another machine', 1))).toBeUndefined();
  expect(processIdentity('', 0)).toBe('');
  expect(processIdentity(machineIdentity(), 0)).toBe('');
  expect(processHere('')).toBeUndefined();
});
