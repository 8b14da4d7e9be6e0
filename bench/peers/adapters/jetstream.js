// NATS JetStream: a stream in a file, acknowledged when it is written there, a pull consumer that acknowledges when the handler
// has ended, for all before it.
import { AckPolicy, DeliverPolicy, jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect as connectNats } from '@nats-io/transport-node';
import { linkOn, Pending } from '../pending.js';
import { serve as serveNats } from './nats.js';

const STREAM = 'bench';
const FETCHED = 2000;
const ACK_EVERY = 64;

export async function serve({ folder, ...options }) {
  const running = await serveNats({
    folder,
    ...options,
    jetStream: `jetstream { store_dir: ${JSON.stringify(folder)} }\n`,
  });
  const nats = await connectNats({ servers: `127.0.0.1:${running.port}` });
  const manager = await jetstreamManager(nats);
  await manager.streams.add({ name: STREAM, subjects: ['to.>'], storage: 'file', num_replicas: 1 });
  await nats.close();
  return running;
}

export async function connect({ port, name, codec }) {
  const nats = await connectNats({ servers: `127.0.0.1:${port}`, name });
  const stream = jetstream(nats);
  const pending = new Pending({ most: 1024 });
  const consumers = [];
  const send = (subject, data) =>
    pending.add(() => stream.publish(`to.${subject}`, codec.encode(data), { timeout: 60_000 }));
  async function consume(subject, handler) {
    const manager = await jetstreamManager(nats);
    const policies = { ack_policy: AckPolicy.All, deliver_policy: DeliverPolicy.All };
    await manager.consumers.add(STREAM, { durable_name: name, filter_subject: `to.${subject}`, ...policies });
    const consumer = await stream.consumers.get(STREAM, name);
    let seen = 0;
    const callback = message => {
      handler(codec.decode(Buffer.from(message.data.buffer, message.data.byteOffset, message.data.length)));
      if (++seen % ACK_EVERY === 0) message.ack();
    };
    consumers.push(await consumer.consume({ max_messages: FETCHED, callback }));
  }
  return linkOn(pending, {
    publish: send,
    store: send,
    subscribe: consume,
    consume,
    async close() {
      for (const consumer of consumers) await consumer.close();
      await nats.close();
    },
  });
}
