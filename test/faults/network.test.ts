/** A client and a server through a network that does what networks do; nothing is lost, nothing comes twice. */
import { describe, expect, it } from 'vitest';
import { BroadcastMessage } from '../../src/index.js';
import { startProxy } from '../helpers/proxy.js';
import { connectedClient, Inbox, newClient, startServer } from '../helpers/scene.js';

const numbers = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** A receiver behind a proxy, and a sender behind another. */
async function startScene(): Promise<{
  inbox: Inbox<number>;
  near: Awaited<ReturnType<typeof startProxy>>;
  far: Awaited<ReturnType<typeof startProxy>>;
  send: (from: number, to: number) => void;
  sender: Awaited<ReturnType<typeof connectedClient>>;
}> {
  const { port } = await startServer('memory');
  const near = await startProxy(port, 11);
  const far = await startProxy(port, 12);
  const inbox = new Inbox<number>();
  const receiver = newClient(far.port, 'receiver');
  receiver.onMessage('room', message => inbox.push(message.data as number));
  await receiver.connect();
  const sender = await connectedClient(near.port, 'sender');
  const send = (from: number, to: number): void => {
    for (let n = from; n < to; n++) sender.sendMessage(BroadcastMessage.createChannelMessage('room', n));
  };
  return { inbox, near, far, send, sender };
}

describe('through a proxy', () => {
  it.each([
    ['one byte at a time', 1, 100],
    ['in random pieces', 0, 2000],
    ['some turns late', Infinity, 2000],
  ])('%s, everything arrives in order', async (_how, piece, count) => {
    const { inbox, near, far, send, sender } = await startScene();
    for (const proxy of [near, far]) {
      proxy.slice('up', piece, piece === Infinity ? 5 : 0);
      proxy.slice('down', piece, piece === Infinity ? 5 : 0);
    }
    send(0, count);
    expect(await inbox.reached(count)).toEqual(numbers(count));
    const receipt = await sender.sendMessage(BroadcastMessage.createChannelMessage('room', -1));
    expect(receipt.status).toBe('delivered');
  });

  it.each<['up' | 'down', 'sender' | 'receiver']>([
    ['up', 'sender'],
    ['down', 'sender'],
    ['up', 'receiver'],
    ['down', 'receiver'],
  ])('bytes that are lost %s of the %s, and then the connection, cost nothing', async (direction, who) => {
    const { inbox, near, far, send } = await startScene();
    const proxy = who === 'sender' ? near : far;
    send(0, 100);
    await inbox.reached(100);
    proxy.drop(direction);
    send(100, 200);
    // Without that direction some of it still comes: wait until the rest of the way is quiet.
    for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
    proxy.release(direction);
    proxy.cut();
    send(200, 300);
    expect(await inbox.reached(300)).toEqual(numbers(300));
    expect(inbox.items).toHaveLength(300);
  });

  it('a direction that is held is waited for, and goes on where it was', async () => {
    const { inbox, near, send } = await startScene();
    near.hold('up');
    send(0, 100);
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
    expect(inbox.items).toEqual([]);
    near.release('up');
    expect(await inbox.reached(100)).toEqual(numbers(100));
  });

  it('a stream that ends in one direction is a connection that is made anew', async () => {
    const { inbox, near, far, send } = await startScene();
    send(0, 50);
    near.halfClose('up');
    send(50, 100);
    await inbox.reached(100);
    far.halfClose('down');
    send(100, 150);
    expect(await inbox.reached(150)).toEqual(numbers(150));
  });

  it('a server that cannot be reached for a while is found again', async () => {
    const { inbox, near, send, sender } = await startScene();
    near.isRefusing = true;
    near.cut();
    send(0, 10);
    await new Promise(resolve => sender.once('offline', resolve));
    near.isRefusing = false;
    expect(await inbox.reached(10)).toEqual(numbers(10));
  });
});
