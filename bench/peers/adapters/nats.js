// NATS core, at most once. A flush every so often bounds what the client holds; the server's bound for a slow subscriber is
// raised, or it would be thrown out.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect as connectNats } from '@nats-io/transport-node';
import { freePort, startDaemon } from '../daemon.js';
import { linkOn, Pending } from '../pending.js';

/** Also for JetStream, which `jetStream` makes of it. */
export async function serve({ folder, jetStream = '' }) {
  const port = await freePort();
  const file = join(folder, 'nats.conf');
  writeFileSync(file, `host: 127.0.0.1\nport: ${port}\nmax_pending: 2GB\nwrite_deadline: "60s"\n${jetStream}`);
  return startDaemon('nats-server', ['-c', file], { port });
}

export async function connect({ port, name, codec }) {
  const nats = await connectNats({ servers: `127.0.0.1:${port}`, name });
  const pending = new Pending({ most: 4, every: 1024 });
  const flush = () => nats.flush();
  return linkOn(pending, {
    publish(channel, data) {
      nats.publish(channel, codec.encode(data));
      pending.add(flush);
    },
    async subscribe(channel, handler) {
      nats.subscribe(channel, {
        callback: (error, message) => {
          if (error) throw error;
          handler(codec.decode(Buffer.from(message.data.buffer, message.data.byteOffset, message.data.length)));
        },
      });
      await nats.flush();
    },
    async settled() {
      await pending.settled();
      await nats.flush();
    },
    close: () => nats.close(),
  });
}
