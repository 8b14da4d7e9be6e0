/** Messages that are not persistent and have several targets: each recipient handles what is for it, and nothing else. */
import { expect, it } from 'vitest';
import { BroadcastMessage, type BroadcastClient, type DeliveryFailure } from '../../src/index.js';
import { connectedClient, Inbox, newClient, startServer } from '../helpers/scene.js';
import { startProxy } from '../helpers/proxy.js';

const TRANSIENT = { persistent: false };

/** A client that takes a channel and its own messages, and notes by what it got each. */
async function receiver(port: number, name: string): Promise<{ client: BroadcastClient; inbox: Inbox<string> }> {
  const client = newClient(port, name);
  const inbox = new Inbox<string>();
  client.onMessage('room', ({ data }) => inbox.push(`${String(data)} of the room`));
  client.onMessage(({ data }) => inbox.push(`${String(data)} of its own`));
  await client.connect();
  return { client, inbox };
}

it('go to the own handlers of whom they are addressed to, not to those of who subscribes to their channel', async () => {
  const { port } = await startServer('memory');
  const alice = await receiver(port, 'alice');
  const bob = await receiver(port, 'bob');
  const sender = await connectedClient(port, 'sender');
  await sender.sendMessage(BroadcastMessage.create('alice', 'room', 'both', TRANSIENT));
  sender.sendMessage(BroadcastMessage.createChannelMessage('room', 'last'));
  expect([...(await alice.inbox.reached(3))].sort()).toEqual([
    'both of its own',
    'both of the room',
    'last of the room',
  ]);
  expect(await bob.inbox.reached(2)).toEqual(['both of the room', 'last of the room']);
});

it('go to one instance of a shared name by its name, and to all by the channel', async () => {
  const { port } = await startServer('memory');
  const team = [await receiver(port, 'team'), await receiver(port, 'team')];
  const sender = await connectedClient(port, 'sender');
  await sender.sendMessage(BroadcastMessage.create('team', 'room', 'both', TRANSIENT));
  sender.sendMessage(BroadcastMessage.createChannelMessage('room', 'last'));
  const [first, second] = await Promise.all(
    team.map(async ({ inbox }) => {
      while (!inbox.items.includes('last of the room')) await inbox.reached(inbox.items.length + 1);
      return inbox.items;
    }),
  );
  const all = [...first!, ...second!].sort();
  expect(all).toEqual([
    'both of its own',
    'both of the room',
    'both of the room',
    'last of the room',
    'last of the room',
  ]);
});

it('are not said to have failed for a name of which another instance has them', async () => {
  const { port } = await startServer('memory');
  const relay = await startProxy(port);
  const here = await receiver(port, 'team');
  const gone = await receiver(relay.port, 'team');
  const sender = await connectedClient(port, 'sender');
  const failures = new Inbox<DeliveryFailure>();
  sender.onDeliveryFailure(failures.push);
  relay.isRefusing = true;
  const lost = new Promise(resolve => gone.client.once('offline', resolve));
  relay.cut();
  await lost;
  // The server may hear of the loss a moment later.
  const receipt = await sender.sendMessage(BroadcastMessage.createChannelMessage('room', 'now', TRANSIENT));
  expect(receipt).toMatchObject({ status: 'routed', failures: [] });
  expect(await here.inbox.reached(1)).toEqual(['now of the room']);
  expect(failures.items).toEqual([]);
  relay.isRefusing = false;
});
