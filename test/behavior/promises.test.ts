/** Promises of docs/guarantees.md that no other file proves: time, generated names, order of handlers, the death of a process, forgetting. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { memoryEngine } from '../../src/engine/index.js';
import { BroadcastMessage, type DeliveryFailure } from '../../src/index.js';
import { TestClock } from '../../src/testing/index.js';
import { startProxy } from '../helpers/proxy.js';
import { connectedClient, gate, Inbox, newClient, Role, startServer, temporaryFolder } from '../helpers/scene.js';

const DAY = 24 * 60 * 60 * 1000;

describe.each(['memory', 'disk'] as const)('time on the %s engine', kind => {
  it('never delivers what has expired, and tells the sender', async () => {
    const clock = new TestClock();
    const { port } = await startServer(kind, { clock, deadAfter: 20 * DAY });
    const sender = await connectedClient(port, 'sender');
    const failures = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failure => failure.final && failures.push(failure));
    const send = (data: number, ttl?: number) =>
      sender.sendMessage(BroadcastMessage.createClientMessage('away', data, ttl === undefined ? {} : { ttl }));
    await Promise.all([send(2, 60_000), send(1), send(4, 60_000), send(3, 120_000)]);
    clock.tick(60_001);
    const expired = { target: { client: 'away' }, reason: 'expired', attempts: 0 };
    expect(await failures.reached(2)).toMatchObject([expired, expired]);
    const inbox = new Inbox();
    const away = newClient(port, 'away');
    away.onMessage(message => inbox.push(message.data));
    await away.connect();
    expect(await inbox.reached(2)).toEqual([1, 3]);
  });

  it('a jump of the wall clock expires nothing', async () => {
    const clock = new TestClock();
    const { port } = await startServer(kind, { clock, deadAfter: 20 * DAY });
    const sender = await connectedClient(port, 'sender');
    await sender.sendMessage(BroadcastMessage.createClientMessage('away', 1, { ttl: 60_000 }));
    clock.jump(DAY);
    clock.tick(1000);
    clock.jump(-2 * DAY);
    clock.tick(1000);
    const inbox = new Inbox();
    const away = newClient(port, 'away');
    away.onMessage(message => inbox.push(message.data));
    await away.connect();
    expect(await inbox.reached(1)).toEqual([1]);
  });
});

describe('a generated name', () => {
  it('ends its session when its client closes', async () => {
    const { port, server } = await startServer('memory');
    const client = newClient(port);
    client.onMessage('room', () => undefined);
    await client.connect();
    expect((await server.sessions()).map(session => session.name)).toEqual([client.name]);
    const left = new Promise(resolve => server.on('disconnect', resolve));
    await Promise.all([client.close(), left]);
    expect(await server.sessions()).toEqual([]);
    expect(server.channels).toEqual([]);
  });

  /** A client without a name that has got the three messages of a backlog and is at the first. */
  async function firstSubscriber(port: number) {
    const sender = await connectedClient(port, 'sender');
    for (const n of [1, 2, 3]) await sender.sendMessage(BroadcastMessage.createChannelMessage('room', n));
    const { promise, open } = gate();
    const started = new Inbox();
    const client = newClient(port);
    client.onMessage('room', message => {
      started.push(message.data);
      return promise;
    });
    await client.connect();
    await started.reached(1);
    const leave = async (): Promise<void> => {
      const closed = client.close();
      open();
      await closed;
    };
    return { sender, client, leave };
  }

  /** What it gets but for the first message, which may come again when its server was stopped while it was handled. */
  async function subscriber(port: number, name: string): Promise<Inbox> {
    const inbox = new Inbox();
    const client = newClient(port, name);
    client.onMessage('room', ({ data }) => {
      if (data !== 1) inbox.push(data);
    });
    await client.connect();
    return inbox;
  }

  it('gives what it had of a backlog and did not handle back to the backlog, also after a restart', async () => {
    const dataDir = join(await temporaryFolder(), 'data');
    const first = await startServer('disk', { dataDir });
    const { port } = first;
    const { client, leave } = await firstSubscriber(port);
    const back = new Promise<void>(resolve => client.on('online', resolve));
    await first.server.stop();
    const { server } = await startServer('disk', { dataDir, port });
    await back;
    const gone = new Promise(resolve => server.on('disconnect', resolve));
    await Promise.all([leave(), gone]);
    expect((await server.sessions()).map(({ name }) => name)).not.toContain(client.name);
    expect(await (await subscriber(port, 'next')).reached(2)).toEqual([2, 3]);
  });

  it('leaves a mark on what it had been given', async () => {
    const { port, server } = await startServer('memory');
    const { leave } = await firstSubscriber(port);
    const gone = new Promise(resolve => server.on('disconnect', resolve));
    await Promise.all([leave(), gone]);
    const inbox = new Inbox();
    const next = newClient(port, 'next');
    next.onMessage('room', ({ data }, { redelivered }) => inbox.push([data, redelivered]));
    await next.connect();
    expect(await inbox.reached(2)).toEqual([
      [2, true],
      [3, true],
    ]);
  });

  it('leaves it to another generated name, which gives back what it does not handle either', async () => {
    const { port, server } = await startServer('memory');
    const { sender, leave } = await firstSubscriber(port);
    const finals: DeliveryFailure[] = [];
    sender.onDeliveryFailure(failure => failure.final && finals.push(failure));
    const { promise, open } = gate();
    const started = new Inbox();
    const second = newClient(port);
    second.onMessage('room', ({ data }) => {
      started.push(data);
      return promise;
    });
    await second.connect();
    await leave();
    expect(await started.reached(1)).toEqual([2]);
    const gone = new Promise(resolve => server.on('disconnect', resolve));
    const closed = second.close();
    open();
    await Promise.all([closed, gone]);
    expect(await (await subscriber(port, 'next')).reached(1)).toEqual([3]);
    await sender.flush();
    expect(finals).toEqual([]);
  });

  it('leaves it to another subscriber than the one that sent it, whichever was there first', async () => {
    const { port } = await startServer('memory');
    const { sender, leave } = await firstSubscriber(port);
    const own = new Inbox();
    sender.onMessage('room', ({ data }) => own.push(data));
    await sender.flush();
    const inbox = await subscriber(port, 'other');
    await leave();
    expect(await inbox.reached(2)).toEqual([2, 3]);
    expect(own.items).toEqual([]);
  });

  it('leaves it to another subscriber, and not what that one had itself', async () => {
    const { port } = await startServer('memory');
    const { sender, leave } = await firstSubscriber(port);
    const inbox = await subscriber(port, 'other');
    const last = sender.sendMessage(BroadcastMessage.createChannelMessage('room', 4));
    expect(await inbox.reached(1)).toEqual([4]);
    await leave();
    expect(await inbox.reached(3)).toEqual([4, 2, 3]);
    expect((await last).failures).toEqual([]);
    await sender.sendMessage(BroadcastMessage.createChannelMessage('room', 5));
    expect(await inbox.reached(4)).toEqual([4, 2, 3, 5]);
  });
});

describe('handlers', () => {
  it('start in order, the next when the one before has ended; subscriptions do not wait for each other', async () => {
    const { port } = await startServer('memory');
    const events: string[] = [];
    const blocked = gate();
    const done = new Inbox();
    const client = newClient(port, 'client');
    client.onMessage('slow', async ({ data }) => {
      events.push(`start ${String(data)}`);
      if (data === 1) await blocked.promise;
      events.push(`end ${String(data)}`);
      done.push(data);
    });
    const quick = new Inbox();
    client.onMessage('quick', ({ data }) => quick.push(data));
    await client.connect();
    const sender = await connectedClient(port, 'sender');
    for (const n of [1, 2]) sender.sendMessage(BroadcastMessage.createChannelMessage('slow', n));
    for (const n of [1, 2]) sender.sendMessage(BroadcastMessage.createChannelMessage('quick', n));
    expect(await quick.reached(2)).toEqual([1, 2]);
    expect(events).toEqual(['start 1']);
    blocked.open();
    await done.reached(2);
    expect(events).toEqual(['start 1', 'end 1', 'start 2', 'end 2']);
  });

  it('run as many at a time as concurrency says', async () => {
    const { port } = await startServer('memory');
    const started = new Inbox();
    const blocked = gate();
    const ended = new Inbox();
    const client = newClient(port, 'client');
    client.onMessage(
      'room',
      async ({ data }) => {
        started.push(data);
        await blocked.promise;
        ended.push(data);
      },
      { concurrency: 3 },
    );
    await client.connect();
    const sender = await connectedClient(port, 'sender');
    for (let n = 1; n <= 5; n++) sender.sendMessage(BroadcastMessage.createChannelMessage('room', n));
    await started.reached(3);
    await client.flush();
    expect(started.items).toEqual([1, 2, 3]);
    blocked.open();
    expect((await ended.reached(5)).sort()).toEqual([1, 2, 3, 4, 5]);
  });
});

describe('the death of a process', () => {
  it('hands its message to another process of the name, marked as redelivered', async () => {
    const { port } = await startServer('memory');
    const first = new Role('worker', { name: 'pool', hang: 'job', config: { port } });
    await first.saw('connected');
    const sender = await connectedClient(port, 'sender');
    const receipt = sender.sendMessage(BroadcastMessage.createClientMessage('pool', 'job'), { until: 'delivered' });
    expect(await first.saw('got')).toMatchObject({ attempt: 1, redelivered: false });
    const second = new Inbox<[number, boolean]>();
    const other = newClient(port, 'pool');
    other.onMessage((_message, { attempt, redelivered }) => second.push([attempt, redelivered]));
    await other.connect();
    await first.kill();
    expect(await second.reached(1)).toEqual([[2, true]]);
    expect((await receipt).status).toBe('delivered');
  });

  it('gives what it had of a channel to the next process of its name, in order', async () => {
    const { port } = await startServer('memory');
    const first = new Role('worker', { name: 'reader', channel: 'room', hang: 1, config: { port } });
    await first.saw('connected');
    const sender = await connectedClient(port, 'sender');
    for (let n = 1; n <= 5; n++) sender.sendMessage(BroadcastMessage.createChannelMessage('room', n));
    await first.saw('got');
    await first.kill();
    await sender.flush();
    const inbox = new Inbox();
    const next = newClient(port, 'reader');
    next.onMessage('room', ({ data }, { redelivered }) => inbox.push([data, redelivered]));
    await next.connect();
    expect(await inbox.reached(5)).toEqual([1, 2, 3, 4, 5].map(n => [n, true]));
  });
});

describe('the death of the server', () => {
  it('leaves a mark on what a lost instance may have handled before, when another one gets it', async () => {
    const dataDir = join(await temporaryFolder(), 'data');
    const first = new Role('server', { port: 0, dataDir, instanceGrace: 100 });
    const port = (await first.saw('listening'))['port'] as number;
    const proxy = await startProxy(port);
    const started = new Inbox();
    const { promise, open } = gate();
    const reader = newClient(proxy.port, 'reader');
    reader.onMessage('room', ({ data }) => {
      started.push(data);
      return promise;
    });
    await reader.connect();
    const sender = await connectedClient(port, 'sender');
    expect((await sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1))).status).toBe('stored');
    await started.reached(1);
    proxy.isRefusing = true; // the instance lives, and does not find back
    await first.kill();
    await new Role('server', { port, dataDir, instanceGrace: 100 }).saw('listening');
    const inbox = new Inbox();
    const next = newClient(port, 'reader');
    next.onMessage('room', ({ data }, { redelivered }) => inbox.push([data, redelivered]));
    await next.connect();
    expect(await inbox.reached(1)).toEqual([[1, true]]);
    open();
  });
});

describe('what waits when the server ends', () => {
  const send = (n: number) => BroadcastMessage.createClientMessage('pool', n);

  it('is marked whole if somebody was there to handle it: several windows of it may have been', async () => {
    const dataDir = join(await temporaryFolder(), 'data');
    const config = { port: 0, dataDir, limits: { windowMessages: 2 } };
    const first = new Role('server', config);
    const port = (await first.saw('listening'))['port'] as number;
    const proxy = await startProxy(port);
    const sender = await connectedClient(port, 'sender');
    for (let n = 1; n <= 5; n++) await sender.sendMessage(send(n));
    const { promise, open } = gate();
    const started = new Inbox();
    for (let i = 0; i < 2; i++) {
      const one = newClient(proxy.port, 'pool');
      one.onMessage(
        ({ data }) => {
          started.push(data);
          return promise;
        },
        { concurrency: 2 },
      );
      await one.connect();
    }
    expect((await started.reached(4)).sort()).toEqual([1, 2, 3, 4]);
    proxy.isRefusing = true;
    await first.kill();
    await new Role('server', { ...config, port }).saw('listening');
    await sender.sendMessage(send(6));
    const inbox = new Inbox();
    const next = newClient(port, 'pool');
    next.onMessage(({ data }, { redelivered }) => inbox.push([data, redelivered]));
    await next.connect();
    expect(await inbox.reached(6)).toEqual([...[1, 2, 3, 4, 5].map(n => [n, true]), [6, false]]);
    open();
  });

  it('is marked only as far as it was there when somebody was', async () => {
    const dataDir = join(await temporaryFolder(), 'data');
    const first = await startServer('disk', { dataDir });
    const { port, server } = first;
    const { promise, open } = gate();
    const started = new Inbox();
    const reader = newClient(port, 'pool');
    reader.onMessage(({ data }) => {
      started.push(data);
      return promise;
    });
    await reader.connect();
    const sender = await connectedClient(port, 'sender');
    await Promise.all([1, 2, 3].map(n => sender.sendMessage(send(n))));
    await started.reached(1);
    const left = new Promise(resolve => server.on('disconnect', resolve));
    const closed = reader.close();
    open();
    await Promise.all([left, closed]);
    await sender.sendMessage(send(4));
    await server.stop();
    await startServer('disk', { dataDir, port });
    const inbox = new Inbox();
    const next = newClient(port, 'pool');
    next.onMessage(({ data }, { redelivered }) => inbox.push([data, redelivered]));
    await next.connect();
    expect(await inbox.reached(3)).toEqual([
      [2, true],
      [3, true],
      [4, false],
    ]);
  });

  it('is delivered although further instances keep coming', async () => {
    const engine = memoryEngine();
    const { port, server } = await startServer('memory', { engine });
    const sender = await connectedClient(port, 'sender');
    await sender.sendMessage(send(1));
    const commits = new Inbox<() => void>();
    engine.commit = () => new Promise(resolve => commits.push(resolve));
    const inbox = new Inbox();
    const reader = newClient(port, 'pool');
    reader.onMessage(({ data }) => inbox.push(data));
    void reader.connect();
    await commits.reached(1);
    const known = commits.items.length;
    const came = new Promise(resolve => server.on('connect', resolve));
    void newClient(port, 'pool').connect();
    await came;
    for (const resolve of commits.items.slice(0, known)) resolve();
    expect(await inbox.reached(1)).toEqual([1]);
    for (const resolve of commits.items) resolve();
  });

  it('is not marked when it came in a later run in which nobody was there', async () => {
    const dataDir = join(await temporaryFolder(), 'data');
    const first = await startServer('disk', { dataDir });
    const { port } = first;
    const proxy = await startProxy(port);
    const reader = newClient(proxy.port, 'pool');
    reader.onMessage(() => undefined);
    await reader.connect();
    proxy.isRefusing = true;
    await first.server.stop();
    const second = await startServer('disk', { dataDir, port });
    const sender = await connectedClient(port, 'sender');
    expect((await sender.sendMessage(send(1))).status).toBe('stored');
    await second.server.stop();
    await startServer('disk', { dataDir, port });
    const inbox = new Inbox();
    const next = newClient(port, 'pool');
    next.onMessage(({ data }, { redelivered }) => inbox.push([data, redelivered]));
    await next.connect();
    expect(await inbox.reached(1)).toEqual([[1, false]]);
  });

  it('is delivered only when it is durable that somebody is there', async () => {
    const engine = memoryEngine();
    const { port } = await startServer('memory', { engine });
    const sender = await connectedClient(port, 'sender');
    await sender.sendMessage(send(1));
    const { promise: durable, open } = gate();
    const { commit } = engine;
    engine.commit = () => durable.then(() => commit.call(engine));
    const inbox = new Inbox();
    const reader = newClient(port, 'pool');
    reader.onMessage(({ data }) => inbox.push(data));
    const online = reader.connect();
    while (
      (await sender.sendMessage(BroadcastMessage.createClientMessage('pool', 'now', { persistent: false }))).status !==
      'routed'
    );
    await inbox.reached(1);
    expect(inbox.items).toEqual(['now']);
    open();
    await online;
    expect(await inbox.reached(2)).toEqual(['now', 1]);
  });
});

describe('forget', () => {
  it('ends what waited when it was called, and nothing that is sent meanwhile', async () => {
    const engine = memoryEngine();
    const { port, server } = await startServer('memory', { engine });
    const sender = await connectedClient(port, 'sender');
    const reader = newClient(port, 'reader');
    reader.onMessage('room', () => undefined);
    await reader.connect();
    await reader.close();
    await sender.sendMessage(BroadcastMessage.createChannelMessage('room', 'old'));
    await sender.sendMessage(BroadcastMessage.createClientMessage('reader', 'old'));
    const finals = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failure => failure.final && finals.push(failure));
    const { promise, open } = gate();
    const { read } = engine;
    engine.read = async (...args) => {
      await promise;
      return read.apply(engine, args);
    };
    const forgotten = server.forget('reader');
    expect(await sender.sendMessage(BroadcastMessage.createClientMessage('reader', 'new'))).toMatchObject({
      status: 'stored',
    });
    open();
    await forgotten;
    const inbox = new Inbox();
    const again = newClient(port, 'reader');
    again.onMessage(({ data }) => inbox.push(data));
    await again.connect();
    expect(await inbox.reached(1)).toEqual(['new']);
    await sender.flush();
    expect(finals.items.map(({ reason }) => reason)).toEqual(['dropped', 'dropped']);
  });

  it('of a name that is here leaves the mark on what it may have handled when the server ends', async () => {
    const dataDir = join(await temporaryFolder(), 'data');
    const first = await startServer('disk', { dataDir });
    const proxy = await startProxy(first.port);
    const started = new Inbox();
    const { promise, open } = gate();
    const reader = newClient(proxy.port, 'reader');
    reader.onMessage(({ data }) => {
      started.push(data);
      return promise;
    });
    await reader.connect();
    await first.server.forget('reader');
    const sender = await connectedClient(first.port, 'sender');
    expect((await sender.sendMessage(BroadcastMessage.createClientMessage('reader', 1))).status).toBe('stored');
    await started.reached(1);
    proxy.isRefusing = true; // it lives, and does not find back
    await first.server.stop();
    const { port } = await startServer('disk', { dataDir });
    const inbox = new Inbox();
    const next = newClient(port, 'reader');
    next.onMessage(({ data }, { redelivered }) => inbox.push([data, redelivered]));
    await next.connect();
    expect(await inbox.reached(1)).toEqual([[1, true]]);
    open();
  });

  it('tells the senders of what waited before the server was started again, and nothing of it comes back', async () => {
    const dataDir = join(await temporaryFolder(), 'data');
    const first = await startServer('disk', { dataDir });
    const { port } = first;
    const sender = newClient(port, 'sender');
    const failures = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failure => failure.final && failures.push(failure));
    await sender.connect();
    await sender.sendMessage(BroadcastMessage.createClientMessage('gone', 1));
    await first.server.stop();
    const second = await startServer('disk', { dataDir, port });
    await sender.flush();
    await second.server.forget('gone');
    expect(await failures.reached(1)).toMatchObject([{ target: { client: 'gone' }, reason: 'dropped', final: true }]);
    await second.server.stop();
    const third = await startServer('disk', { dataDir, port });
    await sender.flush();
    expect((await third.server.sessions()).map(session => session.name)).toEqual(['sender']);
  });
});
