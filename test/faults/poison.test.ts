/**
 * Handlers that throw, hang, reject, or end their process: after `maxAttempts` the message is a dead letter and its sender
 * has heard `rejected`; what was sent before it and behind it is handled, whatever its process died of.
 */
import { expect, it } from 'vitest';
import { POISONS, PoisonRun, randomMix, type PoisonOptions } from './poison-run.js';
import { addUp, extentOf, report, seedsOf, timeoutOf } from './suite.js';

const extent = extentOf({ runs: 3 });
const PLAIN: Omit<PoisonOptions, 'does'> = {
  seed: 0,
  concurrency: 1,
  workers: 1,
  maxAttempts: 2,
  engine: 'memory',
  killAfter: 0,
};

it('one poisoned message among innocent ones is given up after maxAttempts, and nothing else is charged', async () => {
  const attempts = await Promise.all(
    POISONS.map(async poison => {
      const does = [poison, 'nothing', 'async', 'nothing'] as const;
      const figures = await new PoisonRun({ ...PLAIN, does }).run();
      expect(figures, poison).toMatchObject({ deadLetters: 1, delivered: 4, chargedInnocents: 0, takenAlong: 0 });
      return [poison, figures.attempts];
    }),
  );
  expect(attempts).toEqual(POISONS.map(poison => [poison, poison === 'reject' ? 1 : PLAIN.maxAttempts]));
}, 60_000);

it(
  'random mixes: every poisoned message is given up, every other one is handled',
  async () => {
    const total: Record<string, number> = {};
    for (const seed of seedsOf(extent)) addUp(total, await new PoisonRun(randomMix(seed)).run());
    report('poison', extent, total);
    expect(total['deadLetters']).toBe((total['poison'] ?? 0) + (total['takenAlong'] ?? 0));
  },
  timeoutOf(extent),
);
