/** Room in the outbox: who waits for `ready()` while it is full is never refused. */
import { expect, it } from 'vitest';
import { BroadcastMessage, type BroadcastClient, type Receipt } from '../../src/index.js';
import { Inbox, newClient, startServer } from '../helpers/scene.js';

const LIMITS = { outboxBytes: 100_000, messageBytes: 30_000 };
const large = (i: number): BroadcastMessage => BroadcastMessage.createChannelMessage('room', String(i).padEnd(25_000));
const held = ({ outbox: { messages, bytes, full } }: BroadcastClient): object => ({ messages, bytes, full });

it('is full as soon as a message of the largest size would be refused', () => {
  const client = newClient(1, 'sender', { limits: LIMITS });
  const refused: string[] = [];
  client.onDeliveryFailure(({ reason }) => refused.push(reason));
  let sent = 0;
  for (; sent < 10 && !client.outbox.full; sent++) void client.sendMessage(large(sent));
  expect({ sent, refused }).toEqual({ sent: 3, refused: [] });
});

it('refuses nothing of a sender that waits for ready() while it is full', async () => {
  const { port } = await startServer('memory');
  const client = newClient(port, 'sender', { limits: LIMITS });
  void client.connect();
  const receipts: Promise<Receipt>[] = [];
  for (let i = 0; i < 40; i++) {
    if (client.outbox.full) await client.ready();
    receipts.push(client.sendMessage(large(i)));
  }
  const statuses = (await Promise.all(receipts)).map(({ status }) => status);
  expect(statuses).toEqual(new Array(40).fill('stored'));
  expect(held(client)).toEqual({ messages: 0, bytes: 0, full: false });
});

it('counts to nothing when all is safe, also with ids that are far apart', async () => {
  const { port } = await startServer('memory');
  const client = newClient(port, 'sender');
  const messages = Array.from({ length: 300 }, (_, i) => BroadcastMessage.createChannelMessage('room', i));
  const receipts = messages.filter((_, i) => i % 100 === 0).map(message => client.sendMessage(message));
  await client.connect();
  await Promise.all(receipts);
  expect(held(client)).toEqual({ messages: 0, bytes: 0, full: false });
});

it('keeps the data of a message whose getter sends another one, whatever their ids', async () => {
  const { port } = await startServer('memory');
  const client = newClient(port, 'sender');
  const received = new Inbox();
  const reader = newClient(port, 'reader');
  reader.onMessage('room', ({ data }) => received.push(data));
  await reader.connect();
  const late: { inner?: BroadcastMessage } = {};
  const first = BroadcastMessage.createChannelMessage('room', 'first');
  const outer = BroadcastMessage.createChannelMessage('room', [
    'before',
    {
      get inner() {
        if (late.inner !== undefined) void client.sendMessage(late.inner);
        return true;
      },
    },
    'after',
  ]);
  const others = Array.from({ length: 5000 }, () => BroadcastMessage.createChannelMessage('room', 'not sent'));
  late.inner = BroadcastMessage.createChannelMessage('room', { n: 1 });
  void client.sendMessage(first);
  void client.sendMessage(outer);
  await client.connect();
  expect(others).toHaveLength(5000);
  expect(await received.reached(3)).toEqual(['first', { n: 1 }, ['before', { inner: true }, 'after']]);
});
