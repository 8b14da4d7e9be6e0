/** A handler that is taken away while messages come, and another one in its place: order is kept, and nothing is lost. */
import { describe, expect, it } from 'vitest';
import { BroadcastMessage, type BroadcastClient, type MessageHandler } from '../../src/index.js';
import { connectedClient, gate, Inbox, newClient, startServer } from '../helpers/scene.js';
import { startProxy } from '../helpers/proxy.js';

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

describe('a handler that takes the place of another one', () => {
  it('starts when that one has ended, with what had not started', async () => {
    const { port } = await startServer('memory');
    const first = held();
    const { client, remove } = await reader(port, first.handler);
    const sender = await connectedClient(port);
    for (const n of numbers(3)) sender.sendMessage(toRoom(n));
    await first.started.reached(1);
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
    const { port } = await startServer('disk');
    const first = held();
    const { client, remove } = await reader(port, first.handler);
    const sender = await connectedClient(port);
    for (const n of numbers(3)) sender.sendMessage(toRoom(n));
    await first.started.reached(1);
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
    const { port, server } = await startServer('memory');
    const proxy = await startProxy(port);
    const first = held();
    const { client, remove } = await reader(proxy.port, first.handler);
    const sender = await connectedClient(port);
    for (const n of numbers(3)) sender.sendMessage(toRoom(n));
    await first.started.reached(1);
    remove();
    const inbox = new Inbox();
    client.onMessage('room', ({ data }) => inbox.push(data));
    const gone = new Inbox();
    server.on('disconnect', gone.push);
    const back = new Promise<void>(resolve => client.once('online', () => resolve()));
    proxy.cut();
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
        if (n % 150 === 0 && attempt === 1) throw new Error('once');
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
    const { port } = await startServer('memory');
    const first = held();
    const { client } = await reader(port, first.handler);
    const sender = await connectedClient(port);
    sender.sendMessage(toRoom(0));
    await first.started.reached(1);
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
    const { port } = await startServer('memory');
    const first = held();
    const { client, remove } = await reader(port, first.handler);
    const sender = await connectedClient(port);
    sender.sendMessage(toRoom(0));
    await first.started.reached(1);
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
    const { port } = await startServer('memory');
    const first = held();
    const { client, remove } = await reader(port, first.handler);
    const sender = await connectedClient(port);
    for (const n of numbers(3)) sender.sendMessage(toRoom(n));
    await first.started.reached(1);
    await sender.flush();
    await client.flush();
    const inbox = new Inbox();
    client.onMessage('room', ({ data }) => inbox.push(data));
    remove();
    expect(await inbox.reached(2)).toEqual([1, 2]);
    first.ends[0]?.();
    sender.sendMessage(toRoom(3));
    expect(await inbox.reached(3)).toEqual([1, 2, 3]);
  });
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
