/** Callbacks of the application that throw: logged and emitted, and nothing else happens. */
import { describe, expect, it, onTestFinished } from 'vitest';
import { BroadcastMessage, BroadcastTcpClient, BroadcastTcpServer, type Logger } from '../../src/index.js';
import { connectedClient, Inbox, newClient, recordingLogger, startServer } from '../helpers/scene.js';

const toRoom = (data: unknown = 1): BroadcastMessage => BroadcastMessage.createChannelMessage('room', data);
/** Something that cannot be shown as text. */
const unspeakable: unknown = Object.create(null);

/** Unhandled rejections and uncaught exceptions of this test. */
function watchProcess(): unknown[] {
  const found: unknown[] = [];
  const listener = (reason: unknown): void => void found.push(reason);
  process.on('unhandledRejection', listener);
  onTestFinished(() => void process.off('unhandledRejection', listener));
  return found;
}

describe('a callback that throws', () => {
  it.each<[string, () => unknown]>([
    [
      'throws',
      () => {
        throw new Error('broken');
      },
    ],
    [
      'rejects',
      async () => {
        await Promise.resolve();
        throw new Error('broken');
      },
    ],
    [
      'throws what is no error',
      () => {
        throw unspeakable;
      },
    ],
  ])('of a client that %s is reported, and its other callbacks are called', async (_how, callback) => {
    const unhandled = watchProcess();
    const { port } = await startServer('memory');
    const logger = recordingLogger();
    const client = newClient(port, 'client', { logger });
    const errors = new Inbox<string>();
    client.on('callbackError', (_error, what) => {
      errors.push(what);
    });
    client.on('callbackError', callback);
    const after = new Inbox();
    client.on('online', callback);
    client.on('online', () => after.push('online'));
    client.once('failure', callback);
    client.onDeliveryFailure(callback);
    client.onDeliveryFailure(() => after.push('failure'));
    await client.connect();
    await client.sendMessage(BroadcastMessage.createClientMessage('nobody', 1, 'n', false));
    expect(await errors.reached(3)).toEqual(
      expect.arrayContaining(['a listener of online', 'a failure handler', 'a listener of failure']),
    );
    expect(await after.reached(2)).toEqual(['online', 'failure']);
    expect(logger.warnings.join('\n')).toContain('a listener of callbackError threw');
    expect(unhandled).toEqual([]);
  });

  it('is an observer or a listener of a server, too', async () => {
    const unhandled = watchProcess();
    const { port, server } = await startServer('memory');
    const errors = new Inbox<string>();
    server.on('callbackError', (_error, what) => errors.push(what));
    server.onMessage(() => {
      throw unspeakable;
    });
    server.onMessage(() => Promise.reject(new Error('later')));
    server.on('connect', () => {
      throw new Error('broken');
    });
    const inbox = new Inbox();
    const reader = newClient(port, 'reader');
    reader.onMessage('room', message => inbox.push(message.data));
    await reader.connect();
    const sender = await connectedClient(port);
    expect((await sender.sendMessage(toRoom('passes'))).status).toBe('delivered');
    expect(inbox.items).toEqual(['passes']);
    expect(await errors.reached(4)).toEqual(
      expect.arrayContaining(['a listener of connect', 'an observer', 'an observer']),
    );
    expect(unhandled).toEqual([]);
  });

  it('is a handler: it is logged and emitted as handlerError with its message', async () => {
    const unhandled = watchProcess();
    const { port } = await startServer('memory');
    const logger = recordingLogger();
    const client = newClient(port, 'client', { logger, maxAttempts: 1 });
    const errors = new Inbox<[unknown, unknown]>();
    client.on('handlerError', (error, message) => {
      errors.push([error, message.data]);
      throw new Error('a listener that throws, too');
    });
    const thrown = [new Error('broken'), unspeakable, 'a text', undefined];
    client.onMessage('room', message => {
      throw thrown[message.data as number];
    });
    await client.connect();
    const sender = await connectedClient(port);
    for (const i of thrown.keys()) await sender.sendMessage(toRoom(i));
    expect(await errors.reached(4)).toEqual(thrown.map((error, i) => [error, i]));
    expect(logger.warnings.filter(line => line.startsWith('a handler of "room" failed'))).toHaveLength(4);
    expect(unhandled).toEqual([]);
  });

  it('is a thenable whose then throws', async () => {
    const { port } = await startServer('memory');
    const client = newClient(port, 'client', { maxAttempts: 1 });
    const errors = new Inbox();
    client.on('handlerError', error => errors.push(error));
    client.onMessage('room', message =>
      message.data === 1
        ? {
            get then() {
              throw new Error('no then');
            },
          }
        : Object.assign(() => undefined, {
            then: (_yes: unknown, no: (error: Error) => void) => no(new Error('a function with then')),
          }),
    );
    await client.connect();
    const sender = await connectedClient(port);
    await sender.sendMessage(toRoom(1));
    await sender.sendMessage(toRoom(2));
    expect((await errors.reached(2)).map(String)).toEqual(['Error: no then', 'Error: a function with then']);
  });

  it('is the logger', async () => {
    const unhandled = watchProcess();
    const broken = (): never => {
      throw new Error('no log');
    };
    const rejecting = (): Promise<never> => Promise.reject(new Error('no log'));
    const logger = { trace: broken, debug: broken, info: broken, warn: rejecting, error: broken } as unknown as Logger;
    const { port } = await startServer('memory', { logger });
    const client = newClient(port, 'client', { logger, maxAttempts: 1 });
    client.onMessage('room', () => {
      throw new Error('logged with a warning');
    });
    await client.connect();
    const sender = await connectedClient(port);
    expect((await sender.sendMessage(toRoom())).failures).toMatchObject([{ reason: 'rejected' }]);
    await client.close();
    await new Promise(resolve => setImmediate(resolve));
    expect(unhandled).toEqual([]);
  });
});

describe('callbacks', () => {
  it('are functions, or refused', () => {
    const client = new BroadcastTcpClient();
    const server = new BroadcastTcpServer({ port: 0 });
    const refused = expect.objectContaining({ code: 'invalid-argument' }) as Error;
    expect(() => client.onDeliveryFailure(5 as never)).toThrow(refused);
    expect(() => server.onDeliveryFailure(undefined as never)).toThrow(refused);
    expect(() => server.onMessage('x' as never)).toThrow(refused);
  });

  it('are taken away by the function that setting them returned, however often the same was set', async () => {
    const { port } = await startServer('memory');
    const client = await connectedClient(port);
    const inbox = new Inbox();
    const handler = (): void => inbox.push(1);
    const removals = [client.onDeliveryFailure(handler), client.onDeliveryFailure(handler)];
    const fail = (): Promise<unknown> =>
      client.sendMessage(BroadcastMessage.createClientMessage('nobody', 1, 'n', false));
    await fail();
    expect(inbox.items).toHaveLength(2);
    removals[0]?.();
    removals[0]?.();
    await fail();
    expect(inbox.items).toHaveLength(3);
    removals[1]?.();
    await fail();
    expect(inbox.items).toHaveLength(3);
  });
});
