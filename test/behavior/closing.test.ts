/** Leaving while a handler does not end, or while nobody hears of it. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { BroadcastMessage, type BroadcastClient, type BroadcastServer, type ServerConfig } from '../../src/index.js';
import { PREAMBLE } from '../../src/protocol/constants.js';
import { encodeHello, helloExtensions } from '../../src/protocol/frames.js';
import { startProxy } from '../helpers/proxy.js';
import { plainHello, RawPeer } from '../helpers/raw-peer.js';
import { connectedClient, gate, Inbox, newClient, startServer, temporaryFolder } from '../helpers/scene.js';

const PACKAGE = fileURLToPath(new URL('../../dist/cjs/index.js', import.meta.url));

it('a client that closes while a handler hangs says goodbye all the same: the message waits at once, and nothing is charged', async () => {
  const { port, server } = await startServer('memory');
  const hanging = newClient(port, 'w');
  const { promise: started, open } = gate();
  hanging.onMessage(async () => {
    open();
    await new Promise(() => undefined);
  });
  await hanging.connect();
  const sender = await connectedClient(port, 'sender');
  const receipt = sender.sendMessage(BroadcastMessage.createClientMessage('w', 1), { until: 'delivered' });
  await started;
  await hanging.close({ timeout: 10 });
  const next = new Inbox<number>();
  const other = newClient(port, 'w');
  other.onMessage((_message, { attempt }) => next.push(attempt));
  await other.connect();
  expect(await next.reached(1)).toEqual([1]);
  expect((await receipt).status).toBe('delivered');
  expect((await server.sessions()).map(({ name, instances }) => [name, instances])).toContainEqual(['w', 1]);
});

it('a generated name’s session ends with it, whatever its handlers do', async () => {
  const { port, server } = await startServer('memory');
  const gone = gate();
  server.on('disconnect', () => gone.open());
  const hanging = newClient(port);
  const { promise: started, open } = gate();
  hanging.onMessage('room', async () => {
    open();
    await new Promise(() => undefined);
  });
  await hanging.connect();
  await server.sendMessage(BroadcastMessage.createChannelMessage('room', 1));
  await started;
  await hanging.close({ timeout: 10 });
  await gone.promise;
  expect(await server.sessions()).toEqual([]);
});

/** A client whose handler is at the first of three messages, behind a proxy. */
async function busyWorker(options: ServerConfig): Promise<{
  port: number;
  server: BroadcastServer;
  sender: BroadcastClient;
  worker: BroadcastClient;
  cut: () => void;
}> {
  const { port, server } = await startServer('disk', options);
  const proxy = await startProxy(port);
  const sender = await connectedClient(port, 'sender');
  const worker = newClient(proxy.port, 'w');
  const { promise: started, open } = gate();
  worker.onMessage('jobs', async () => {
    open();
    await new Promise(() => undefined);
  });
  await worker.connect();
  for (const n of [1, 2, 3]) await sender.sendMessage(BroadcastMessage.createChannelMessage('jobs', n));
  await started;
  const cut = (): void => {
    proxy.isRefusing = true;
    proxy.cut();
  };
  return { port, server, sender, worker, cut };
}

/** What the next client of the name gets, and whether it is marked. */
async function next(port: number, sender: BroadcastClient): Promise<[number, boolean][]> {
  const got = new Inbox<[number, boolean]>();
  const other = newClient(port, 'w');
  other.onMessage<number>('jobs', ({ data }, { redelivered }) => got.push([data, redelivered]));
  await other.connect();
  await sender.sendMessage(BroadcastMessage.createChannelMessage('jobs', 4));
  return got.reached(4);
}

it.each([
  ['its connection is broken', false],
  ['the server has stopped and comes again', true],
])(
  'a client that closes while %s is not waited for: the next one of its name gets all in order',
  async (_, restarts) => {
    const options = { instanceGrace: 600_000, dataDir: join(await temporaryFolder(), 'data') };
    const { port, server, sender, worker, cut } = await busyWorker(options);
    const lost = new Promise(resolve => worker.once('offline', resolve));
    cut();
    await lost;
    if (restarts) await server.stop();
    await worker.close({ timeout: 10 });
    if (restarts) await startServer('disk', { port, ...options });
    const got = await next(port, sender);
    expect(got.map(([n]) => n)).toEqual([1, 2, 3, 4]);
    expect(got.slice(0, 3).every(([, redelivered]) => redelivered)).toBe(true);
  },
);

it('a client that closes before its connection is seen to be broken is not waited for', async () => {
  const { port, sender, worker, cut } = await busyWorker({ instanceGrace: 600_000, deadAfter: 600_000 });
  const closed = worker.close({ timeout: 10 });
  cut();
  await closed;
  expect((await next(port, sender)).map(([n]) => n)).toEqual([1, 2, 3, 4]);
});

it('is told to the server that knew it, also when another one was told before', async () => {
  const { port, sender, worker, cut } = await busyWorker({ instanceGrace: 600_000 });
  const lost = new Promise(resolve => worker.once('offline', resolve));
  cut();
  await lost;
  await worker.close({ timeout: 10 });
  const { port: other } = await startServer('memory');
  await connectedClient(other, 'w');
  expect((await next(port, sender)).map(([n]) => n)).toEqual([1, 2, 3, 4]);
});

it('is told though many others are remembered whose stores are gone for good', async () => {
  for (let i = 0; i < 9; i++) {
    const { port, server } = await startServer('memory');
    const client = await connectedClient(port, 'w');
    await server.stop();
    await client.close({ timeout: 0 });
  }
  const { port, sender, worker, cut } = await busyWorker({ instanceGrace: 600_000 });
  const lost = new Promise(resolve => worker.once('offline', resolve));
  cut();
  await lost;
  await worker.close({ timeout: 10 });
  expect((await next(port, sender)).map(([n]) => n)).toEqual([1, 2, 3, 4]);
});

it('takes the word of a server that stops for none on its own', async () => {
  const options = { instanceGrace: 600_000, dataDir: join(await temporaryFolder(), 'data') };
  const { port, server } = await startServer('disk', options);
  const proxy = await startProxy(port);
  const sender = await connectedClient(port, 'sender');
  const second = await connectedClient(port, 'w');
  const worker = newClient(proxy.port, 'w');
  worker.onMessage('jobs', () => new Promise(() => undefined));
  await worker.connect();
  await second.close();
  for (const n of [1, 2, 3]) await sender.sendMessage(BroadcastMessage.createChannelMessage('jobs', n));
  proxy.hold('down');
  const stopped = server.stop({ timeout: 300 });
  await new Promise(resolve => sender.once('offline', resolve));
  const closed = worker.close({ timeout: 300 });
  proxy.release('down');
  await Promise.all([stopped, closed]);
  await startServer('disk', { port, ...options });
  expect((await next(port, sender)).map(([n]) => n)).toEqual([1, 2, 3, 4]);
});

it('what a client has acknowledged before it closed is read, though the next one of its name came first', async () => {
  const { port, server } = await startServer('memory');
  const proxy = await startProxy(port);
  const sender = await connectedClient(port, 'sender');
  const worker = newClient(proxy.port, 'w');
  const handled = new Inbox();
  worker.onMessage('jobs', handled.push);
  await worker.connect();
  proxy.hold('up');
  for (const n of [1, 2, 3]) await sender.sendMessage(BroadcastMessage.createChannelMessage('jobs', n));
  await handled.reached(3);
  await worker.close({ timeout: 10 });
  const got: unknown[] = [];
  const other = newClient(port, 'w');
  other.onMessage('jobs', ({ data }) => got.push(data));
  await other.connect();
  const gone = new Promise(resolve => server.once('disconnect', resolve));
  proxy.release('up');
  await gone;
  const last = BroadcastMessage.createChannelMessage('jobs', 4);
  expect(await sender.sendMessage(last, { until: 'delivered' })).toMatchObject({ status: 'delivered' });
  expect(got).toEqual([4]);
});

it('who is named with another name, or names itself, has not departed', async () => {
  const { port, server } = await startServer('memory');
  const [own, others] = ['a'.repeat(32), 'b'.repeat(32)];
  const first = await RawPeer.open(port, { name: 'first', instance: others });
  await RawPeer.open(port, { name: 'second', instance: own, extensions: helloExtensions(1, [own, others]) });
  const sessions = (await server.sessions()).map(({ name, instances }) => [name, instances]);
  expect(sessions).toEqual([
    ['first', 1],
    ['second', 1],
  ]);
  first.socket.destroy();
});

it('half an id of one that has departed is refused', async () => {
  const { port } = await startServer('memory');
  const peer = await RawPeer.connect(port);
  peer.write(PREAMBLE, encodeHello(plainHello({ extensions: new Map([['departed', Buffer.alloc(17)]]) })));
  expect(await peer.refusal()).toMatchObject({ code: 'protocol-error' });
});

it('closing holds the process until its time is over, so that what was not settled is rejected', async () => {
  const { port, server } = await startServer('memory');
  await server.stop();
  const script = `
    const { BroadcastMessage, BroadcastTcpClient } = require(${JSON.stringify(PACKAGE)});
    const logger = { debug() {}, info() {}, warn() {}, error() {} };
    const client = new BroadcastTcpClient({ host: '127.0.0.1', port: ${String(port)}, logger }, 'c');
    client.sendMessage(BroadcastMessage.createClientMessage('x', 1)).catch(({ code }) => console.log(code));
    client.connect();
    client.close({ timeout: 300 }).then(() => console.log('closed'));`;
  const { stdout } = await promisify(execFile)(process.execPath, ['-e', script]);
  expect(stdout).toBe('closed\nclosed\n');
});

it('refuses options that are none with a code', async () => {
  const { port, server } = await startServer('memory');
  const client = newClient(port, 'c');
  const message = BroadcastMessage.createClientMessage('x', 1);
  const wrong = { code: 'invalid-argument' };
  for (const options of [null, 5, { timout: 5 }] as never[]) {
    await expect(client.connect(options)).rejects.toMatchObject(wrong);
    await expect(client.sendMessage(message, options)).rejects.toMatchObject(wrong);
    await expect(server.sendMessage(message, options)).rejects.toMatchObject(wrong);
    await expect(client.close(options)).rejects.toMatchObject(wrong);
    await expect(server.stop(options)).rejects.toMatchObject(wrong);
  }
  await expect(client.connect()).resolves.toBeUndefined();
});
