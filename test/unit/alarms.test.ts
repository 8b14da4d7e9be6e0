/** Alarms for what expires: few, however much is stored, and never before the time. */
import { describe, expect, it } from 'vitest';
import { armStored, disarm } from '../../src/broker/alarms.js';
import type { Context } from '../../src/broker/context.js';
import type { ExpiringRun } from '../../src/engine/index.js';
import { TestClock } from '../../src/testing/index.js';

function scene(): { clock: TestClock; ctx: Context; rung: { run: ExpiringRun; at: number }[] } {
  const clock = new TestClock();
  const rung: { run: ExpiringRun; at: number }[] = [];
  const ctx = {
    clock,
    stopped: false,
    engine: { time: () => clock.monotonic() },
    expired: ({ run }: { run: ExpiringRun }) => rung.push({ run: { ...run }, at: clock.monotonic() }),
  } as unknown as Context;
  return { clock, ctx, rung };
}

describe('alarms of stored messages', () => {
  it('are few where much is stored, each for a run of messages, and ring at most a second late', () => {
    const { clock, ctx, rung } = scene();
    const expiries = new Map<number, number>();
    for (let handle = 1; handle <= 10_000; handle++) {
      if (handle % 10 === 0) clock.tick(10);
      const expiresAt = clock.monotonic() + 60_000;
      expiries.set(handle, expiresAt);
      armStored(ctx, { queue: 'q', handle, count: 1, expiresAt });
    }
    for (let i = 0; i < 7000; i++) clock.tick(10);
    expect(rung.length).toBeLessThan(30);
    expect(rung.length).toBeGreaterThan(10);
    let next = 1;
    for (const { run, at } of rung) {
      expect(run.handle).toBe(next);
      next += run.count;
      for (let handle = run.handle; handle < next; handle++) {
        const late = at - (expiries.get(handle) as number);
        expect(late).toBeGreaterThanOrEqual(0);
        expect(late).toBeLessThanOrEqual(1010);
      }
    }
    expect(next).toBe(10_001);
    disarm(ctx);
  });

  it('are exact for one alone, and apart for other queues, earlier handles, and other times', () => {
    const { clock, ctx, rung } = scene();
    const start = clock.monotonic();
    const runs = [
      { queue: 'a', handle: 10, count: 2, expiresAt: start + 1000 },
      { queue: 'b', handle: 12, count: 1, expiresAt: start + 1001 },
      { queue: 'a', handle: 4, count: 1, expiresAt: start + 1002 },
      { queue: 'a', handle: 13, count: 1, expiresAt: start + 900 },
      { queue: 'a', handle: 14, count: 1, expiresAt: start + 2000 },
    ];
    for (const run of runs) armStored(ctx, run);
    for (let i = 0; i < 2100; i++) clock.tick(1);
    const wanted = runs.map(run => ({ run, at: run.expiresAt })).sort((a, b) => a.at - b.at);
    expect(rung).toEqual(wanted);
    disarm(ctx);
  });
});
