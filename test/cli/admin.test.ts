import { describe, expect, it } from 'vitest';
import { BroadcastMessage, BroadcastReject } from '../../src/index.js';
import { linesOf, run, serve } from '../helpers/cli.js';
import { connectedClient, gate, startServer } from '../helpers/scene.js';

async function withDeadLetters(name: string, count: number): Promise<string[]> {
  const { port } = await startServer('memory');
  const worker = await connectedClient(port, name);
  const { promise, open } = gate();
  let left = count;
  worker.onMessage(() => {
    if (--left === 0) open();
    throw new BroadcastReject('not mine');
  });
  await worker.flush();
  const sender = await connectedClient(port, 'sender');
  for (let i = 0; i < count; i++)
    await sender.sendMessage(
      BroadcastMessage.createClientMessage(name, { n: i, rich: new Map([[1n, 'x'.repeat(100)]]) }),
    );
  await promise;
  await worker.flush();
  await worker.close();
  return ['--host', '127.0.0.1', '--port', String(port)];
}

describe('status, sessions and dead', () => {
  it('tell of the server, without counting the one who asks', async () => {
    const { reach } = await serve();
    await run(['pub', 'room', 'x', '--as', 'sender', ...reach]);
    const status = await run(['status', '--json', ...reach]);
    expect(JSON.parse(status.stdout)).toMatchObject({
      engine: 'memory',
      clients: 0,
      sessions: 1,
      messagesIn: 1,
      backlog: 1,
    });
    const shown = await run(['status', ...reach]);
    expect(shown.stdout).toMatch(/^engine +memory\n/);
    expect(shown.stdout).toMatch(/^address +127\.0\.0\.1:\d+$/m);
    expect(shown.stderr).toBe('');
    expect(JSON.parse((await run(['sessions', '--json', ...reach])).stdout)).toMatchObject([{ name: 'sender' }]);
  });

  it('line up names that are wide, and show no control character', async () => {
    const { reach } = await serve();
    for (const name of ['日本語', 'é', 'plain\u202ename'])
      await run(['sub', 'room', '--as', name, '--timeout', '200', ...reach]);
    const [head = '', ...rows] = linesOf((await run(['sessions', ...reach])).stdout);
    expect(rows).toHaveLength(3);
    expect(rows.join('')).not.toContain('\u202e');
    expect(rows.join('')).toContain('plain\\u202ename');
    // Two cells for each of the wide characters.
    const wide = rows.find(row => row.startsWith('日本語')) as string;
    expect(wide.indexOf('0')).toBe(head.indexOf('instances') - 3);
  });

  it('forget a session, and say when there is none', async () => {
    const { reach } = await serve();
    await run(['pub', '--to', 'away', 'x', ...reach]);
    const forgotten = await run(['sessions', 'forget', 'away', ...reach]);
    expect(forgotten).toMatchObject({ code: 0, stderr: '"away" is forgotten\n' });
    const again = await run(['sessions', 'forget', 'away', '--json', ...reach]);
    expect(again.code).toBe(1);
    expect(JSON.parse(again.stderr)).toMatchObject({ error: { code: 'not-found' } });
  });

  it('list dead letters, give them again and drop them', async () => {
    const reach = await withDeadLetters('worker', 4);
    expect((await run(['dead', ...reach])).stdout).toBe('name    deadLetters\nworker  4\n');
    const table = linesOf((await run(['dead', 'ls', 'worker', '--limit', '2', ...reach])).stdout);
    expect(table).toHaveLength(3);
    expect(table[1]).toMatch(/^\d+ +1 +\S+Z +sender +not mine +\{"n":0,"rich":.*…$/);
    const letters = JSON.parse((await run(['dead', 'ls', 'worker', '--json', ...reach])).stdout) as { id: string }[];
    expect(letters).toHaveLength(4);
    expect(letters[0]).toMatchObject({
      reason: 'not mine',
      attempts: 1,
      message: { client: 'worker', data: { n: 0 } },
    });
    const [first, second] = letters as [{ id: string }, { id: string }];
    expect((await run(['dead', 'drop', 'worker', first.id, ...reach])).stderr).toBe('1 message dropped\n');
    expect((await run(['dead', 'retry', 'worker', second.id, ...reach])).stderr).toBe('1 message sent again\n');
    const again = await run(['sub', '--as', 'worker', '--count', '1', ...reach]);
    expect(JSON.parse(again.stdout)).toMatchObject({ n: 1 });
    expect((await run(['dead', 'retry', 'worker', '--all', ...reach])).stderr).toBe('2 messages sent again\n');
    expect((await run(['dead', 'ls', 'worker', '--json', ...reach])).stdout).toBe('[]\n');
    const rest = await run(['sub', '--as', 'worker', '--count', '2', ...reach]);
    expect(linesOf(rest.stdout).map(line => (JSON.parse(line) as { n: number }).n)).toEqual([2, 3]);
  });

  it.each([
    [['dead', 'retry', 'worker'], 'give the id of one dead letter, or --all', 2],
    [['dead', 'drop', 'worker', '1', '--all'], 'give the id of one dead letter, or --all', 2],
    [['dead', 'drop', 'worker', '77'], 'has no dead letter 77', 1],
    [['dead', 'ls', 'worker', '--limit', 'x'], '--limit takes a whole number', 2],
    [['sessions', 'forget'], "missing required argument 'name'", 2],
  ])('refuse %j', async (args, text, exit) => {
    const { reach } = await serve();
    const { code, stderr } = await run([...args, ...reach]);
    expect(stderr).toContain(text);
    expect(code).toBe(exit);
  });

  it('say that no server is there', async () => {
    const { server, reach } = await serve();
    await server.signal('SIGTERM');
    const { code, stderr } = await run(['status', ...reach]);
    expect(stderr).toContain('no server answers at 127.0.0.1:');
    expect(code).toBe(4);
  });
});
