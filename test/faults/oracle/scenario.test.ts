/** A scenario's histories and its store: on two file systems, and all of it is kept when it fails. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { MEMORY } from '../evidence.js';
import { play } from './scenario.js';

const noMemory = !existsSync(MEMORY);

/** What a scenario fails with; what it has kept goes with the test. */
async function failureOf(played: Promise<unknown>): Promise<string> {
  const message = await played.then(
    () => 'it did not fail',
    (error: unknown) => (error as Error).message,
  );
  const [, kept] = message.split('kept in ');
  if (kept !== undefined) onTestFinished(() => rmSync(kept, { recursive: true, force: true }));
  return message;
}

it.skipIf(noMemory)('is refused where its histories would lie on the file system of its store', async () => {
  const folder = mkdtempSync(join(MEMORY, 'broadcast-apart-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const options = { suite: 'scenario', seed: 1, dataDir: join(folder, 'data') };
  expect(await failureOf(play(options, () => Promise.resolve()))).toContain('on the file system of the store');
});

it.skipIf(noMemory)('says that its histories lie apart', async () => {
  const load = { body: 10 };
  const verdict = await play({ suite: 'scenario', seed: 2, load }, scenario => scenario.progress(10));
  expect(verdict.historiesBesideTheStore).toBe(0);
});

it('keeps histories, store and options of a run that fails, and says where', async () => {
  // The only sender: what is handled is in its history.
  const options = { suite: 'scenario', seed: 3, server: { segmentBytes: 65_536 }, senders: ['first'] };
  const broken = play(options, async scenario => {
    await scenario.progress(10);
    throw new Error('a promise was broken');
  });
  const message = await failureOf(broken);
  expect(message).toMatch(
    /^a promise was broken\n {2}scenario, seed 3, \{"server":\{"segmentBytes":65536\},"senders":\["first"\]\}, revision \w+/,
  );
  const kept = message.split('kept in ')[1] as string;
  expect(existsSync(join(kept, 'data'))).toBe(true);
  expect(readFileSync(join(kept, 'histories', 'first.1.jsonl'), 'utf8')).toContain('"intent"');
  expect(JSON.parse(readFileSync(join(kept, 'run.json'), 'utf8'))).toMatchObject({
    seed: 3,
    problem: 'a promise was broken',
  });
});
