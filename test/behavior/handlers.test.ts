/** Failing handlers: attempts, pauses, dead letters; and what a process's death does and does not charge. */
import { describe, expect, it } from 'vitest';
import { BroadcastError, BroadcastMessage, BroadcastReject, type DeliveryFailure } from '../../src/index.js';
import { TestClock } from '../../src/testing/index.js';
import { startProxy } from '../helpers/proxy.js';
import { connectedClient, gate, Inbox, newClient, Role, startServer } from '../helpers/scene.js';

describe.each(['memory', 'disk'] as const)('handlers on the %s engine', kind => {
  it('says again that a message was rejected when the word was lost with its connection', async () => {
    const { port, server } = await startServer(kind);
    const relay = await startProxy(port);
    const started = new Inbox();
    const picky = newClient(relay.port, 'picky');
    picky.onMessage(message => {
      started.push(message.data);
      throw new BroadcastReject('not mine');
    });
    await picky.connect();
    relay.drop('up');
    const sender = await connectedClient(port, 'sender');
    const receipt = sender.sendMessage(BroadcastMessage.createClientMessage('picky', 1), { until: 'delivered' });
    await started.reached(1);
    relay.release('up');
    relay.cut();
    const { status, failures } = await receipt;
    expect(status).toBe('undelivered');
    expect(failures.at(-1)).toMatchObject({ reason: 'rejected', final: true, attempts: 1 });
    expect(await server.deadLetters('picky').list()).toMatchObject([{ reason: 'not mine', attempts: 1 }]);
    expect(started.items).toEqual([1]);
  });

  it('tries a failing message maxAttempts times with growing pauses, ten seconds in all, then keeps it as a dead letter', async () => {
    const { port, server } = await startServer(kind);
    const sender = await connectedClient(port, 'sender');
    const failures = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failures.push);
    const clock = new TestClock();
    const attempts = new Inbox<number>();
    const next = new Inbox();
    const worker = newClient(port, 'worker', { clock });
    worker.onMessage('jobs', (message, info) => {
      if (message.data !== 'bad') return next.push(message.data);
      attempts.push(info.attempt);
      throw new Error('no');
    });
    await worker.connect();
    const bad = sender.sendMessage(BroadcastMessage.createChannelMessage('jobs', 'bad'), { until: 'delivered' });
    sender.sendMessage(BroadcastMessage.createChannelMessage('jobs', 'good'));
    const pauses: number[] = [];
    for (let attempt = 1; attempt < 5; attempt++) {
      await attempts.reached(attempt);
      // The next attempt waits until this one is recorded; the pause is then a timer of the clock's.
      await worker.flush();
      let pause = 0;
      while (attempts.items.length === attempt && pause < 10_000) {
        clock.tick(50);
        pause += 50;
      }
      pauses.push(pause);
    }
    expect(await attempts.reached(5)).toEqual([1, 2, 3, 4, 5]);
    expect([...pauses].sort((a, b) => a - b)).toEqual(pauses);
    expect(pauses.reduce((sum, pause) => sum + pause, 0)).toBeGreaterThanOrEqual(10_000);
    expect(pauses.reduce((sum, pause) => sum + pause, 0)).toBeLessThan(10_500);
    expect((await bad).status).toBe('undelivered');
    expect(await next.reached(1)).toEqual(['good']);
    expect(failures.items.filter(({ final }) => final)).toMatchObject([{ reason: 'rejected', attempts: 5 }]);
    expect(await server.deadLetters('worker').list()).toMatchObject([{ reason: 'no', attempts: 5 }]);
  });

  it('runs only the handler again that failed, also when both of a channel fail', async () => {
    const { port } = await startServer(kind);
    const sender = await connectedClient(port, 'sender');
    const calls = new Inbox<string>();
    const client = newClient(port, 'two');
    for (const which of ['a', 'b', 'c']) {
      client.onMessage('room', (_message, info) => {
        calls.push(`${which}${String(info.attempt)}`);
        if (which !== 'c' && info.attempt === 1) throw new Error('once');
      });
    }
    await client.connect();
    expect(
      (await sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1), { until: 'delivered' })).status,
    ).toBe('delivered');
    expect(calls.items.sort()).toEqual(['a1', 'a2', 'b1', 'b2', 'c1']);
  });

  it('says once that several handlers of a channel reject a message, and lets the others have their attempts', async () => {
    const { port, server } = await startServer(kind);
    const clock = new TestClock();
    const worker = newClient(port, 'worker', { clock });
    let lost = 0;
    worker.on('offline', () => lost++);
    const attempts = new Inbox<number>();
    for (const reason of ['first', 'second']) {
      worker.onMessage('jobs', () => {
        throw new BroadcastReject(reason);
      });
    }
    worker.onMessage('jobs', (_, { attempt }) => {
      attempts.push(attempt);
      if (attempt < 3) throw new Error('not yet');
    });
    await worker.connect();
    const sender = await connectedClient(port, 'sender');
    const receipt = sender.sendMessage(BroadcastMessage.createChannelMessage('jobs', 1), { until: 'delivered' });
    for (let attempt = 1; attempt <= 3; attempt++) {
      await attempts.reached(attempt);
      clock.tick(1000);
    }
    expect(await receipt).toMatchObject({ status: 'undelivered', failures: [{ reason: 'rejected', attempts: 1 }] });
    expect(await server.deadLetters('worker').list()).toMatchObject([{ reason: 'first', attempts: 1 }]);
    await worker.flush();
    expect(lost).toBe(0);
    expect(attempts.items).toEqual([1, 2, 3]);
  });

  it('lets one subscription of a message succeed and another reject it', async () => {
    const { port, server } = await startServer(kind);
    const sender = await connectedClient(port, 'sender');
    const got = new Inbox();
    const client = newClient(port, 'both');
    client.onMessage('good', (_message, info) => got.push(info.channel));
    client.onMessage('bad', () => {
      throw new BroadcastReject('never');
    });
    await client.connect();
    const receipt = await sender.sendMessage(BroadcastMessage.createMultiChannelMessage(['good', 'bad'], 1), {
      until: 'delivered',
    });
    expect(receipt).toMatchObject({
      status: 'delivered',
      failures: [{ reason: 'rejected', final: true, target: { client: 'both', channel: 'bad' } }],
    });
    expect(got.items).toEqual(['good']);
    expect(await server.deadLetters('both').list()).toMatchObject([{ id: expect.stringMatching(/^\d+@bad$/) }]);
    await client.flush();
    expect((await server.sessions()).find(({ name }) => name === 'both')).toMatchObject({ queued: 0, deadLetters: 1 });
  });

  it('sends a dead letter again as often as it is asked to, to the same instance', async () => {
    const { port, server } = await startServer(kind);
    const sender = await connectedClient(port, 'sender');
    const attempts = new Inbox<number>();
    const client = newClient(port, 'worker');
    client.onMessage((_message, info) => {
      attempts.push(info.attempt);
      throw new BroadcastReject('still not');
    });
    await client.connect();
    await sender.sendMessage(BroadcastMessage.createClientMessage('worker', 1), { until: 'delivered' });
    for (let round = 2; round <= 3; round++) {
      const [letter] = await server.deadLetters('worker').list();
      await server.deadLetters('worker').retry(letter!.id);
      await attempts.reached(round);
      await client.flush();
    }
    expect(attempts.items).toEqual([1, 1, 1]);
    expect(await server.deadLetters('worker').list()).toHaveLength(1);
  });

  it('counts a handler that hangs beyond handlerTimeout as failed, and aborts its signal', async () => {
    const { port } = await startServer(kind);
    const sender = await connectedClient(port, 'sender');
    const clock = new TestClock();
    const worker = newClient(port, 'worker', { clock });
    const started = new Inbox<AbortSignal>();
    const errors = new Inbox();
    worker.on('handlerError', error => errors.push(error));
    worker.onMessage(
      (_message, info) => {
        started.push(info.signal);
        return new Promise(() => undefined);
      },
      { handlerTimeout: 100, maxAttempts: 1 },
    );
    await worker.connect();
    const receipt = sender.sendMessage(BroadcastMessage.createClientMessage('worker', 1), { until: 'delivered' });
    const [signal] = await started.reached(1);
    clock.tick(99);
    expect(signal?.aborted).toBe(false);
    clock.tick(1);
    expect(signal?.aborted).toBe(true);
    expect(signal?.reason).toBeInstanceOf(BroadcastError);
    expect(signal?.reason).toMatchObject({
      code: 'handler-timeout',
      retryable: true,
      message: 'the handler did not end within 100 ms (handlerTimeout)',
    });
    expect(errors.items).toEqual([signal?.reason]);
    const { status, failures } = await receipt;
    expect(status).toBe('undelivered');
    expect(failures.at(-1)).toMatchObject({ reason: 'rejected', final: true, attempts: 1 });
  });

  it('charges nothing for lost connections, and does not block a subscription whose retry was lost with one', async () => {
    const { port } = await startServer(kind);
    const sender = await connectedClient(port, 'sender');
    const relay = await startProxy(port);
    const attempts = new Inbox<number>();
    const got = new Inbox();
    let fail = true;
    const worker = newClient(relay.port, 'worker');
    worker.onMessage((message, info) => {
      attempts.push(info.attempt);
      if (message.data === 1 && fail) {
        relay.cut();
        throw new Error('while the connection breaks');
      }
      got.push(message.data);
    });
    await worker.connect();
    for (const n of [1, 2, 3]) sender.sendMessage(BroadcastMessage.createClientMessage('worker', n));
    await attempts.reached(3);
    fail = false;
    expect(await got.reached(3)).toEqual([1, 2, 3]);
    expect(Math.max(...attempts.items)).toBe(1);
  });

  it('gives back what a closing client had not started, uncharged and in order', async () => {
    const { port } = await startServer(kind);
    const sender = await connectedClient(port, 'sender');
    const { promise, open } = gate();
    const started = new Inbox();
    const first = newClient(port, 'worker');
    first.onMessage(async message => {
      started.push(message.data);
      await promise;
    });
    await first.connect();
    for (const n of [1, 2, 3, 4]) sender.sendMessage(BroadcastMessage.createClientMessage('worker', n));
    await sender.flush();
    await started.reached(1);
    const closed = first.close();
    open();
    await closed;
    const rest = new Inbox();
    const second = newClient(port, 'worker');
    second.onMessage((message, info) => rest.push([message.data, info.attempt]));
    await second.connect();
    expect(await rest.reached(3)).toEqual([
      [2, 1],
      [3, 1],
      [4, 1],
    ]);
    expect(started.items).toEqual([1]);
  });

  it('declines for a handler that was taken away, while the other subscriptions of a message go on', async () => {
    const { port } = await startServer(kind);
    const sender = await connectedClient(port, 'sender');
    const { promise, open } = gate();
    const client = newClient(port, 'reader');
    const a = new Inbox();
    const b = new Inbox();
    client.onMessage('a', async message => {
      a.push(message.data);
      await promise;
    });
    const takeAway = client.onMessage('b', async message => {
      b.push(message.data);
      await promise;
    });
    await client.connect();
    for (const n of [1, 2]) sender.sendMessage(BroadcastMessage.createMultiChannelMessage(['a', 'b'], n));
    await b.reached(1);
    takeAway();
    open();
    expect(await a.reached(2)).toEqual([1, 2]);
    await client.flush();
    client.onMessage('b', message => b.push(message.data));
    expect(await b.reached(2)).toEqual([1, 2]);
    expect(a.items).toEqual([1, 2]);
  });

  it('answers a message to an address whose handler rejects it, and keeps the connection', async () => {
    const { port, server } = await startServer(kind);
    const sender = await connectedClient(port, 'sender');
    const client = newClient(port, 'direct');
    const attempts = new Inbox<number>();
    client.onMessage(
      (_message, info) => {
        attempts.push(info.attempt);
        throw new Error('no');
      },
      { maxAttempts: 1 },
    );
    await client.connect();
    const address = server.clients.find(({ name }) => name === 'direct')!.address;
    const receipt = await sender.sendMessage(BroadcastMessage.createClientMessage(address, 1));
    expect(receipt).toMatchObject({ status: 'undelivered', failures: [{ reason: 'rejected', final: true }] });
    expect(client.state).toBe('online');
  });

  it('marks what a new process gets again after the one before died in its handler', async () => {
    const { port } = await startServer(kind);
    const sender = await connectedClient(port, 'sender');
    await sender.sendMessage(BroadcastMessage.createClientMessage('worker', 'x'));
    const first = new Role('worker', { name: 'worker', die: 'x', config: { port } });
    expect(await first.saw('got')).toMatchObject({ attempt: 1, redelivered: false });
    const second = new Role('worker', { name: 'worker', config: { port } });
    expect(await second.saw('got')).toMatchObject({ attempt: 2, redelivered: true });
  });
});
