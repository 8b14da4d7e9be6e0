// The limit: what this machine and Node can do with the same bytes when nobody looks at them. A relay forwards each
// chunk to every other connection; a source writes chunks of frames, a sink counts bytes. Beside it the same file
// operations as a stored message needs, awaited one after the other, with one trip over the loopback.
import { open, unlink } from 'node:fs/promises';
import { createServer, connect } from 'node:net';
import { createHistogram } from 'node:perf_hooks';

const CHUNK = 64 * 1024;
/** A frame is a length and the body. */
export const FRAME_OVERHEAD = 4;
// A log's segments are made at their full size before they are written to.
const PREALLOCATED = 16 * 1024 * 1024;

export function limitRoles({ now, once, percentiles, HISTOGRAM }) {
  async function dial(port) {
    const socket = connect({ host: '127.0.0.1', port, noDelay: true });
    await once(socket, 'connect');
    return socket;
  }

  async function listen(onConnection) {
    const server = createServer({ noDelay: true }, onConnection);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return { server, port: server.address().port };
  }

  function relay() {
    const sockets = new Set();
    let server;
    const onConnection = socket => {
      sockets.add(socket);
      socket.on('data', chunk => {
        for (const other of sockets) {
          if (other === socket || other.write(chunk) || socket.isPaused()) continue;
          socket.pause();
          other.once('drain', () => socket.resume());
        }
      });
      socket.on('error', () => undefined);
      socket.on('close', () => sockets.delete(socket));
    };
    return {
      async start() {
        const listening = await listen(onConnection);
        server = listening.server;
        return { port: listening.port };
      },
      stats: () => ({}),
      stop() {
        for (const socket of sockets) socket.destroy();
        server.close();
      },
    };
  }

  function source() {
    let socket;
    let sent = 0;
    return {
      async start({ port }) {
        socket = await dial(port);
      },
      async publish({ size, seconds, messages }) {
        const frame = size + FRAME_OVERHEAD;
        const perChunk = Math.max(1, Math.floor(CHUNK / frame));
        const chunk = Buffer.alloc(perChunk * frame, 'x');
        const first = sent;
        const began = now();
        const end = began + (seconds ?? 0) * 1000;
        while (messages === undefined ? now() < end : (sent - first) / frame < messages) {
          const room = socket.write(chunk);
          sent += chunk.length;
          if (!room) await once(socket, 'drain');
        }
        return { began, first: first / frame, sent: sent / frame };
      },
      settled: () => ({ at: now() }),
      stop: () => socket?.destroy(),
    };
  }

  function sink() {
    let socket;
    let frame;
    let received = 0;
    let target = Infinity;
    let at = 0;
    let reached = () => undefined;
    return {
      async start({ port, size }) {
        frame = size + FRAME_OVERHEAD;
        socket = await dial(port);
        socket.on('data', chunk => {
          received += chunk.length;
          if (received < target) return;
          at = now();
          reached();
        });
      },
      async reach({ count }) {
        target = count * frame;
        if (received < target) await new Promise(resolve => (reached = resolve));
        else at = now();
        if (received > target) throw new Error(`${received / frame} frames came instead of ${count}`);
        target = Infinity;
        return { at };
      },
      stop: () => socket?.destroy(),
    };
  }

  function mirror() {
    let socket;
    return {
      async start({ port }) {
        socket = await dial(port);
        socket.on('data', chunk => socket.write(chunk));
      },
      stop: () => socket?.destroy(),
    };
  }

  /** One frame there and back at a time. */
  function prober() {
    let socket;
    return {
      async start({ port }) {
        socket = await dial(port);
      },
      run({ size, messages, warmUp }) {
        const frame = Buffer.alloc(size + FRAME_OVERHEAD, 'x');
        const histogram = createHistogram(HISTOGRAM);
        let n = 0;
        let missing = 0;
        let began;
        const next = () => {
          began = process.hrtime.bigint();
          missing = frame.length;
          socket.write(frame);
        };
        return new Promise(resolve => {
          socket.on('data', chunk => {
            missing -= chunk.length;
            if (missing > 0) return;
            if (n >= warmUp) histogram.record(process.hrtime.bigint() - began);
            if (++n < warmUp + messages) next();
            else resolve(percentiles(histogram));
          });
          next();
        });
      },
      stop: () => socket?.destroy(),
    };
  }

  /** Writes each chunk to a file, makes it durable, and answers. */
  function fileServer() {
    let file;
    let path;
    let server;
    let position = 0;
    return {
      async start({ folder }) {
        path = `${folder}/limit.log`;
        file = await open(path, 'w');
        await file.write(Buffer.alloc(PREALLOCATED), 0, PREALLOCATED, 0);
        await file.sync();
        const listening = await listen(socket => {
          socket.on('data', async chunk => {
            await file.write(chunk, 0, chunk.length, position);
            await file.datasync();
            position += chunk.length;
            socket.write(chunk);
          });
          socket.on('close', () => server.close());
        });
        server = listening.server;
        return { port: listening.port };
      },
      async stop() {
        await file.close();
        await unlink(path);
      },
    };
  }

  return { relay, source, sink, mirror, prober, fileServer };
}
