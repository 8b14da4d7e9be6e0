/** What is logged, where, and how often. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, onTestFinished } from 'vitest';
import { BroadcastMessage, type Logger } from '../../src/index.js';
import { PREAMBLE } from '../../src/protocol/constants.js';
import { encodeError } from '../../src/protocol/control.js';
import { TestClock } from '../../src/testing/index.js';
import { connectedClient, Inbox, newClient, recordingLogger, startServer } from '../helpers/scene.js';

const ENTRY = fileURLToPath(new URL('../../dist/cjs/index.js', import.meta.url));

/** What a script with the built package prints to standard error and standard output. */
async function outputOf(script: string): Promise<{ out: string; err: string }> {
  const source = `const { BroadcastTcpClient, BroadcastTcpServer, BroadcastMessage } = require(${JSON.stringify(ENTRY)});\n(async () => {${script}})();`;
  const child = spawn(process.execPath, ['-e', source], { stdio: ['ignore', 'pipe', 'pipe'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  const result = { out: '', err: '' };
  child.stdout.on('data', (bytes: Buffer) => (result.out += bytes.toString()));
  child.stderr.on('data', (bytes: Buffer) => (result.err += bytes.toString()));
  await once(child, 'close');
  return result;
}

describe('the default logger', () => {
  it('is silent while all is well', async () => {
    const { out, err } = await outputOf(`
      const server = new BroadcastTcpServer({ host: '127.0.0.1', port: 0 });
      await server.start();
      const client = new BroadcastTcpClient({ host: '127.0.0.1', port: server.address.port });
      client.onMessage('room', () => undefined);
      await client.connect();
      await server.sendMessage(BroadcastMessage.createChannelMessage('room', 1));
      await client.close();
      await server.stop();
    `);
    expect({ out, err }).toEqual({ out: '', err: '' });
  });

  it('puts a warning on one line of standard error', async () => {
    const { out, err } = await outputOf(`
      const client = new BroadcastTcpClient({ host: '127.0.0.1', port: 1 });
      client.connect();
    `);
    expect(out).toBe('');
    expect(err).toMatch(/^broadcast: no server at 127\.0\.0\.1:1 \(.*ECONNREFUSED.*\n$/);
    expect(err.trimEnd().split('\n')).toHaveLength(1);
  });

  it('lets nobody who is connected write to the terminal', async () => {
    const text = '\x1b[2Jcleared\nbroadcast: a line of its own';
    const error = encodeError({ code: 'unauthorized', retryable: false, text });
    const answer = Buffer.concat([PREAMBLE, error]).toString('hex');
    const { err } = await outputOf(`
      const client = new BroadcastTcpClient({ host: '127.0.0.1', port: 0 + (await listen()) }, 'x');
      await client.connect().catch(() => undefined);
      process.exit();
      async function listen() {
        const server = require('net').createServer(socket => {
          socket.on('error', () => undefined);
          socket.resume();
          socket.end(Buffer.from('${answer}', 'hex'));
        });
        await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));
        return server.address().port;
      }
    `);
    expect(err).toContain('a line of its own');
    expect(err).not.toContain('\x1b');
    for (const line of err.trimEnd().split('\n')) expect(line).toMatch(/^broadcast: /);
  });
});

describe('a logger', () => {
  it('with trace is told of every frame; without it, or with console’s own, of none', async () => {
    const { port } = await startServer('memory');
    const frames = new Inbox<string>();
    const logger: Logger = { ...recordingLogger(), trace: (...parts) => frames.push(parts.map(String).join(' ')) };
    const client = newClient(port, 'client', { logger });
    await client.connect();
    await client.sendMessage(BroadcastMessage.createClientMessage('x', 1));
    for (const line of ['→ HELLO', '← WELCOME', '→ MESSAGES', '← RECEIPT'])
      expect(frames.items.some(frame => frame.startsWith(line))).toBe(true);
    const lines: unknown[][] = [];
    const like = { ...recordingLogger(), debug: (...parts: unknown[]) => lines.push(parts), trace: console.trace };
    await newClient(port, 'other', { logger: like }).connect();
    expect(lines).toEqual([]);
  });

  it('finds the error both in the line, as pino needs it, and behind it, as console does', async () => {
    const { port } = await startServer('memory');
    const calls = new Inbox<unknown[]>();
    const client = newClient(port, 'client', {
      logger: { ...recordingLogger(), warn: (...parts) => calls.push(parts) },
      maxAttempts: 1,
    });
    const error = new Error('out of paper');
    client.onMessage('room', () => {
      throw error;
    });
    await client.connect();
    const sender = await connectedClient(port);
    await sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1));
    const [call] = await calls.reached(1);
    expect(call?.[0]).toContain('out of paper');
    expect(call?.[1]).toBe(error);
  });

  it('of a server hears at most one line a second for each address and code', async () => {
    const clock = new TestClock();
    const logger = recordingLogger();
    const { port } = await startServer('memory', { clock, logger });
    const nonsense = async (): Promise<void> => {
      const socket = connect(port, '127.0.0.1');
      socket.on('error', () => undefined);
      socket.resume();
      socket.end('GET / HTTP/1.1\r\n\r\n');
      await once(socket, 'close');
    };
    for (let i = 0; i < 5; i++) await nonsense();
    const lines = (): string[] => logger.warnings.filter(line => line.includes('not-broadcast'));
    expect(lines()).toHaveLength(1);
    clock.tick(1000);
    await nonsense();
    expect(lines()).toHaveLength(2);
  });
});
