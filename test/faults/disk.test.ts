/**
 * A disk that is full, one that fails, and one that lies, under a real server: see disk-full.ts and disk-failing.ts, which
 * look at what one sender is told, and disk-scenario.ts, where the oracle judges many.
 */
import { expect, it } from 'vitest';
import { canInject, runFailing, type FailingFigures } from './disk-failing.js';
import { canMount, runFull, type FullFigures } from './disk-full.js';
import { playFailing, playFull } from './disk-scenario.js';
import { playAll } from './oracle/tally.js';
import { extentOf, report, seedsOf, timeoutOf } from './suite.js';

const NO_DISK = 'no small tmpfs can be mounted here (Linux, root): no disk can be filled';
const NO_FAULT = 'strace is not here (Linux, apt-get install strace): no system call can be made to fail';
const full = extentOf({ runs: 2, seed: 2 });
const failing = extentOf({ runs: 6 });

it(
  'refuses what a full disk cannot take, loses nothing, goes on for those who are here, and recovers by itself',
  async context => {
    if (!canMount()) context.skip(NO_DISK);
    const seen: FullFigures[] = [];
    for (const seed of seedsOf(full)) seen.push(await runFull(seed));
    const sum = (key: keyof FullFigures): number => seen.reduce((total, run) => total + run[key], 0);
    report('disk', full, {
      part: 'full',
      runs: seen.length,
      fillings: sum('fillings'),
      stuckUntilThereWasRoom: sum('stuck'),
      messages: sum('messages'),
      stored: sum('stored'),
      refusedWithNotice: sum('refused'),
    });
    expect(sum('refused'), 'no disk was full').toBeGreaterThan(0);
  },
  timeoutOf(full),
);

it(
  'stops and says so when a sync or a write fails; after a restart nothing is lost and nothing comes twice',
  async context => {
    if (!canInject()) context.skip(NO_FAULT);
    const seen: FailingFigures[] = [];
    for (const seed of seedsOf(failing)) seen.push(await runFailing(seed));
    const count = (outcome: FailingFigures['outcome']): number => seen.filter(run => run.outcome === outcome).length;
    const sum = (key: 'messages' | 'forgotten' | 'named'): number => seen.reduce((total, run) => total + run[key], 0);
    report('disk', failing, {
      part: 'failing',
      runs: seen.length,
      failStops: count('fail-stop'),
      refusedStarts: count('refused to start'),
      wentOn: count('went on'),
      notReached: count('not reached'),
      messages: sum('messages'),
      unsyncedBytesTakenAway: sum('forgotten'),
      lostByLyingDiskAndNamed: sum('named'),
    });
    if (seen.length >= 6) expect(count('fail-stop'), 'no run has seen the server stop').toBeGreaterThan(0);
  },
  timeoutOf(failing),
);

/** Seeds of the long form; one of them in the short one. */
const judged = extentOf({ runs: 1, seed: 3 });

it(
  'loses nothing on a full disk, among many senders and receivers, by the word of the oracle',
  async context => {
    if (!canMount()) context.skip(NO_DISK);
    const tally = await playAll('disk', 'full, judged by the oracle', judged, playFull);
    expect(tally.count('notices queue-full'), 'no disk was full').toBeGreaterThan(0);
  },
  timeoutOf(judged),
);

it(
  'loses nothing through failing syncs and writes of one server after the other, by the word of the oracle',
  async context => {
    if (!canInject()) context.skip(NO_FAULT);
    const tally = await playAll('disk', 'failing, judged by the oracle', judged, playFailing);
    expect(tally.count('fail-stops'), 'no run has seen the server stop').toBeGreaterThan(0);
  },
  timeoutOf(judged),
);
