/** Every bound of the server: what exceeds it is refused with a clear error or notice, and nobody else feels it. */
import { describe, expect, it } from 'vitest';
import { BroadcastMessage, type DeliveryFailure } from '../../src/index.js';
import { TestClock } from '../../src/testing/index.js';
import { startProxy } from '../helpers/proxy.js';
import { connectedClient, gate, Inbox, newClient, recordingLogger, startServer } from '../helpers/scene.js';

describe.each(['memory', 'disk'] as const)('limits on the %s engine', kind => {
  it('refuses what a queue has no room for, by messages and by bytes', async () => {
    for (const limits of [{ queueMessages: 2 }, { queueBytes: 250 }]) {
      const { port } = await startServer(kind, { limits });
      const sender = await connectedClient(port, 'sender');
      const statuses: string[] = [];
      for (let n = 0; n < 4; n++) {
        const receipt = await sender.sendMessage(BroadcastMessage.createClientMessage('away', 'x'.repeat(100)));
        statuses.push(receipt.status);
        if (n >= 2) expect(receipt.failures).toMatchObject([{ reason: 'queue-full', final: true, queued: false }]);
      }
      expect(statuses).toEqual(['stored', 'stored', 'undelivered', 'undelivered']);
    }
  });

  it('takes what fits of many messages that are sent at once', async () => {
    const { port } = await startServer(kind, { limits: { queueMessages: 150 } });
    const sender = await connectedClient(port, 'sender');
    const receipts = await Promise.all(
      Array.from({ length: 200 }, (_, n) => sender.sendMessage(BroadcastMessage.createClientMessage('away', n))),
    );
    expect(receipts.filter(({ status }) => status === 'stored')).toHaveLength(150);
    const inbox = new Inbox();
    const reader = newClient(port, 'away');
    reader.onMessage(message => inbox.push(message.data));
    await reader.connect();
    expect(await inbox.reached(150)).toEqual(Array.from({ length: 150 }, (_, n) => n));
  });

  it('counts what is on its way to a name that is online, until it is acknowledged', async () => {
    const { server, port } = await startServer(kind, { storeAfter: 10_000, limits: { queueMessages: 5 } });
    const sender = await connectedClient(port, 'sender');
    const inbox = new Inbox();
    const running: (() => void)[] = [];
    const reader = newClient(port, 'reader');
    const handler = ({ data }: BroadcastMessage): Promise<void> => {
      inbox.push(data);
      const { promise, open } = gate();
      running.push(open);
      return promise;
    };
    reader.onMessage(handler);
    reader.onMessage('room', handler);
    await reader.connect();
    const refused: DeliveryFailure[] = [];
    sender.onDeliveryFailure(failure => failure.reason === 'queue-full' && refused.push(failure));
    for (let round = 0; round < 3; round++) {
      const first = inbox.items.length;
      for (let n = 0; n < 7; n++) {
        sender.sendMessage(BroadcastMessage.createClientMessage('reader', [round, n]));
        await sender.flush();
      }
      expect(refused.splice(0)).toMatchObject([
        { target: { client: 'reader' }, final: true },
        { target: { client: 'reader' }, final: true },
      ]);
      for (let n = 0; n < 5; n++) {
        expect((await inbox.reached(first + n + 1))[first + n]).toEqual([round, n]);
        running[first + n]?.();
      }
      await reader.flush();
    }
    // One message to a name and a channel of its waits in two queues of the name. Its sender hears of it when it is safe.
    server.on('failure', failure => failure.reason === 'queue-full' && refused.push(failure));
    for (let n = 0; n < 3; n++) {
      sender.sendMessage(BroadcastMessage.create('reader', 'room', n));
      await sender.flush();
    }
    expect(refused).toHaveLength(1);
  });

  it('counts each target of a message that is of the same name', async () => {
    const { port } = await startServer(kind, { limits: { queueMessages: 3 } });
    const reader = newClient(port, 'reader');
    for (const channel of ['a', 'b']) reader.onMessage(channel, () => undefined);
    await reader.connect();
    await reader.close();
    const sender = await connectedClient(port, 'sender');
    const reasons: string[][] = [];
    for (let n = 0; n < 3; n++) {
      const { failures } = await sender.sendMessage(BroadcastMessage.createMultiChannelMessage(['a', 'b'], n));
      reasons.push(failures.map(({ reason }) => reason).sort());
    }
    expect(reasons).toEqual([
      ['offline', 'offline'],
      ['offline', 'queue-full'],
      ['queue-full', 'queue-full'],
    ]);
  });

  it('bounds the backlog of a channel and the number of channels with one', async () => {
    const { port } = await startServer(kind, { limits: { backlogMessages: 2, backlogChannels: 2 } });
    const sender = await connectedClient(port, 'sender');
    const send = async (channel: string): Promise<string> =>
      (await sender.sendMessage(BroadcastMessage.createChannelMessage(channel, 1))).status;
    expect([await send('a'), await send('a'), await send('a')]).toEqual(['stored', 'stored', 'undelivered']);
    expect([await send('b'), await send('c')]).toEqual(['stored', 'undelivered']);
    const reader = newClient(port, 'reader');
    const inbox = new Inbox();
    reader.onMessage('a', message => inbox.push(message.data));
    await reader.connect();
    await inbox.reached(2);
    expect(await send('c')).toBe('stored');
  });

  it('counts as stored what has found room of a batch', async () => {
    const { port, server } = await startServer(kind, { limits: { backlogMessages: 3, queueMessages: 2 } });
    const sender = await connectedClient(port, 'sender');
    const five = Array.from({ length: 5 }, () =>
      sender.sendMessage(BroadcastMessage.create('away', 'nobody', 'in one batch')),
    );
    await Promise.all(five);
    expect(server.stats().stored).toBe(3);
  });

  it('bounds sessions, for those who come and for names that are written to', async () => {
    const { port } = await startServer(kind, { limits: { sessions: 2 } });
    const sender = await connectedClient(port, 'sender');
    expect((await sender.sendMessage(BroadcastMessage.createClientMessage('second', 1))).status).toBe('stored');
    expect(await sender.sendMessage(BroadcastMessage.createClientMessage('third', 1))).toMatchObject({
      status: 'undelivered',
      failures: [{ reason: 'queue-full', final: true }],
    });
    const lost = new Inbox();
    const third = newClient(port, 'third', { logger: { debug() {}, info() {}, warn: lost.push, error: lost.push } });
    void third.connect();
    expect(String((await lost.reached(1))[0])).toMatch(/2 sessions/);
    expect(sender.state).toBe('online');
  });

  it('bounds subscriptions of a client', async () => {
    const { port } = await startServer(kind, { limits: { subscriptions: 2 } });
    const client = newClient(port, 'reader');
    for (const channel of ['a', 'b']) client.onMessage(channel, () => undefined);
    await client.connect();
    client.onMessage('c', () => undefined);
    // flush() says that every subscription is in force: one that was refused is not.
    await expect(client.flush()).rejects.toMatchObject({ code: 'too-many-subscriptions' });
    expect([...client.subscriptions].sort()).toEqual(['a', 'b']);
    const other = newClient(port, 'other');
    for (const channel of ['a', 'b', 'c']) other.onMessage(channel, () => undefined);
    await expect(other.connect()).rejects.toMatchObject({ code: 'too-many-subscriptions' });
  });

  it('bounds connections, and lets the next one in when one has left', async () => {
    const { port } = await startServer(kind, { limits: { connections: 1 } });
    const first = await connectedClient(port, 'first');
    const lost = new Inbox();
    const second = newClient(port, 'second', { logger: { debug() {}, info() {}, warn: lost.push, error: lost.push } });
    const connected = second.connect();
    expect(String((await lost.reached(1))[0])).toMatch(/limits\.connections/);
    await first.close();
    await connected;
    expect(second.state).toBe('online');
  });

  it('keeps the newest dead letters', async () => {
    const { port, server } = await startServer(kind, { limits: { deadLetters: 2 } });
    const sender = await connectedClient(port, 'sender');
    const worker = newClient(port, 'worker');
    worker.onMessage(
      () => {
        throw new Error('no');
      },
      { maxAttempts: 1 },
    );
    await worker.connect();
    for (const n of [1, 2, 3]) {
      await sender.sendMessage(BroadcastMessage.createClientMessage('worker', n), { until: 'delivered' });
    }
    await worker.flush();
    expect((await server.deadLetters('worker').list()).map(({ message }) => message.data)).toEqual([2, 3]);
  });

  it('gives messages to who handles them while another handles none', async () => {
    const { port } = await startServer(kind, { limits: { windowBytes: 64 * 1024, windowMessages: 64 } });
    const sender = await connectedClient(port, 'sender', { limits: { outboxMessages: 1_000_000 } });
    const { promise, open } = gate();
    const stuck = newClient(port, 'stuck');
    stuck.onMessage('room', () => promise);
    await stuck.connect();
    const inbox = new Inbox();
    const reader = newClient(port, 'reader');
    reader.onMessage('room', message => inbox.push((message.data as { n: number }).n));
    await reader.connect();
    for (let n = 0; n < 3000; n++) {
      if (sender.outbox.full) await sender.ready();
      sender.sendMessage(BroadcastMessage.createChannelMessage('room', { n, text: 'x'.repeat(200) }));
    }
    expect(await inbox.reached(3000)).toEqual(Array.from({ length: 3000 }, (_, n) => n));
    open();
  });

  it.each([
    ['of other names', 'stuck', 0],
    // Who may have had its own copy of the message.
    ['of its name', 'reader', 1],
  ])(
    'drops messages that are not persistent for who reads nothing, says so, and gives them to the others %s',
    async (_, name, attempts) => {
      const { port } = await startServer(kind, { limits: { windowBytes: 64 * 1024 } });
      const proxy = await startProxy(port);
      const stuck = await connectedClient(proxy.port, name);
      stuck.onMessage('room', () => undefined);
      await stuck.flush();
      const inbox = new Inbox();
      const reader = await connectedClient(port, 'reader');
      reader.onMessage('room', message => inbox.push(message.data));
      await reader.flush();
      const sender = await connectedClient(port, 'sender');
      const failures = new Inbox<DeliveryFailure>();
      sender.onDeliveryFailure(failures.push);
      proxy.hold('down');
      // Until more has been sent than the sockets between hold; each message waits for the reader, so that it misses none.
      let sent = 0;
      for (; failures.items.length === 0; sent++) {
        const data = { n: sent, text: 'x'.repeat(100_000) };
        const message = BroadcastMessage.createChannelMessage('room', data, { persistent: false });
        expect(await sender.sendMessage(message)).toMatchObject({ status: 'routed' });
        await inbox.reached(sent + 1);
      }
      expect(failures.items).toMatchObject([{ reason: 'slow-consumer', final: true, queued: false, attempts }]);
      expect(inbox.items.map(data => (data as { n: number }).n)).toEqual(Array.from({ length: sent }, (_, n) => n));
      proxy.release('down');
    },
  );

  it('leaves a share of the window to other subscriptions of an instance when one is stuck', async () => {
    const { port } = await startServer(kind, { limits: { windowMessages: 32 } });
    const sender = await connectedClient(port, 'sender');
    const { promise, open } = gate();
    const client = newClient(port, 'client');
    const inbox = new Inbox();
    client.onMessage('stuck', () => promise);
    client.onMessage('flows', message => inbox.push(message.data));
    await client.connect();
    for (let n = 0; n < 200; n++) sender.sendMessage(BroadcastMessage.createChannelMessage('stuck', n));
    for (let n = 0; n < 200; n++) sender.sendMessage(BroadcastMessage.createChannelMessage('flows', n));
    expect(await inbox.reached(200)).toHaveLength(200);
    open();
  });

  it('ends the session of a name that nobody comes back to, and tells the senders', async () => {
    const clock = new TestClock();
    const { port, server } = await startServer(kind, {
      clock,
      limits: { sessionTtl: 60_000, anonymousSessionTtl: 10_000 },
    });
    const sender = await connectedClient(port, 'sender');
    const failures = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failures.push);
    const reader = newClient(port, 'reader');
    reader.onMessage('room', () => undefined);
    await reader.connect();
    await reader.close();
    await sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1));
    clock.tick(50_000);
    expect((await server.sessions()).map(({ name }) => name).sort()).toEqual(['reader', 'sender']);
    clock.tick(20_000);
    expect((await failures.reached(2))[1]).toMatchObject({
      reason: 'session-expired',
      final: true,
      target: { client: 'reader', channel: 'room' },
    });
    expect((await server.sessions()).map(({ name }) => name)).toEqual(['sender']);
  });
});

describe('messages that are not persistent and wait for a handler', () => {
  it('are bounded: the newest are lost, with a warning, and what is persistent still comes', async () => {
    const { port } = await startServer('memory', { limits: { windowMessages: 4 } });
    const sender = await connectedClient(port, 'sender');
    const logger = recordingLogger();
    const { promise, open } = gate();
    const inbox = new Inbox();
    const receiver = newClient(port, 'receiver', { logger, clock: new TestClock() });
    receiver.onMessage('room', async message => {
      inbox.push(message.data);
      await promise;
    });
    const other = new Inbox();
    receiver.onMessage('other', message => other.push(message.data));
    await receiver.connect();
    for (let n = 0; n < 100; n++) {
      const message = BroadcastMessage.createChannelMessage('room', n, { persistent: false });
      expect(await sender.sendMessage(message)).toMatchObject({ status: 'routed' });
    }
    sender.sendMessage(BroadcastMessage.createChannelMessage('room', 'safe'));
    sender.sendMessage(BroadcastMessage.createChannelMessage('other', 'as well'));
    expect(await other.reached(1)).toEqual(['as well']);
    expect(logger.warnings).toEqual([expect.stringContaining('not persistent: 1 messages were dropped')]);
    open();
    expect(await inbox.reached(65)).toEqual([...Array(64).keys(), 'safe']);
    // Room again.
    sender.sendMessage(BroadcastMessage.createChannelMessage('room', 'later', { persistent: false }));
    expect((await inbox.reached(66)).at(-1)).toBe('later');
  });
});
