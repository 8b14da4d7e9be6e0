// Redis streams with a consumer group for each subscriber, each command synced before it is answered.
import { linkOn, Pending } from '../pending.js';
import { open, serve as serveRedis } from './redis.js';

const FETCHED = 500;
const WAIT_MS = 1000;

export const serve = options => serveRedis({ ...options, appendOnly: true });

export async function connect({ port, name, codec }) {
  const redis = await open(port);
  // A read that waits holds up what comes behind it.
  const reader = await open(port);
  const pending = new Pending({ most: 8192 });
  const acknowledged = new Pending({ most: 4 });
  let isOpen = true;
  const send = (stream, data) => pending.wait(redis.xadd(stream, '*', 'd', codec.encode(data)));

  async function read(stream, handler) {
    while (isOpen) {
      const group = ['GROUP', name, name, 'COUNT', FETCHED, 'BLOCK', WAIT_MS];
      const found = await reader.xreadgroupBuffer(...group, 'STREAMS', stream, '>');
      if (found === null) continue;
      const ids = [];
      for (const [id, [, bytes]] of found[0][1]) {
        handler(codec.decode(bytes));
        ids.push(id);
      }
      acknowledged.wait(redis.xack(stream, name, ...ids));
      if (acknowledged.isFull) await acknowledged.room();
    }
  }

  async function consume(stream, handler) {
    await redis.xgroup('CREATE', stream, name, '0', 'MKSTREAM');
    read(stream, handler).catch(error => {
      if (isOpen) throw error;
    });
  }
  return linkOn(pending, {
    publish: send,
    store: send,
    subscribe: consume,
    consume,
    close() {
      isOpen = false;
      redis.disconnect();
      reader.disconnect();
    },
  });
}
