/** The server's public face: where it listens, what it shows, what it tells. */
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { BroadcastMessage, BroadcastTcpClient, BroadcastTcpServer, type BroadcastPeer } from '../../src/index.js';
import { connectedClient, Inbox, newClient, recordingLogger, startServer, temporaryFolder } from '../helpers/scene.js';

const quietly = { logger: recordingLogger() };
const hasIPv6 = Object.values(networkInterfaces())
  .flat()
  .some(found => found?.address === '::1');

function newServer(config: ConstructorParameters<typeof BroadcastTcpServer>[0]): BroadcastTcpServer {
  const server = new BroadcastTcpServer({ ...quietly, ...config });
  onTestFinished(() => server.stop());
  return server;
}

async function clientAt(url: string, name?: string): Promise<BroadcastTcpClient> {
  const client = new BroadcastTcpClient({ url, ...quietly }, name);
  onTestFinished(() => client.close());
  await client.connect({ timeout: 5000 });
  return client;
}

describe('a server', () => {
  it('on localhost listens on every loopback address, on a port that it finds', async () => {
    const server = newServer({ port: 0 });
    let heard = 0;
    server.on('listening', () => heard++);
    expect(server.address).toBeNull();
    await server.start();
    expect(heard).toBe(1);
    const { host, port } = server.address as { host: string; port: number };
    expect(host).toBe('localhost');
    for (const loopback of hasIPv6 ? ['127.0.0.1', '[::1]', 'localhost'] : ['127.0.0.1', 'localhost'])
      await clientAt(`tcp://${loopback}:${String(port)}`);
    expect(server.clients).toHaveLength(hasIPv6 ? 3 : 2);
  });

  it('says which port is taken, and by code', async () => {
    const taken = createServer();
    taken.listen(0, '127.0.0.1');
    await once(taken, 'listening');
    onTestFinished(() => void taken.close());
    const { port } = taken.address() as { port: number };
    for (const host of ['localhost', '127.0.0.1']) {
      await expect(newServer({ host, port }).start()).rejects.toMatchObject({
        code: 'address-in-use',
        message: expect.stringContaining(`:${String(port)}`) as string,
      });
    }
    await expect(newServer({ host: '192.0.2.1', port: 0 }).start()).rejects.toMatchObject({
      code: 'address-unavailable',
      message: expect.stringContaining('; choose an address of this machine') as string,
    });
    const path = join(await temporaryFolder(), 'missing', 'socket');
    await expect(newServer({ url: path }).start()).rejects.toMatchObject({
      code: 'address-unavailable',
      message: expect.stringContaining('; choose a path in a directory that exists') as string,
    });
  });

  it('rejects a directory that another server has locked, and is free of it when it stops', async () => {
    const dataDir = join(await temporaryFolder(), 'data');
    const first = newServer({ port: 0, dataDir });
    await first.start();
    await expect(newServer({ port: 0, dataDir }).start()).rejects.toMatchObject({ code: 'store-locked' });
    await first.stop();
    await newServer({ port: 0, dataDir }).start();
  });

  it.each(['unix:', ''])(
    'listens on a Unix socket by %j and a path, also where a dead server left its file',
    async scheme => {
      const path = join(await temporaryFolder(), 's.sock');
      const url = `${scheme}${path}`;
      const server = newServer({ url });
      await server.start();
      expect(server.address).toEqual({ path });
      const client = await clientAt(url, 'client');
      const inbox = new Inbox();
      client.onMessage(message => inbox.push(message.data));
      await client.flush();
      const [peer] = server.clients;
      expect(peer).toMatchObject({ name: 'client', address: expect.stringMatching(/^unix:\d+$/) as string });
      await server.sendMessage(BroadcastMessage.createClientMessage((peer as BroadcastPeer).address, 'direct'));
      expect(await inbox.reached(1)).toEqual(['direct']);
      await expect(newServer({ url }).start()).rejects.toMatchObject({ code: 'address-in-use' });
      await client.close();
      await server.stop();
      await leaveSocketFile(path);
      await newServer({ url }).start();
    },
  );

  it('does not put its socket in the place of a file', async () => {
    const path = join(await temporaryFolder(), 'file');
    await writeFile(path, 'precious');
    await expect(newServer({ url: `unix:${path}` }).start()).rejects.toMatchObject({ code: 'address-in-use' });
  });

  it('knows its clients by name, instance and address, and tells their coming and going', async () => {
    const { port, server } = await startServer('memory');
    const events = new Inbox<string>();
    server.on('connect', peer => events.push(`connect ${peer.name}`));
    server.on('subscribe', (peer, channel) => events.push(`subscribe ${peer.name} ${channel}`));
    server.on('unsubscribe', (peer, channel) => events.push(`unsubscribe ${peer.name} ${channel}`));
    server.on('disconnect', (peer, reason) => events.push(`disconnect ${peer.name} ${reason}`));
    const client = newClient(port, 'client');
    client.onMessage('room', () => undefined);
    await client.connect();
    const [peer] = server.clients;
    expect(peer).toMatchObject({ name: 'client', instance: expect.stringMatching(/^[0-9a-f]{32}$/) as string });
    expect(peer?.address).toMatch(/^127\.0\.0\.1:\d+$/);
    await client.unsubscribe('room');
    await client.close();
    expect(await events.reached(4)).toEqual([
      'connect client',
      'subscribe client room',
      'unsubscribe client room',
      'disconnect client goodbye',
    ]);
    expect(server.clients).toEqual([]);
  });

  it('refuses a client whose name is an address', () => {
    expect(() => new BroadcastTcpClient(quietly, '127.0.0.1:9000')).toThrow(
      expect.objectContaining({ code: 'invalid-name' }) as Error,
    );
  });

  it('counts what comes and goes', async () => {
    const { port, server } = await startServer('memory');
    const reader = newClient(port, 'reader');
    reader.onMessage('room', () => undefined);
    await reader.connect();
    const client = await connectedClient(port, 'client');
    await client.sendMessage(BroadcastMessage.createChannelMessage('room', 1));
    await client.sendMessage(BroadcastMessage.createClientMessage('away', 1));
    await client.sendMessage(BroadcastMessage.createChannelMessage('unheard', 1));
    expect(server.stats()).toMatchObject({
      clients: 2,
      sessions: 3,
      channels: 1,
      messagesIn: 3,
      messagesOut: 1,
      queued: 1,
      backlog: 1,
      failures: 2,
      deadLetters: 0,
    });
    const { bytesIn, bytesOut, stored, uptime } = server.stats();
    for (const number of [bytesIn, bytesOut, stored]) expect(number).toBeGreaterThan(0);
    expect(uptime).toBeGreaterThanOrEqual(0);
    expect((await server.sessions()).find(({ name }) => name === 'reader')).toMatchObject({
      instances: 1,
      subscriptions: ['room'],
      deadLetters: 0,
    });
  });

  it('tells of every failure in an event', async () => {
    const { port, server } = await startServer('memory');
    const reasons = new Inbox<string>();
    server.on('failure', ({ reason }) => reasons.push(reason));
    const client = await connectedClient(port, 'client');
    await client.sendMessage(BroadcastMessage.createClientMessage('away', 1));
    expect(await reasons.reached(1)).toEqual(['offline']);
  });
});

describe('an observer', () => {
  it('sees every message that clients send, in order, before it is routed, with its peer, and none of the server’s', async () => {
    const { port, server } = await startServer('memory');
    const order: string[] = [];
    const remove = server.onMessage((message, peer) => {
      order.push(`seen ${String(message.data)} of ${peer.name} ${String(message.channel ?? message.client)}`);
    });
    const reader = newClient(port, 'reader');
    reader.onMessage('room', message => order.push(`handled ${String(message.data)}`));
    await reader.connect();
    const client = await connectedClient(port, 'client');
    await server.sendMessage(BroadcastMessage.createChannelMessage('room', 'own'));
    for (let i = 0; i < 3; i++) client.sendMessage(BroadcastMessage.createChannelMessage('room', i));
    await client.sendMessage(BroadcastMessage.createClientMessage('nobody', 3, 'n', false));
    await reader.flush();
    expect(order.filter(line => line.startsWith('seen'))).toEqual([
      'seen 0 of client room',
      'seen 1 of client room',
      'seen 2 of client room',
      'seen 3 of client nobody',
    ]);
    for (let i = 0; i < 3; i++)
      expect(order.indexOf(`seen ${String(i)} of client room`)).toBeLessThan(order.indexOf(`handled ${String(i)}`));
    remove();
    await client.sendMessage(BroadcastMessage.createChannelMessage('room', 4));
    expect(order).not.toContain('seen 4 of client room');
  });

  it('may send a message in answer', async () => {
    const { port, server } = await startServer('memory');
    server.onMessage((message, peer) => {
      server.sendMessage(BroadcastMessage.createClientMessage(peer.name, `echo ${String(message.data)}`));
    });
    const client = newClient(port, 'client');
    const inbox = new Inbox();
    client.onMessage(message => inbox.push(message.data));
    await client.connect();
    client.sendMessage(BroadcastMessage.createChannelMessage('room', 'hello'));
    expect(await inbox.reached(1)).toEqual(['echo hello']);
  });
});

/** What a server that was killed leaves: a socket's file that nobody listens on. */
async function leaveSocketFile(path: string): Promise<void> {
  const { spawn } = await import('node:child_process');
  const child = spawn(process.execPath, [
    '-e',
    `require('net').createServer().listen(${JSON.stringify(path)}, () => console.log('up'))`,
  ]);
  await once(child.stdout, 'data');
  child.kill('SIGKILL');
  await once(child, 'exit');
  const socket = connect({ path });
  const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException];
  expect(error.code).toBe('ECONNREFUSED');
}
