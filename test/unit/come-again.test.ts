/** One message that comes again under another number, while it is handled: from another queue of the name, or on a new connection. */
import { describe, expect, it } from 'vitest';
import { encodeBody } from '../../src/body/index.js';
import { Deliveries, type DeliveryHost } from '../../src/client/deliveries.js';
import type { MessageHandler } from '../../src/client/handlers.js';
import { Runner } from '../../src/client/runner.js';
import { BroadcastReject } from '../../src/index.js';
import { defaultLogger } from '../../src/logger.js';
import { TestClock } from '../../src/testing/index.js';
import { gate } from '../helpers/scene.js';
import { batchOf } from '../helpers/batch.js';

const LIMITS = { windowMessages: 100, windowBytes: 1000 };
const AGAIN = { redelivered: true, attempt: 1, subscriptions: undefined, revival: undefined };

/** Other handlers of the channel do not count as starts. */
function scene(handler: (started: number, redelivered: boolean) => unknown, ...others: (() => unknown)[]) {
  const clock = new TestClock();
  let started = 0;
  const failed: number[] = [];
  const rejected: number[] = [];
  const released: unknown[] = [];
  const attempts: number[] = [];
  const first: MessageHandler = (_, { redelivered, attempt }) => {
    attempts.push(attempt);
    return handler(++started, redelivered);
  };
  const [runner, ...further] = [first, ...others].map(
    each =>
      new Runner(
        'x',
        each,
        { concurrency: 1, maxAttempts: 5, handlerTimeout: undefined, window: undefined },
        {
          clock,
          handlerError: () => undefined,
          idle: () => undefined,
          beginning: () => undefined,
          withdraw: () => undefined,
          over: () => undefined,
        },
      ),
  ) as [Runner, ...Runner[]];
  const nothing = (): void => undefined;
  const host: DeliveryHost = {
    clock,
    takers: () => [runner, ...further],
    mayBeGivenUp: () => false,
    wake: nothing,
    hurry: nothing,
    fail: ({ delivery }) => failed.push(delivery),
    reject: ({ delivery }) => rejected.push(delivery),
    release: ranges => released.push(...ranges),
    logger: defaultLogger,
  };
  const deliveries = new Deliveries(host);
  deliveries.renew(true, [], LIMITS);
  return { clock, deliveries, runner, further, failed, rejected, released, attempts, starts: () => started };
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

  it('that fails is tried again when its attempt is recorded wherever it came from', async () => {
    const { promise, open } = gate();
    const { clock, deliveries, failed, starts } = scene(started =>
      started > 1
        ? undefined
        : promise.then(() => {
            throw new Error('once');
          }),
    );
    deliveries.receive(batch, undefined);
    deliveries.receive(batch, AGAIN);
    open();
    await new Promise(setImmediate);
    expect(failed).toEqual([1, 2]);
    deliveries.retry(1, 'x', 2);
    clock.tick(10_000);
    expect(starts()).toBe(1);
    deliveries.retry(2, 'x', 2);
    clock.tick(10_000);
    expect(starts()).toBe(2);
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
  it('is not told an earlier attempt than that, also where another copy of the message comes that knows nothing of it', () => {
    const { deliveries, attempts } = scene(started => {
      if (started === 1) throw new Error('no');
    });
    deliveries.receive(batch, { ...AGAIN, attempt: 2 });
    deliveries.renew(true, [], LIMITS);
    deliveries.receive(batch, AGAIN);
    expect(attempts).toEqual([2, 2]);
    // It is over.
    deliveries.receive(batchOf('x', [encodeBody('next')], 2), undefined);
    expect(attempts).toEqual([2, 2, 1]);
  });

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

it('what waits for its turn while a server comes that does not remember is marked: another instance may have had it', async () => {
  const { promise, open } = gate();
  const marks: boolean[] = [];
  const { deliveries, runner } = scene((started, redelivered) => {
    marks.push(redelivered);
    return started === 1 ? promise : undefined;
  });
  const once = batchOf('x', [encodeBody('at most once')], 3);
  deliveries.receive(batch, undefined);
  deliveries.receive(batchOf('x', [encodeBody('next')], 2), undefined);
  deliveries.receive({ ...once, envelope: { ...once.envelope, persistent: false } }, undefined);
  deliveries.renew(false, [runner], LIMITS);
  open();
  await new Promise(setImmediate);
  deliveries.receive(batchOf('x', [encodeBody('new')], 4), undefined);
  expect(marks).toEqual([false, true, false, false]);
});

describe('a message that one of two handlers has rejected while the other is at it', () => {
  const reject = (): never => {
    throw new BroadcastReject('no');
  };

  it('is rejected once at each place where it comes again, and never twice', async () => {
    const { promise, open } = gate();
    const { deliveries, rejected } = scene(() => promise.then(reject), reject);
    deliveries.receive(batch, undefined);
    deliveries.receive(batch, AGAIN);
    deliveries.renew(true, [], LIMITS);
    deliveries.receive(batchOf('x', [encodeBody('before')], 7), undefined);
    deliveries.receive(batch, AGAIN);
    open();
    await new Promise(setImmediate);
    // Its places on the first connection, then, behind another message, the one on the second.
    expect(rejected).toEqual([1, 2, 1, 2]);
    expect(deliveries.takeAcks()).toEqual([{ first: 1, count: 2 }]);
  });

  it('is done with when the other is taken away before it has begun', () => {
    const { deliveries, rejected, released, runner } = scene(() => gate().promise, reject);
    deliveries.receive(batchOf('x', [encodeBody('before')], 7), undefined);
    deliveries.receive(batch, undefined);
    deliveries.giveBack(runner.stop());
    expect(rejected).toEqual([1, 2]);
    expect(released).toEqual([]);
    expect(deliveries.takeAcks()).toEqual([{ first: 2, count: 1 }]);
  });
});
