// The lines of the founding document as a user writes them; scripts/check-package.js compiles and runs them against the
// packed package, in every way in which a user may. 9000 becomes a free port.
import {
  BroadcastClient,
  BroadcastMessage,
  BroadcastServer,
  BroadcastTcpClient,
  BroadcastTcpServer,
} from '@alien-worlds/aw-broadcast';

declare const console: { log(...parts: unknown[]): void };

async function main(): Promise<void> {
  const seen: unknown[] = [];
  let arrived: () => void = () => undefined;
  const all = new Promise<void>(resolve => {
    arrived = resolve;
  });
  const server: BroadcastServer = new BroadcastTcpServer({ host: 'localhost', port: 9000 });
  server.onMessage((message: BroadcastMessage) => {
    seen.push(message.channel ?? message.client);
  });
  await server.start();
  server.sendMessage(BroadcastMessage.createChannelMessage('room_1', 'Hello world'));

  const client: BroadcastClient = new BroadcastTcpClient({ host: 'localhost', port: 9000 }, 'optional_client_name');
  let received = 0;
  const take = (message: BroadcastMessage): void => {
    if (message.data === 'Hello world' && ++received === 3) arrived();
  };
  client.onMessage('room_1', take);
  client.connect();

  const other = new BroadcastTcpClient({ host: 'localhost', port: 9000 }, 'user1');
  other.onMessage((message: BroadcastMessage) => {
    take(message);
  });
  await other.connect();
  other.sendMessage(BroadcastMessage.createChannelMessage('room_1', 'Hello world'));
  client.sendMessage(BroadcastMessage.createClientMessage('user1', 'Hello world'));
  await all;

  BroadcastMessage.createMultiChannelMessage(['room_1', 'room_2'], 'Hello world');
  BroadcastMessage.createGroupMessage(['user1', 'user2'], 'Hello world');
  BroadcastMessage.create('user1', 'room_1', 'Hello world');
  const abstract = client instanceof BroadcastClient && server instanceof BroadcastServer;
  await Promise.all([client.close(), other.close()]);
  await server.stop();
  console.log(abstract && seen.length === 2 ? 'founding lines work' : `seen ${String(seen)}`);
}

main().catch(error => {
  console.log(error);
});
