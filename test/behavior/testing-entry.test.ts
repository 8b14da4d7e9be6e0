/** The testing entry, used as users use it in tests of their own. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { BroadcastMessage, BroadcastTcpClient } from '../../src/index.js';
import { startTestServer, TestClock } from '../../src/testing/index.js';
import { recordingLogger, temporaryFolder } from '../helpers/scene.js';

const quietly = { logger: recordingLogger() };

describe('startTestServer', () => {
  it('starts a server on a free port, in memory, and ends with its block', async () => {
    let url: string;
    {
      await using test = await startTestServer(quietly);
      ({ url } = test);
      expect(test).toMatchObject({ host: '127.0.0.1', url: `tcp://127.0.0.1:${String(test.port)}` });
      await using client = new BroadcastTcpClient({ url, ...quietly });
      await client.connect();
      const receipt = await client.sendMessage(BroadcastMessage.createClientMessage('x', 1));
      expect(receipt).toMatchObject({ status: 'stored', durability: 'memory' });
    }
    await using late = new BroadcastTcpClient({ url, ...quietly, clock: new TestClock() });
    void late.connect();
    expect(late.state).toBe('connecting');
  });

  it('takes the options of a server: durable, with limits, restarted on the same data', async () => {
    const dataDir = join(await temporaryFolder(), 'data');
    const first = await startTestServer({ ...quietly, dataDir, limits: { targets: 1 } });
    await using client = new BroadcastTcpClient({ url: first.url, reconnectInterval: 20, ...quietly }, 'sender');
    await client.connect();
    await expect(client.sendMessage(BroadcastMessage.createGroupMessage(['a', 'b'], 1))).rejects.toMatchObject({
      code: 'too-many-targets',
    });
    const receipt = await client.sendMessage(BroadcastMessage.createClientMessage('x', 'kept'));
    expect(receipt.durability).toBe('fsync');
    await first.stop();
    await using second = await startTestServer({ ...quietly, dataDir, port: first.port });
    expect(second.port).toBe(first.port);
    await using reader = new BroadcastTcpClient({ url: second.url, ...quietly }, 'x');
    const got = new Promise(resolve => reader.onMessage(message => resolve(message.data)));
    await reader.connect();
    expect(await got).toBe('kept');
  });

  it('and a TestClock let a test play a message that expires while nobody is there', async () => {
    const clock = new TestClock();
    await using test = await startTestServer({ ...quietly, clock });
    await using client = new BroadcastTcpClient({ url: test.url, clock, ...quietly }, 'sender');
    await client.connect();
    const expired = new Promise(resolve =>
      client.onDeliveryFailure(failure => {
        if (failure.final) resolve(failure.reason);
      }),
    );
    await client.sendMessage(BroadcastMessage.createClientMessage('x', 1, { ttl: 1000 }));
    clock.tick(1000);
    expect(await expired).toBe('expired');
  });
});

describe('TestClock', () => {
  it('stands still until it is ticked, and fires what is due in its order, at its time', () => {
    const clock = new TestClock(5000);
    const fired: [string, number][] = [];
    const note = (name: string) => () => fired.push([name, clock.monotonic()]);
    clock.setTimeout(note('late'), 30);
    clock.setTimeout(note('early'), 10);
    const every = clock.setInterval(note('every'), 20);
    const cancelled = clock.setTimeout(note('never'), 5);
    cancelled.cancel();
    clock.setTimeout(() => clock.setTimeout(note('nested'), 5), 10);
    expect([clock.now(), clock.pending]).toEqual([5000, 4]);
    clock.tick(9);
    expect(fired).toEqual([]);
    clock.tick(31);
    every.cancel();
    clock.tick(100);
    expect(fired).toEqual([
      ['early', 10],
      ['nested', 15],
      ['every', 20],
      ['late', 30],
      ['every', 40],
    ]);
    expect([clock.now(), clock.pending]).toEqual([5140, 0]);
  });

  it('moves the wall clock alone when it jumps', () => {
    const clock = new TestClock(5000);
    clock.jump(-4000);
    expect([clock.now(), clock.monotonic()]).toEqual([1000, 0]);
    clock.tick(10);
    expect([clock.now(), clock.monotonic()]).toEqual([1010, 10]);
  });
});
