/** Final outcomes of messages to several instances of one name. */
import { describe, expect, it } from 'vitest';
import { BroadcastMessage } from '../../src/index.js';
import { startProxy } from '../helpers/proxy.js';
import { connectedClient, gate, Inbox, newClient, startServer } from '../helpers/scene.js';

describe('until: delivered under a shared name', () => {
  it('is answered when two lost instances had the message and a third one handles it', async () => {
    const { port } = await startServer('memory', { instanceGrace: 50 });
    const proxy = await startProxy(port);
    const started = new Inbox();
    const { promise, open } = gate();
    for (const _ of [1, 2]) {
      const lost = newClient(proxy.port, 'pool');
      lost.onMessage('room', ({ data }) => {
        started.push(data);
        return promise;
      });
      await lost.connect();
    }
    const sender = await connectedClient(port, 'sender');
    const receipt = sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1), { until: 'delivered' });
    await started.reached(2);
    proxy.isRefusing = true;
    proxy.cut();
    const inbox = new Inbox();
    const third = newClient(port, 'pool');
    third.onMessage('room', ({ data }) => inbox.push(data));
    await third.connect();
    expect(await inbox.reached(1)).toEqual([1]);
    await third.flush();
    expect((await receipt).status).toBe('delivered');
    open();
  });

  it('is answered when one instance handled the message and the other was lost with it', async () => {
    const { port } = await startServer('memory', { instanceGrace: 50 });
    const proxy = await startProxy(port);
    const started = new Inbox();
    const { promise, open } = gate();
    const lost = newClient(proxy.port, 'pool');
    lost.onMessage('room', ({ data }) => {
      started.push(data);
      return promise;
    });
    await lost.connect();
    const here = newClient(port, 'pool');
    const inbox = new Inbox();
    here.onMessage('room', ({ data }) => inbox.push(data));
    await here.connect();
    const sender = await connectedClient(port, 'sender');
    const receipt = sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1), { until: 'delivered' });
    await started.reached(1);
    await inbox.reached(1);
    proxy.isRefusing = true;
    proxy.cut();
    expect((await receipt).status).toBe('delivered');
    open();
  });
});
