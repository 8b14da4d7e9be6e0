// MQTT.js, for mosquitto and aedes. QoS 0 is at most once; with QoS 1 a message is acknowledged by the server, and by the subscriber
// when its handler has ended.
import mqtt from 'mqtt';
import { linkOn, Pending } from '../pending.js';

export async function connectMqtt({ port, name, codec, quality, durable = false }) {
  const options = { clientId: name, clean: !durable, reconnectPeriod: 0, queueQoSZero: true };
  // A session that has been kept sends what waits at once: it must be known what to do with it.
  const client = mqtt.connect({ host: '127.0.0.1', port, manualConnect: true, ...options });
  const handlers = new Map();
  client.on('message', (topic, bytes) => handlers.get(topic)?.(codec.decode(bytes)));
  const opened = new Promise((resolve, reject) => client.once('connect', resolve).once('error', reject));
  const open = () => {
    client.connect();
    return opened;
  };
  if (!durable || name === 'publisher') await open();
  const pending = new Pending({ most: 1024 });
  const send = (topic, data) => pending.wait(client.publishAsync(topic, codec.encode(data), { qos: quality }));
  async function subscribe(topic, handler) {
    handlers.set(topic, handler);
    await client.subscribeAsync(topic, { qos: quality });
  }
  return linkOn(pending, {
    publish: send,
    store: send,
    subscribe,
    /** Nothing is kept for who has never been there. */
    async declare(target) {
      const recipient = await connectMqtt({ port, name: target, codec, quality, durable: true });
      await recipient.introduce(target);
      await recipient.close();
    },
    async introduce(target) {
      await open();
      await subscribe(target, () => undefined);
    },
    async consume(target, handler) {
      handlers.set(target, handler);
      await open();
    },
    close: () => client.endAsync(),
  });
}
