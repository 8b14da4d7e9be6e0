/** BroadcastMessage, as users make it and as it arrives. */
import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { BroadcastError, BroadcastMessage } from '../../src/index.js';
import { connectedClient, Inbox, newClient, startServer } from '../helpers/scene.js';

const FIELDS = [
  'id',
  'client',
  'channel',
  'clients',
  'channels',
  'name',
  'data',
  'persistent',
  'headers',
  'ttl',
  'sender',
  'timestamp',
].sort();

function thrown(run: () => unknown): unknown {
  try {
    run();
  } catch (error) {
    return error;
  }
  return undefined;
}

describe('making messages', () => {
  it('knows its target, single or several', () => {
    expect(BroadcastMessage.createChannelMessage('a', 1)).toMatchObject({
      channel: 'a',
      channels: ['a'],
      client: null,
      clients: [],
    });
    expect(BroadcastMessage.createClientMessage('u', 1)).toMatchObject({
      client: 'u',
      clients: ['u'],
      channel: null,
      channels: [],
    });
    expect(BroadcastMessage.createMultiChannelMessage(['a', 'b'], 1)).toMatchObject({
      channel: null,
      channels: ['a', 'b'],
    });
    expect(BroadcastMessage.createGroupMessage(['u', 'v'], 1)).toMatchObject({ client: null, clients: ['u', 'v'] });
    expect(BroadcastMessage.create('u', 'a', 1)).toMatchObject({ client: 'u', channel: 'a' });
    expect(BroadcastMessage.create(null, 'a', 1)).toMatchObject({ client: null, channel: 'a' });
    expect(BroadcastMessage.create('u', undefined, 1)).toMatchObject({ client: 'u', channel: null });
    expect(BroadcastMessage.createBroadcastMessage(1)).toMatchObject({
      client: null,
      channel: null,
      clients: [],
      channels: [],
    });
    expect(BroadcastMessage.createMultiChannelMessage(['a', 'a'], 1)).toMatchObject({ channel: 'a', channels: ['a'] });
  });

  it('takes its name as a string or within the options, and persistent in either place', () => {
    expect(BroadcastMessage.createChannelMessage('a', 1)).toMatchObject({ name: undefined, persistent: true });
    expect(BroadcastMessage.createChannelMessage('a', 1, 'n')).toMatchObject({ name: 'n', persistent: true });
    expect(BroadcastMessage.createChannelMessage('a', 1, 'n', false)).toMatchObject({ name: 'n', persistent: false });
    expect(BroadcastMessage.createChannelMessage('a', 1, { name: 'n', persistent: false })).toMatchObject({
      name: 'n',
      persistent: false,
    });
    expect(BroadcastMessage.createChannelMessage('a', 1, { persistent: false }, true).persistent).toBe(true);
    expect(BroadcastMessage.createChannelMessage('a', 1, undefined, false).persistent).toBe(false);
    expect(BroadcastMessage.createChannelMessage('a', 1, null as never).name).toBeUndefined();
  });

  it('has an id of its own, short and of ASCII', () => {
    const ids = Array.from({ length: 10_000 }, () => BroadcastMessage.createBroadcastMessage(1).id);
    expect(new Set(ids).size).toBe(10_000);
    for (const id of ids) expect(id).toMatch(/^[\x21-\x7e]{1,64}$/);
  });

  it('does not change when what it was made of does', () => {
    const channels = ['a', 'b'];
    const headers = { trace: '1' };
    const message = BroadcastMessage.createMultiChannelMessage(channels, 1, { headers });
    channels.push('c');
    headers.trace = '2';
    expect(message.channels).toEqual(['a', 'b']);
    expect(message.headers).toEqual({ trace: '1' });
    for (const list of [message.channels, message.clients]) expect(Object.isFrozen(list)).toBe(true);
    expect(Object.isFrozen(message.headers)).toBe(true);
    expect(Object.isFrozen(BroadcastMessage.createChannelMessage('a', 1).channels)).toBe(true);
  });

  it.each([
    ['no channel', () => BroadcastMessage.createChannelMessage(undefined as never, 1)],
    ['a number for a client', () => BroadcastMessage.createClientMessage(5 as never, 1)],
    ['no list', () => BroadcastMessage.createMultiChannelMessage('a' as never, 1)],
    ['an empty list', () => BroadcastMessage.createGroupMessage([], 1)],
    ['a hole in a list', () => BroadcastMessage.createGroupMessage(['a', undefined as never], 1)],
    ['neither client nor channel', () => BroadcastMessage.create(null, undefined, 1)],
    ['a number for a name', () => BroadcastMessage.createChannelMessage('a', 1, 5 as never)],
    ['a name in the options that is none', () => BroadcastMessage.createChannelMessage('a', 1, { name: 5 as never })],
    ['a text for persistent', () => BroadcastMessage.createChannelMessage('a', 1, 'n', 'no' as never)],
    ['a negative time to live', () => BroadcastMessage.createChannelMessage('a', 1, { ttl: -1 })],
    ['an endless time to live', () => BroadcastMessage.createChannelMessage('a', 1, { ttl: Infinity })],
    [
      'a time to live that no frame has room for',
      () => BroadcastMessage.createChannelMessage('a', 1, { ttl: 2 ** 53 }),
    ],
    ['half a character', () => BroadcastMessage.createChannelMessage('a', 1, { headers: { half: '\ud800' } })],
    ['half a character in a key', () => BroadcastMessage.createChannelMessage('a', 1, { headers: { '\udc00': 'x' } })],
    ['a text for a time to live', () => BroadcastMessage.createChannelMessage('a', 1, { ttl: '5' as never })],
    ['a header that is no string', () => BroadcastMessage.createChannelMessage('a', 1, { headers: { n: 1 as never } })],
    ['a list for headers', () => BroadcastMessage.createChannelMessage('a', 1, { headers: ['x'] as never })],
    ['an option that there is not', () => BroadcastMessage.createChannelMessage('a', 1, { nmae: 'n' } as never)],
  ])('refuses %s with a stable code', (_what, make) => {
    const error = thrown(make);
    expect(error).toBeInstanceOf(BroadcastError);
    expect(error).toMatchObject({ name: 'BroadcastError', code: 'invalid-argument', retryable: false });
  });

  it('names the options that there are when one is mistyped', () => {
    const error = thrown(() => BroadcastMessage.createChannelMessage('a', 1, { tll: 5 } as never));
    expect(String(error)).toMatch(/tll.*ttl/);
  });
});

describe('messages on their way', () => {
  it('carries headers of any characters, and the longest time to live', async () => {
    const { port, server } = await startServer('memory');
    const inbox = new Inbox();
    const receiver = newClient(port, 'receiver');
    receiver.onMessage(({ headers, ttl }) => inbox.push([headers, ttl]));
    await receiver.connect();
    const options = { headers: { '😀': 'é\u0000😀' }, ttl: Number.MAX_SAFE_INTEGER };
    await server.sendMessage(BroadcastMessage.createClientMessage('receiver', 1, options));
    expect(await inbox.reached(1)).toEqual([[options.headers, expect.any(Number)]]);
    const [[, left] = []] = inbox.items as [unknown, number][];
    expect(left).toBeGreaterThan(options.ttl - 60_000);
  });

  it('takes the encoded form when sendMessage is called', async () => {
    const { port } = await startServer('memory');
    const inbox = new Inbox();
    const receiver = newClient(port, 'receiver');
    receiver.onMessage(message => inbox.push(message.data));
    await receiver.connect();
    const sender = newClient(port);
    const data = { n: 1 };
    sender.sendMessage(BroadcastMessage.createClientMessage('receiver', data));
    data.n = 2;
    await sender.connect();
    expect(await inbox.reached(1)).toEqual([{ n: 1 }]);
  });

  it('sends one object twice as two messages with one id', async () => {
    const { port } = await startServer('memory');
    const inbox = new Inbox();
    const receiver = newClient(port, 'receiver');
    receiver.onMessage(message => inbox.push(message.id));
    await receiver.connect();
    const sender = await connectedClient(port);
    const message = BroadcastMessage.createClientMessage('receiver', 1);
    const receipts = await Promise.all([sender.sendMessage(message), sender.sendMessage(message)]);
    expect(await inbox.reached(2)).toEqual([message.id, message.id]);
    expect(receipts.map(receipt => receipt.id)).toEqual([message.id, message.id]);
  });

  it('forwards a message that was received as what it was', async () => {
    const { port } = await startServer('memory');
    const inbox = new Inbox<BroadcastMessage>();
    const relay = newClient(port, 'relay');
    relay.onMessage('in', message =>
      relay.sendMessage(
        BroadcastMessage.createChannelMessage('out', message.data, { headers: { ...message.headers } }),
      ),
    );
    const end = newClient(port, 'end');
    end.onMessage('out', message => inbox.push(message));
    await Promise.all([relay.connect(), end.connect()]);
    const sender = await connectedClient(port, 'sender');
    await sender.sendMessage(BroadcastMessage.createChannelMessage('in', [1n], { headers: { trace: 'x' } }));
    expect((await inbox.reached(1))[0]).toMatchObject({ data: [1n], headers: { trace: 'x' }, sender: 'relay' });
  });

  it('shows all fields to console.log, spread and JSON.stringify, on both sides', async () => {
    const { port, server } = await startServer('memory');
    const seen = new Inbox<string[]>();
    const look = (message: BroadcastMessage, order: number): void => {
      const views = [
        (): string => JSON.stringify(message),
        (): string => JSON.stringify({ ...(message as object) }),
        (): string => inspect(message),
      ];
      const view = views[order % views.length] as () => string;
      const text = view();
      expect(Object.keys(message).sort()).toEqual(FIELDS);
      seen.push([text, (message.data as { marker: string }).marker]);
    };
    let observed = 0;
    server.onMessage(message => look(message, observed++));
    const receiver = newClient(port, 'receiver');
    let handled = 0;
    receiver.onMessage('room', message => look(message, handled++));
    await receiver.connect();
    const sender = await connectedClient(port, 'sender');
    for (let i = 0; i < 3; i++)
      await sender.sendMessage(BroadcastMessage.createChannelMessage('room', { marker: `marked-${String(i)}` }));
    const texts = await seen.reached(6);
    for (const [text, marker] of texts) expect(text).toContain(marker);
    expect(inspect(BroadcastMessage.createChannelMessage('room', 'mine'))).toContain('mine');
  });

  it('lets nobody change where a message goes by changing what was observed', async () => {
    const { port, server } = await startServer('memory');
    server.onMessage(message => {
      (message.channels as string[]).push('elsewhere');
    });
    const inbox = new Inbox();
    const receiver = newClient(port, 'receiver');
    for (const channel of ['room', 'elsewhere']) receiver.onMessage(channel, (_m, info) => inbox.push(info.channel));
    await receiver.connect();
    const sender = await connectedClient(port);
    await sender.sendMessage(BroadcastMessage.createMultiChannelMessage(['room', 'nowhere'], 1));
    await receiver.flush();
    expect(inbox.items).toEqual(['room']);
  });
});
