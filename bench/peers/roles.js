// The parts of a run as a peer plays them, each in a process of its own: node roles.js ROLE, told what to do over the channel
// to its parent. An adapter is a module of adapters/: `serve({ folder, … })` starts a server, `connect({ port, name, codec,
// quality, … })` returns a link, which publishes, subscribes, and says when it is full and when all is settled.
import { setImmediate as turn } from 'node:timers/promises';
import { pace, pingPong, Reception, Scattering } from '../measures.js';
import { ChannelOrder, channelName, numberOf, Order, payload, shareOf } from '../payload.js';
import { now, serve } from '../role-channel.js';
import { CODECS } from './codecs.js';

const [, , role] = process.argv;
const CHANNEL = 'bench';
// Messages that a sender creates before it lets its sockets have a turn; as many as Broadcast's.
const BURST = 256;
// Subscriptions that are asked for together.
const PORTION = 500;

const load = peer => import(`./adapters/${peer}.js`);

async function connect({ peer, codec, ...options }) {
  const { connect } = await load(peer);
  return await connect({ ...options, codec: CODECS[codec] });
}

function server() {
  let running;
  return {
    async start({ peer, ...options }) {
      const { serve } = await load(peer);
      running = await serve(options);
      return { port: running.port, group: running.group };
    },
    cpu: () => running?.cpu?.(),
    stats: () => ({ memory: running.memory?.() ?? process.memoryUsage().rss }),
    stop: () => running?.stop(),
  };
}

function publisher() {
  let link;
  let sent = 0;
  let channel;
  let number;
  const scattering = new Scattering();

  return {
    async start({ channel: own = CHANNEL, number: publisher = 0, ...options }) {
      channel = own;
      number = publisher;
      link = await connect(options);
      // Some clients can tell, and lose what is sent before.
      if (!options.durable) await link.hasSubscribers?.(options.channels);
    },
    stats: () => ({ sent }),
    async publish({ size, seconds, messages, target }) {
      const { make } = payload(size);
      if (target !== undefined) await link.declare?.(target);
      const send = target === undefined ? data => link.publish(channel, data) : data => link.store(target, data);
      const first = sent;
      const began = now();
      const end = began + (seconds ?? 0) * 1000;
      const left = () => (messages === undefined ? (now() < end ? BURST : 0) : first + messages - sent);
      for (let burst = left(); burst > 0; burst = left()) {
        for (let i = Math.min(burst, BURST); i > 0 && !link.isFull; i--) send(make(numberOf(sent++, number)));
        if (link.isFull) await link.room();
        else await turn();
      }
      return { began, first, sent };
    },
    async scatter({ size, ...options }) {
      const { make } = payload(size);
      const first = sent;
      const { began, shares } = await scattering.run(
        { ...options, burst: BURST },
        { isFull: () => link.isFull, room: () => link.room(), send: channel => link.publish(channel, make(sent++)) },
      );
      return { began, first, sent, shares };
    },
    async settled() {
      await link.settled();
      return { at: now() };
    },
    async pace(options) {
      const first = sent;
      await pace(options, make => link.publish(channel, make(numberOf(sent++, number), now())));
      return { first, sent };
    },
    /** That it is acknowledged is all that peers say. */
    check: () => undefined,
    stop: () => link?.close(),
  };
}

function subscriber() {
  let link;
  let come;
  const reception = new Reception();

  /** In portions, or a client has ten thousand questions open. */
  async function subscribeAll(places, handlerFor) {
    for (let i = 0; i < places.length; i += PORTION) {
      const portion = places.slice(i, i + PORTION);
      await Promise.all(portion.map(at => link.subscribe(channelName(at), handlerFor(at))));
    }
  }

  return {
    async start({ own, size, late, from, channel = CHANNEL, name, channels, share, of, ...options }) {
      const { numberOf, timeOf } = payload(size);
      await link?.close();
      reception.begin(channels === undefined ? new Order(from) : new ChannelOrder(channels));
      const handler = (data, place) => reception.take(numberOf(data), timeOf(data), place);
      come = async () => {
        link = await connect({ ...options, name, durable: own });
        if (own) await link.consume(name, handler);
        else if (channels === undefined) await link.subscribe(channel, handler);
        else await subscribeAll(shareOf(channels, share, of), at => data => handler(data, at));
      };
      if (!late) await come();
    },
    ...reception.verbs,
    async come() {
      const began = now();
      await come();
      return { began };
    },
    stop: () => link?.close(),
  };
}

/** Many clients that get nothing. */
function crowd() {
  const links = [];
  let options;
  return {
    start: given => void (options = given),
    async come({ count }) {
      for (let i = 0; i < count; i++) {
        const link = await connect({ ...options, name: `${options.name}-${links.length}`, lean: true });
        links.push(link);
        await link.subscribe(CHANNEL, () => undefined);
      }
    },
    stop: () => Promise.all(links.map(link => link.close())),
  };
}

function echo() {
  let link;
  return {
    async start(options) {
      link = await connect(options);
      await link.subscribe('ping', data => link.publish('pong', data));
    },
    stop: () => link?.close(),
  };
}

function pinger() {
  let link;
  let arrived = () => undefined;
  return {
    async start(options) {
      link = await connect(options);
      await link.subscribe('pong', data => arrived(data));
      await link.hasSubscribers?.();
    },
    run: options =>
      pingPong(
        options,
        data => link.publish('ping', data),
        handler => (arrived = handler),
      ),
    stop: () => link?.close(),
  };
}

serve({ server, publisher, subscriber, echo, pinger, crowd }[role]());
