/** Promises that break only when several things happen one after another; found by the sequences of test/faults/model. */
import { describe, expect, it } from 'vitest';
import { BroadcastMessage, type DeliveryFailure } from '../../src/index.js';
import { startProxy } from '../helpers/proxy.js';
import { connectedClient, departures, gate, Inbox, newClient, startServer, temporaryFolder } from '../helpers/scene.js';

describe.each(['memory', 'disk'] as const)('sequences on the %s engine', kind => {
  it('a session that is forgotten ends with what is on its way to it, and the senders hear of it', async () => {
    const { port, server } = await startServer(kind, { storeAfter: 60_000 });
    const { promise, open } = gate();
    const started = new Inbox();
    const reader = newClient(port, 'reader');
    const hang = (message: BroadcastMessage): Promise<void> => {
      started.push(message.data);
      return promise;
    };
    reader.onMessage('room', hang);
    reader.onMessage(hang);
    await reader.connect();
    const sender = await connectedClient(port, 'sender');
    const failures = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failures.push);
    sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1));
    sender.sendMessage(BroadcastMessage.createClientMessage('reader', 2));
    await started.reached(2);
    await server.forget('reader');
    const told = (await failures.reached(2)).map(({ target, reason, attempts }) => [target.channel, reason, attempts]);
    expect(told).toEqual(
      expect.arrayContaining([
        ['room', 'dropped', 1],
        [undefined, 'dropped', 1],
      ]),
    );
    open();
    await reader.flush();
    expect((await server.sessions()).find(({ name }) => name === 'reader')).toMatchObject({ queued: 0 });
  });

  it('what may have been handled is never told as if it had not been handed over', async () => {
    const { port, server } = await startServer(kind);
    const relay = await startProxy(port);
    const inbox = new Inbox();
    const reader = newClient(relay.port, 'reader', { reconnectInterval: 60_000 });
    reader.onMessage('room', message => inbox.push(message.data));
    await reader.connect();
    const sender = await connectedClient(port, 'sender');
    const failures = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failure => failure.final && failures.push(failure));
    const gone = departures(server);
    relay.drop('up');
    sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1));
    await inbox.reached(1);
    relay.isRefusing = true;
    relay.cut();
    await gone.reached(1);
    await server.forget('reader');
    expect(await failures.reached(1)).toMatchObject([{ reason: 'dropped', attempts: 1 }]);
  });
});

it('an instance that handles a channel alone among its name gets what another one sends before it is back', async () => {
  const dataDir = await temporaryFolder();
  const { port, server } = await startServer('disk', { dataDir });
  const relay = await startProxy(port);
  const quiet = await connectedClient(port, 'shared');
  const inbox = new Inbox();
  const reader = newClient(relay.port, 'shared');
  reader.onMessage('room', message => inbox.push(message.data));
  await reader.connect();
  relay.isRefusing = true;
  await server.stop();
  relay.cut();
  await startServer('disk', { dataDir, port });
  expect((await quiet.sendMessage(BroadcastMessage.createChannelMessage('room', 1))).status).toBe('stored');
  relay.isRefusing = false;
  expect(await inbox.reached(1)).toEqual([1]);
});

it.each([
  { since: 'which was one of them', isOne: true },
  { since: 'which came when they had left', isOne: false },
])(
  'of a name that had two instances the last one ($since) gets what is sent before it is back, though a new one came first',
  async ({ isOne }) => {
    const dataDir = await temporaryFolder();
    const { port, server } = await startServer('disk', { dataDir });
    const relay = await startProxy(port);
    const take = async (at: number): Promise<{ inbox: Inbox; close: () => Promise<void> }> => {
      const inbox = new Inbox();
      const client = newClient(at, 'shared');
      client.onMessage('room', message => inbox.push(message.data));
      await client.connect();
      return { inbox, close: () => client.close() };
    };
    const gone = departures(server);
    const before = [await take(port), ...(isOne ? [] : [await take(port)])];
    const early = isOne ? await take(relay.port) : undefined;
    for (const { close } of before) await close();
    await gone.reached(before.length);
    const { inbox } = early ?? (await take(relay.port));
    relay.isRefusing = true;
    await server.stop();
    relay.cut();
    await startServer('disk', { dataDir, port });
    const next = await take(port);
    const sender = await connectedClient(port, 'sender');
    expect((await sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1))).status).toBe('stored');
    expect(await next.inbox.reached(1)).toEqual([1]);
    relay.isRefusing = false;
    expect(await inbox.reached(1)).toEqual([1]);
  },
);

it('a message that one recipient had before a restart is not undelivered when the other one is dropped after it', async () => {
  const dataDir = await temporaryFolder();
  const { port, server } = await startServer('disk', { dataDir });
  const inbox = new Inbox();
  const present = newClient(port, 'present');
  present.onMessage(message => inbox.push(message.data));
  await present.connect();
  const sender = await connectedClient(port, 'sender');
  const message = BroadcastMessage.createGroupMessage(['present', 'away'], 1);
  const receipt = sender.sendMessage(message, { until: 'delivered' });
  await inbox.reached(1);
  await present.flush();
  await server.stop();
  const { server: next } = await startServer('disk', { dataDir, port });
  await sender.flush();
  await next.forget('away');
  expect(await receipt).toMatchObject({ status: 'delivered' });
});
