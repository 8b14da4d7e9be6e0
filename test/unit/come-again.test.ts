/** One message that comes again under another number, while it is handled: from another queue of the name, or on a new connection. */
import { describe, expect, it } from 'vitest';
import { encodeBody } from '../../src/body/index.js';
import { Deliveries, type DeliveryHost } from '../../src/client/deliveries.js';
import { Runner } from '../../src/client/runner.js';
import { BroadcastReject } from '../../src/index.js';
import { defaultLogger } from '../../src/logger.js';
import { TestClock } from '../../src/testing/index.js';
import { gate } from '../helpers/scene.js';
import { batchOf } from '../helpers/batch.js';

const LIMITS = { windowMessages: 100, windowBytes: 1000 };
const AGAIN = { redelivered: true, attempt: 1, subscriptions: undefined, revival: undefined };

function scene(handler: (started: number) => unknown) {
  const clock = new TestClock();
  let started = 0;
  const rejected: number[] = [];
  const released: unknown[] = [];
  const runner = new Runner(
    'x',
    () => handler(++started),
    { concurrency: 1, maxAttempts: 5, handlerTimeout: undefined, window: undefined },
    { clock, handlerError: () => undefined, idle: () => undefined, withdraw: () => undefined },
  );
  const nothing = (): void => undefined;
  const host: DeliveryHost = {
    clock,
    runners: () => [runner],
    wake: nothing,
    hurry: nothing,
    fail: nothing,
    reject: ({ delivery }) => rejected.push(delivery),
    release: ranges => released.push(...ranges),
    logger: defaultLogger,
  };
  const deliveries = new Deliveries(host);
  deliveries.renew(true, [], LIMITS);
  return { clock, deliveries, runner, rejected, released, starts: () => started };
}

const batch = batchOf('x', [encodeBody('once')]);

describe('a message that comes twice on one connection', () => {
  it('is handled once and acknowledged twice, when its handler has ended', async () => {
    const { promise, open } = gate();
    const { deliveries, starts } = scene(() => promise);
    deliveries.receive(batch, undefined);
    deliveries.receive(batch, AGAIN);
    deliveries.receive(batch, AGAIN);
    expect(deliveries.takeAcks()).toBeUndefined();
    open();
    await new Promise(setImmediate);
    expect(starts()).toBe(1);
    expect(deliveries.takeAcks()).toEqual([{ first: 1, count: 3 }]);
  });

  it('is rejected wherever it came from', async () => {
    const { promise, open } = gate();
    const { deliveries, rejected } = scene(() =>
      promise.then(() => {
        throw new BroadcastReject('no');
      }),
    );
    deliveries.receive(batch, undefined);
    deliveries.receive(batch, AGAIN);
    open();
    await new Promise(setImmediate);
    expect(rejected).toEqual([1, 2]);
    expect(deliveries.takeAcks()).toEqual([{ first: 1, count: 2 }]);
  });

  it('is given back wherever it came from', () => {
    const { deliveries, runner, released } = scene(() => gate().promise);
    deliveries.receive(batchOf('x', [encodeBody('first')], 7), undefined);
    deliveries.receive(batch, undefined);
    deliveries.receive(batch, AGAIN);
    deliveries.giveBack(runner.stop());
    expect(released).toEqual([{ first: 2, count: 2 }]);
  });
});

it('a message that comes again on a new connection is acknowledged there, by its new number', async () => {
  const { promise, open } = gate();
  const { deliveries, starts } = scene(() => promise);
  deliveries.receive(batchOf('x', [encodeBody('before')], 7), undefined);
  deliveries.receive(batch, undefined);
  deliveries.renew(true, [], LIMITS);
  deliveries.receive(batch, AGAIN);
  open();
  await new Promise(setImmediate);
  expect(starts()).toBe(2);
  expect(deliveries.takeAcks()).toEqual([{ first: 1, count: 1 }]);
});

describe('a handler that fails when its connection is gone and a new one is up', () => {
  it('leaves the message to the server, which sends it again', async () => {
    const { promise, open } = gate();
    const { deliveries, starts, runner } = scene(started =>
      started > 1
        ? undefined
        : promise.then(() => {
            throw new Error('once');
          }),
    );
    deliveries.receive(batch, undefined);
    deliveries.renew(true, [runner], LIMITS);
    open();
    await new Promise(setImmediate);
    expect(starts()).toBe(1);
    deliveries.receive(batch, AGAIN);
    deliveries.receive(batchOf('x', [encodeBody('next')], 2), undefined);
    expect(starts()).toBe(3);
    expect(deliveries.takeAcks()).toEqual([{ first: 1, count: 2 }]);
  });

  it('is run again here when the server does not remember', async () => {
    const { promise, open } = gate();
    const { deliveries, starts, runner, clock } = scene(started =>
      started > 1
        ? undefined
        : promise.then(() => {
            throw new Error('once');
          }),
    );
    deliveries.receive(batch, undefined);
    deliveries.renew(false, [runner], LIMITS);
    open();
    await new Promise(setImmediate);
    expect(starts()).toBe(1);
    clock.tick(10_000);
    expect(starts()).toBe(2);
    deliveries.receive(batchOf('x', [encodeBody('next')], 2), undefined);
    expect(starts()).toBe(3);
  });
});
