/** close() and stop(): what they wait for, what they reject, what stays, and what keeps a process alive. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, onTestFinished } from 'vitest';
import { BroadcastMessage, BroadcastTcpClient, BroadcastTcpServer } from '../../src/index.js';
import { TestClock } from '../../src/testing/index.js';
import { connectedClient, gate, Inbox, newClient, recordingLogger, startServer } from '../helpers/scene.js';

const toX = (data: unknown = 1): BroadcastMessage => BroadcastMessage.createClientMessage('x', data);

describe('close', () => {
  it('sends what is in the outbox first', async () => {
    const { port, server } = await startServer('memory');
    const client = await connectedClient(port, 'client');
    const receipts = Array.from({ length: 3000 }, (_, i) => client.sendMessage(toX(i)));
    await client.close();
    for (const receipt of await Promise.all(receipts)) expect(receipt.status).toBe('stored');
    expect(server.stats().messagesIn).toBe(3000);
    expect(client.state).toBe('closed');
  });

  it('also when connect() has not got through yet', async () => {
    const { port, server } = await startServer('memory');
    const client = newClient(port, 'client');
    const receipt = client.sendMessage(toX());
    const connected = client.connect();
    await client.close();
    expect((await receipt).status).toBe('stored');
    await connected.catch(() => undefined);
    expect(server.stats().messagesIn).toBe(1);
  });

  it('finishes running handlers, and starts no further ones', async () => {
    const { port } = await startServer('memory');
    const client = newClient(port, 'reader');
    const started = new Inbox();
    const { promise, open } = gate();
    let ended = 0;
    client.onMessage(async message => {
      started.push(message.data);
      await promise;
      ended++;
    });
    await client.connect();
    const sender = await connectedClient(port);
    for (let i = 0; i < 3; i++) sender.sendMessage(BroadcastMessage.createClientMessage('reader', i));
    await started.reached(1);
    await sender.flush();
    const closed = client.close();
    expect(client.state).toBe('closing');
    open();
    await closed;
    expect(started.items).toEqual([0]);
    expect(ended).toBe(1);
    const next = newClient(port, 'reader');
    const rest = new Inbox();
    next.onMessage((message, info) => rest.push([message.data, info.attempt]));
    await next.connect();
    expect(await rest.reached(2)).toEqual([
      [1, 1],
      [2, 1],
    ]);
  });

  it('gives what has not started to another instance of the name at once', async () => {
    const { port } = await startServer('memory');
    const { promise, open } = gate();
    const first = newClient(port, 'shared');
    const started = new Inbox();
    first.onMessage(async message => {
      started.push(message.data);
      await promise;
    });
    await first.connect();
    const sender = await connectedClient(port);
    for (let i = 0; i < 4; i++) sender.sendMessage(BroadcastMessage.createClientMessage('shared', i));
    await started.reached(1);
    await sender.flush();
    const second = newClient(port, 'shared');
    const taken = new Inbox();
    second.onMessage(message => taken.push(message.data));
    await second.connect();
    const closed = first.close();
    expect((await taken.reached(3)).sort()).toEqual([1, 2, 3]);
    open();
    await closed;
    expect(started.items).toEqual([0]);
  });

  it('is bounded by its timeout: what is left is rejected with a code, and handlers are told by their signal', async () => {
    const { port } = await startServer('memory');
    const clock = new TestClock();
    const client = newClient(port, 'reader', { clock });
    const signals = new Inbox<AbortSignal>();
    client.onMessage(async (_message, { signal }) => {
      signals.push(signal);
      await new Promise(() => undefined);
    });
    await client.connect();
    const followed = client.sendMessage(BroadcastMessage.createClientMessage('reader', 1), { until: 'delivered' });
    const [signal] = await signals.reached(1);
    const closed = client.close({ timeout: 200 });
    clock.tick(200);
    await closed;
    expect(signal?.aborted).toBe(true);
    await expect(followed).rejects.toMatchObject({ code: 'closed' });
    // It left in good order all the same: its message waits for the name, uncharged.
    const next = newClient(port, 'reader');
    const attempts = new Inbox();
    next.onMessage((_message, { attempt }) => attempts.push(attempt));
    await next.connect();
    expect(await attempts.reached(1)).toEqual([1]);
  });

  it('ends at its time while there is no server, without a busy loop, and at once when nothing waits', async () => {
    const clock = new TestClock();
    const waiting = newClient(1, 'waiting', { clock });
    const receipt = waiting.sendMessage(toX());
    const connected = waiting.connect();
    const closed = waiting.close();
    const before = process.cpuUsage();
    await new Promise(resolve => setImmediate(resolve));
    clock.tick(4999);
    expect(waiting.state).toBe('closing');
    clock.tick(1);
    await closed;
    expect(process.cpuUsage(before).user).toBeLessThan(2_000_000);
    await expect(receipt).rejects.toMatchObject({ code: 'closed' });
    await expect(connected).rejects.toMatchObject({ code: 'closed' });
    const idle = newClient(1, 'idle', { clock: new TestClock() });
    void idle.connect();
    await idle.close();
    expect(idle.state).toBe('closed');
    const never = newClient(1, 'never', { clock: new TestClock() });
    const unsent = never.sendMessage(toX());
    await never.close();
    await expect(unsent).rejects.toMatchObject({ code: 'closed' });
  });

  it('is idempotent, and nothing works afterwards', async () => {
    const { port } = await startServer('memory');
    const client = await connectedClient(port, 'client');
    expect(client.close()).toBe(client.close({ timeout: 1 }));
    await client.close();
    await expect(client.sendMessage(toX())).rejects.toMatchObject({ code: 'closed' });
    await expect(client.connect()).rejects.toMatchObject({ code: 'closed' });
    await expect(newClient(1).close({ timeout: -1 })).rejects.toMatchObject({ code: 'invalid-argument' });
  });

  it('leaves the session of a given name, and ends that of a generated one', async () => {
    const { port, server } = await startServer('memory');
    const given = newClient(port, 'given');
    const generated = newClient(port);
    for (const client of [given, generated]) client.onMessage(client.name, () => undefined);
    await Promise.all([given.connect(), generated.connect()]);
    expect(server.channels).toHaveLength(2);
    const gone = new Inbox<string>();
    server.on('disconnect', ({ name }, reason) => gone.push(`${name} ${reason}`));
    await Promise.all([given.close(), generated.close()]);
    expect((await gone.reached(2)).sort()).toEqual([`${generated.name} finished`, 'given goodbye']);
    expect(server.channels).toEqual(['given']);
    expect((await server.sessions()).map(session => session.name)).toEqual(['given']);
    expect(server.clients).toEqual([]);
  });

  it('happens at the end of an `await using` block, as stop() does', async () => {
    const states: string[] = [];
    let address: unknown;
    {
      await using server = new BroadcastTcpServer({ host: '127.0.0.1', port: 0, logger: recordingLogger() });
      await server.start();
      const { port } = server.address as { port: number };
      await using client = new BroadcastTcpClient({ host: '127.0.0.1', port, logger: recordingLogger() });
      client.on('offline', () => states.push(client.state));
      await client.connect();
      address = server.address;
    }
    expect(address).not.toBeNull();
    expect(states).toHaveLength(1);
  });
});

describe('stop', () => {
  it('stores what is not safe, tells the clients, and frees the port', async () => {
    const { port, server } = await startServer('memory');
    const hung = newClient(port, 'hung');
    hung.onMessage(() => new Promise(() => undefined));
    await hung.connect();
    const client = await connectedClient(port, 'client');
    const reasons = new Inbox();
    client.on('offline', reason => reasons.push(reason));
    const receipt = client.sendMessage(BroadcastMessage.createClientMessage('hung', 1));
    await client.flush();
    await server.stop();
    expect((await receipt).status).toBe('stored');
    expect(await reasons.reached(1)).toEqual([undefined]);
    expect(server.address).toBeNull();
    await startServer('memory', { port });
  });

  it('is idempotent, may come before or during the start, and a stopped server is not started again', async () => {
    const { server } = await startServer('memory');
    expect(server.stop()).toBe(server.stop());
    await server.stop();
    await expect(server.start()).rejects.toMatchObject({ code: 'already-started' });
    const early = new BroadcastTcpServer({ port: 0, logger: recordingLogger() });
    await early.stop();
    await expect(early.start()).rejects.toMatchObject({ code: 'already-started' });
    const racing = new BroadcastTcpServer({ host: '127.0.0.1', port: 0, logger: recordingLogger() });
    const started = racing.start();
    await racing.stop();
    await started;
    expect(racing.address).toBeNull();
    await expect(racing.stop({ timeout: 5 })).resolves.toBeUndefined();
    await expect(new BroadcastTcpServer().stop({ timeout: NaN })).rejects.toMatchObject({ code: 'invalid-argument' });
  });

  it('is bounded by its timeout', async () => {
    const clock = new TestClock();
    const { port, server } = await startServer('memory', { clock });
    const { connect } = await import('node:net');
    // A connection that never reads and never ends.
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    socket.pause();
    onTestFinished(() => void socket.destroy());
    await once(socket, 'connect');
    const client = await connectedClient(port, 'client');
    await client.close();
    const stopped = server.stop({ timeout: 100 });
    for (let i = 0; i < 50; i++) {
      clock.tick(10);
      await new Promise(resolve => setImmediate(resolve));
    }
    await stopped;
  });
});

describe('a process', () => {
  const ENTRY = fileURLToPath(new URL('../../dist/cjs/index.js', import.meta.url));

  /** Runs a script with the built package; its output, exit code and signal. */
  async function run(
    script: string,
    kill?: NodeJS.Signals,
  ): Promise<{ out: string; code: number | null; signal: string | null }> {
    const source = `const { BroadcastTcpClient, BroadcastTcpServer, BroadcastMessage } = require(${JSON.stringify(ENTRY)});\n(async () => {${script}})();`;
    const child = spawn(process.execPath, ['-e', source], { stdio: ['ignore', 'pipe', 'ignore'] });
    onTestFinished(() => void child.kill('SIGKILL'));
    let out = '';
    child.stdout.on('data', (bytes: Buffer) => {
      out += bytes.toString();
      if (kill !== undefined && out.includes('ready')) child.kill(kill);
    });
    const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
    return { out, code, signal };
  }

  it('is kept alive by a connection, and ends by itself once that is closed', async () => {
    const { port, server } = await startServer('memory');
    const left = new Promise(resolve => server.once('disconnect', resolve));
    const ran = run(`
      const client = new BroadcastTcpClient({ port: ${String(port)} }, 'child');
      client.onMessage(() => { console.log('handled'); client.close(); });
      await client.connect();
    `);
    await new Promise(resolve => server.once('connect', resolve));
    await server.sendMessage(BroadcastMessage.createClientMessage('child', 1), { until: 'delivered' });
    await left;
    expect(await ran).toMatchObject({ out: 'handled\n', code: 0 });
  });

  it('is not kept alive by the pause between two attempts to connect', async () => {
    expect(await run(`new BroadcastTcpClient({ port: 1, reconnectInterval: 600_000 }).connect();`)).toMatchObject({
      code: 0,
    });
  });

  it('is kept alive by a server that listens, and by none that was stopped', async () => {
    expect(
      await run(`
        const server = new BroadcastTcpServer({ port: 0 });
        await server.start();
        setTimeout(() => { console.log('still here'); server.stop(); }, 100);
      `),
    ).toMatchObject({ out: 'still here\n', code: 0 });
  });

  it.each(['SIGTERM', 'SIGINT'] as const)('is ended by %s as if there were no library', async name => {
    const script = `
      const server = new BroadcastTcpServer({ host: '127.0.0.1', port: 0 });
      await server.start();
      const client = new BroadcastTcpClient({ port: server.address.port, host: '127.0.0.1' });
      await client.connect();
      console.log('ready');
    `;
    expect(await run(script, name)).toMatchObject({ code: null, signal: name });
  });
});
