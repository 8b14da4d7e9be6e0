/** A handler that is taken away while messages come, and another one in its place: order is kept, and nothing is lost. */
import { describe, expect, it } from 'vitest';
import { BroadcastMessage, type BroadcastClient, type BroadcastServer, type MessageHandler } from '../../src/index.js';
import { connectedClient, gate, Inbox, newClient, startServer, type EngineKind } from '../helpers/scene.js';
import { TestClock } from '../../src/testing/index.js';
import { startProxy, type Proxy } from '../helpers/proxy.js';

const once = (client: BroadcastClient, event: 'online' | 'offline'): Promise<void> =>
  new Promise(resolve => client.once(event, () => resolve()));
const toRoom = (data: unknown): BroadcastMessage => BroadcastMessage.createChannelMessage('room', data);
const numbers = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** A handler that ends each message when it is told how. */
function held(): { handler: MessageHandler; started: Inbox; ends: ((error?: Error) => void)[] } {
  const started = new Inbox();
  const ends: ((error?: Error) => void)[] = [];
  const handler: MessageHandler = async ({ data }) => {
    const { promise, open } = gate<Error | undefined>();
    ends.push(open);
    started.push(data);
    const error = await promise;
    if (error !== undefined) throw error;
  };
  return { handler, started, ends };
}

async function reader(port: number, handler: MessageHandler): Promise<{ client: BroadcastClient; remove: () => void }> {
  const client = newClient(port, 'reader');
  const remove = client.onMessage('room', handler);
  await client.connect();
  return { client, remove };
}

/** So many messages have come to a reader whose handler is at the first of them; behind a proxy, if asked for. */
async function running({
  kind = 'memory',
  count = 3,
  isProxied = false,
}: { kind?: EngineKind; count?: number; isProxied?: boolean } = {}): Promise<{
  port: number;
  server: BroadcastServer;
  proxy: Proxy | undefined;
  first: ReturnType<typeof held>;
  client: BroadcastClient;
  remove: () => void;
  sender: BroadcastClient;
}> {
  const { port, server } = await startServer(kind);
  const proxy = isProxied ? await startProxy(port) : undefined;
  const first = held();
  const { client, remove } = await reader(proxy?.port ?? port, first.handler);
  const sender = await connectedClient(port);
  for (const n of numbers(count)) sender.sendMessage(toRoom(n));
  await first.started.reached(1);
  await sender.flush();
  await client.flush();
  return { port, server, proxy, first, client, remove, sender };
}

describe('a handler that takes the place of another one', () => {
  it('starts when that one has ended, with what had not started', async () => {
    const { first, client, remove, sender } = await running();
    remove();
    const inbox = new Inbox();
    client.onMessage('room', ({ data }) => inbox.push(data));
    await client.flush();
    sender.sendMessage(toRoom(3));
    await sender.flush();
    await client.flush();
    expect(inbox.items).toEqual([]);
    first.ends[0]?.();
    expect(await inbox.reached(3)).toEqual([1, 2, 3]);
    expect(first.started.items).toEqual([0]);
  });

  it.each(['at once', 'later'])('has what that one failed with first, if it is added %s', async when => {
    const { first, client, remove } = await running({ kind: 'disk' });
    remove();
    if (when === 'later') await client.flush();
    const inbox = new Inbox();
    const add = (): unknown =>
      client.onMessage('room', ({ data }, { attempt }) => inbox.push(`${String(data)}, attempt ${String(attempt)}`));
    if (when === 'at once') add();
    first.ends[0]?.(new Error('no'));
    if (when === 'later') add();
    expect(await inbox.reached(3)).toEqual(['0, attempt 2', '1, attempt 1', '2, attempt 1']);
  });

  it('has it first across a lost connection', async () => {
    const { first, client, remove, server, proxy } = await running({ isProxied: true });
    remove();
    const inbox = new Inbox();
    client.onMessage('room', ({ data }) => inbox.push(data));
    const gone = new Inbox();
    server.on('disconnect', gone.push);
    const back = once(client, 'online');
    proxy?.cut();
    await gone.reached(1);
    await back;
    await client.flush();
    expect(inbox.items).toEqual([]);
    first.ends[0]?.(new Error('no'));
    expect(await inbox.reached(3)).toEqual([0, 1, 2]);
  });

  it('keeps order under load, however often that happens', async () => {
    const { port } = await startServer('disk');
    const inbox = new Inbox();
    const client = newClient(port, 'reader');
    let remove = (): void => undefined;
    const replace = (): void => {
      remove();
      remove = client.onMessage('room', async ({ data }, { attempt }) => {
        const n = data as number;
        if (n % 50 === 0) replace();
        if (n % 70 === 0) await Promise.resolve();
        if (n % 1500 === 0 && attempt === 1) throw new Error('once');
        inbox.push(n);
      });
    };
    replace();
    await client.connect();
    const sender = await connectedClient(port);
    for (const n of numbers(5000)) {
      sender.sendMessage(toRoom(n));
      if (n % 20 === 0) await sender.ready();
    }
    expect(await inbox.reached(5000)).toEqual(numbers(5000));
  });

  it('does not wait for it where the subscription was ended between them', async () => {
    const { first, client, sender } = await running({ count: 1 });
    await client.unsubscribe('room');
    const inbox = new Inbox();
    client.onMessage('room', ({ data }) => inbox.push(data));
    await client.flush();
    sender.sendMessage(toRoom(1));
    expect(await inbox.reached(1)).toEqual([1]);
    // What that one fails with now is nobody's any more.
    first.ends[0]?.(new Error('no'));
    sender.sendMessage(toRoom(2));
    expect(await inbox.reached(2)).toEqual([1, 2]);
  });

  it('does not wait for it where several are handled at a time', async () => {
    const { first, client, remove, sender } = await running({ count: 1 });
    remove();
    const inbox = new Inbox();
    client.onMessage('room', ({ data }) => inbox.push(data), { concurrency: 2 });
    sender.sendMessage(toRoom(1));
    expect(await inbox.reached(1)).toEqual([1]);
    first.ends[0]?.();
  });
});

describe('handlers beside each other that are taken away', () => {
  it('and have all failed leave the message to the next one', async () => {
    const { port } = await startServer('memory');
    const [first, second] = [held(), held()];
    const { client, remove } = await reader(port, first.handler);
    const removeSecond = client.onMessage('room', second.handler);
    const sender = await connectedClient(port);
    const receipt = sender.sendMessage(toRoom(0), { until: 'delivered' });
    await first.started.reached(1);
    await second.started.reached(1);
    remove();
    removeSecond();
    first.ends[0]?.(new Error('no'));
    second.ends[0]?.(new Error('no'));
    const inbox = new Inbox();
    client.onMessage('room', ({ data }) => inbox.push(data));
    expect(await inbox.reached(1)).toEqual([0]);
    expect((await receipt).status).toBe('delivered');
  });

  it('leave what came for them alone to those that remain', async () => {
    const { first, client, remove, sender } = await running();
    const inbox = new Inbox();
    client.onMessage('room', ({ data }) => inbox.push(data));
    remove();
    expect(inbox.items).toEqual([]);
    first.ends[0]?.();
    expect(await inbox.reached(2)).toEqual([1, 2]);
    sender.sendMessage(toRoom(3));
    expect(await inbox.reached(3)).toEqual([1, 2, 3]);
  });

  it('leave what one of them has failed with to those that remain', async () => {
    const { first, client, remove } = await running();
    const inbox = new Inbox();
    client.onMessage('room', ({ data }) => inbox.push(data));
    remove();
    first.ends[0]?.(new Error('no'));
    expect(await inbox.reached(3)).toEqual([0, 1, 2]);
  });

  it('are predecessors even if another one was there for a while', async () => {
    const { first, client, remove, sender } = await running();
    const inbox = new Inbox();
    const removeOther = client.onMessage('room', ({ data }) => inbox.push(`other ${String(data)}`));
    remove();
    removeOther();
    client.onMessage('room', ({ data }) => inbox.push(data));
    await client.flush();
    await sender.flush();
    expect(inbox.items).toEqual([]);
    first.ends[0]?.(new Error('no'));
    expect(await inbox.reached(3)).toEqual([0, 1, 2]);
  });

  it('and one of which takes the others away loses nothing', async () => {
    const { port } = await startServer('memory');
    const inbox = new Inbox();
    const client = newClient(port, 'reader');
    const removeFirst = client.onMessage('room', ({ data }) => {
      inbox.push(`first ${String(data)}`);
      removeFirst();
      removeSecond();
      client.onMessage('room', message => inbox.push(message.data));
    });
    const removeSecond = client.onMessage('room', ({ data }) => inbox.push(`second ${String(data)}`));
    await client.connect();
    const sender = await connectedClient(port);
    const receipts = numbers(3).map(n => sender.sendMessage(toRoom(n), { until: 'delivered' }));
    for (const receipt of receipts) expect((await receipt).status).toBe('delivered');
    expect(inbox.items).toEqual(['first 0', 1, 2]);
  });

  it('have their order across a lost connection, each its own', async () => {
    const { first, client, sender, server, proxy } = await running({ count: 2, isProxied: true });
    const inbox = new Inbox();
    client.onMessage('room', ({ data }) => inbox.push(data));
    sender.sendMessage(toRoom(2));
    await inbox.reached(1);
    const gone = new Inbox();
    server.on('disconnect', gone.push);
    const back = once(client, 'online');
    proxy?.cut();
    await gone.reached(1);
    await back;
    await client.flush();
    for (const n of numbers(3)) {
      expect((await first.started.reached(n + 1))[n]).toBe(n);
      first.ends[n]?.();
    }
    sender.sendMessage(toRoom(3));
    expect((await first.started.reached(4))[3]).toBe(3);
    first.ends[3]?.();
    expect(inbox.items).toEqual([2, 3]);
  });

  it('are held at once, also where one takes another away while it runs', async () => {
    const { first, client, remove, sender } = await running();
    const inbox = new Inbox();
    client.onMessage('room', ({ data }) => {
      inbox.push(data);
      if (data === 3) remove();
    });
    sender.sendMessage(toRoom(3));
    await inbox.reached(1);
    await client.flush();
    expect(inbox.items).toEqual([3]);
    first.ends[0]?.(new Error('no'));
    expect(await inbox.reached(4)).toEqual([3, 0, 1, 2]);
  });

  it('that run when the subscription ends leave nothing to that of another one', async () => {
    const clock = new TestClock();
    const { port } = await startServer('memory');
    const client = newClient(port, 'reader', { clock });
    const failed = new Inbox();
    client.on('handlerError', failed.push);
    const second = held();
    client.onMessage('room', () => {
      throw new Error('waits for another attempt');
    });
    client.onMessage('room', second.handler);
    await client.connect();
    const sender = await connectedClient(port);
    sender.sendMessage(toRoom(0));
    await second.started.reached(1);
    await failed.reached(1);
    await client.flush(); // the attempt is recorded
    await client.unsubscribe('room');
    const inbox = new Inbox();
    client.onMessage('room', ({ data }) => inbox.push(data));
    await client.flush();
    second.ends[0]?.(new Error('no'));
    await failed.reached(2);
    await client.flush();
    sender.sendMessage(toRoom(1));
    expect(await inbox.reached(1)).toEqual([1]);
  });

  it('leave what they fail with in front across a lost connection', async () => {
    const { port, server } = await startServer('memory');
    const proxy = await startProxy(port);
    const [first, second] = [held(), held()];
    const { client, remove } = await reader(proxy.port, first.handler);
    const sender = await connectedClient(port);
    for (const n of numbers(3)) sender.sendMessage(toRoom(n));
    await first.started.reached(1);
    await sender.flush();
    await client.flush();
    client.onMessage('room', second.handler);
    for (const n of [3, 4]) sender.sendMessage(toRoom(n));
    await second.started.reached(1);
    await sender.flush();
    await client.flush();
    remove();
    const gone = new Inbox();
    server.on('disconnect', gone.push);
    const [offline, back] = [once(client, 'offline'), once(client, 'online')];
    proxy.cut();
    await offline;
    first.ends[0]?.(new Error('no'));
    await gone.reached(1);
    await back;
    await client.flush();
    second.ends[0]?.();
    for (const [i, n] of [3, 0, 1, 2, 4].entries()) {
      expect((await second.started.reached(i + 1))[i]).toBe(n);
      if (i > 0) second.ends[i]?.();
    }
  });

  it('are not started while another one is taken away, or the subscription ends', async () => {
    const { first, client } = await running();
    const inbox = new Inbox();
    client.onMessage('room', ({ data }) => inbox.push(data));
    const ended = client.unsubscribe('room');
    first.ends[0]?.();
    await ended;
    await client.flush();
    expect(inbox.items).toEqual([]);
  });
});

it('a handler that replaces itself at each message gets all of them, however many wait', async () => {
  const { port } = await startServer('memory');
  const first = held();
  const { client, remove: removeFirst } = await reader(port, first.handler);
  const sender = await connectedClient(port);
  for (const n of numbers(8000)) sender.sendMessage(toRoom(n));
  await sender.flush();
  await client.flush();
  const inbox = new Inbox();
  let isAdding = true;
  let remove = (): void => undefined;
  const next: MessageHandler = ({ data }) => {
    if (isAdding) throw new Error('it was started while it was added');
    inbox.push(data);
    isAdding = true;
    remove();
    remove = client.onMessage('room', next);
    isAdding = false;
  };
  removeFirst();
  remove = client.onMessage('room', next);
  isAdding = false;
  first.ends[0]?.();
  expect(await inbox.reached(7999)).toEqual(numbers(8000).slice(1));
});

it('what a handler had that is replaced while the server is away goes on with the next one', async () => {
  const { first, client, remove, sender, server, port } = await running();
  const offline = once(client, 'offline');
  await sender.close();
  await server.stop();
  await offline;
  remove();
  const inbox = new Inbox();
  client.onMessage('room', ({ data }) => inbox.push(data));
  first.ends[0]?.();
  const online = once(client, 'online');
  await startServer('memory', { port });
  await online;
  expect(await inbox.reached(2)).toEqual([1, 2]);
});

it('a client that closes waits for a handler that was taken away while it ran', async () => {
  const { port, server } = await startServer('memory');
  const first = held();
  const { client, remove } = await reader(port, first.handler);
  const sender = await connectedClient(port);
  const receipt = sender.sendMessage(toRoom(0), { until: 'delivered' });
  await first.started.reached(1);
  remove();
  await client.flush();
  let isClosed = false;
  const closed = client.close().then(() => {
    isClosed = true;
  });
  for (let i = 0; i < 20; i++) await sender.flush();
  expect(isClosed).toBe(false);
  first.ends[0]?.();
  await closed;
  expect((await receipt).status).toBe('delivered');
  expect((await server.sessions()).find(({ name }) => name === 'reader')?.queued ?? 0).toBe(0);
});
