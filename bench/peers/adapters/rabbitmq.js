// RabbitMQ. Transient: queues that are their subscribers' own, nothing acknowledged. Else quorum queues, which are synced: publishers
// wait for confirms, subscribers acknowledge when the handler has ended, for all before it.
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import amqp from 'amqplib';
import { findCommand, freePort, startDaemon } from '../daemon.js';
import { Pending } from '../pending.js';

const PREFETCHED = 2000;
const ACK_EVERY = 64;
const QUORUM = { durable: true, arguments: { 'x-queue-type': 'quorum' } };
const OWN = { exclusive: true, autoDelete: true };

/** Its ports are chosen before it binds them: another process may take one meanwhile. */
const ATTEMPTS = 3;

export async function serve({ folder }) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await start(join(folder, `rabbitmq-${attempt}`));
    } catch (error) {
      if (attempt === ATTEMPTS || !/port/.test(error.message)) throw error;
    }
  }
}

function endMapper(port) {
  spawnSync('epmd', ['-port', String(port), '-kill'], { stdio: 'ignore' });
}

async function start(home) {
  const [port, distribution, mapper] = [await freePort(), await freePort(), await freePort()];
  mkdirSync(home, { recursive: true });
  const env = {
    HOME: home,
    RABBITMQ_NODENAME: `bench${port}@localhost`,
    RABBITMQ_NODE_IP_ADDRESS: '127.0.0.1',
    RABBITMQ_NODE_PORT: String(port),
    RABBITMQ_DIST_PORT: String(distribution),
    ERL_EPMD_PORT: String(mapper),
    ERL_EPMD_ADDRESS: '127.0.0.1',
    RABBITMQ_MNESIA_BASE: join(home, 'data'),
    RABBITMQ_LOG_BASE: join(home, 'log'),
    RABBITMQ_ENABLED_PLUGINS_FILE: join(home, 'plugins'),
    RABBITMQ_CONF_ENV_FILE: join(home, 'none'),
  };
  const path = findCommand('rabbitmq-env')?.replace('rabbitmq-env', 'rabbitmq-server') ?? 'rabbitmq-server';
  const running = await startDaemon(path, [], { port, env, cwd: home }).catch(error => {
    endMapper(mapper);
    throw error;
  });
  return {
    ...running,
    async stop() {
      await running.stop();
      // The port mapper of this node was started beside it.
      endMapper(mapper);
    },
  };
}

export async function connect({ port, codec, quality }) {
  const isQuorum = quality === 'quorum';
  const connection = await amqp.connect(`amqp://127.0.0.1:${port}`);
  const channel = isQuorum ? await connection.createConfirmChannel() : await connection.createChannel();
  const pending = new Pending({ most: isQuorum ? 4096 : 1 });
  let hasRoom = true;
  channel.on('drain', () => (hasRoom = true));

  function send(exchange, key, data) {
    const body = codec.encode(data);
    if (isQuorum)
      pending.wait(
        new Promise((resolve, reject) => {
          hasRoom = channel.publish(exchange, key, body, { persistent: true }, error =>
            error ? reject(error) : resolve(),
          );
        }),
      );
    else hasRoom = channel.publish(exchange, key, body);
  }
  async function take(queue, handler) {
    let seen = 0;
    if (isQuorum) await channel.prefetch(PREFETCHED);
    await channel.consume(
      queue,
      message => {
        handler(codec.decode(message.content));
        if (isQuorum && ++seen % ACK_EVERY === 0) channel.ack(message, true);
      },
      { noAck: !isQuorum },
    );
  }
  return {
    publish: (topic, data) => send('amq.direct', topic, data),
    store: (target, data) => send('', target, data),
    async subscribe(topic, handler) {
      const { queue } = isQuorum
        ? await channel.assertQueue(`of-${process.pid}-${topic}`, QUORUM)
        : await channel.assertQueue('', OWN);
      await channel.bindQueue(queue, 'amq.direct', topic);
      await take(queue, handler);
    },
    declare: target => channel.assertQueue(target, QUORUM),
    consume: take,
    get isFull() {
      return !hasRoom || pending.isFull;
    },
    async room() {
      if (!hasRoom) await new Promise(resolve => channel.once('drain', resolve));
      if (pending.isFull) await pending.room();
    },
    settled: () => pending.settled(),
    close: () => connection.close(),
  };
}
