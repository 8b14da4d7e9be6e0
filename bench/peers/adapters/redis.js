// Redis pub/sub, at most once, with commands put together by the client. Its bound for slow subscribers is lifted, or they would
// be thrown out.
import { Redis } from 'ioredis';
import { freePort, startDaemon } from '../daemon.js';
import { linkOn, Pending } from '../pending.js';

/** Also for streams, which are kept in a file that is synced always. */
export async function serve({ folder, appendOnly = false }) {
  const port = await freePort();
  const persistence = appendOnly ? ['--appendonly', 'yes', '--appendfsync', 'always'] : ['--appendonly', 'no'];
  const bounds = ['--client-output-buffer-limit', 'pubsub', '0', '0', '0', '--maxclients', '30000'];
  const args = [
    '--port',
    String(port),
    '--bind',
    '127.0.0.1',
    '--dir',
    folder,
    '--save',
    '',
    ...persistence,
    ...bounds,
  ];
  return startDaemon('redis-server', args, { port });
}

export async function open(port) {
  const redis = new Redis({ port, host: '127.0.0.1', enableAutoPipelining: true, lazyConnect: true });
  await redis.connect();
  return redis;
}

export async function connect({ port, codec, lean = false }) {
  // One that only listens needs one connection.
  const redis = lean ? undefined : await open(port);
  // Who subscribes can send nothing else.
  const own = await open(port);
  const pending = new Pending({ most: 8192 });
  const handlers = new Map();
  own.on('messageBuffer', (channel, bytes) => handlers.get(channel.toString())(codec.decode(bytes)));
  return linkOn(pending, {
    publish(channel, data) {
      pending.wait(redis.publish(channel, codec.encode(data)));
    },
    async subscribe(channel, handler) {
      handlers.set(channel, handler);
      await own.subscribe(channel);
    },
    close() {
      redis?.disconnect();
      own.disconnect();
    },
  });
}
