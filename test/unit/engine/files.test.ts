/** The file operations of the log on a real file system. */
import { stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { expect, it } from 'vitest';
import { nodeFiles } from '../../../src/engine/disk/files.js';
import { temporaryFolder } from '../../helpers/scene.js';

it('a data directory is made with the folders above it, also when its path is relative', async () => {
  const path = join(await temporaryFolder(), 'a', 'b');
  await nodeFiles.makeDirectory(relative(process.cwd(), path));
  expect((await stat(path)).isDirectory()).toBe(true);
  await nodeFiles.makeDirectory(path);
});
