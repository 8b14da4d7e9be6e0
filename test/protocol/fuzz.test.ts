/**
 * The fuzzer, in short. Longer, from a seed of its own choice, which it prints:
 * `FUZZ_SECONDS=60 npx vitest run test/protocol/fuzz.test.ts`; again: `FUZZ_SEED=… FUZZ_SECONDS=60 …`.
 */
import { describe, expect, it } from 'vitest';
import { FRAME } from '../../src/protocol/constants.js';
import { Fuzzer } from './fuzz.js';

const seconds = Number(process.env['FUZZ_SECONDS'] ?? 0);

describe('the fuzzer', () => {
  it('gets nothing but frames and errors of the table out of 20,000 inputs', () => {
    const fuzzer = new Fuzzer(20_260_101);
    for (let i = 0; i < 20_000; i++) fuzzer.once();
    // It is a fuzzer only if it gets behind the first check.
    expect(fuzzer.result.frames).toBeGreaterThan(10_000);
    for (const code of ['protocol-error', 'invalid-name', 'frame-too-large', 'not-broadcast', 'protocol-version'])
      expect(fuzzer.result.refused).toHaveProperty(code);
  });

  it('finds a decoder that is broken for few inputs', () => {
    const fuzzer = new Fuzzer(1, (type, frame) => {
      if (type === FRAME.REJECT && frame[frame.length - 1] === 0x7f) throw new RangeError('out of bounds');
    });
    expect(() => {
      for (let i = 0; i < 20_000; i++) fuzzer.once();
    }).toThrow(/^seed 1, execution \d+: 89424353/);
  });

  it.runIf(seconds > 0)(
    'gets nothing else in the time it is given',
    () => {
      const seed = Number(process.env['FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
      console.log(`fuzzing for ${String(seconds)} s, seed ${String(seed)}`);
      const fuzzer = new Fuzzer(seed);
      const end = performance.now() + seconds * 1000;
      while (performance.now() < end) for (let i = 0; i < 1000; i++) fuzzer.once();
      console.log(`${String(fuzzer.result.executions)} inputs`, fuzzer.result);
    },
    (seconds + 30) * 1000,
  );
});
