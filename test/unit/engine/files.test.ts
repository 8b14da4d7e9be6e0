/** The file operations of the log on a real file system. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { nodeFiles } from '../../../src/engine/disk/files.js';
import { temporaryFolder } from '../../helpers/scene.js';

it('a data directory is made with the folders above it, also when its path is relative', async () => {
  const folder = await temporaryFolder();
  const before = process.cwd();
  onTestFinished(() => process.chdir(before));
  process.chdir(folder);
  await nodeFiles.makeDirectory('a/b');
  expect((await stat(join(folder, 'a', 'b'))).isDirectory()).toBe(true);
  await nodeFiles.makeDirectory('a/b');
});

it('a read ends where the file does', async () => {
  const file = await nodeFiles.open(join(await temporaryFolder(), 'file'), true);
  await file.write(Buffer.from('hello'), 3);
  expect(await file.read(0, 100)).toEqual(Buffer.from('\0\0\0hello'));
  expect(await file.read(50, 10)).toHaveLength(0);
  await file.close();
});
