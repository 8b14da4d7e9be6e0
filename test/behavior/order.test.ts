import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { BroadcastMessage } from '../../src/index.js';
import { connectedClient, Inbox, newClient, startServer, temporaryFolder } from '../helpers/scene.js';

const numbers = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

describe.each(['memory', 'disk'] as const)('order on the %s engine', kind => {
  it('starts what waited before what comes, also through a small window', async () => {
    const options = {
      limits: { windowMessages: 16 },
      ...(kind === 'disk' ? { dataDir: join(await temporaryFolder(), 'data') } : {}),
    };
    const { port, server } = await startServer(kind, options);
    const sender = await connectedClient(port, 'sender');
    const first = newClient(port, 'reader');
    first.onMessage('room', () => undefined);
    await first.connect();
    await first.close();
    let n = 0;
    const send = (count: number): void => {
      for (let i = 0; i < count; i++) sender.sendMessage(BroadcastMessage.createChannelMessage('room', n++));
    };
    send(2000);
    await sender.flush();
    if (kind === 'disk') {
      // From here on what waits is read from the files, which takes a while.
      await server.stop();
      await startServer(kind, { ...options, port });
      await sender.flush();
    }
    const inbox = new Inbox<number>();
    const second = newClient(port, 'reader');
    second.onMessage('room', async message => {
      await Promise.resolve();
      inbox.push(message.data as number);
    });
    await second.connect();
    for (let round = 0; round < 20; round++) {
      send(50);
      await inbox.reached(round * 50 + 10);
    }
    expect(await inbox.reached(3000)).toEqual(numbers(3000));
  });

  it('keeps the order of one sender across messages to the name and many reconnections', async () => {
    const dataDir = join(await temporaryFolder(), 'data');
    const { port } = await startServer(kind, {
      limits: { windowMessages: 64 },
      ...(kind === 'disk' ? { dataDir } : {}),
    });
    const sender = await connectedClient(port, 'sender');
    const inbox = new Inbox<number>();
    let n = 0;
    for (let round = 0; round < 5; round++) {
      const reader = newClient(port, 'reader');
      reader.onMessage(message => inbox.push(message.data as number));
      await reader.connect();
      for (let i = 0; i < 200; i++) sender.sendMessage(BroadcastMessage.createClientMessage('reader', n++));
      await inbox.reached(n - 150);
      await reader.close();
    }
    const last = newClient(port, 'reader');
    last.onMessage(message => inbox.push(message.data as number));
    await last.connect();
    expect(await inbox.reached(1000)).toEqual(numbers(1000));
  });
});
