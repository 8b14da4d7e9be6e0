/** Acknowledgements of a turn that lasts long. */
import { expect, it } from 'vitest';
import { Deliveries } from '../../src/client/deliveries.js';
import { defaultLogger } from '../../src/logger.js';
import { TestClock } from '../../src/testing/test-clock.js';

it('acknowledges within a turn that reads thousands of messages, and the rest at its end', () => {
  const early: { first: number; count: number }[] = [];
  const none = (): void => undefined;
  const deliveries: Deliveries = new Deliveries({
    mayBeGivenUp: () => false,
    clock: new TestClock(),
    takers: () => undefined,
    wake: none,
    hurry: () => early.push(...(deliveries.takeAcks() ?? [])),
    fail: none,
    reject: none,
    release: none,
    logger: defaultLogger,
  });
  for (let number = 1; number <= 10_000; number++) {
    deliveries.ended({ epoch: deliveries.epoch, number, shared: undefined, index: 0 });
  }
  expect(early).toEqual([
    { first: 1, count: 4096 },
    { first: 4097, count: 4096 },
  ]);
  expect(deliveries.takeAcks()).toEqual([{ first: 8193, count: 1808 }]);
});
