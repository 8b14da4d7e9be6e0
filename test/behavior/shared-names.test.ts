/** Several processes under one name share its work, and take over from each other. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { BroadcastMessage } from '../../src/index.js';
import { TestClock } from '../../src/testing/index.js';
import { machineIdentity } from '../../src/process-identity.js';
import { FRAME } from '../../src/protocol/constants.js';
import { startProxy } from '../helpers/proxy.js';
import { RawPeer } from '../helpers/raw-peer.js';
import {
  connectedClient,
  departures,
  gate,
  Inbox,
  newClient,
  Role,
  startServer,
  temporaryFolder,
} from '../helpers/scene.js';

describe.each(['memory', 'disk'] as const)('shared names on the %s engine', kind => {
  it('handles a redelivery that arrives behind a higher position', async () => {
    const { port } = await startServer(kind);
    const sender = await connectedClient(port, 'sender');
    const doomed = new Role('worker', { name: 'workers', hang: 1, config: { port } });
    await doomed.saw('connected');
    await sender.sendMessage(BroadcastMessage.createClientMessage('workers', 1));
    await doomed.saw('got');
    const inbox = new Inbox<[unknown, boolean]>();
    const survivor = newClient(port, 'workers');
    survivor.onMessage((message, info) => inbox.push([message.data, info.redelivered]));
    await survivor.connect();
    for (const n of [2, 3]) await sender.sendMessage(BroadcastMessage.createClientMessage('workers', n));
    expect(await inbox.reached(2)).toEqual([
      [2, false],
      [3, false],
    ]);
    await doomed.kill();
    expect((await inbox.reached(3))[2]).toEqual([1, true]);
  });

  it.each([
    { where: 'a process that runs on this machine', host: machineIdentity(), attempt: 1 },
    { where: 'a process on another machine, which may be dead', host: 'elsewhere', attempt: 2 },
  ])('after instanceGrace, gives what $where had with attempt $attempt', async ({ host, attempt }) => {
    const clock = new TestClock();
    const { port, server } = await startServer(kind, { clock, instanceGrace: 1000 });
    const sender = await connectedClient(port, 'sender');
    const lost = await RawPeer.open(port, { name: 'workers', host, pid: process.pid });
    await lost.subscribe('', 5);
    const receipt = sender.sendMessage(BroadcastMessage.createClientMessage('workers', 'job'), { until: 'delivered' });
    await lost.next(FRAME.MESSAGES);
    const gone = departures(server);
    lost.socket.destroy();
    await gone.reached(1);
    clock.tick(1000);
    const inbox = new Inbox();
    const other = newClient(port, 'workers');
    other.onMessage((message, info) => inbox.push([message.data, info.attempt]));
    await other.connect();
    expect(await inbox.reached(1)).toEqual([['job', attempt]]);
    expect((await receipt).status).toBe('delivered');
  });

  it('gives the share of an instance that is unreachable to another one after deadAfter', async () => {
    const clock = new TestClock();
    const { port, server } = await startServer(kind, { clock, pingInterval: 1000, deadAfter: 2500 });
    const sender = await connectedClient(port, 'sender');
    const relay = await startProxy(port);
    const { promise, open } = gate();
    const lost = newClient(relay.port, 'workers', { reconnectInterval: 60_000 });
    const started = new Inbox();
    lost.onMessage(async message => {
      started.push(message.data);
      await promise;
    });
    await lost.connect();
    const receipt = sender.sendMessage(BroadcastMessage.createClientMessage('workers', 'job'), { until: 'delivered' });
    await started.reached(1);
    const inbox = new Inbox();
    const other = newClient(port, 'workers');
    other.onMessage((message, info) => inbox.push([message.data, info.redelivered]));
    await other.connect();
    const gone = departures(server);
    relay.isRefusing = true;
    relay.cut();
    await gone.reached(1);
    clock.tick(2400);
    await other.flush();
    expect(inbox.items).toEqual([]);
    clock.tick(200);
    expect(await inbox.reached(1)).toEqual([['job', true]]);
    expect((await receipt).status).toBe('delivered');
    open();
  });

  it('marks what an instance has, and gets, that was silent for deadAfter: others may have had it meanwhile', async () => {
    const { port } = await startServer(kind, { deadAfter: 25_000 });
    const sender = await connectedClient(port, 'sender');
    const clock = new TestClock();
    const { promise, open } = gate();
    const inbox = new Inbox<[unknown, boolean]>();
    // It says nothing by itself, as a process does that is stopped.
    const silent = newClient(port, 'workers', { clock, pingInterval: 500_000, deadAfter: 1_000_000 });
    silent.onMessage(async (message, info) => {
      inbox.push([message.data, info.redelivered]);
      if (message.data === 1) await promise;
    });
    await silent.connect();
    const send = (n: number): Promise<unknown> =>
      sender.sendMessage(BroadcastMessage.createClientMessage('workers', n), { until: 'delivered' });
    const sent = [send(1), send(2)];
    await inbox.reached(1);
    await silent.flush();
    clock.tick(25_000);
    open();
    expect((await inbox.reached(2))[1]).toEqual([2, true]);
    await Promise.all([...sent, send(3)]);
    expect(inbox.items[2]).toEqual([3, true]);
    // It has spoken again for as long, and would have heard that it was given up.
    for (let i = 0; i < 2; i++) {
      clock.tick(12_500);
      await silent.flush();
    }
    await send(4);
    expect(inbox.items).toEqual([
      [1, false],
      [2, true],
      [3, true],
      [4, false],
    ]);
  });

  it.each(['one after another', 'in one go'])(
    'marks what an instance handles %s that has not been connected for deadAfter',
    async how => {
      const { port } = await startServer(kind, { deadAfter: 25_000 });
      const sender = await connectedClient(port, 'sender');
      const relay = await startProxy(port);
      const clock = new TestClock();
      const { promise, open } = gate();
      const inbox = new Inbox<[unknown, boolean]>();
      const lost = newClient(relay.port, 'workers', { clock });
      lost.onMessage((message, info) => {
        inbox.push([message.data, info.redelivered]);
        if (message.data === 1) return promise;
        return how === 'in one go' ? undefined : Promise.resolve();
      });
      await lost.connect();
      for (let n = 1; n <= 3; n++)
        void sender.sendMessage(BroadcastMessage.createClientMessage('workers', n)).catch(() => undefined);
      await inbox.reached(1);
      await sender.flush();
      await lost.flush();
      const gone = new Promise(resolve => lost.once('offline', resolve));
      relay.isRefusing = true;
      relay.cut();
      await gone;
      clock.tick(25_000);
      open();
      expect(await inbox.reached(3)).toEqual([
        [1, false],
        [2, true],
        [3, true],
      ]);
    },
  );

  it('marks what is left when one handler holds up the process for deadAfter, and a retry after as long', async () => {
    const { port } = await startServer(kind, { clock: new TestClock(), pingInterval: 100, deadAfter: 200 });
    const sender = await connectedClient(port, 'sender');
    const clock = new TestClock();
    const seen: [unknown, number, boolean][] = [];
    const inbox = new Inbox();
    const blocked = newClient(port, 'workers', { clock, pingInterval: 500_000, deadAfter: 1_000_000 });
    blocked.onMessage(({ data }, { attempt, redelivered }) => {
      seen.push([data, attempt, redelivered]);
      inbox.push(data);
      if (data === 1) clock.tick(200);
      if (data === 20 && attempt === 1) throw new Error('once');
    });
    await blocked.connect();
    const send = (n: number): Promise<unknown> =>
      sender.sendMessage(BroadcastMessage.createClientMessage('workers', n), { until: 'delivered' });
    await Promise.all(Array.from({ length: 19 }, (_, i) => send(i + 1)));
    expect(seen[0]).toEqual([1, 1, false]);
    expect(seen.slice(8).every(([, , isMarked]) => isMarked)).toBe(true);
    // As much time again, in which it speaks: then it is not in doubt any longer.
    for (let i = 0; i < 4; i++) {
      clock.tick(100);
      await blocked.flush();
    }
    const last = send(20);
    await inbox.reached(20);
    await blocked.flush();
    clock.tick(10_000);
    await last;
    expect(seen.slice(19)).toEqual([
      [20, 1, false],
      [20, 2, true],
    ]);
  });

  it('keeps the channel messages of a lost instance for it, then gives to the name what no other instance has handled', async () => {
    const clock = new TestClock();
    const { port, server } = await startServer(kind, { clock });
    const sender = await connectedClient(port, 'sender');
    const relay = await startProxy(port);
    const stays = newClient(port, 'shared');
    const inbox = new Inbox();
    stays.onMessage('both', message => inbox.push(message.data));
    await stays.connect();
    const goes = newClient(relay.port, 'shared', { reconnectInterval: 60_000 });
    goes.onMessage('both', () => undefined);
    goes.onMessage('only here', () => undefined);
    await goes.connect();
    const gone = departures(server);
    relay.isRefusing = true;
    relay.cut();
    await gone.reached(1);
    const both = await sender.sendMessage(BroadcastMessage.createChannelMessage('both', 1));
    expect(both).toMatchObject({ status: 'stored', failures: [{ reason: 'offline', queued: true }] });
    expect(await inbox.reached(1)).toEqual([1]);
    await sender.sendMessage(BroadcastMessage.createChannelMessage('only here', 2));
    stays.onMessage('only here', message => inbox.push(message.data));
    await stays.flush();
    expect(inbox.items).toEqual([1]);
    clock.tick(31_000);
    expect(await inbox.reached(2)).toEqual([1, 2]);
    const [session] = (await server.sessions()).filter(({ name }) => name === 'shared');
    await stays.flush();
    expect(session).toMatchObject({ instances: 1 });
    expect((await server.sessions()).find(({ name }) => name === 'shared')).toMatchObject({ queued: 0 });
  });

  it('lets an instance come back for its own within the grace, in order and once', async () => {
    const { port } = await startServer(kind);
    const sender = await connectedClient(port, 'sender');
    const relay = await startProxy(port);
    const inbox = new Inbox();
    const client = newClient(relay.port, 'reader');
    client.onMessage('room', message => inbox.push(message.data));
    await client.connect();
    for (let n = 0; n < 500; n++) {
      sender.sendMessage(BroadcastMessage.createChannelMessage('room', n));
      if (n % 100 === 50) relay.cut();
    }
    expect(await inbox.reached(500)).toEqual(Array.from({ length: 500 }, (_, i) => i));
    await sender.flush();
    await client.flush();
    expect(inbox.items).toHaveLength(500);
  });

  it('keeps waiting what an instance sent to its own channel, for another instance or name', async () => {
    const { port } = await startServer(kind);
    const client = await connectedClient(port, 'me');
    const own = new Inbox();
    expect((await client.sendMessage(BroadcastMessage.createChannelMessage('room', 1))).status).toBe('stored');
    client.onMessage('room', message => own.push(message.data));
    const sender = await connectedClient(port, 'sender');
    await client.flush();
    await sender.sendMessage(BroadcastMessage.createChannelMessage('room', 2));
    expect(await own.reached(1)).toEqual([2]);
    const others = new Inbox();
    const other = newClient(port, 'other');
    other.onMessage('room', message => others.push(message.data));
    await other.connect();
    expect(await others.reached(1)).toEqual([1]);
    expect(own.items).toEqual([2]);
  });
});

describe('shared names after the server was killed', () => {
  it('keeps the messages of a channel for each instance until it is back', async () => {
    const dataDir = join(await temporaryFolder(), 'data');
    const start = async (port: number): Promise<{ role: Role; port: number }> => {
      const role = new Role('server', { port, dataDir });
      return { role, port: (await role.saw('listening'))['port'] as number };
    };
    const first = await start(0);
    const { port } = first;
    const relay = await startProxy(port);
    const inboxes = [new Inbox(), new Inbox()];
    for (const [i, inbox] of inboxes.entries()) {
      const client = newClient(i === 0 ? port : relay.port, 'shared');
      client.onMessage('room', message => inbox.push(message.data));
      await client.connect();
    }
    const sender = await connectedClient(port, 'sender');
    relay.isRefusing = true;
    await first.role.kill();
    await start(port);
    await sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1));
    expect(await inboxes[0]?.reached(1)).toEqual([1]);
    relay.isRefusing = false;
    expect(await inboxes[1]?.reached(1)).toEqual([1]);
  });
});
