/** A client waits longer each time for a server that connects and does not answer: it may have a crowd before it. */
import { once } from 'node:events';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { expect, it, onTestFinished } from 'vitest';
import { PREAMBLE } from '../../src/protocol/constants.js';
import { PING, PONG } from '../../src/protocol/frames.js';
import { TestClock } from '../../src/testing/test-clock.js';
import { Inbox, newClient } from '../helpers/scene.js';

/** A server that takes connections and says nothing; what comes on each is read. */
async function silentServer(): Promise<{ port: number; arrivals: Inbox<Socket> }> {
  const arrivals = new Inbox<Socket>();
  const server = createServer(socket => {
    socket.on('error', () => undefined);
    // The client has connected, and has written its introduction.
    socket.once('data', () => arrivals.push(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    for (const socket of arrivals.items) socket.destroy();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, arrivals };
}

it.each([
  { deadAfter: 400_000, waits: [10, 20, 40, 80, 80] },
  { deadAfter: 25_000, waits: [10, 20, 25, 25] },
])('is left after $waits s, and not earlier, when a peer is dead after $deadAfter ms', async ({ deadAfter, waits }) => {
  const { port, arrivals } = await silentServer();
  const clock = new TestClock();
  const client = newClient(port, 'client', { clock, pingInterval: deadAfter / 2, deadAfter });
  client.connect().catch(() => undefined);
  for (const [i, patience] of waits.entries()) {
    const socket = (await arrivals.reached(i + 1))[i] as Socket;
    const ended = once(socket, 'end').then(() => 'ended');
    const answer = new Promise(resolve => {
      socket.on('data', bytes => bytes.includes(PONG) && resolve('answered'));
    });
    clock.tick(patience * 1000 - 1);
    // It lives: it answers.
    socket.write(Buffer.concat([PREAMBLE, PING]));
    expect(await Promise.race([ended, answer])).toBe('answered');
    clock.tick(1);
    await ended;
    await new Promise(setImmediate);
    clock.tick(24); // reconnectInterval is 20 ms, give or take a fifth
  }
});
