/** A sender that is gone for good is forgotten, but not what is being handled of it. */
import { expect, it } from 'vitest';
import { Deliveries } from '../../src/client/deliveries.js';
import { Runner } from '../../src/client/runner.js';
import { encodeBody } from '../../src/body/index.js';
import { TestClock } from '../../src/testing/test-clock.js';
import { defaultLogger } from '../../src/logger.js';
import { batchOf } from '../helpers/batch.js';
import { gate } from '../helpers/scene.js';

const batch = batchOf('x', [encodeBody('once')]);

it('a message that is being handled when its sender is withdrawn is not started again after a lost connection', async () => {
  const clock = new TestClock();
  const started: unknown[] = [];
  const { promise, open } = gate();
  const runner = new Runner(
    'x',
    async message => {
      started.push(message.data);
      await promise;
    },
    { concurrency: 1, maxAttempts: 5, handlerTimeout: undefined, window: undefined },
    {
      clock,
      handlerError: () => undefined,
      idle: () => undefined,
      beginning: () => undefined,
      withdraw: () => undefined,
      over: () => undefined,
    },
  );
  const nothing = (): void => undefined;
  const deliveries = new Deliveries({
    mayBeGivenUp: () => false,
    clock,
    takers: channel => (channel === 'x' ? [runner] : undefined),
    wake: nothing,
    hurry: nothing,
    fail: nothing,
    reject: nothing,
    release: nothing,
    logger: defaultLogger,
  });
  deliveries.renew(true, [], { windowMessages: 100, windowBytes: 1000 });
  deliveries.receive(batch, undefined);
  deliveries.forget(batch.sender.instance);
  deliveries.renew(true, [runner], { windowMessages: 100, windowBytes: 1000 });
  deliveries.receive(batch, { redelivered: true, attempt: 1, subscriptions: undefined, revival: undefined });
  expect(started).toEqual(['once']);
  open();
  await promise;
  await new Promise(setImmediate);
  expect(started).toEqual(['once']);
  expect(deliveries.takeAcks()).toEqual([{ first: 1, count: 1 }]);
});
