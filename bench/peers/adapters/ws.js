// ws: a relay that hands each message to those who have asked for its channel, and reads no further from who sends while one of
// them is full. A frame is the channel's length, the channel, the body.
import { once } from 'node:events';
import { WebSocket, WebSocketServer } from 'ws';
import { linkOn, Pending } from '../pending.js';

const FULL = 4 * 2 ** 20;
const MAX_PAYLOAD = 2 ** 24;

export async function serve() {
  const channels = new Map();
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false, maxPayload: MAX_PAYLOAD });
  await once(server, 'listening');
  server.on('connection', socket => {
    const own = [];
    socket.on('close', () => {
      for (const subscribers of own) subscribers.delete(socket);
    });
    socket.on('message', (bytes, isBinary) => {
      if (!isBinary) return subscribe(socket, bytes.toString(), own);
      const channel = bytes.toString('latin1', 1, 1 + bytes[0]);
      for (const other of channels.get(channel) ?? []) {
        if (other.bufferedAmount < FULL) other.send(bytes);
        else {
          socket.pause();
          other.send(bytes, () => socket.resume());
        }
      }
    });
  });
  function subscribe(socket, channel, own) {
    const subscribers = channels.get(channel) ?? new Set();
    channels.set(channel, subscribers.add(socket));
    own.push(subscribers);
    socket.send(channel);
  }
  return {
    port: server.address().port,
    stop() {
      for (const socket of server.clients) socket.terminate();
      server.close();
    },
  };
}

export async function connect({ port, codec }) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}`, { perMessageDeflate: false, maxPayload: MAX_PAYLOAD });
  const handlers = new Map();
  const asked = new Map();
  await once(socket, 'open');
  socket.on('message', (bytes, isBinary) => {
    if (!isBinary) {
      asked.get(bytes.toString())();
      return;
    }
    const channel = bytes.toString('latin1', 1, 1 + bytes[0]);
    handlers.get(channel)?.(codec.decode(bytes.subarray(1 + bytes[0])));
  });
  const pending = new Pending({ most: 8 });
  let sent = 0;
  return linkOn(pending, {
    publish(channel, data) {
      const frame = Buffer.concat([Buffer.from([channel.length]), Buffer.from(channel, 'latin1'), codec.encode(data)]);
      if (++sent % 256 !== 0) socket.send(frame);
      else
        pending.wait(
          new Promise((resolve, reject) => socket.send(frame, error => (error ? reject(error) : resolve()))),
        );
    },
    async subscribe(channel, handler) {
      handlers.set(channel, handler);
      const answered = new Promise(resolve => asked.set(channel, resolve));
      socket.send(channel);
      await answered;
    },
    close: () => socket.close(),
  });
}
