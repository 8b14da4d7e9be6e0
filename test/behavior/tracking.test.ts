/** Final outcomes of messages that their sender follows (`until: 'delivered'`). */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { BroadcastMessage, type Receipt } from '../../src/index.js';
import { connectedClient, gate, Inbox, newClient, Role, startServer, temporaryFolder } from '../helpers/scene.js';

describe('until: delivered', () => {
  it('does not take a message for delivered that was sent before there was a connection', async () => {
    const { port } = await startServer('memory');
    const sender = newClient(port, 'sender');
    const outcomes = new Inbox<Receipt>();
    void sender
      .sendMessage(BroadcastMessage.createClientMessage('later', 1), { until: 'delivered' })
      .then(outcomes.push);
    await sender.connect();
    await sender.flush();
    expect(outcomes.items).toEqual([]);
    const inbox = new Inbox();
    const later = newClient(port, 'later');
    later.onMessage(message => inbox.push(message.data));
    await later.connect();
    expect((await outcomes.reached(1))[0]?.status).toBe('delivered');
    expect(inbox.items).toEqual([1]);
  });

  it('does not lose a followed message that waits in the outbox when the server is killed', async () => {
    const dataDir = join(await temporaryFolder(), 'data');
    const first = new Role('server', { port: 0, dataDir });
    const port = (await first.saw('listening'))['port'] as number;
    const reader = newClient(port, 'reader');
    const inbox = new Inbox<number>();
    const { promise, open } = gate();
    reader.onMessage('room', async message => {
      inbox.push(message.data as number);
      if (message.data === 1) await promise;
    });
    await reader.connect();
    const sender = await connectedClient(port, 'sender');
    sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1));
    await inbox.reached(1);
    await first.kill();
    const followed = sender.sendMessage(BroadcastMessage.createChannelMessage('room', 2), { until: 'delivered' });
    await new Role('server', { port, dataDir }).saw('listening');
    open();
    expect((await followed).status).toBe('delivered');
    expect(inbox.items).toEqual([1, 2]);
  });

  it('does not call a message delivered that a server in memory took with it', async () => {
    const first = await startServer('memory');
    const { port } = first;
    const sender = await connectedClient(port, 'sender');
    const followed = sender.sendMessage(BroadcastMessage.createClientMessage('away', 1), { until: 'delivered' });
    expect((await sender.sendMessage(BroadcastMessage.createClientMessage('away', 2))).status).toBe('stored');
    await first.server.stop();
    await startServer('memory', { port });
    await expect(followed).rejects.toMatchObject({ code: 'different-store' });
    expect((await sender.sendMessage(BroadcastMessage.createClientMessage('away', 3))).status).toBe('stored');
  });
});
