/** An instance that connects a second time takes the first connection's place; the client that lost it stays away. */
import { expect, it } from 'vitest';
import { BroadcastMessage } from '../../src/index.js';
import { PREAMBLE } from '../../src/protocol/constants.js';
import { helloExtensions, encodeHello } from '../../src/protocol/frames.js';
import { startProxy } from '../helpers/proxy.js';
import { Inbox, newClient, recordingLogger, startServer } from '../helpers/scene.js';
import { plainHello, RawPeer } from '../helpers/raw-peer.js';

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

/** An online client on its second connection, and what a twin of it says when it introduces itself. */
async function onSecondConnection(): Promise<{
  port: number;
  client: ReturnType<typeof newClient>;
  hello: { name: string; instance: string; idPrefix: string };
}> {
  const { port, server } = await startServer('memory');
  const proxy = await startProxy(port);
  const client = newClient(proxy.port, 'client');
  await client.connect();
  const again = new Promise<void>(resolve => client.once('online', () => resolve()));
  proxy.cut();
  await again;
  const { instance } = server.clients[0] as { instance: string };
  const idPrefix = BroadcastMessage.createBroadcastMessage(1).id.slice(0, 16);
  return { port, client, hello: { name: 'client', instance, idPrefix } };
}

it('is not taken over by an introduction of an earlier connection that the network brings late', async () => {
  const { port, client, hello } = await onSecondConnection();
  const late = await RawPeer.connect(port);
  late.write(PREAMBLE, encodeHello(plainHello({ ...hello, extensions: helloExtensions(1) })));
  expect(await late.refusal()).toMatchObject({ code: 'taken-over' });
  await client.flush();
  expect(client.state).toBe('online');
});

it.each([
  ['a later connection', helloExtensions(3)],
  ['one that does not say which it is', new Map()],
])('is taken over by %s', async (_what, extensions) => {
  const { port, client, hello } = await onSecondConnection();
  const refused = new Promise(resolve => client.once('refused', resolve));
  await RawPeer.open(port, { ...hello, extensions });
  expect(await refused).toMatchObject({ code: 'taken-over' });
});

it('a connection that counts itself with something else than a number is refused', async () => {
  const { port } = await startServer('memory');
  const peer = await RawPeer.connect(port);
  peer.write(PREAMBLE, encodeHello(plainHello({ extensions: new Map([['connection', Buffer.from('-1')]]) })));
  expect(await peer.refusal()).toMatchObject({ code: 'protocol-error' });
});
