// The durable form of the bare relay: one queue in one file, made at its full size before. What arrives is appended; what
// has come while the disk was busy is written and synced together, then acknowledged by its count. Nothing is recovered.
import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { ACKNOWLEDGED, cutter, encodeFrame, headerOf, listen, MESSAGES, SUBSCRIBE } from './bare.js';

const ZEROS = Buffer.alloc(4 * 1024 * 1024);
/** The file is read in pieces of so many bytes. */
const PIECE = 256 * 1024;
/** No more is read from a publisher while so many bytes wait for the disk. */
const WAITING = 16 * 1024 * 1024;
/** There is but one queue. */
const QUEUE = 1;

export function bareStore(once) {
  let running;
  let file;
  let head = 0; // what is behind it has been drained
  let tail = 0; // what is behind it is on the disk
  let waiting = { pieces: [], bytes: 0, count: 0 };
  let busy = false;

  async function write(publisher) {
    busy = true;
    while (waiting.count > 0) {
      const { pieces, bytes, count } = waiting;
      waiting = { pieces: [], bytes: 0, count: 0 };
      if (publisher.isPaused()) publisher.resume();
      await file.writev(pieces, tail);
      await file.datasync();
      tail += bytes;
      publisher.write(encodeFrame(ACKNOWLEDGED, QUEUE, count));
    }
    busy = false;
  }

  function append(publisher, pieces, count) {
    for (const piece of pieces) {
      waiting.pieces.push(piece);
      waiting.bytes += piece.length;
    }
    waiting.count += count;
    if (waiting.bytes > WAITING) publisher.pause();
    if (!busy) void write(publisher);
  }

  async function drain(subscriber) {
    while (head < tail) {
      const piece = Buffer.allocUnsafeSlow(Math.min(PIECE, tail - head));
      const { bytesRead } = await file.read(piece, 0, piece.length, head);
      head += bytesRead;
      if (!subscriber.write(piece.subarray(0, bytesRead))) await once(subscriber, 'drain');
    }
  }

  function onConnection(socket) {
    const onFrame = pieces => {
      const { kind, count } = headerOf(pieces);
      if (kind === MESSAGES) return append(socket, pieces, count);
      const answer = Buffer.concat(pieces);
      answer.writeUInt16LE(QUEUE, 5);
      socket.write(answer);
      if (kind === SUBSCRIBE) void drain(socket);
    };
    socket.on('data', cutter(onFrame));
  }

  return {
    async start({ dataDir, room }) {
      await mkdir(dataDir, { recursive: true });
      file = await open(join(dataDir, 'queue'), 'w+');
      for (let at = 0; at < room; at += ZEROS.length) await file.write(ZEROS, 0, ZEROS.length, at);
      await file.sync();
      running = await listen(once, onConnection);
      return { port: running.port };
    },
    stats: () => ({ head, tail, waiting: waiting.count }),
    async stop() {
      running.close();
      await file.close();
    },
  };
}
