import { cp, mkdir, readdir, rename, stat, truncate, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { version } from '../../src/version.js';
import { CLI, cleanEnvironment, inTerminal, run, Running, serve, start } from '../helpers/cli.js';
import { temporaryFolder } from '../helpers/scene.js';

/** A command as a person would copy it, by the shell. */
function copied(command: string, env: NodeJS.ProcessEnv): Running {
  return new Running('/bin/sh', ['-c', `exec ${command}`], cleanEnvironment(env));
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>(resolve => probe.listen(0, '127.0.0.1', resolve));
  const { port } = probe.address() as { port: number };
  await new Promise(resolve => probe.close(resolve));
  return port;
}

describe('serve', () => {
  it('says version, address, folder, durability, what waits, and two lines that work when they are copied', async () => {
    const state = await temporaryFolder();
    const port = await freePort();
    const env = { XDG_STATE_HOME: state };
    const server = start(['serve', '--port', String(port)], env);
    await server.says(/pub room_1.*\n/);
    expect(server.stderr).toContain(`Broadcast ${version} listens at localhost:${String(port)}`);
    expect(server.stderr).toContain(`data        ${join(state, 'broadcast', String(port))}`);
    expect(server.stderr).toContain('durability  fsync');
    expect(server.stderr).toContain('waiting     0 messages');
    const [subLine = '', pubLine = ''] = server.stderr.split('\n').filter(line => / (sub|pub) room_1/.test(line));
    const subscriber = copied(subLine.trim(), env);
    await subscriber.says('is listening to room_1');
    const sent = await copied(pubLine.trim(), env).ended;
    expect(sent).toMatchObject({ code: 0, stderr: expect.stringContaining('1 sent: 1 delivered') as string });
    await subscriber.prints('"Hello world"\n');
    expect((await server.signal('SIGTERM')).code).toBe(0);
  });

  it('keeps its data in a folder that nobody else can read, and tells what it found waiting', async () => {
    const data = join(await temporaryFolder(), 'data');
    const first = await serve(['--data', data]);
    expect((await run(['pub', 'room', ...first.reach], { input: '1\n2\n3\n' })).code).toBe(0);
    expect((await first.server.signal('SIGINT')).code).toBe(0);
    expect((await stat(data)).mode & 0o777).toBe(0o700);
    for (const name of await readdir(data)) expect((await stat(join(data, name))).mode & 0o077).toBe(0);
    const second = start(['serve', '--port', '0', '--data', data]);
    await second.says('waiting     3 messages');
  });

  it('refuses a store that lacks a file, says how to go on, and names what is lost from then on, also when the port is taken', async () => {
    const data = join(await temporaryFolder(), 'data');
    const first = await serve(['--data', data]);
    expect((await run(['pub', 'room', ...first.reach], { input: '1\n2\n3\n' })).code).toBe(0);
    expect((await first.server.signal('SIGTERM')).code).toBe(0);
    const name = 'segment-0000000001';
    await truncate(join(data, `${name}.log`), 0);
    const refused = await run(['serve', '--port', '0', '--data', data]);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(
      new RegExp(
        `^error the store in .* is not whole: ${name}.log is empty; .* ${name}.lost .* \\(store-incomplete\\)\n$`,
      ),
    );
    await rename(join(data, `${name}.log`), join(data, `${name}.lost`));
    await writeFile(join(data, `${name}.log`), '');
    const lost = `the store was damaged: ${name}.log `;
    const { server, reach } = await serve(['--data', data]);
    expect(server.stderr.split(lost)).toHaveLength(2);
    const copy = `${data}-2`;
    await cp(data, copy, { recursive: true });
    const taken = await run(['serve', ...reach, '--data', copy]);
    expect(taken.code).toBe(5);
    expect(taken.stderr.split(lost)).toHaveLength(2);
    expect(taken.stderr.split('in use by another process')).toHaveLength(2);
  });

  it('a port that is taken is an error with the command for the next one, which works when it is copied', async () => {
    const { port, reach } = await serve();
    const second = await run(['serve', ...reach, '--memory', '--window-messages', '99']);
    expect(second.code).toBe(5);
    expect(second.stderr).toContain(`127.0.0.1:${String(port)} is in use by another process`);
    expect(second.stderr).toContain('(address-in-use)');
    const command = /Run one beside it with: {2}(.*)/.exec(second.stderr)?.[1] as string;
    expect(command).toContain('--memory --window-messages 99 --host 127.0.0.1 --port');
    const third = copied(command, {});
    await third.says('listens at 127.0.0.1:');
    expect((await third.signal('SIGTERM')).code).toBe(0);
  });

  it('a folder that is taken is an error with a command for another one, also when the environment names it', async () => {
    const state = await temporaryFolder();
    const data = join(state, "it's data");
    await mkdir(data);
    const { port } = await serve(['--data', data]);
    const args = ['serve', '--host', '127.0.0.1', '--port', String(port)];
    for (const second of [
      await run([...args, '--data', data]),
      await run([...args, `--data=${data}`]),
      await run(args, { env: { BROADCAST_DATA_DIR: data } }),
    ]) {
      expect(second.code).toBe(5);
      expect(second.stderr).toContain('(store-locked)');
      const command = /Run one beside it with: {2}(.*)/.exec(second.stderr)?.[1] as string;
      const third = copied(command, { BROADCAST_DATA_DIR: data });
      await third.says(`data        ${data}-`);
      expect((await third.signal('SIGTERM')).code).toBe(0);
    }
  });

  it('listens on a Unix socket, and a second one there is told of a free path', async () => {
    const folder = await temporaryFolder();
    const path = join(folder, 'b.sock');
    const server = start(['serve', '--socket', path, '--memory']);
    await server.says(/pub room_1.*\n/);
    expect(server.stderr).toContain(`sub room_1 --socket ${path}`);
    expect((await run(['pub', 'room', 'x', '--socket', path])).code).toBe(0);
    expect((await run(['sub', 'room', '--count', '1', '--url', `unix:${path}`])).stdout).toBe('"x"\n');
    expect((await run(['status', '--socket', path])).stdout).toMatch(new RegExp(`address +${path}`));
    const second = await run(['serve', '--socket', path, '--memory']);
    expect(second).toMatchObject({ code: 5, stderr: expect.stringContaining(`--socket ${path}-2`) as string });
  });

  it('SIGTERM lets what is on its way become safe', async () => {
    const data = join(await temporaryFolder(), 'data');
    const { server, reach, port } = await serve(['--data', data]);
    const input = Array.from({ length: 20_000 }, (_, i) => `${String(i)}\n`).join('');
    const subscriber = start(['sub', 'room', '--as', 'w', ...reach]);
    await subscriber.says('is listening');
    const publisher = start(['pub', 'room', '--json', ...reach]).input(input);
    await subscriber.prints('\n5000\n');
    const stopped = await server.signal('SIGTERM');
    expect(stopped.code).toBe(0);
    await serve(['--data', data, '--port', String(port)]);
    expect(JSON.parse((await publisher.ended).stderr.split('\n').at(-2) as string)).toMatchObject({
      sent: 20_000,
      failed: 0,
    });
    await subscriber.prints('\n19999\n');
    expect(subscriber.stdout).toBe(input);
  });

  it.each([
    ['a port that is none', ['--port', '99999'], '--port takes a whole number from 0 to 65535, not "99999"'],
    ['a number that is none', ['--sessions', 'many'], '--sessions takes a whole number'],
    ['a hexadecimal port', ['--port', '0x10'], '--port takes a whole number from 0 to 65535, not "0x10"'],
    ['a number with an exponent', ['--sessions', '1e3'], '--sessions takes a whole number from 1 on, not "1e3"'],
    ['a number with a space', ['--sessions', ' 5'], '--sessions takes a whole number from 1 on, not " 5"'],
    ['memory and a folder', ['--memory', '--data', 'x'], '--memory and --data cannot be given together'],
    ['two addresses', ['--socket', 'x', '--port', '1'], '--host or --port and --socket cannot be given together'],
    ['an option that is misspelt', ['--memry'], 'Did you mean --memory?'],
    ['an impossible pair', ['--dead-after', '5', '--memory'], 'deadAfter (5 ms) must be longer than pingInterval'],
  ])('refuses %s', async (_what, args, text) => {
    const { code, stderr } = await run(['serve', '--host', '127.0.0.1', ...args]);
    expect(stderr).toContain(text);
    expect(code).toBe(2);
  });

  it('refuses a variable that is no decimal number', async () => {
    const { code, stderr } = await start(['serve', '--memory'], { BROADCAST_PORT: '0x10' }).ended;
    expect(stderr).toContain('BROADCAST_PORT must be a whole number in decimal digits, not "0x10"');
    expect(code).toBe(2);
  });

  it('takes options from the environment, the command line first', async () => {
    const folder = await temporaryFolder();
    const server = start(['serve', '--json', '--host', '127.0.0.1', '--port', '0'], {
      BROADCAST_PORT: '1',
      BROADCAST_DATA_DIR: join(folder, 'd'),
      BROADCAST_URL: 'tcp://nowhere:1',
    });
    await server.says('"address"');
    expect(JSON.parse(server.stderr)).toMatchObject({ dataDir: join(folder, 'd'), address: { host: '127.0.0.1' } });
  });

  it('has colours in a terminal, and none when they are not wanted', async () => {
    const command = `${process.execPath} ${CLI} serve --memory --port 0`;
    const colours = inTerminal(command);
    await colours.prints(/pub room_1.*\r\n/);
    expect(colours.stdout).toMatch(/\u001b\[1mBroadcast/);
    const plain = inTerminal(command, { NO_COLOR: '1' });
    await plain.prints(/pub room_1.*\r\n/);
    expect(plain.stdout).not.toContain('\u001b[');
  });
});
