import { describe, expect, it } from 'vitest';
import { BroadcastMessage, BroadcastReject, type DeliveryFailure } from '../../src/index.js';
import { connectedClient, gate, Inbox, newClient, startServer } from '../helpers/scene.js';

/** For tests that want `delivered` and nothing else: on a busy machine 20 ms are soon over. */
const PATIENT = { storeAfter: 10_000 };

describe.each(['memory', 'disk'] as const)('delivery on the %s engine', kind => {
  it('delivers in order to every subscriber, and says so', async () => {
    const { port } = await startServer(kind, PATIENT);
    const sender = await connectedClient(port, 'sender');
    const inboxes = await Promise.all(
      ['a', 'b', 'c'].map(async name => {
        const inbox = new Inbox();
        const client = newClient(port, name);
        client.onMessage('room', message => inbox.push(message.data));
        await client.connect();
        return inbox;
      }),
    );
    const receipts = Array.from({ length: 2000 }, (_, i) =>
      sender.sendMessage(BroadcastMessage.createChannelMessage('room', i)),
    );
    const expected = Array.from({ length: 2000 }, (_, i) => i);
    for (const inbox of inboxes) expect(await inbox.reached(2000)).toEqual(expected);
    for (const receipt of await Promise.all(receipts)) expect(receipt.failures).toEqual([]);
    expect((await receipts[1999])?.status).toBe('delivered');
  });

  it('carries id, name, headers, sender and a time', async () => {
    const { port } = await startServer(kind);
    const inbox = new Inbox<BroadcastMessage>();
    const receiver = newClient(port, 'receiver');
    receiver.onMessage(message => inbox.push(message));
    await receiver.connect();
    const sender = await connectedClient(port, 'sender');
    const message = BroadcastMessage.createClientMessage(
      'receiver',
      { n: 10n },
      { name: 'greeting', headers: { trace: 'x', __proto__: 'own' }, ttl: 60_000 },
    );
    await sender.sendMessage(message);
    const [got] = await inbox.reached(1);
    expect(got).toMatchObject({
      id: message.id,
      name: 'greeting',
      headers: { trace: 'x' },
      sender: 'sender',
      client: 'receiver',
      channel: null,
      data: { n: 10n },
      persistent: true,
    });
    expect(got?.timestamp).toBeGreaterThan(0);
    // Spread and JSON show every field.
    expect(Object.keys(got!)).toContain('data');
    expect(JSON.parse(JSON.stringify(Object.assign({}, got, { data: null })))).toMatchObject({
      id: message.id,
      data: null,
    });
  });

  it('keeps messages for a name that was never seen, says offline, and delivers them first', async () => {
    const { port } = await startServer(kind);
    const sender = await connectedClient(port, 'sender');
    const receipts = await Promise.all(
      [1, 2, 3].map(n => sender.sendMessage(BroadcastMessage.createClientMessage('later', n))),
    );
    expect(receipts.map(receipt => receipt.status)).toEqual(['stored', 'stored', 'stored']);
    expect(receipts[1]?.durability).toBe(kind === 'disk' ? 'fsync' : 'memory');
    expect(receipts[2]?.failures).toMatchObject([
      { reason: 'offline', queued: true, final: false, target: { client: 'later' }, messageId: receipts[2]?.id },
    ]);
    const inbox = new Inbox();
    const later = newClient(port, 'later');
    later.onMessage(message => inbox.push(message.data));
    await later.connect();
    await sender.sendMessage(BroadcastMessage.createClientMessage('later', 4));
    expect(await inbox.reached(4)).toEqual([1, 2, 3, 4]);
  });

  it('says in a final receipt who did not get it, and not who waited for it', async () => {
    const { port, server } = await startServer(kind);
    const sender = await connectedClient(port, 'sender');
    const told = new Inbox();
    sender.onDeliveryFailure(told.push);
    const message = BroadcastMessage.createGroupMessage(['later', 'never'], 1);
    const receipt = sender.sendMessage(message, { until: 'delivered' });
    await told.reached(2);
    await server.forget('never');
    const later = newClient(port, 'later');
    later.onMessage(() => undefined);
    await later.connect();
    expect(await receipt).toMatchObject({ status: 'delivered' });
    expect((await receipt).failures).toMatchObject([{ target: { client: 'never' }, reason: 'dropped', final: true }]);
  });

  it('tells of a flood with one notice that has a count, and each receipt has its own', async () => {
    const { port } = await startServer(kind);
    const sender = await connectedClient(port, 'sender');
    const notices: DeliveryFailure[] = [];
    sender.onDeliveryFailure(failure => notices.push(failure));
    const messages = Array.from({ length: 100 }, (_, n) => BroadcastMessage.createClientMessage('away', n));
    const receipts = await Promise.all(messages.map(message => sender.sendMessage(message)));
    const told = { target: { client: 'away' }, reason: 'offline', queued: true, final: false };
    expect(notices).toMatchObject([{ ...told, messageId: messages[0]?.id, count: 100 }]);
    for (const [i, { failures }] of receipts.entries()) {
      expect(failures).toEqual([{ ...told, messageId: messages[i]?.id, attempts: 0, at: failures[0]?.at }]);
    }
  });

  it('keeps a backlog for the first subscriber of a channel', async () => {
    const { port } = await startServer(kind);
    const sender = await connectedClient(port, 'sender');
    const receipt = await sender.sendMessage(BroadcastMessage.createChannelMessage('news', 'first'));
    expect(receipt).toMatchObject({
      status: 'stored',
      failures: [{ reason: 'no-subscribers', queued: true, target: { channel: 'news' } }],
    });
    const inbox = new Inbox();
    const reader = newClient(port, 'reader');
    reader.onMessage('news', message => inbox.push(message.data));
    await reader.connect();
    expect(await inbox.reached(1)).toEqual(['first']);
  });

  it('waits for a subscription whose client was closed, in order with what comes after', async () => {
    const { port } = await startServer(kind);
    const sender = await connectedClient(port, 'sender');
    const first = newClient(port, 'reader');
    const inbox = new Inbox();
    first.onMessage('room', message => inbox.push(message.data));
    await first.connect();
    await sender.sendMessage(BroadcastMessage.createChannelMessage('room', 0));
    await first.close();
    for (let i = 1; i <= 5000; i++) sender.sendMessage(BroadcastMessage.createChannelMessage('room', i));
    await sender.flush();
    const second = newClient(port, 'reader');
    second.onMessage('room', message => inbox.push(message.data));
    await second.connect();
    for (let i = 5001; i <= 6000; i++) sender.sendMessage(BroadcastMessage.createChannelMessage('room', i));
    expect(await inbox.reached(6001)).toEqual(Array.from({ length: 6001 }, (_, i) => i));
  });

  it('drops a non-persistent message for who is away, and tells the sender for good', async () => {
    const { port } = await startServer(kind);
    const sender = await connectedClient(port, 'sender');
    const failures = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failures.push);
    const receipt = await sender.sendMessage(BroadcastMessage.createClientMessage('nobody', 1, 'x', false));
    expect(receipt).toMatchObject({
      status: 'undelivered',
      failures: [{ reason: 'offline', queued: false, final: true, attempts: 0 }],
    });
    expect((await failures.reached(1))[0]).toMatchObject({ messageId: receipt.id, final: true });
  });

  it('routes a non-persistent message to who is here', async () => {
    const { port } = await startServer(kind);
    const inbox = new Inbox();
    const receiver = newClient(port, 'receiver');
    receiver.onMessage('room', message => inbox.push(message.persistent));
    await receiver.connect();
    const sender = await connectedClient(port);
    expect(await sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1, 'x', false))).toMatchObject({
      status: 'routed',
      durability: 'none',
    });
    expect(await inbox.reached(1)).toEqual([false]);
  });

  it.each([true, false])(
    'runs the handlers of those targets only by which it came (persistent: %s)',
    async persistent => {
      const { port, server } = await startServer(kind);
      const inbox = new Inbox();
      const reader = newClient(port, 'reader');
      reader.onMessage(message => inbox.push(`self ${String(message.data)}`));
      reader.onMessage('room', message => inbox.push(`room ${String(message.data)}`));
      await reader.connect();
      const other = await connectedClient(port, 'other');
      const { address } = server.clients.find(({ name }) => name === 'reader') as { address: string };
      const options = { persistent };
      await other.sendMessage(BroadcastMessage.create('other', 'room', 1, options));
      await other.sendMessage(BroadcastMessage.create('reader', 'elsewhere', 2, options));
      await other.sendMessage(BroadcastMessage.create(address, 'elsewhere', 3, options));
      expect(await inbox.reached(3)).toEqual(['room 1', 'self 2', 'self 3']);
      await reader.flush();
      expect(inbox.items).toHaveLength(3);
    },
  );

  it('sends one message for several channels once, to the handlers of each', async () => {
    const { port } = await startServer(kind);
    const inbox = new Inbox();
    const receiver = newClient(port, 'receiver');
    for (const channel of ['a', 'b'])
      receiver.onMessage(channel, (message, info) => inbox.push([info.channel, message.id]));
    await receiver.connect();
    const sender = await connectedClient(port);
    const message = BroadcastMessage.createMultiChannelMessage(['a', 'b', 'c'], 1);
    const receipt = await sender.sendMessage(message);
    expect((await inbox.reached(2)).sort()).toEqual([
      ['a', message.id],
      ['b', message.id],
    ]);
    expect(receipt.status).toBe('stored'); // c has nobody: its part waits in the backlog
    expect(receipt.failures).toMatchObject([{ reason: 'no-subscribers', target: { channel: 'c' } }]);
  });

  it('gives each handler of a waiting multi-channel message its turn once', async () => {
    const { port } = await startServer(kind);
    const sender = await connectedClient(port);
    await sender.sendMessage(BroadcastMessage.createMultiChannelMessage(['a', 'b'], 1));
    const inbox = new Inbox();
    const receiver = newClient(port, 'receiver');
    for (const channel of ['a', 'b']) receiver.onMessage(channel, (_message, info) => inbox.push(info.channel));
    await receiver.connect();
    expect((await inbox.reached(2)).sort()).toEqual(['a', 'b']);
    await receiver.flush();
    expect(inbox.items).toHaveLength(2);
  });

  it('reaches groups, everyone, and a connection by its address', async () => {
    const { port, server } = await startServer(kind, PATIENT);
    const inbox = new Inbox();
    for (const name of ['x', 'y']) {
      const client = newClient(port, name);
      client.onMessage(message => inbox.push(`${name}:${String(message.data)}`));
      await client.connect();
    }
    const sender = await connectedClient(port, 'sender');
    sender.onMessage(message => inbox.push(`sender:${String(message.data)}`));
    await sender.flush();
    expect((await sender.sendMessage(BroadcastMessage.createGroupMessage(['x', 'y'], 'group'))).status).toBe(
      'delivered',
    );
    expect((await sender.sendMessage(BroadcastMessage.createBroadcastMessage('all'))).status).toBe('delivered');
    const address = server.clients.find(client => client.name === 'x')?.address as string;
    expect((await sender.sendMessage(BroadcastMessage.createClientMessage(address, 'direct'))).status).toBe(
      'delivered',
    );
    expect(await sender.sendMessage(BroadcastMessage.createClientMessage('127.0.0.1:1', 'direct'))).toMatchObject({
      status: 'undelivered',
      failures: [{ reason: 'offline', final: true }],
    });
    expect(inbox.items.sort()).toEqual(['x:all', 'x:direct', 'x:group', 'y:all', 'y:group']);
  });

  it('never gives an instance its own channel messages, but what it addresses to its own name', async () => {
    const { port } = await startServer(kind, PATIENT);
    const inbox = new Inbox();
    const client = newClient(port, 'me');
    client.onMessage('room', message => inbox.push(message.data));
    client.onMessage(message => inbox.push(message.data));
    await client.connect();
    expect((await client.sendMessage(BroadcastMessage.createChannelMessage('room', 'to the room'))).status).toBe(
      'undelivered',
    );
    expect((await client.sendMessage(BroadcastMessage.createClientMessage('me', 'to me'))).status).toBe('delivered');
    expect(inbox.items).toEqual(['to me']);
  });

  it('a message that arrives between connect and onMessage waits', async () => {
    const { port } = await startServer(kind);
    const client = await connectedClient(port, 'late');
    const sender = await connectedClient(port);
    expect(await sender.sendMessage(BroadcastMessage.createClientMessage('late', 1))).toMatchObject({
      status: 'stored',
      failures: [{ reason: 'no-handler', queued: true }],
    });
    const inbox = new Inbox();
    client.onMessage(message => inbox.push(message.data));
    expect(await inbox.reached(1)).toEqual([1]);
  });

  it('a new release that no longer handles a channel blocks nobody', async () => {
    const { port } = await startServer(kind, PATIENT);
    const sender = await connectedClient(port);
    const old = newClient(port, 'service');
    old.onMessage('old', () => undefined);
    old.onMessage('kept', () => undefined);
    await old.connect();
    await old.close();
    const inbox = new Inbox();
    const release = newClient(port, 'service');
    release.onMessage('kept', message => inbox.push(message.data));
    await release.connect();
    const [first, second] = await Promise.all([
      sender.sendMessage(BroadcastMessage.createChannelMessage('old', 1)),
      sender.sendMessage(BroadcastMessage.createChannelMessage('kept', 2)),
    ]);
    expect(first).toMatchObject({ status: 'stored', failures: [{ reason: 'no-handler' }] });
    expect(second.status).toBe('delivered');
    expect(inbox.items).toEqual([2]);
    expect([...release.subscriptions].sort()).toEqual(['kept', 'old']);
  });

  it('tries a failing handler again, in order, and then delivers the next', async () => {
    const { port } = await startServer(kind);
    const attempts: [number, unknown][] = [];
    const client = newClient(port, 'worker');
    const inbox = new Inbox();
    client.onMessage('jobs', (message, info) => {
      attempts.push([info.attempt, message.data]);
      if (message.data === 'bad' && info.attempt === 1) throw new Error('not yet');
      inbox.push(message.data);
    });
    await client.connect();
    const sender = await connectedClient(port);
    sender.sendMessage(BroadcastMessage.createChannelMessage('jobs', 'bad'));
    sender.sendMessage(BroadcastMessage.createChannelMessage('jobs', 'good'));
    expect(await inbox.reached(2)).toEqual(['bad', 'good']);
    expect(attempts).toEqual([
      [1, 'bad'],
      [2, 'bad'],
      [1, 'good'],
    ]);
  });

  it('sends what a handler rejects to the dead letters, from where it can be sent again', async () => {
    const { port, server } = await startServer(kind);
    let reject = true;
    const inbox = new Inbox();
    const client = newClient(port, 'worker');
    client.onMessage('jobs', message => {
      if (reject) throw new BroadcastReject('not an order');
      inbox.push(message.data);
    });
    await client.connect();
    const sender = await connectedClient(port, 'sender');
    const receipt = await sender.sendMessage(BroadcastMessage.createChannelMessage('jobs', { n: 1n }), {
      until: 'delivered',
    });
    expect(receipt).toMatchObject({
      status: 'undelivered',
      failures: [{ reason: 'rejected', final: true, attempts: 1 }],
    });
    const letters = await server.deadLetters('worker').list();
    expect(letters).toMatchObject([
      { reason: 'not an order', attempts: 1, message: { data: { n: 1n }, id: receipt.id } },
    ]);
    reject = false;
    const retry = () => server.deadLetters('worker').retry(letters[0]?.id as string);
    await Promise.all([retry(), retry()]);
    expect(await inbox.reached(1)).toEqual([{ n: 1n }]);
    await client.flush();
    expect(await server.deadLetters('worker').list()).toEqual([]);
    expect((await server.sessions()).find(({ name }) => name === 'worker')).toMatchObject({
      queued: 0,
      queuedBytes: 0,
    });
    await expect(server.deadLetters('worker').drop('12345')).rejects.toMatchObject({ code: 'not-found' });
  });

  it('says delivered only when every recipient has handled it', async () => {
    const { port } = await startServer(kind);
    const slow = newClient(port, 'slow');
    const { promise, open } = gate();
    slow.onMessage('room', () => promise);
    await slow.connect();
    const sender = await connectedClient(port);
    let delivered = false;
    const waiting = sender
      .sendMessage(BroadcastMessage.createChannelMessage('room', 1), { until: 'delivered' })
      .then(receipt => {
        delivered = true;
        return receipt;
      });
    const safe = await sender.sendMessage(BroadcastMessage.createChannelMessage('room', 2));
    expect(safe.status).toBe('stored');
    expect(delivered).toBe(false);
    open();
    expect((await waiting).status).toBe('delivered');
  });

  it('gives what is addressed to a shared name to one instance, the least loaded', async () => {
    const { port } = await startServer(kind);
    const inbox = new Inbox();
    const { promise, open } = gate();
    const workers = ['first', 'second'].map(which => {
      const client = newClient(port, 'workers');
      client.onMessage(async message => {
        inbox.push([which, message.data]);
        await promise;
      });
      return client;
    });
    for (const worker of workers) await worker.connect();
    const sender = await connectedClient(port);
    for (const n of [1, 2]) sender.sendMessage(BroadcastMessage.createClientMessage('workers', n));
    const got = (await inbox.reached(2)) as [string, number][];
    open();
    expect(got.map(([, n]) => n).sort()).toEqual([1, 2]);
    expect(new Set(got.map(([which]) => which)).size).toBe(2);
  });

  it('gives a channel message to every instance of a shared name', async () => {
    const { port } = await startServer(kind);
    const inbox = new Inbox();
    for (const which of ['first', 'second']) {
      const client = newClient(port, 'shared');
      client.onMessage('room', () => inbox.push(which));
      await client.connect();
    }
    const sender = await connectedClient(port);
    await sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1), { until: 'delivered' });
    expect(inbox.items.sort()).toEqual(['first', 'second']);
  });

  it('counts as waiting only what waits, whatever was acknowledged before it was stored', async () => {
    const { port, server } = await startServer(kind, { limits: { queueMessages: 20 } });
    const sender = await connectedClient(port, 'sender');
    let hold = gate();
    const inbox = new Inbox();
    const worker = newClient(port, 'worker');
    worker.onMessage(({ data }) => {
      inbox.push(data);
      return data === 5 ? hold.promise : undefined;
    });
    await worker.connect();
    for (let round = 1; round <= 6; round++) {
      hold = gate();
      const messages = Array.from({ length: 10 }, (_, n) => BroadcastMessage.createClientMessage('worker', n));
      await Promise.all(messages.map(message => sender.sendMessage(message)));
      hold.open();
      await inbox.reached(round * 10);
      await worker.flush();
    }
    expect((await server.sessions()).find(({ name }) => name === 'worker')).toMatchObject({
      queued: 0,
      queuedBytes: 0,
    });
  });

  it('refuses a queue that is full, and says so', async () => {
    const { port } = await startServer(kind, { limits: { queueMessages: 2 } });
    const sender = await connectedClient(port);
    const receipts = await Promise.all(
      [1, 2, 3].map(n => sender.sendMessage(BroadcastMessage.createClientMessage('away', n, `n${String(n)}`))),
    );
    expect(receipts.map(receipt => receipt.status)).toEqual(['stored', 'stored', 'undelivered']);
    expect(receipts[2]?.failures).toMatchObject([{ reason: 'queue-full', final: true }]);
  });

  it('forgets a session, and tells the senders of what waited', async () => {
    const { port, server } = await startServer(kind);
    const sender = await connectedClient(port, 'sender');
    const failures = new Inbox<DeliveryFailure>();
    await sender.sendMessage(BroadcastMessage.createClientMessage('gone', 1));
    sender.onDeliveryFailure(failures.push);
    await server.forget('gone');
    expect((await failures.reached(1))[0]).toMatchObject({
      reason: 'dropped',
      final: true,
      target: { client: 'gone' },
    });
    expect((await server.sessions()).map(session => session.name)).toEqual(['sender']);
    await expect(server.forget('gone')).rejects.toMatchObject({ code: 'not-found' });
  });

  it('ends a subscription by name, handled here or not', async () => {
    const { port } = await startServer(kind);
    const client = newClient(port, 'reader');
    client.onMessage('room', () => undefined);
    await client.connect();
    expect(client.subscriptions).toEqual(['room']);
    await client.unsubscribe('room');
    await client.flush();
    expect(client.subscriptions).toEqual([]);
    const sender = await connectedClient(port);
    expect((await sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1))).failures).toMatchObject([
      { reason: 'no-subscribers' },
    ]);
  });

  it('lets the server send and observe', async () => {
    const { port, server } = await startServer(kind, PATIENT);
    const seen = new Inbox();
    server.onMessage((message, peer) => seen.push([peer.name, message.data]));
    const inbox = new Inbox();
    const client = newClient(port, 'client');
    client.onMessage('room', message => inbox.push([message.sender, message.data]));
    await client.connect();
    expect((await server.sendMessage(BroadcastMessage.createChannelMessage('room', 'hello'))).status).toBe('delivered');
    expect(inbox.items).toEqual([[undefined, 'hello']]);
    await client.sendMessage(BroadcastMessage.createChannelMessage('other', 5n));
    expect(await seen.reached(1)).toEqual([['client', 5n]]);
  });
});
