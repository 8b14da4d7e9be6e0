/**
 * The disk engine on a simulated disk: power cuts at every operation and in several lives of one store, and every operation
 * failed once in every way. One run is one seed of each; some 1,200 power cuts.
 */
import { expect, it } from 'vitest';
import { cutEverywhere, failEverywhere, liveOn, nothingSeen, type Seen } from './crash-points.js';
import { withDiskEvidence } from './evidence.js';
import { extentOf, report, seedsOf, timeoutOf } from './suite.js';

const SEGMENTS = [2048, 16 * 1024];
const extent = extentOf({ runs: 1 });
const timeout = timeoutOf(extent);

type Run = (seed: number, segmentBytes: number, seen: Seen) => Promise<void>;

/** Each of the three tests takes a third of the time. */
async function runAll(test: string, run: Run): Promise<Seen> {
  const seen = nothingSeen();
  let runsDone = 0;
  for (const seed of seedsOf({ ...extent, minutes: extent.minutes / 3 })) {
    for (const segmentBytes of SEGMENTS) {
      const options = { suite: 'crash-points', part: test, seed, options: { segmentBytes } };
      await withDiskEvidence(options, () => run(seed, segmentBytes, seen));
    }
    runsDone++;
  }
  // A promise that was not kept has ended the test above.
  report('crash-points', extent, { test, runsDone, ...seen });
  return seen;
}

it(
  'has everything that it promised after a power cut at any operation, and another one while it recovers',
  async () => {
    const { crashPoints, duringRecovery } = await runAll('every operation', cutEverywhere);
    expect(crashPoints).toBeGreaterThan(150);
    expect(duringRecovery).toBeGreaterThan(crashPoints / 4);
  },
  timeout,
);

it(
  'has everything that it promised in each of many lives that end with a power cut',
  async () => {
    const { crashPoints } = await runAll('many lives', (seed, bytes, seen) => liveOn(seed, bytes, 30, seen));
    expect(crashPoints).toBeGreaterThan(20);
  },
  timeout,
);

it(
  'keeps what it promised whichever operation fails, promises nothing from then on, and goes on after short writes',
  async () => {
    const steps = 12;
    const seen = await runAll('every failure', (seed, bytes, figures) => failEverywhere(seed, bytes, steps, figures));
    expect(seen.failedOperations).toBeGreaterThan(100);
    expect(seen.shortWrites).toBeGreaterThan(10);
    expect(seen.shortReads).toBeGreaterThan(10);
    expect(seen.failStops).toBeGreaterThan(10);
  },
  timeout,
);
