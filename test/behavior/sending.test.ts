/** sendMessage of clients and of the server: what it refuses, what a signal does, what nobody awaits. */
import { getEventListeners } from 'node:events';
import { describe, expect, it } from 'vitest';
import { BroadcastError, BroadcastMessage, BroadcastTcpServer, type DeliveryFailure } from '../../src/index.js';
import { connectedClient, Inbox, newClient, recordingLogger, startServer } from '../helpers/scene.js';

const message = (data: unknown = 1): BroadcastMessage => BroadcastMessage.createClientMessage('x', data);

describe.each(['a client', 'the server'] as const)('what %s sends', who => {
  async function sender(limits: Record<string, number> = {}) {
    const { port, server } = await startServer('memory', { limits });
    const client = await connectedClient(port, 'sender', { limits });
    return {
      port,
      server,
      send: who === 'a client' ? client.sendMessage.bind(client) : server.sendMessage.bind(server),
    };
  }

  it.each<[string, () => BroadcastMessage, string]>([
    ['is no message', () => ({ data: 1 }) as never, 'invalid-argument'],
    ['is nothing', () => undefined as never, 'invalid-argument'],
    ['holds a function', () => message({ user: { save: () => undefined } }), 'data-not-cloneable'],
    [
      'has a getter that throws',
      () =>
        message({
          get broken() {
            throw new Error('no');
          },
        }),
      'data-not-cloneable',
    ],
    ['is too large', () => message('x'.repeat(2000)), 'message-too-large'],
    [
      'has headers that are too large',
      () => BroadcastMessage.createClientMessage('x', 1, { headers: { a: 'b'.repeat(200) } }),
      'headers-too-large',
    ],
    ['has too many targets', () => BroadcastMessage.createGroupMessage(['a', 'b', 'c', 'd'], 1), 'too-many-targets'],
    ['goes to a name with a control character', () => BroadcastMessage.createClientMessage('a\nb', 1), 'invalid-name'],
    ['goes to a pattern', () => BroadcastMessage.createChannelMessage('a.>', 1), 'invalid-name'],
    [
      'has a name that is too long',
      () => BroadcastMessage.createClientMessage('x', 1, 'n'.repeat(300)),
      'invalid-name',
    ],
  ])('is refused when it %s, as a rejection with a code', async (_what, make, code) => {
    const { send } = await sender({ messageBytes: 1000, headerBytes: 100, targets: 3 });
    const made = make();
    const promise = send(made);
    const error: unknown = await promise.catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(BroadcastError);
    expect(error).toMatchObject({ code });
  });

  it('names the path of what cannot be cloned', async () => {
    const { send } = await sender();
    await expect(send(message({ user: { save: () => undefined } }))).rejects.toThrow('data.user.save');
  });

  it('is allowed up to the limits and no further', async () => {
    const { send } = await sender({ targets: 3, headerBytes: 10 });
    expect((await send(BroadcastMessage.createGroupMessage(['a', 'b', 'c'], 1))).status).toBe('stored');
    const headers = { abcde: 'fghij' };
    expect((await send(BroadcastMessage.createClientMessage('a', 1, { headers, name: '' }))).status).toBe('stored');
  });

  it('is refused with other options than there are', async () => {
    const { send } = await sender();
    for (const options of [{ until: 'never' }, { untill: 'delivered' }, { signal: {} }, { signal: 5 }])
      await expect(send(message(), options as never)).rejects.toMatchObject({ code: 'invalid-argument' });
  });

  it('can be waited for until it is delivered', async () => {
    const { port, send } = await sender();
    const delivered = send(message('followed'), { until: 'delivered' });
    expect((await send(message('stored'))).status).toBe('stored');
    const receiver = newClient(port, 'x');
    const inbox = new Inbox();
    receiver.onMessage(got => inbox.push(got.data));
    await receiver.connect();
    expect((await delivered).status).toBe('delivered');
    expect(await inbox.reached(2)).toEqual(['followed', 'stored']);
  });

  it('is not waited for any longer once its signal is aborted', async () => {
    const { send } = await sender();
    const controller = new AbortController();
    const waiting = send(message(), { until: 'delivered', signal: controller.signal });
    await send(message());
    controller.abort();
    await expect(waiting).rejects.toMatchObject({ code: 'aborted' });
    await expect(send(message(), { signal: controller.signal })).rejects.toMatchObject({ code: 'aborted' });
    expect(getEventListeners(controller.signal, 'abort')).toHaveLength(0);
  });

  it('leaves one listener at a signal however many messages wait with it, and none when they are settled', async () => {
    const { send } = await sender();
    const { signal } = new AbortController();
    const receipts = Array.from({ length: 1000 }, () => send(message(), { signal }));
    expect(getEventListeners(signal, 'abort').length).toBeLessThanOrEqual(1);
    await Promise.all(receipts);
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
  });

  it('ends in no unhandled rejection that we have made', async () => {
    const rejections: unknown[] = [];
    const listener = (reason: unknown): void => void rejections.push(reason);
    process.on('unhandledRejection', listener);
    const { send, server } = await sender();
    send(undefined as never);
    server.forget('nobody');
    server.deadLetters('nobody').drop('1');
    server.start();
    new BroadcastTcpServer({
      port: (server.address as { port: number }).port,
      host: '127.0.0.1',
      logger: recordingLogger(),
    }).start();
    send(message(() => undefined));
    void send(message(), { signal: AbortSignal.abort() });
    const controller = new AbortController();
    send(message(), { until: 'delivered', signal: controller.signal });
    controller.abort();
    await server.stop();
    send(message());
    await new Promise(resolve => setImmediate(resolve));
    await new Promise(resolve => setImmediate(resolve));
    process.off('unhandledRejection', listener);
    expect(rejections).toEqual([]);
  });
});

describe('a message with a signal', () => {
  it('does not leave when the signal is aborted before there is a connection, and the others do', async () => {
    const { port, server } = await startServer('memory');
    const inbox = new Inbox();
    server.onMessage(got => inbox.push(got.data));
    const client = newClient(port, 'client');
    const controller = new AbortController();
    const { signal } = controller;
    const receipts = [
      client.sendMessage(message('a')),
      client.sendMessage(message('b'), { signal }),
      client.sendMessage(message('c')),
      client.sendMessage(message('d'), { signal }),
    ];
    controller.abort();
    await expect(receipts[1]).rejects.toMatchObject({
      code: 'aborted',
      message: expect.stringContaining('not sent') as string,
    });
    await expect(receipts[3]).rejects.toMatchObject({ code: 'aborted' });
    expect(client.outbox.messages).toBe(2);
    await client.connect();
    await Promise.all([receipts[0], receipts[2]]);
    expect(inbox.items).toEqual(['a', 'c']);
    expect(client.outbox).toMatchObject({ messages: 0, bytes: 0 });
  });
});

describe('a full outbox', () => {
  it('rejects, gives a final notice, and warns, but not for each message', async () => {
    const logger = recordingLogger();
    const client = newClient(1, 'client', { limits: { outboxMessages: 1 }, logger });
    const failures = new Inbox<DeliveryFailure>();
    client.onDeliveryFailure(failures.push);
    client.on('failure', failures.push);
    client.sendMessage(message());
    const refused = message();
    await expect(client.sendMessage(refused)).rejects.toMatchObject({ code: 'outbox-full', retryable: true });
    for (let i = 0; i < 100; i++) client.sendMessage(message());
    expect(failures.items.slice(0, 2)).toMatchObject([
      {
        messageId: refused.id,
        reason: 'outbox-full',
        final: true,
        queued: false,
        attempts: 0,
        target: { client: 'x' },
      },
      { messageId: refused.id },
    ]);
    expect(failures.items).toHaveLength(202);
    expect(logger.warnings.filter(line => line.includes('outbox'))).toHaveLength(1);
  });
});

describe('the server as a sender', () => {
  it('is heard by clients without a name, and hears of its own failures only', async () => {
    const { port, server } = await startServer('memory');
    const failures = new Inbox<DeliveryFailure>();
    server.onDeliveryFailure(failures.push);
    const inbox = new Inbox();
    const client = newClient(port, 'client');
    client.onMessage('room', got => inbox.push([got.sender, got.data]));
    await client.connect();
    expect((await server.sendMessage(BroadcastMessage.createChannelMessage('room', 1))).status).toBe('delivered');
    expect(inbox.items).toEqual([[undefined, 1]]);
    await client.sendMessage(message());
    const own = await server.sendMessage(message());
    expect(own).toMatchObject({ status: 'stored', failures: [{ reason: 'offline' }] });
    expect(failures.items).toMatchObject([{ messageId: own.id, reason: 'offline' }]);
  });

  it('sends nothing before it is started or after it was stopped', async () => {
    const { server } = await startServer('memory');
    await server.stop();
    await expect(server.sendMessage(message())).rejects.toMatchObject({ code: 'closed' });
  });

  it('rejects what is still followed when it stops', async () => {
    const { server } = await startServer('memory');
    const followed = server.sendMessage(message(), { until: 'delivered' });
    await server.sendMessage(message());
    await server.stop();
    await expect(followed).rejects.toMatchObject({ code: 'closed' });
  });
});

describe('messages of one turn', () => {
  it('arrive whole and in order when reading the data of one sends others', async () => {
    const { port } = await startServer('memory');
    const inbox = new Inbox();
    const receiver = newClient(port, 'x');
    receiver.onMessage(({ data }) => inbox.push(data));
    await receiver.connect();
    const client = await connectedClient(port, 'sender');
    const small = Array.from({ length: 3 }, (_, n) => ({ n, text: 'before '.repeat(n) }));
    for (const data of small) client.sendMessage(message(data));
    const outer = {
      first: 'a'.repeat(100),
      get inner() {
        for (const n of [10, 11]) client.sendMessage(message({ n, text: 'z'.repeat(300) }));
        return 'read';
      },
      last: [1, 2, 3],
    };
    client.sendMessage(message(outer));
    client.sendMessage(message('after'));
    expect(await inbox.reached(7)).toEqual([
      ...small,
      { n: 10, text: 'z'.repeat(300) },
      { n: 11, text: 'z'.repeat(300) },
      { first: 'a'.repeat(100), inner: 'read', last: [1, 2, 3] },
      'after',
    ]);
  });

  it('arrive in order when small, large and refused ones are mixed', async () => {
    const { port } = await startServer('memory', { limits: { messageBytes: 300_000 } });
    const inbox = new Inbox();
    const receiver = newClient(port, 'x');
    receiver.onMessage(({ data }) => inbox.push(data));
    await receiver.connect();
    const client = await connectedClient(port, 'sender', { limits: { messageBytes: 300_000 } });
    const sizes = [10, 40_000, 10, 200_000, 70_000, 10, 31_000, 2_000, 10];
    for (const size of sizes) {
      client.sendMessage(message('x'.repeat(size)));
      await expect(client.sendMessage(message('x'.repeat(400_000)))).rejects.toMatchObject({
        code: 'message-too-large',
      });
      expect(() => client.sendMessage(message({ size, when: new Date(0) }))).not.toThrow();
    }
    const expected = sizes.flatMap(size => ['x'.repeat(size), { size, when: new Date(0) }]);
    expect(await inbox.reached(expected.length)).toEqual(expected);
    await client.flush();
    expect(client.outbox).toMatchObject({ messages: 0, bytes: 0 });
  });
});
