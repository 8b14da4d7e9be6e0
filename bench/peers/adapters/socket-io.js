// Socket.IO over WebSockets: rooms, and an acknowledgement of the server every so often, which bounds what it holds.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { Server } from 'socket.io';
import { io } from 'socket.io-client';
import { linkOn, Pending } from '../pending.js';

const OPTIONS = { transports: ['websocket'], perMessageDeflate: false };

export async function serve() {
  const http = createServer();
  const server = new Server(http, { ...OPTIONS, maxHttpBufferSize: 2 ** 24 });
  server.on('connection', socket => {
    socket.on('subscribe', (channel, done) => {
      socket.join(channel);
      done();
    });
    socket.on('publish', (channel, data, done) => {
      server.to(channel).emit('message', channel, data);
      done?.();
    });
  });
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  return { port: http.address().port, stop: () => server.close() };
}

/** It encodes by itself: JSON, and bytes beside it. With JSON it is given the object. */
export async function connect({ port, codec, plain }) {
  const socket = io(`http://127.0.0.1:${port}`, { ...OPTIONS, reconnection: false });
  await new Promise((resolve, reject) => socket.once('connect', resolve).once('connect_error', reject));
  const handlers = new Map();
  socket.on('message', (channel, data) => handlers.get(channel)?.(plain ? data : codec.decode(data)));
  const pending = new Pending({ most: 4 });
  let sent = 0;
  return linkOn(pending, {
    publish(channel, data) {
      const body = plain ? data : codec.encode(data);
      if (++sent % 1024 !== 0) socket.emit('publish', channel, body);
      else pending.wait(socket.emitWithAck('publish', channel, body));
    },
    async subscribe(channel, handler) {
      handlers.set(channel, handler);
      await socket.emitWithAck('subscribe', channel);
    },
    close: () => socket.close(),
  });
}
