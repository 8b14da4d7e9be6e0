/** What becomes of a server whose store fails while clients are connected. The failure is one of `commit`, as of a sync. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { expect, it } from 'vitest';
import { memoryEngine, type Engine, type EngineHost } from '../../src/engine/index.js';
import { BroadcastError, BroadcastMessage } from '../../src/index.js';
import { connectedClient, Inbox, newClient, startServer } from '../helpers/scene.js';

/** A memory engine that fails at the first commit after `fail()`, as the seam asks of one. */
function failingEngine(): Engine & { fail(): void } {
  const engine = memoryEngine();
  const error = new BroadcastError('store-failed', 'the sync failed');
  let host: EngineHost | undefined;
  let failing = false;
  let told = false;
  const open = (given: EngineHost) => {
    host = given;
    return engine.open(given);
  };
  const commit = (): Promise<void> => {
    if (!failing) return engine.commit();
    if (!told) host?.failed(error);
    told = true;
    return Promise.reject(error);
  };
  const changed = { open, commit, fail: () => void (failing = true) };
  return new Proxy(engine, {
    get(target, key): unknown {
      if (key in changed) return changed[key as keyof typeof changed];
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  }) as Engine & { fail(): void };
}

it('tells its event and every client why, says of nothing that it is stored, and accepts nothing further', async () => {
  const engine = failingEngine();
  const { server, port } = await startServer('memory', { engine });
  const heard = new Promise<Error>(resolve => server.on('engineError', resolve));
  const sender = await connectedClient(port, 'sender');
  const other = await connectedClient(port, 'other');
  const left = [sender, other].map(client => new Promise(resolve => client.once('offline', resolve)));
  engine.fail();
  let settled = false;
  const receipt = sender.sendMessage(BroadcastMessage.createClientMessage('away', 'kept by its sender'));
  const settling = receipt.then(() => void (settled = true));

  expect(await heard).toMatchObject({ code: 'store-failed' });
  for (const reason of await Promise.all(left)) expect(reason).toMatchObject({ code: 'store-failed' });
  const [refused] = (await once(connect(port, '127.0.0.1'), 'error')) as [NodeJS.ErrnoException];
  expect(refused.code).toBe('ECONNREFUSED');
  expect([settled, sender.outbox.messages]).toEqual([false, 1]);

  // The sender has it still, and a server with a store that works takes it.
  await server.stop();
  await other.close();
  await startServer('memory', { port });
  await settling;
  const inbox = new Inbox();
  const away = newClient(port, 'away');
  away.onMessage(message => inbox.push(message.data));
  await away.connect();
  expect(await inbox.reached(1)).toEqual(['kept by its sender']);
});
