/** Leaving while a handler does not end. */
import { expect, it } from 'vitest';
import { BroadcastMessage } from '../../src/index.js';
import { connectedClient, gate, Inbox, newClient, startServer } from '../helpers/scene.js';

it('a client that closes while a handler hangs says goodbye all the same: the message waits at once, and nothing is charged', async () => {
  const { port, server } = await startServer('memory');
  const hanging = newClient(port, 'w');
  const { promise: started, open } = gate();
  hanging.onMessage(async () => {
    open();
    await new Promise(() => undefined);
  });
  await hanging.connect();
  const sender = await connectedClient(port, 'sender');
  const receipt = sender.sendMessage(BroadcastMessage.createClientMessage('w', 1), { until: 'delivered' });
  await started;
  await hanging.close({ timeout: 10 });
  const next = new Inbox<number>();
  const other = newClient(port, 'w');
  other.onMessage((_message, { attempt }) => next.push(attempt));
  await other.connect();
  expect(await next.reached(1)).toEqual([1]);
  expect((await receipt).status).toBe('delivered');
  expect((await server.sessions()).map(({ name, instances }) => [name, instances])).toContainEqual(['w', 1]);
});

it('a generated name’s session ends with it, whatever its handlers do', async () => {
  const { port, server } = await startServer('memory');
  const gone = gate();
  server.on('disconnect', () => gone.open());
  const hanging = newClient(port);
  const { promise: started, open } = gate();
  hanging.onMessage('room', async () => {
    open();
    await new Promise(() => undefined);
  });
  await hanging.connect();
  await server.sendMessage(BroadcastMessage.createChannelMessage('room', 1));
  await started;
  await hanging.close({ timeout: 10 });
  await gone.promise;
  expect(await server.sessions()).toEqual([]);
});
