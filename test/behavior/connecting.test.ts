/** connect(), flush(), ready() and what they promise, with and without a server. */
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { BroadcastMessage, BroadcastTcpClient, type BroadcastClient } from '../../src/index.js';
import { TestClock } from '../../src/testing/index.js';
import { connectedClient, gate, Inbox, newClient, recordingLogger, startServer } from '../helpers/scene.js';

/** A server that ends every connection at once; counts them. */
async function startSlammer(): Promise<{ port: number; connections: Inbox<number> }> {
  const connections = new Inbox<number>();
  let count = 0;
  const server = createServer(socket => {
    connections.push(++count);
    socket.destroy();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  return { port: (server.address() as { port: number }).port, connections };
}

/** A server that takes connections and says nothing. */
async function startMute(): Promise<{ port: number; sockets: Inbox<Socket> }> {
  const sockets = new Inbox<Socket>();
  const server = createServer(socket => {
    socket.on('error', () => undefined);
    sockets.push(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.close();
    for (const socket of sockets.items) socket.destroy();
  });
  return { port: (server.address() as { port: number }).port, sockets };
}

/** A logger that tells every attempt that failed, whether it warns or not. */
function failureLogger(): { logger: ReturnType<typeof recordingLogger>; failures: Inbox } {
  const failures = new Inbox();
  const recording = recordingLogger();
  const logger: ReturnType<typeof recordingLogger> = {
    ...recording,
    debug: line => failures.push(line),
    warn: line => {
      recording.warn(line);
      failures.push(line);
    },
  };
  return { logger, failures };
}

const event = (client: BroadcastClient, name: 'online' | 'offline' | 'refused' | 'drain'): Promise<unknown> =>
  new Promise(resolve => client.once(name, (...args: unknown[]) => resolve(args[0])));

describe('connect', () => {
  it('is fulfilled once every earlier subscription is in force', async () => {
    const { port, server } = await startServer('memory');
    const client = newClient(port, 'reader');
    for (const channel of ['a', 'b', 'c']) client.onMessage(channel, () => undefined);
    await client.connect();
    expect(client.state).toBe('online');
    expect([...client.subscriptions].sort()).toEqual(['a', 'b', 'c']);
    expect([...server.channels].sort()).toEqual(['a', 'b', 'c']);
  });

  it('says the same again of subscriptions that came later', async () => {
    const { port, server } = await startServer('memory');
    const client = await connectedClient(port, 'reader');
    client.onMessage('later', () => undefined);
    await client.connect();
    expect(server.channels).toEqual(['later']);
  });

  it('waits for a server that is not there yet, and sends what was sent meanwhile', async () => {
    const first = await startServer('memory');
    await first.server.stop();
    const client = newClient(first.port, 'early');
    const connected = client.connect();
    const receipt = client.sendMessage(BroadcastMessage.createClientMessage('x', 1));
    await startServer('memory', { port: first.port });
    await connected;
    expect((await receipt).status).toBe('stored');
  });

  it('rejects with timeout or aborted, and goes on trying', async () => {
    const { port, sockets } = await startMute();
    const clock = new TestClock();
    const client = newClient(port, 'client', { clock });
    const controller = new AbortController();
    const aborted = client.connect({ signal: controller.signal });
    const late = client.connect({ timeout: 100 });
    const patient = client.connect({ timeout: 50_000 });
    await sockets.reached(1);
    controller.abort();
    await expect(aborted).rejects.toMatchObject({ code: 'aborted' });
    clock.tick(100);
    await expect(late).rejects.toMatchObject({ code: 'timeout', retryable: true });
    expect(client.state).toBe('connecting');
    await client.close();
    await expect(patient).rejects.toMatchObject({ code: 'closed' });
    await expect(client.connect({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'closed' });
  });

  it('refuses a time that is none, and a signal that was aborted before', async () => {
    const client = newClient(1);
    await expect(client.connect({ timeout: -1 })).rejects.toMatchObject({ code: 'invalid-argument' });
    await expect(client.connect({ timeout: '5' as never })).rejects.toMatchObject({ code: 'invalid-argument' });
    await expect(client.connect({ signal: {} as never })).rejects.toMatchObject({ code: 'invalid-argument' });
    await expect(client.connect({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'aborted' });
    expect(client.state).toBe('offline');
  });

  it('gives up a server that takes the connection and says nothing, and tries again', async () => {
    const { port, sockets } = await startMute();
    const clock = new TestClock();
    const logger = recordingLogger();
    const client = newClient(port, 'client', { clock, logger, reconnectInterval: 1000 });
    void client.connect();
    const [socket] = await sockets.reached(1);
    const ended = once(socket as Socket, 'close');
    socket?.resume();
    clock.tick(10_000);
    await ended;
    clock.tick(1200);
    await sockets.reached(2);
    expect(logger.warnings).toHaveLength(1);
  });

  it('rejects when the server refuses for good, says so to the logger and in an event, and may be called anew', async () => {
    const { port } = await startServer('memory', { limits: { subscriptions: 1 } });
    const logger = recordingLogger();
    const client = newClient(port, 'greedy', { logger });
    const refusals = new Inbox<string>();
    client.on('refused', error => refusals.push(error.code));
    client.onMessage('a', () => undefined);
    const remove = client.onMessage('b', () => undefined);
    await expect(client.connect()).rejects.toMatchObject({ code: 'too-many-subscriptions' });
    await expect(client.flush()).rejects.toMatchObject({ code: 'too-many-subscriptions' });
    expect(await refusals.reached(1)).toEqual(['too-many-subscriptions']);
    expect(logger.warnings.join('\n')).toContain('too-many-subscriptions');
    remove();
    await client.connect();
    expect(client.subscriptions).toEqual(['a']);
  });

  it('ends for good when the same port speaks another protocol, and can be tried anew', async () => {
    const foreign = createServer(socket => {
      socket.on('error', () => undefined);
      socket.resume();
      socket.end('HTTP/1.1 400 Bad Request\r\n\r\n');
    });
    foreign.listen(0, '127.0.0.1');
    await once(foreign, 'listening');
    const { port } = foreign.address() as { port: number };
    const client = newClient(port, 'client');
    const refused = event(client, 'refused');
    const connected = client.connect();
    const flushed = client.flush();
    await expect(connected).rejects.toMatchObject({ code: 'not-broadcast' });
    await expect(flushed).rejects.toMatchObject({ code: 'not-broadcast' });
    expect(await refused).toMatchObject({ code: 'not-broadcast' });
    expect(client.state).toBe('offline');
    await expect(client.flush()).rejects.toMatchObject({ code: 'not-broadcast' });
    await expect(client.unsubscribe('a')).rejects.toMatchObject({ code: 'not-broadcast' });
    await new Promise(resolve => foreign.close(resolve));
    await startServer('memory', { port });
    await client.connect();
    expect(client.state).toBe('online');
  });
});

describe('trying again', () => {
  it('happens at a regular interval, give or take a fifth', async () => {
    const { port, connections } = await startSlammer();
    const clock = new TestClock();
    const { logger, failures } = failureLogger();
    const client = newClient(port, 'client', { clock, logger, reconnectInterval: 1000 });
    void client.connect();
    for (let attempt = 1; attempt <= 5; attempt++) {
      await failures.reached(attempt);
      clock.tick(799);
      expect(connections.items).toHaveLength(attempt);
      clock.tick(401);
    }
    await connections.reached(6);
  });

  it('warns once after the first failure, then once a minute, with the address and a remedy', async () => {
    const { port, connections } = await startSlammer();
    const clock = new TestClock();
    const { logger, failures } = failureLogger();
    const client = newClient(port, 'client', { clock, logger, reconnectInterval: 20_000 });
    void client.connect();
    for (let attempt = 1; attempt <= 6; attempt++) {
      await failures.reached(attempt);
      clock.tick(24_000);
    }
    await failures.reached(7);
    // Six pauses of 24 s: at 0, and at the first failures after one and after two minutes.
    expect(logger.warnings).toHaveLength(3);
    expect(connections.items).toHaveLength(7);
    expect(logger.warnings[0]).toContain(`127.0.0.1:${String(port)}`);
    expect(logger.warnings[0]).toMatch(/serve|check host/);
  });

  it('moves on to the next of several servers when one is lost', async () => {
    const a = await startServer('memory');
    const b = await startServer('memory');
    const url = (port: number): string => `tcp://127.0.0.1:${String(port)}`;
    const client = new BroadcastTcpClient({
      servers: [url(1), { host: '127.0.0.1', port: a.port }, url(b.port)],
      reconnectInterval: 20,
      logger: recordingLogger(),
    });
    onTestFinished(() => client.close());
    await client.connect();
    expect(a.server.clients).toHaveLength(1);
    // The other one has a store of its own, so it is passed over, with a word about it, until the first is back.
    const refused = event(client, 'refused');
    await a.server.stop();
    expect(await refused).toMatchObject({ code: 'different-store' });
    const online = event(client, 'online');
    await startServer('memory', { port: a.port });
    await online;
    expect(client.state).toBe('online');
  });
});

describe('flush', () => {
  it('says that the server has the outbox and every subscription', async () => {
    const { port, server } = await startServer('memory');
    const client = await connectedClient(port, 'client');
    client.onMessage('room', () => undefined);
    for (let i = 0; i < 5000; i++) client.sendMessage(BroadcastMessage.createClientMessage('x', i));
    await client.flush();
    expect(server.channels).toEqual(['room']);
    expect(server.stats().messagesIn).toBe(5000);
  });

  it('covers what is sent again after a lost connection', async () => {
    const { port, server } = await startServer('memory');
    const client = await connectedClient(port, 'client');
    for (let i = 0; i < 2000; i++) client.sendMessage(BroadcastMessage.createClientMessage('x', i));
    const flushed = client.flush();
    await server.stop();
    const again = await startServer('memory', { port });
    await flushed;
    const last = await client.sendMessage(BroadcastMessage.createClientMessage('x', 2000));
    expect(last.status).toBe('stored');
    expect(client.outbox.messages).toBe(0);
    expect(again.server.stats().messagesIn).toBeGreaterThanOrEqual(1);
  });

  it('waits for a connection that comes later', async () => {
    const { port } = await startServer('memory');
    const client = newClient(port, 'client');
    client.sendMessage(BroadcastMessage.createClientMessage('x', 1));
    const flushed = client.flush();
    await client.connect();
    await flushed;
  });
});

describe('ready', () => {
  const limits = { outboxMessages: 2 };

  it('is fulfilled at once while there is room, and with the drain event when there is room again', async () => {
    const { port } = await startServer('memory');
    const client = newClient(port, 'client', { limits });
    await client.ready();
    for (let i = 0; i < 2; i++) client.sendMessage(BroadcastMessage.createClientMessage('x', i));
    expect(client.outbox).toMatchObject({ messages: 2, full: true });
    const drained = event(client, 'drain');
    const ready = client.ready();
    await client.connect();
    await Promise.all([ready, drained]);
    expect(client.outbox.full).toBe(false);
  });

  it('rejects when the client is closed, and when the server has refused for good', async () => {
    const client = newClient(1, 'client', { limits });
    for (let i = 0; i < 2; i++) client.sendMessage(BroadcastMessage.createClientMessage('x', i));
    const ready = client.ready();
    await client.close();
    await expect(ready).rejects.toMatchObject({ code: 'closed' });
    await expect(client.ready()).rejects.toMatchObject({ code: 'closed' });
    await expect(client.flush()).rejects.toMatchObject({ code: 'closed' });
  });
});

describe('subscriptions', () => {
  it('end by unsubscribe, also without a connection, and can be taken up again behind it', async () => {
    const { port, server } = await startServer('memory');
    const client = newClient(port, 'reader');
    client.onMessage('a', () => undefined);
    client.onMessage('b', () => undefined);
    await client.connect();
    await client.unsubscribe('a');
    expect(client.subscriptions).toEqual(['b']);
    await server.stop();
    const gone = client.unsubscribe('b');
    const inbox = new Inbox();
    client.onMessage('b', message => inbox.push(message.data));
    const { server: again } = await startServer('memory', { port });
    await gone;
    await client.flush();
    expect(again.channels).toEqual(['b']);
    const sender = await connectedClient(port);
    await sender.sendMessage(BroadcastMessage.createChannelMessage('b', 1));
    expect(await inbox.reached(1)).toEqual([1]);
  });

  it('outlive the handlers of an instance and the instance itself', async () => {
    const { port } = await startServer('memory');
    const first = newClient(port, 'reader');
    const remove = first.onMessage('a', () => undefined);
    await first.connect();
    remove();
    await first.flush();
    expect(first.subscriptions).toEqual(['a']);
    await first.close();
    const sender = await connectedClient(port);
    expect(await sender.sendMessage(BroadcastMessage.createChannelMessage('a', 1))).toMatchObject({
      status: 'stored',
      failures: [{ reason: 'offline', queued: true }],
    });
    const second = await connectedClient(port, 'reader');
    expect(second.subscriptions).toEqual(['a']);
  });

  it('end with server.forget', async () => {
    const { port, server } = await startServer('memory');
    const client = newClient(port, 'reader');
    client.onMessage('a', () => undefined);
    await client.connect();
    await client.close();
    await server.forget('reader');
    expect(server.channels).toEqual([]);
    await expect(server.forget('nobody')).rejects.toMatchObject({ code: 'not-found' });
  });

  it('are refused by name and by argument', async () => {
    const client = newClient(1);
    expect(() => client.onMessage('', () => undefined)).toThrow(expect.objectContaining({ code: 'invalid-name' }));
    expect(() => client.onMessage('a.*', () => undefined)).toThrow(expect.objectContaining({ code: 'invalid-name' }));
    expect(() => client.onMessage('a', undefined as never)).toThrow(
      expect.objectContaining({ code: 'invalid-argument' }),
    );
    expect(() => client.onMessage('a', () => undefined, { concurency: 2 } as never)).toThrow(
      expect.objectContaining({ code: 'invalid-option', message: expect.stringContaining('concurrency') as string }),
    );
    expect(() => client.onMessage('a', () => undefined, { concurrency: 0 })).toThrow(
      expect.objectContaining({ code: 'invalid-option' }),
    );
    expect(() => client.onMessage(() => undefined, null as never)).toThrow(
      expect.objectContaining({ code: 'invalid-option' }),
    );
    await expect(client.unsubscribe('')).rejects.toMatchObject({ code: 'invalid-name' });
    await client.close();
    expect(() => client.onMessage('a', () => undefined)).toThrow(expect.objectContaining({ code: 'closed' }));
    await expect(client.unsubscribe('a')).rejects.toMatchObject({ code: 'closed' });
  });
});

describe('a subscription that is taken away while its messages flow', () => {
  it('gives back what was not started, in order, to whoever handles it next', async () => {
    const { port } = await startServer('memory');
    const client = newClient(port, 'reader');
    const seen = new Inbox();
    const remove = client.onMessage('a', message => {
      seen.push(message.data);
      if (message.data === 3) remove();
    });
    await client.connect();
    const sender = await connectedClient(port);
    for (let i = 1; i <= 10; i++) sender.sendMessage(BroadcastMessage.createChannelMessage('a', i));
    await seen.reached(3);
    await sender.flush();
    await client.flush();
    expect(seen.items).toEqual([1, 2, 3]);
    const rest = new Inbox();
    client.onMessage('a', message => rest.push(message.data));
    expect(await rest.reached(7)).toEqual([4, 5, 6, 7, 8, 9, 10]);
  });

  it('ends what waits when it is unsubscribed in the middle, and its senders hear dropped', async () => {
    const { port } = await startServer('memory');
    const client = newClient(port, 'reader');
    const { promise, open } = gate();
    const started = new Inbox();
    client.onMessage('a', async message => {
      started.push(message.data);
      await promise;
    });
    await client.connect();
    const sender = await connectedClient(port, 'sender');
    const dropped = new Inbox<number>();
    sender.onDeliveryFailure(({ reason, count }) => {
      if (reason === 'dropped') for (let i = 0; i < (count ?? 1); i++) dropped.push(1);
    });
    for (let i = 0; i < 5; i++) sender.sendMessage(BroadcastMessage.createChannelMessage('a', i));
    await started.reached(1);
    await sender.flush();
    await client.unsubscribe('a');
    open();
    await dropped.reached(4);
    expect(started.items).toEqual([0]);
    expect(client.subscriptions).toEqual([]);
  });
});
