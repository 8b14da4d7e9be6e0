/** A power cut at any point: what was promised is there, nothing is there in halves. BROADCAST_CRASH_SEEDS=first:count runs more. */
import { describe, expect, it } from 'vitest';
import { runSeed } from '../../helpers/crash-points.js';

const [first = 1, count = 600] = (process.env['BROADCAST_CRASH_SEEDS'] ?? '').split(':').filter(Boolean).map(Number);

describe('the disk engine after power cuts', () => {
  for (const segmentBytes of [2048, 16 * 1024]) {
    it(
      `has everything that it promised, with segments of ${segmentBytes} bytes`,
      async () => {
        let cuts = 0;
        for (let seed = first; seed < first + count; seed++) {
          try {
            cuts += await runSeed(seed, { segmentBytes, lives: 6 });
          } catch (error) {
            throw new Error(`seed ${seed}, segments of ${segmentBytes} bytes: ${(error as Error).message}`, {
              cause: error,
            });
          }
        }
        expect(cuts).toBeGreaterThan(count);
      },
      Math.max(60_000, count * 200),
    );
  }
});
