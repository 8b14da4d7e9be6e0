// A server and two clients in one process. Run: node examples/hello-world.js
import { BroadcastMessage, BroadcastTcpClient, BroadcastTcpServer } from '@alien-worlds/aw-broadcast';

const server = new BroadcastTcpServer({ port: Number(process.env.BROADCAST_PORT ?? 9000) });
await server.start();
const { port } = server.address;

const listener = new BroadcastTcpClient({ port }, 'listener');
listener.onMessage('room_1', message => console.log(`${message.sender} says: ${message.data}`));
await listener.connect();

const speaker = new BroadcastTcpClient({ port }, 'speaker');
await speaker.connect();
const message = BroadcastMessage.createChannelMessage('room_1', 'Hello world');
const receipt = await speaker.sendMessage(message, { until: 'delivered' });
console.log(receipt.status);

await speaker.close();
await listener.close();
await server.stop();
