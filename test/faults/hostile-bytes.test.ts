/**
 * Hostile bytes, as a seed makes them, for whatever reads what it has not written: frames, bodies, the log, configuration.
 * A run is 10,000 inputs with one seed, `npm run faults -- hostile-bytes --runs 1000` ten million. What was found once is
 * kept in test/fixtures/hostile and tried first.
 */
import { existsSync, readFileSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { FRAME } from '../../src/protocol/constants.js';
import { BroadcastError } from '../../src/errors.js';
import { bodiesTarget } from './fuzz/bodies.js';
import { configurationTarget } from './fuzz/configuration.js';
import { framesTarget } from './fuzz/frames.js';
import { Fuzz, MEMORY, type Target } from './fuzz/fuzz.js';
import { checkPrototypes } from './fuzz/prototypes.js';
import { recoveryTarget } from './fuzz/recovery.js';
import { Watchdog } from './fuzz/watchdog.js';
import { extentOf, report, seedsOf, timeoutOf } from './suite.js';

const extent = extentOf({ runs: 20 });

/** The targets, how much of a run is theirs, and what inputs must have come to, or the fuzzer has not got far. */
const SHARES: readonly (readonly [target: Target<unknown>, share: number, answers: readonly string[]])[] = [
  [
    framesTarget(),
    6000,
    ['frames', 'protocol-error', 'invalid-name', 'frame-too-large', 'not-broadcast', 'protocol-version'],
  ],
  [bodiesTarget, 3500, ['value', 'values', 'some of a batch', 'body-invalid']],
  [configurationTarget, 450, ['a client', 'a server', 'a client by words', 'usage', 'invalid-option', 'invalid-name']],
  [recoveryTarget, 50, ['opened', 'opened, damage named', 'opened by a broker', 'store-foreign', 'store-incomplete']],
];

const watchdog = new Watchdog();
afterAll(() => watchdog.stop());

async function answerTo<I>(target: Target<I>, input: I): Promise<string> {
  try {
    return (await target.run(input)) ?? 'taken';
  } catch (error) {
    if (error instanceof BroadcastError && target.codes.includes(error.code)) return error.code;
    throw error;
  }
}

const fileOf = ({ name }: Target<unknown>): URL => new URL(`../fixtures/hostile/${name}.json`, import.meta.url);
const TARGETS = SHARES.map(([target]) => target);

describe.each(TARGETS.filter(target => existsSync(fileOf(target))))('what was found: $name', target => {
  const file = fileOf(target);
  const kept = JSON.parse(readFileSync(file, 'utf8')) as { what: string; answer: string; input: string }[];

  it.each(kept)('$what: $answer', async ({ what, answer, input }) => {
    watchdog.next(`${target.name}, ${what}`, 0, 0);
    expect(await answerTo(target, target.fromText(input))).toBe(answer);
    watchdog.idle();
    checkPrototypes();
  });
});

describe('the fuzzer', () => {
  it('finds a decoder that fails for few inputs, and has the input again', async () => {
    const broken = framesTarget((type, frame) => {
      if (type === FRAME.REJECT && frame[frame.length - 1] === 0x7f) throw new RangeError('out of bounds');
    });
    const fuzz = new Fuzz(broken, 1);
    const finding = await fuzz.run(100_000).catch((error: unknown) => error as Error);
    expect(finding?.message).toMatch(/^frames, seed 1, execution \d+: RangeError: out of bounds/);
    const again = new Fuzz(broken, 1);
    await expect(again.run(fuzz.executions - 1)).resolves.toBeUndefined();
    await expect(again.run(1)).rejects.toThrow('out of bounds');
  });

  it.each<[string, () => void, RegExp]>([
    ['a prototype that has got a property', () => void Object.assign(Object.prototype, { odd: 1 }), /odd/],
    ['a code that is not the target’s', () => refuse('closed'), /closed/],
    ['memory out of proportion', () => void held.push(Buffer.alloc(2 * MEMORY.base)), /bytes of memory/],
  ])('finds %s', async (_what, run, found) => {
    const target = {
      ...framesTarget(),
      name: 'broken',
      run: () => {
        run();
        return undefined;
      },
    };
    try {
      await expect(new Fuzz(target, 1).run(500)).rejects.toThrow(found);
    } finally {
      delete (Object.prototype as { odd?: number }).odd;
      held.length = 0;
    }
  });
});

const held: Buffer[] = [];

function refuse(code: 'closed'): never {
  throw new BroadcastError(code, code);
}

it(
  'ends in a value or in a named refusal, whatever the bytes',
  async () => {
    const answers = SHARES.map(() => new Map<string, number>());
    const executions = SHARES.map(() => 0);
    const microseconds = SHARES.map(() => 0);
    let slowest = 0;
    let runs = 0;
    for (const seed of seedsOf(extent)) {
      for (const [i, [target, share]] of SHARES.entries()) {
        const fuzz = new Fuzz(target, seed, watchdog);
        const before = process.cpuUsage();
        await fuzz.run(share);
        const { user, system } = process.cpuUsage(before);
        microseconds[i] = (microseconds[i] as number) + user + system;
        executions[i] = (executions[i] as number) + fuzz.executions;
        slowest = Math.max(slowest, fuzz.slowest);
        const sum = answers[i] as Map<string, number>;
        for (const [answer, count] of fuzz.answers) sum.set(answer, (sum.get(answer) ?? 0) + count);
      }
      runs++;
    }
    const of = (what: readonly number[], digits = 0): Record<string, string> =>
      Object.fromEntries(SHARES.map(([{ name }], i) => [name, (what[i] as number).toFixed(digits)]));
    report('hostile-bytes', extent, {
      done: runs,
      executions: executions.reduce((sum, count) => sum + count, 0),
      byTarget: JSON.stringify(of(executions)),
      microsecondsEach: JSON.stringify(of(microseconds.map((sum, i) => sum / Math.max(1, executions[i] as number)))),
      answers: JSON.stringify(answers.map(map => Object.fromEntries(map))),
      slowestMs: slowest.toFixed(0),
      peakMiB: (process.resourceUsage().maxRSS / 1024).toFixed(0),
      findings: 0,
    });
    if (runs < 5) return;
    for (const [i, [, , wanted]] of SHARES.entries())
      expect([...(answers[i] as Map<string, number>).keys()]).toEqual(expect.arrayContaining([...wanted]));
  },
  timeoutOf(extent),
);
