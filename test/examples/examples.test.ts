/** The examples, run as they stand, in processes of their own. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { Inbox, newClient, temporaryFolder } from '../helpers/scene.js';

// Up to a dozen processes start at a time, and again; that takes a while on a busy machine.
vi.setConfig({ testTimeout: 120_000 });

const EXAMPLES = fileURLToPath(new URL('../../examples/', import.meta.url));

function start(file: string, args: readonly string[] = [], env: Record<string, string> = {}): ChildProcess {
  const child = spawn(process.execPath, [join(EXAMPLES, file), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, BROADCAST_PORT: '0', ...env },
  });
  onTestFinished(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  return child;
}

/**
 * What an example that ends by itself prints. Its processes share its standard output, so the end of that says that all
 * of them have ended.
 */
async function outputOf(file: string, args: readonly string[] = []): Promise<string> {
  const child = start(file, args);
  const [output, errors] = await Promise.all([text(child.stdout!), text(child.stderr!), once(child, 'close')]);
  if (child.exitCode !== 0) throw new Error(`${file} ended with ${String(child.exitCode)}: ${errors}`);
  return output;
}

describe('the examples', () => {
  it('hello world says hello', async () => {
    expect(await outputOf('hello-world.js')).toBe('speaker says: Hello world\ndelivered\n');
  });

  it('the work queue does every job, one worker killed', async () => {
    expect(await outputOf('work-queue/main.js')).toBe('1000 of 1000 jobs done, 0 wrong, one of 3 workers killed\n');
  });

  it('the block pipeline processes every range once', async () => {
    const [report] = (await outputOf('block-pipeline/run.js', ['--ranges', '40'])).split('\n');
    expect(JSON.parse(report!)).toEqual({ ranges: 40, results: 80, exact: true, killed: {} });
  });

  const seed = process.env['BROADCAST_SEED'] ?? String(Math.floor(Math.random() * 1e9));
  it(`the block pipeline processes every range once with every process killed twice (seed ${seed})`, async () => {
    const [report] = (await outputOf('block-pipeline/run.js', ['--kill', '--seed', seed, '--ranges', '80'])).split(
      '\n',
    );
    const { exact, killed } = JSON.parse(report!) as { exact: boolean; killed: Record<string, number> };
    expect(exact).toBe(true);
    const roles = ['server', 'coordinator', 'reader 1', 'reader 2', 'reader 3', 'filter', 'sink'];
    expect(Object.keys(killed).sort()).toEqual([...roles, 'transfer processor', 'vote processor'].sort());
  });

  it('the HTTP service takes an order, keeps it for who is away, and ends in order', async () => {
    const dataDir = join(await temporaryFolder(), 'data');
    const child = start('http-service.js', [], { HTTP_PORT: '0', BROADCAST_DATA_DIR: dataDir });
    const [line] = (await once(child.stdout!, 'data')) as [Buffer];
    const [http, broadcast] = [...String(line).matchAll(/\d+/g)].map(match => Number(match[0])) as [number, number];
    const post = (body: string): Promise<Response> =>
      fetch(`http://127.0.0.1:${String(http)}/orders`, { method: 'POST', body });
    const answer = await post('{"item":"tea"}');
    expect(answer.status).toBe(202);
    expect(await answer.json()).toMatchObject({ status: 'stored' });
    expect((await post('{')).status).toBe(400);
    const inbox = new Inbox();
    const shop = newClient(broadcast, 'shop');
    shop.onMessage('orders', message => inbox.push(message.data));
    await shop.connect();
    expect(await inbox.reached(1)).toEqual([{ item: 'tea' }]);
    const health = await fetch(`http://127.0.0.1:${String(http)}/health`);
    expect(await health.json()).toMatchObject({ clients: 1 });
    await shop.close();
    child.kill('SIGTERM');
    expect(await once(child, 'exit')).toEqual([0, null]);
  });
});
