/**
 * Damage to a log of 64 KiB: any bit flipped, any file cut off anywhere, files missing, empty, foreign or newer. One run is a
 * slice: every 512th bit and every 512th length, so that seeds 1 to 512 are all of them; the next 512 are those of another
 * log.
 */
import { expect, it } from 'vitest';
import {
  DamageTrial,
  nothingSeen,
  placeInFiles,
  placeOf,
  wholeBytes,
  writtenBytes,
  type DamageSeen,
} from './damage.js';
import { tryFiles } from './damage-files.js';
import { sampleLog, type SampleLog } from './sample-log.js';
import { withDiskEvidence } from './evidence.js';
import { extentOf, report, seedsOf, timeoutOf } from './suite.js';

const LOG_BYTES = 64 * 1024;
const SLICES = 512;
const extent = extentOf({ runs: 1 });
const timeout = timeoutOf(extent);

/** Number of this slice in a block of as many; each comes once, and not in step with anything in the log. */
function inBlock(block: number, slice: number): number {
  return block * SLICES + ((slice + block * 101) % SLICES);
}

async function runAll(
  test: string,
  countOf: (log: SampleLog) => number,
  run: (trial: DamageTrial, log: SampleLog, index: number, goesOn: boolean) => Promise<void>,
): Promise<{ seen: DamageSeen; runsDone: number; bytes: number }> {
  const seen = nothingSeen();
  let log: SampleLog | undefined;
  let trial: DamageTrial | undefined;
  let made = 0;
  let runsDone = 0;
  for (const seed of seedsOf(extent)) {
    const number = 1 + Math.floor((seed - 1) / SLICES);
    if (made !== number) log = trial = undefined;
    made = number;
    const current = (log ??= await sampleLog(number, LOG_BYTES));
    const trials = (trial ??= new DamageTrial(current, seen));
    const total = countOf(current);
    await withDiskEvidence({ suite: 'damage', part: test, seed, options: { logBytes: LOG_BYTES } }, async () => {
      for (let block = 0; block * SLICES < total; block++) {
        const index = inBlock(block, (seed - 1) % SLICES);
        if (index < total) await run(trials, current, index, block % 32 === 0);
      }
    });
    runsDone++;
  }
  if (log === undefined) throw new Error('no run was made');
  const bytes = writtenBytes(log);
  expect(bytes).toBeGreaterThanOrEqual(LOG_BYTES);
  report('damage', extent, { test, runsDone, logBytes: bytes, segments: log.segments.length, ...seen });
  return { seen, runsDone, bytes };
}

it(
  'serves everything but the record that a flipped bit hit, which it names and puts aside',
  async () => {
    const { seen, runsDone, bytes } = await runAll(
      'flips',
      log => wholeBytes(log) * 8,
      (trial, log, index, goesOn) => {
        const { segment, at } = placeInFiles(log, index >> 3);
        return trial.flip(segment, at, index & 7, goesOn);
      },
    );
    expect(seen.flips).toBeGreaterThan((runsDone * bytes * 8) / SLICES - 2 * runsDone);
    expect(seen.putAside).toBeGreaterThan(seen.flips / 2);
    expect(seen.wentOn).toBeGreaterThan(0);
  },
  timeout,
);

it(
  'tells of the messages that a bit hit which flipped while the store is open, when they are read, and serves the others',
  async () => {
    const { seen } = await runAll('flips while open', writtenBytes, (trial, log, index) => {
      const { segment, at } = placeOf(log, index);
      return trial.flipLater(segment, at, index % 8);
    });
    expect(seen.named).toBeGreaterThan(seen.flips / 8);
  },
  timeout,
);

it(
  'serves everything before the place where a file was cut off, and in the other files, and names it',
  async () => {
    const { seen, runsDone, bytes } = await runAll('truncations', wholeBytes, (trial, log, index, goesOn) => {
      const { segment, at } = placeInFiles(log, index);
      return trial.truncate(segment, at, goesOn);
    });
    expect(seen.truncations).toBeGreaterThan((runsDone * bytes) / SLICES - 2 * runsDone);
    expect(seen.named).toBe(seen.truncations);
  },
  timeout,
);

it('refuses files that are not its own, missing or empty, by name and without a change, and serves the rest when they are given up', async () => {
  const logs = [await sampleLog(1, LOG_BYTES), await sampleLog(2, LOG_BYTES)] as const;
  for (const [i, [log, other]] of [logs, [logs[1], logs[0]] as const].entries()) {
    const run = { suite: 'damage', part: 'files', seed: i + 1, options: { logBytes: LOG_BYTES } };
    const seen = await withDiskEvidence(run, () => tryFiles(log, other));
    report('damage', extent, { test: 'files', segments: log.segments.length, ...seen });
    // Eight for each, but that one that was made ahead is missing unnoticed; and four files that are none.
    expect(seen.refused).toBeGreaterThanOrEqual(8 * log.segments.length - 1 + 4);
    expect(seen.named).toBeGreaterThan(3 * log.segments.length);
  }
});
