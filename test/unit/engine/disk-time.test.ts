/** Engine time over a restart: what passed while the store was open is never taken for downtime, whatever the wall clock did. */
import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { nodeFiles, type FileSystem } from '../../../src/engine/disk/files.js';
import { diskEngine, type Engine } from '../../../src/engine/index.js';
import { TestClock } from '../../../src/testing/index.js';
import { temporaryFolder } from '../../helpers/scene.js';

const HOUR = 60 * 60 * 1000;
const DAY = 24 * HOUR;

let syncs = 0;

/** Real files, and how often they were synced. */
const counting: FileSystem = {
  ...nodeFiles,
  async open(path, create) {
    const file = await nodeFiles.open(path, create);
    const sync = file.sync.bind(file);
    file.sync = async () => {
      await sync();
      syncs++;
    };
    return file;
  },
};

async function opened(directory: string, clock: TestClock): Promise<Engine> {
  const engine = diskEngine({ directory, files: counting });
  const nothing = (): void => undefined;
  const failed = (error: Error): void => {
    throw error;
  };
  const host = { clock, storeBytes: undefined, failed, roomAgain: nothing, arrived: nothing, damaged: nothing };
  await engine.open({ ...host, warn: nothing });
  onTestFinished(() => engine.close());
  return engine;
}

/** Lets time pass, and what that makes the store write be written. */
async function tickUntilSynced(clock: TestClock, ms: number): Promise<void> {
  const before = syncs;
  clock.tick(ms);
  // What is not written after so long was not going to be.
  for (const end = performance.now() + 5000; syncs === before && performance.now() < end;)
    await new Promise(setImmediate);
}

it.each([
  ['an hour ahead', 'closed', HOUR],
  ['a day ahead', 'closed', DAY],
  ['an hour back', 'closed', -HOUR],
  ['a day back', 'closed', -DAY],
  ['an hour ahead', 'killed', HOUR],
  ['a day back', 'killed', -DAY],
])('a wall clock that was set %s while it was open does not count when it is %s', async (_how, end, jump) => {
  const folder = await temporaryFolder();
  const clock = new TestClock();
  const engine = await opened(join(folder, 'a'), clock);
  engine.put('k', 'v');
  await engine.commit();
  // The mark behind the commit; then nothing is written any more by itself.
  await tickUntilSynced(clock, 1000);
  clock.jump(jump);
  if (end === 'killed') await tickUntilSynced(clock, 60_000);
  const before = engine.time();
  if (end === 'closed') await engine.close();
  else await cp(join(folder, 'a'), join(folder, 'b'), { recursive: true });
  const again = await opened(join(folder, end === 'closed' ? 'a' : 'b'), clock);
  expect(again.time()).toBe(before);
  await again.close();
  clock.jump(5000);
  expect((await opened(join(folder, end === 'closed' ? 'a' : 'b'), clock)).time()).toBe(before + 5000);
});
