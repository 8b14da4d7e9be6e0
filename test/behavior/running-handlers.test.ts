/** Handlers: what they are told, how they are run, and what happens when they fail or hang. */
import { describe, expect, it } from 'vitest';
import { BroadcastMessage, BroadcastReject } from '../../src/index.js';
import { TestClock } from '../../src/testing/index.js';
import { connectedClient, gate, Inbox, newClient, startServer } from '../helpers/scene.js';

const toRoom = (data: unknown): BroadcastMessage => BroadcastMessage.createChannelMessage('room', data);

describe('handlers', () => {
  it('of one channel each run once for every message, and the message is delivered when all have ended', async () => {
    const { port } = await startServer('memory');
    const client = newClient(port, 'reader');
    const inbox = new Inbox<string>();
    const slow = gate();
    client.onMessage('room', message => inbox.push(`first ${String(message.data)}`));
    client.onMessage('room', async message => {
      inbox.push(`second ${String(message.data)}`);
      await slow.promise;
    });
    await client.connect();
    const sender = await connectedClient(port);
    let settled = false;
    const receipt = sender.sendMessage(toRoom(1), { until: 'delivered' }).finally(() => {
      settled = true;
    });
    expect(await inbox.reached(2)).toEqual(['first 1', 'second 1']);
    await client.flush();
    await sender.flush();
    expect(settled).toBe(false);
    slow.open();
    expect((await receipt).status).toBe('delivered');
  });

  it('may be added and taken away one by one while messages flow', async () => {
    const { port } = await startServer('memory');
    const client = newClient(port, 'reader');
    const inboxes = [new Inbox<number>(), new Inbox<number>()] as const;
    const remove = client.onMessage('room', message => inboxes[0].push(message.data as number));
    await client.connect();
    const sender = await connectedClient(port);
    await sender.sendMessage(toRoom(1));
    client.onMessage('room', message => inboxes[1].push(message.data as number));
    await sender.sendMessage(toRoom(2));
    remove();
    await sender.sendMessage(toRoom(3));
    expect(inboxes[0].items).toEqual([1, 2]);
    expect(inboxes[1].items).toEqual([2, 3]);
  });

  it('are told the subscription that they are for', async () => {
    const { port } = await startServer('memory');
    const client = newClient(port, 'reader');
    const inbox = new Inbox();
    const tell = (_message: BroadcastMessage, info: { channel: string | null }): void => inbox.push(info.channel);
    client.onMessage('a', tell);
    client.onMessage('b', tell);
    client.onMessage(tell);
    await client.connect();
    const sender = await connectedClient(port);
    await sender.sendMessage(BroadcastMessage.createMultiChannelMessage(['a', 'b', 'c'], 1, 'n', false));
    await sender.sendMessage(BroadcastMessage.create('reader', 'a', 1));
    await sender.sendMessage(BroadcastMessage.createBroadcastMessage(1));
    expect(await inbox.reached(5)).toEqual(['a', 'b', 'a', null, null]);
  });

  it('that all fail are each tried again, and only those', async () => {
    const clock = new TestClock();
    const { port } = await startServer('memory');
    const client = newClient(port, 'reader', { clock });
    const inbox = new Inbox<string>();
    const failing =
      (name: string, times: number) =>
      (_message: BroadcastMessage, { attempt }: { attempt: number }): void => {
        inbox.push(`${name}${String(attempt)}`);
        if (attempt <= times) throw new Error('again');
      };
    client.onMessage('room', failing('a', 1));
    client.onMessage('room', failing('b', 2));
    client.onMessage('room', failing('c', 0));
    await client.connect();
    const sender = await connectedClient(port);
    const receipt = sender.sendMessage(toRoom(1), { until: 'delivered' });
    await inbox.reached(3);
    for (const count of [5, 6]) {
      while (inbox.items.length < count) {
        clock.tick(5000);
        await client.flush();
      }
    }
    expect((await receipt).status).toBe('delivered');
    expect(inbox.items.slice().sort()).toEqual(['a1', 'a2', 'b1', 'b2', 'b3', 'c1']);
  });

  it('send a message to the dead letters at once by BroadcastReject', async () => {
    const { port, server } = await startServer('memory');
    const client = newClient(port, 'reader');
    let calls = 0;
    client.onMessage('room', () => {
      calls++;
      throw new BroadcastReject('not an order');
    });
    await client.connect();
    const sender = await connectedClient(port);
    await sender.sendMessage(toRoom(1), { until: 'delivered' });
    expect(calls).toBe(1);
    expect(await server.deadLetters('reader').list()).toMatchObject([{ reason: 'not an order', attempts: 1 }]);
  });

  it('that do not end within handlerTimeout have failed, and their signal says so', async () => {
    const clock = new TestClock();
    const { port } = await startServer('memory');
    const client = newClient(port, 'reader', { clock });
    const signals = new Inbox<AbortSignal>();
    client.onMessage(
      'room',
      async (_message, { signal }) => {
        signals.push(signal);
        await new Promise(() => undefined);
      },
      { handlerTimeout: 1000, maxAttempts: 1 },
    );
    await client.connect();
    const sender = await connectedClient(port);
    const receipt = sender.sendMessage(toRoom(1), { until: 'delivered' });
    const [signal] = await signals.reached(1);
    clock.tick(999);
    expect(signal?.aborted).toBe(false);
    clock.tick(1);
    expect(signal?.aborted).toBe(true);
    expect(await receipt).toMatchObject({ failures: [{ reason: 'rejected', final: true }] });
  });

  it('run as many at a time as concurrency says', async () => {
    const { port } = await startServer('memory');
    const client = newClient(port, 'reader');
    const running = new Inbox();
    const { promise, open } = gate();
    client.onMessage(
      'room',
      async message => {
        running.push(message.data);
        await promise;
      },
      { concurrency: 3 },
    );
    await client.connect();
    const sender = await connectedClient(port);
    for (let i = 0; i < 5; i++) sender.sendMessage(toRoom(i));
    await running.reached(3);
    await sender.flush();
    await client.flush();
    expect(running.items).toHaveLength(3);
    open();
    expect(await running.reached(5)).toEqual([0, 1, 2, 3, 4]);
  });

  it('taken away while their message waits for another attempt give it to the next handler', async () => {
    const clock = new TestClock();
    const { port } = await startServer('memory');
    const client = newClient(port, 'reader', { clock });
    const failed = new Inbox();
    client.on('handlerError', error => failed.push(error));
    const remove = client.onMessage('room', () => {
      throw new Error('again');
    });
    await client.connect();
    const sender = await connectedClient(port);
    const receipt = sender.sendMessage(toRoom(1), { until: 'delivered' });
    await failed.reached(1);
    await client.flush();
    remove();
    const inbox = new Inbox();
    client.onMessage('room', message => inbox.push(message.data));
    expect(await inbox.reached(1)).toEqual([1]);
    expect((await receipt).status).toBe('delivered');
  });
});
