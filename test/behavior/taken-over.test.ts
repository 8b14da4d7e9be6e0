/** An instance that connects a second time takes the first connection's place; the client that lost it stays away. */
import { expect, it } from 'vitest';
import { BroadcastMessage } from '../../src/index.js';
import { Inbox, newClient, recordingLogger, startServer } from '../helpers/scene.js';
import { RawPeer } from '../helpers/raw-peer.js';

it('is refused for good, says so, and comes back only when connect() is called anew', async () => {
  const { port, server } = await startServer('memory');
  const logger = recordingLogger();
  const client = newClient(port, 'client', { logger });
  const events = new Inbox<string>();
  for (const event of ['online', 'offline', 'refused'] as const) client.on(event, () => events.push(event));
  await client.connect();
  const { instance } = server.clients[0] as { instance: string };
  const hello = { name: 'client', instance, idPrefix: BroadcastMessage.createBroadcastMessage(1).id.slice(0, 16) };
  const twin = await RawPeer.open(port, hello);
  expect(await events.reached(3)).toEqual(['online', 'offline', 'refused']);
  expect(client.state).toBe('offline');
  await expect(client.flush()).rejects.toMatchObject({ code: 'taken-over' });
  expect(logger.warnings.join('\n')).toContain('taken-over');
  // It holds what is sent until it may connect again.
  const receipt = client.sendMessage(BroadcastMessage.createClientMessage('x', 1));
  expect(client.outbox.messages).toBe(1);
  twin.socket.destroy();
  await client.connect();
  expect((await receipt).status).toBe('stored');
});
