/** The scenarios that break naive designs, with real processes and real kills. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { BroadcastMessage, type DeliveryFailure } from '../../src/index.js';
import { startProxy } from '../helpers/proxy.js';
import { connectedClient, gate, Inbox, newClient, Role, startServer, temporaryFolder } from '../helpers/scene.js';

async function serverProcess(options: Record<string, unknown>): Promise<{ role: Role; port: number }> {
  const role = new Role('server', options);
  return { role, port: (await role.saw('listening'))['port'] as number };
}

describe('faults', () => {
  it('keeps the order when #5 was not stored, #6 was, and the server is killed', async () => {
    const dataDir = join(await temporaryFolder(), 'data');
    const first = await serverProcess({ port: 0, dataDir });
    const { port } = first;
    const inbox = new Inbox<number>();
    const busy = newClient(port, 'busy');
    const { promise, open } = gate();
    busy.onMessage('both', async message => {
      if (message.data === 1) await promise;
      inbox.push(message.data as number);
    });
    await busy.connect();
    const sender = await connectedClient(port, 'sender');
    // 1 to 5 are with a recipient that is here; 6 also has one that is away, so it is stored at once.
    for (let n = 1; n <= 5; n++) sender.sendMessage(BroadcastMessage.createChannelMessage('both', n));
    const stored = await sender.sendMessage(BroadcastMessage.create('away', 'both', 6));
    expect(stored).toMatchObject({ status: 'stored', durability: 'fsync' });
    await first.role.kill();
    await serverProcess({ port, dataDir });
    for (let n = 7; n <= 9; n++) sender.sendMessage(BroadcastMessage.createChannelMessage('both', n));
    open();
    expect(await inbox.reached(9)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  it('loses nothing and repeats nothing in a living receiver when the server is killed again and again', async () => {
    const dataDir = join(await temporaryFolder(), 'data');
    const first = await serverProcess({ port: 0, dataDir });
    const { port } = first;
    let { role } = first;
    const inbox = new Inbox<number>();
    const receiver = newClient(port, 'receiver');
    receiver.onMessage('room', message => inbox.push(message.data as number));
    await receiver.connect();
    const sender = await connectedClient(port, 'sender');
    let n = 0;
    for (let round = 0; round < 5; round++) {
      for (let i = 0; i < 2000; i++) sender.sendMessage(BroadcastMessage.createChannelMessage('room', n++));
      await inbox.reached(round * 2000 + 500);
      await role.kill();
      ({ role } = await serverProcess({ port, dataDir }));
    }
    expect(await inbox.reached(10_000)).toEqual(Array.from({ length: 10_000 }, (_, i) => i));
    await sender.flush();
    expect(inbox.items).toHaveLength(10_000);
  });

  it('does not take prefetched innocents with a poison job that kills its process', async () => {
    const { port, server } = await startServer('memory');
    const sender = await connectedClient(port, 'sender');
    const failures = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failures.push);
    for (const data of ['poison', 'a', 'b', 'c'])
      sender.sendMessage(BroadcastMessage.createClientMessage('worker', data));
    await sender.flush();
    const options = { name: 'worker', die: 'poison', config: { port, maxAttempts: 3 } };
    for (let attempt = 1; attempt <= 3; attempt++) {
      const worker = new Role('worker', options);
      expect(await worker.saw('got')).toMatchObject({ data: 'poison', attempt });
    }
    const survivor = new Role('worker', options);
    for (const [i, data] of ['a', 'b', 'c'].entries())
      expect(await survivor.saw('got', i + 1)).toMatchObject({ data, attempt: 1 });
    const letters = await server.deadLetters('worker').list();
    expect(letters.map(letter => letter.message.data)).toEqual(['poison']);
    expect(failures.items.filter(failure => failure.final)).toMatchObject([{ reason: 'rejected', attempts: 3 }]);
  });

  it('does not charge what has succeeded with a poison job of the same turn that kills its process again and again', async () => {
    const { port, server } = await startServer('memory');
    const sender = await connectedClient(port, 'sender');
    for (const data of ['a', 'b', 'poison', 'c'])
      sender.sendMessage(BroadcastMessage.createClientMessage('worker', data));
    await sender.flush();
    const options = { name: 'worker', die: 'poison', config: { port, maxAttempts: 3 } };
    // The first process dies before it could say that `a` and `b` have ended: one charge for `a`, which came first.
    const attempts: unknown[] = [];
    for (const handled of [3, 3, 1, 1]) {
      const seen = await new Role('worker', options).messages.reached(handled);
      attempts.push(seen.map(({ data, attempt }) => [data, attempt]));
    }
    const survivor = new Role('worker', options);
    expect(await survivor.saw('got')).toMatchObject({ data: 'c', attempt: 1 });
    expect(attempts).toEqual([
      [
        ['a', 1],
        ['b', 1],
        ['poison', 1],
      ],
      [
        ['a', 2],
        ['b', 1],
        ['poison', 1],
      ],
      [['poison', 2]],
      [['poison', 3]],
    ]);
    expect(await server.deadLetters('worker').list()).toMatchObject([{ message: { data: 'poison' }, attempts: 3 }]);
  });

  it('a flapping instance under a shared name misses nothing', async () => {
    const { port } = await startServer('memory');
    const sender = await connectedClient(port, 'sender');
    const inboxes = [new Inbox<number>(), new Inbox<number>()];
    const relay = await startProxy(port);
    const clients = inboxes.map((inbox, i) => {
      const client = newClient(i === 0 ? port : relay.port, 'shared');
      client.onMessage('room', message => inbox.push(message.data as number));
      return client;
    });
    for (const client of clients) await client.connect();
    for (let n = 0; n < 3000; n++) {
      sender.sendMessage(BroadcastMessage.createChannelMessage('room', n));
      if (n % 1000 !== 500) continue;
      await sender.flush();
      relay.cut();
    }
    for (const inbox of inboxes) expect(await inbox.reached(3000)).toEqual(Array.from({ length: 3000 }, (_, i) => i));
  });

  it('keeps a final notice for a sender that is away, across a restart', async () => {
    const dataDir = join(await temporaryFolder(), 'data');
    const first = await startServer('disk', { dataDir });
    const sender = newClient(first.port, 'sender');
    await sender.connect();
    const receipt = await sender.sendMessage(BroadcastMessage.createClientMessage('away', 1));
    expect(receipt.status).toBe('stored');
    await sender.close();
    await first.server.forget('away');
    await first.server.stop();
    const second = await startServer('disk', { dataDir });
    const failures = new Inbox<DeliveryFailure>();
    const again = newClient(second.port, 'sender');
    again.onDeliveryFailure(failures.push);
    await again.connect();
    expect((await failures.reached(1))[0]).toMatchObject({ messageId: receipt.id, reason: 'dropped', final: true });
    await again.flush();
    await again.close();
    const third = newClient(second.port, 'sender');
    third.onDeliveryFailure(failures.push);
    await third.connect();
    await third.flush();
    expect(failures.items).toHaveLength(1);
  });

  it('a full outbox is never silent', async () => {
    const { port } = await startServer('memory');
    const client = newClient(port, 'sender', { limits: { outboxMessages: 3 } });
    const failures = new Inbox<DeliveryFailure>();
    client.onDeliveryFailure(failures.push);
    const receipts = [1, 2, 3, 4].map(n => client.sendMessage(BroadcastMessage.createClientMessage('x', n)));
    expect(client.outbox.full).toBe(true);
    await expect(receipts[3]).rejects.toMatchObject({ code: 'outbox-full', retryable: true });
    expect(failures.items).toMatchObject([{ reason: 'outbox-full', final: true }]);
    const ready = client.ready();
    await client.connect();
    await ready;
    expect(client.outbox.full).toBe(false);
    expect((await receipts[0])?.status).toBe('stored');
  });

  it('remembers until:delivered across a restart of the server', async () => {
    const dataDir = join(await temporaryFolder(), 'data');
    const { role, port } = await serverProcess({ port: 0, dataDir });
    const sender = await connectedClient(port, 'sender');
    const receipt = sender.sendMessage(BroadcastMessage.createClientMessage('later', 1), { until: 'delivered' });
    await sender.sendMessage(BroadcastMessage.createClientMessage('later', 2));
    await role.kill();
    await serverProcess({ port, dataDir });
    const later = newClient(port, 'later');
    later.onMessage(() => undefined);
    await later.connect();
    expect((await receipt).status).toBe('delivered');
  });
});
