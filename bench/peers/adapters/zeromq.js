// ZeroMQ: publishers and subscribers through its own proxy, without its bounds, beyond which it drops.
import { Proxy, Subscriber, XPublisher, XSubscriber } from 'zeromq';
import { freePort } from '../daemon.js';
import { Pending } from '../pending.js';

const UNBOUNDED = { sendHighWaterMark: 0, linger: 0 };
// Who subscribes gets whatever begins so.
const topicOf = channel => `${channel}/`;
const addressOf = port => `tcp://127.0.0.1:${port}`;

export async function serve() {
  const front = new XSubscriber({ receiveHighWaterMark: 0 });
  const back = new XPublisher(UNBOUNDED);
  const port = { forPublishers: await freePort(), forSubscribers: await freePort() };
  await front.bind(addressOf(port.forPublishers));
  await back.bind(addressOf(port.forSubscribers));
  const proxy = new Proxy(front, back);
  const ended = proxy.run();
  return {
    port,
    async stop() {
      proxy.terminate();
      await ended;
    },
  };
}

export async function connect({ port, codec }) {
  // One that hears who subscribes.
  const publisher = new XPublisher(UNBOUNDED);
  publisher.connect(addressOf(port.forPublishers));
  const subscriber = new Subscriber({ receiveHighWaterMark: 0, linger: 0 });
  subscriber.connect(addressOf(port.forSubscribers));
  const handlers = new Map();
  const pending = new Pending({ most: 1 });
  let queue = [];
  let isSending = false;

  /** A socket takes one message at a time. */
  async function flush() {
    isSending = true;
    while (queue.length > 0) {
      const frames = queue;
      queue = [];
      for (const frame of frames) await publisher.send(frame);
    }
    isSending = false;
  }
  async function receive() {
    for await (const [channel, bytes] of subscriber) handlers.get(channel.toString())(codec.decode(bytes));
  }
  receive().catch(() => undefined); // it has been closed
  return {
    publish(channel, data) {
      queue.push([topicOf(channel), codec.encode(data)]);
      if (!isSending) pending.wait(flush());
    },
    async subscribe(channel, handler) {
      handlers.set(topicOf(channel), handler);
      subscriber.subscribe(topicOf(channel));
    },
    /** Fulfilled when the proxy has passed subscriptions on, of so many channels. */
    async hasSubscribers(count = 1) {
      const seen = new Set();
      while (seen.size < count) {
        const [bytes] = await publisher.receive();
        if (bytes[0] === 1) seen.add(bytes.toString('latin1', 1));
      }
    },
    get isFull() {
      return queue.length >= 256;
    },
    room: () => pending.settled(),
    settled: () => pending.settled(),
    close() {
      publisher.close();
      subscriber.close();
    },
  };
}
