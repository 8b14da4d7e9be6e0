import { existsSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { BroadcastMessage } from '../../src/index.js';
import { CLI, cleanEnvironment, inTerminal, linesOf, run, Running, serve, start, type Ended } from '../helpers/cli.js';
import { connectedClient, newClient, startServer } from '../helpers/scene.js';

const numbers = (from: number, to: number): string =>
  Array.from({ length: to - from + 1 }, (_, i) => `${String(from + i)}\n`).join('');

const shell = (command: string): Running => new Running('bash', ['-c', command], cleanEnvironment());

describe('sub', () => {
  it('--count takes exactly so many, in order, and leaves the rest for the next time', async () => {
    const { reach } = await serve();
    await run(['pub', 'room', ...reach], { input: numbers(1, 5000) });
    const counts = [1, 3000, 7, 1992];
    let from = 1;
    for (const count of counts) {
      const { code, stdout } = await run(['sub', 'room', '--as', 'w', '--count', String(count), ...reach]);
      expect(stdout).toBe(numbers(from, from + count - 1));
      expect(code).toBe(0);
      from += count;
    }
    expect(JSON.parse((await run(['sessions', '--json', ...reach])).stdout)).toMatchObject([{ name: 'w', queued: 0 }]);
  });

  it('--count counts across channels', async () => {
    const { reach } = await serve();
    const channels = ['a', 'b', 'c'];
    for (const channel of channels) await run(['pub', channel, ...reach], { input: numbers(1, 10) });
    const seen: string[] = [];
    for (const count of [1, 1, 8, 13, 7]) {
      const { stdout } = await run(['sub', ...channels, '--as', 'w', '--envelope', '--count', String(count), ...reach]);
      expect(linesOf(stdout)).toHaveLength(count);
      seen.push(...linesOf(stdout));
    }
    const messages = seen.map(line => JSON.parse(line) as { channel: string; data: number; attempt: number });
    for (const channel of channels)
      expect(messages.filter(message => message.channel === channel).map(({ data }) => data)).toEqual([
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10,
      ]);
    expect(messages.every(({ attempt }) => attempt === 1)).toBe(true);
  });

  it('two that share a name share its messages, each taking exactly its count', async () => {
    const { reach } = await serve();
    await run(['pub', '--to', 'w', ...reach], { input: numbers(1, 100) });
    const both = await Promise.all([1, 2].map(() => run(['sub', '--as', 'w', '--count', '40', ...reach])));
    const rest = await run(['sub', '--as', 'w', '--count', '20', ...reach]);
    const all = [...both, rest].flatMap(({ stdout }) => linesOf(stdout).map(Number));
    expect(all.sort((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, i) => i + 1));
  });

  it('ends with the time: well without a count, with a count as a failure', async () => {
    const { reach } = await serve();
    await run(['pub', 'room', '1', ...reach]);
    expect(await run(['sub', 'room', '--timeout', '300', '--format', 'text', ...reach])).toMatchObject({
      code: 0,
      stdout: '1\n',
    });
    const short = await run(['sub', 'room', '--timeout', '300', '--count', '2', '--json', ...reach]);
    expect(short.code).toBe(6);
    expect(JSON.parse(linesOf(short.stderr).at(-1) as string)).toEqual({
      error: { code: 'timeout', message: '0 of 2 messages came within 300 ms' },
    });
  });

  it('is durable with a name; without one its session ends with it', async () => {
    const { reach } = await serve();
    for (const name of [['--as', 'kept'], []]) {
      const subscriber = start(['sub', 'room', ...name, ...reach]);
      await subscriber.says('is listening to room');
      expect((await subscriber.signal('SIGTERM')).code).toBe(0);
    }
    expect(JSON.parse((await run(['sessions', '--json', ...reach])).stdout)).toMatchObject([
      { name: 'kept', subscriptions: ['room'], instances: 0 },
    ]);
    await run(['pub', 'room', 'meanwhile', ...reach]);
    expect((await run(['sub', 'room', '--as', 'kept', '--count', '1', ...reach])).stdout).toBe('"meanwhile"\n');
  });

  it('`| head` ends it quietly; what was not written is not acknowledged, and not charged', async () => {
    const { reach } = await serve();
    const name = ['--as', 'w', '--json', ...reach];
    const input = Array.from({ length: 3000 }, (_, i) => `"${String(i)}${'x'.repeat(5000)}"\n`).join('');
    await run(['pub', 'room', ...reach], { input });
    const piped = await shell(
      `"${process.execPath}" "${CLI}" sub room ${name.join(' ')} | head -n 3; echo "codes \${PIPESTATUS[*]}"`,
    ).ended;
    const lines = linesOf(piped.stdout);
    expect(lines.slice(0, 3)).toEqual(linesOf(input).slice(0, 3));
    expect(lines[3]).toBe('codes 0 0');
    expect(piped.stderr).not.toMatch(/error|warning/);
    const [{ queued }] = JSON.parse((await run(['sessions', '--json', ...reach])).stdout) as [{ queued: number }];
    // The pipe held some more than head has read; everything that was not in it still waits.
    expect(queued).toBeGreaterThan(2900);
    const rest = await run(['sub', 'room', ...name, '--envelope', '--count', String(queued)]);
    const messages = linesOf(rest.stdout).map(line => JSON.parse(line) as { data: string; attempt: number });
    expect(messages.map(({ data }) => `${JSON.stringify(data)}\n`).join('')).toBe(
      input
        .split('\n')
        .slice(-queued - 1)
        .join('\n'),
    );
    expect(messages.every(({ attempt }) => attempt === 1)).toBe(true);
  });

  it.runIf(existsSync('/dev/full'))('what cannot be written is an error that says so, and is not charged', async () => {
    const { server, port } = await startServer('memory');
    const reach = ['--host', '127.0.0.1', '--port', String(port)];
    const subscriber = newClient(port, 'w');
    subscriber.onMessage('room', () => undefined);
    await subscriber.connect();
    await subscriber.close();
    const sender = await connectedClient(port, 'sender');
    for (const n of [1, 2, 3]) await sender.sendMessage(BroadcastMessage.createChannelMessage('room', n));
    const full = (command: string): Promise<Ended> =>
      shell(`"${process.execPath}" "${CLI}" ${command} ${reach.join(' ')} > /dev/full`).ended;
    for (let i = 0; i < 6; i++) {
      const { code, stderr } = await full('sub room --as w');
      expect(code).toBe(1);
      expect(stderr).toMatch(/^error standard output cannot be written.*\(output-failed\)$/m);
    }
    expect(JSON.parse((await full('status --json')).stderr)).toMatchObject({ error: { code: 'output-failed' } });
    const rest = await run(['sub', 'room', '--as', 'w', '--count', '3', ...reach]);
    expect(rest.stdout).toBe(numbers(1, 3));
    expect(await server.deadLetters('w').list()).toEqual([]);
  });

  it('acknowledges nothing that a slow reader has not taken yet', async () => {
    const { reach } = await serve();
    const input = Array.from({ length: 1000 }, (_, i) => `"${String(i)}${'x'.repeat(5000)}"\n`).join('');
    await run(['pub', 'room', ...reach], { input });
    const command = `"${process.execPath}" "${CLI}" sub room --as w --count 1000 ${reach.join(' ')}`;
    const subscriber = shell(`exec 3<&0; ${command} | { read go <&3; cat; }`);
    await subscriber.says('is listening');
    const queued = async (): Promise<number> =>
      (JSON.parse((await run(['sessions', '--json', ...reach])).stdout) as [{ queued: number }])[0].queued;
    // The pipe and the writer's own buffer take some; the rest waits.
    expect(await queued()).toBeGreaterThan(900);
    expect(await subscriber.input('go\n').ended).toMatchObject({ code: 0, stdout: input });
    expect(await queued()).toBe(0);
  });

  it('prints every kind of data in the tagged form, a message as a whole with --envelope', async () => {
    const { port } = await startServer('memory');
    const client = await connectedClient(port, 'sender');
    const shared = { x: 1 };
    const data = [
      1n,
      new Date(0),
      new Map([['k', undefined]]),
      new Set([NaN]),
      Buffer.from('hi'),
      /a/g,
      -0,
      shared,
      shared,
    ];
    await client.sendMessage(BroadcastMessage.createChannelMessage('room', data, { headers: { h: 'v' } }));
    const reach = ['--host', '127.0.0.1', '--port', String(port)];
    const { stdout } = await run(['sub', 'room', '--count', '1', '--envelope', ...reach]);
    expect(JSON.parse(stdout)).toMatchObject({
      channel: 'room',
      sender: 'sender',
      headers: { h: 'v' },
      data: [
        { $bigint: '1' },
        { $date: '1970-01-01T00:00:00.000Z' },
        { $map: [['k', { $undefined: true }]] },
        { $set: [{ $number: 'NaN' }] },
        { $bytes: 'aGk=', type: 'Buffer' },
        { $regexp: ['a', 'g'] },
        { $number: '-0' },
        { x: 1 },
        { $ref: '$[7]' },
      ],
    });
  });

  it('lets nothing through to a terminal that would move its cursor', async () => {
    const { reach } = await serve();
    await run(['pub', 'room', '--format', 'text', ...reach], { input: 'a\u001b[2Jb\u009bc\n' });
    const text = await inTerminal(
      `${process.execPath} ${CLI} sub room --as w --count 1 --format text ${reach.join(' ')}`,
      { NO_COLOR: '1' },
    ).ended;
    expect(text.stdout).toContain('a\\u001b[2Jb\\u009bc');
    await run(['pub', 'room', '--format', 'text', ...reach], { input: 'a\u001b[2Jb\u009bc\n' });
    const piped = await run(['sub', 'room', '--as', 'w', '--count', '1', '--format', 'text', ...reach]);
    expect(piped.stdout).toBe('a\u001b[2Jb\u009bc\n');
  });

  it('says once that there is no server, and goes on when there is one', async () => {
    const { server, reach, port } = await serve();
    await server.signal('SIGKILL');
    const subscriber = start(['sub', 'room', ...reach]);
    await subscriber.says('no server at');
    await serve(['--memory', '--port', String(port)]);
    await subscriber.says('is listening to room');
    await run(['pub', 'room', 'x', ...reach]);
    await subscriber.prints('"x"\n');
    expect(subscriber.stderr.match(/no server at/g)).toHaveLength(1);
  });
});
