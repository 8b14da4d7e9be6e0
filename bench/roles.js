// The roles of a run, each in a process of its own: node roles.js ROLE ENTRY, told what to do over the channel to its
// parent. ENTRY is the package's module, so that two checkouts can be measured against each other.
import { once } from 'node:events';
import { setImmediate as turn, setTimeout as pause } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { createHistogram, monitorEventLoopDelay } from 'node:perf_hooks';
import { HISTOGRAM, pace, percentiles, pingPong, progress, QUIET, Reception, Scattering } from './measures.js';
import { ChannelOrder, channelName, numberOf, Order, payload, shareOf } from './payload.js';
import { bareRoles } from './bare.js';
import { bareStore } from './bare-store.js';
import { limitRoles } from './limit.js';
import { collected } from './occupied.js';
import { now, serve } from './role-channel.js';

const [, , role, entry] = process.argv;
const library = await import(pathToFileURL(entry));
const CHANNEL = 'bench';
// Messages that a sender creates before it lets its sockets have a turn.
const BURST = 256;
// A receiver that falls behind on a busy machine shall have its messages late, and not run into the queue's limit.
const ROOM = { queueMessages: 10_000_000, queueBytes: 4 * 2 ** 30, storeBytes: 8 * 2 ** 30 };
// Nor shall it lose what is not persistent because others keep it from running: that happens after ten times as long.
const PATIENCE = 200;
/** Milliseconds between two looks at the event loop. */
const LOOK = 10;
// One in so many receipts is kept and looked at; all are waited for, and none may come with a failure.
const SAMPLE = 16;

/** With `retry` for a server that is to come: a client tries again after so many milliseconds, and does not complain. */
function connect({ port, name, retry }) {
  const config = { host: '127.0.0.1', port, ...(retry && { reconnectInterval: retry, logger: QUIET }) };
  const client = new library.BroadcastTcpClient(config, name);
  return { client, connected: () => client.connect() };
}

function server() {
  let running;
  let delays;
  return {
    /** Tells where it listens, and since when. A `calm` one does not warn, for instance of what fails on purpose. */
    async start({ dataDir, patient, calm, port = 0 }) {
      running = new library.BroadcastTcpServer({
        host: '127.0.0.1',
        port,
        limits: ROOM,
        ...(patient && { storeAfter: PATIENCE }),
        ...(calm && { logger: { ...QUIET, error: console.error } }),
        ...(dataDir && { dataDir }),
      });
      await running.start();
      return { port: running.address.port, at: now() };
    },
    memory: collected,
    /** Milliseconds that the event loop was held up (p99) since this was asked the last time. */
    held() {
      delays ??= monitorEventLoopDelay({ resolution: LOOK });
      const p99 = Math.max(0, delays.percentile(99) / 1e6 - LOOK);
      delays.enable();
      delays.reset();
      return { p99 };
    },
    async dropDeadLetters({ name }) {
      const letters = running.deadLetters(name);
      const found = await letters.list();
      for (const { id } of found) await letters.drop(id);
      return { dropped: found.length };
    },
    stats: () => ({ ...running.stats(), memory: process.memoryUsage().rss }),
    stop: () => running?.stop(),
  };
}

/** Sends numbered objects, to a channel or to one client, as fast as the outbox has room. */
function publisher() {
  let client;
  let sent = 0;
  let last;
  let kept = [];
  let channel;
  let number;
  let isScattered = false;
  const scattering = new Scattering();
  const failures = {};

  async function send({ target, size, persistent, keep, until, burst = BURST }) {
    const { make } = payload(size);
    const { BroadcastMessage } = library;
    const options = { persistent };
    const create = target === undefined ? BroadcastMessage.createChannelMessage : BroadcastMessage.createClientMessage;
    const to = target ?? channel;
    while (!until(sent)) {
      for (let i = 0; i < burst && !client.outbox.full && !until(sent, i); i++) {
        last = client.sendMessage(create(to, make(numberOf(sent++, number)), options));
        if (keep && sent % SAMPLE === 0) kept.push(last);
      }
      if (client.outbox.full) await client.ready();
      else await turn();
    }
  }

  return {
    async start(options) {
      const { client: made, connected } = connect(options);
      client = made;
      ({ channel = CHANNEL, number = 0 } = options);
      client.onDeliveryFailure(({ final, reason, count = 1 }) => {
        if (final) failures[reason] = (failures[reason] ?? 0) + count;
      });
      await connected();
    },
    stats: () => ({
      sent,
      failures,
      state: client.state,
      messages: client.outbox.messages,
      bytes: client.outbox.bytes,
    }),
    /** Sends for so long, or so many; tells when it began and how many were sent in all. */
    async publish({ seconds, messages, ...options }) {
      const began = now();
      const first = sent;
      const end = began + (seconds ?? 0) * 1000;
      const until =
        messages === undefined ? (_sent, i) => i === undefined && now() >= end : sent => sent - first >= messages;
      await send({ ...options, until });
      return { began, first, sent };
    },
    /** Waits for the last receipt. Those of one sender to one channel come in order; those to several do not. */
    async settled() {
      await last;
      while (isScattered && client.outbox.messages > 0) await pause(1);
      const at = now();
      if (client.outbox.messages > 0) throw new Error(`${client.outbox.messages} messages are not settled`);
      if (Object.keys(failures).length > 0) throw new Error(`messages were lost: ${JSON.stringify(failures)}`);
      return { at };
    },
    /** To many channels, by chance; tells how many each of the subscribers is to have had in all. */
    async scatter({ size, persistent, ...options }) {
      const { make } = payload(size);
      const { BroadcastMessage } = library;
      const first = sent;
      const { began, shares } = await scattering.run(
        { burst: BURST, ...options },
        {
          isFull: () => client.outbox.full,
          room: () => client.ready(),
          send(channel) {
            last = client.sendMessage(BroadcastMessage.createChannelMessage(channel, make(sent++), { persistent }));
          },
        },
      );
      isScattered = true;
      return { began, first, sent, shares };
    },
    async pace({ persistent, ...options }) {
      const first = sent;
      await pace(options, make => {
        const data = make(numberOf(sent++, number), now());
        last = client.sendMessage(library.BroadcastMessage.createChannelMessage(channel, data, { persistent }));
      });
      return { first, sent };
    },
    /** Looks at every receipt that was kept. */
    async check({ status, durability }) {
      for (const receipt of kept) {
        const got = await receipt;
        if (got.status !== status || got.durability !== durability)
          throw new Error(`a receipt says ${got.status}/${got.durability} instead of ${status}/${durability}`);
      }
      kept = [];
    },
    /** One message at a time, the next when the receipt of the one before is there. */
    async synced({ target, size, messages, warmUp }) {
      const { make } = payload(size);
      const histogram = createHistogram(HISTOGRAM);
      for (let i = 0; i < warmUp + messages; i++) {
        const began = process.hrtime.bigint();
        const receipt = await client.sendMessage(library.BroadcastMessage.createClientMessage(target, make(sent++)));
        if (i >= warmUp) histogram.record(process.hrtime.bigint() - began);
        if (receipt.status !== 'stored' || receipt.durability !== 'fsync')
          throw new Error(`a receipt says ${receipt.status}/${receipt.durability}`);
      }
      return percentiles(histogram);
    },
    stop: () => client?.close(),
  };
}

/** Takes numbered objects and checks that each is the next; of its share of many channels, or `apart` with a client for each. */
function subscriber() {
  let clients = [];
  let connected;
  const reception = new Reception();
  const closeAll = () => Promise.all(clients.map(client => client.close()));

  return {
    async start({ own, size, late, from, channel = CHANNEL, channels, share, of, apart, ...options }) {
      const { numberOf, timeOf } = payload(size);
      await closeAll();
      reception.begin(channels === undefined ? new Order(from) : new ChannelOrder(channels));
      const handler = ({ data }, place) => reception.take(numberOf(data), timeOf(data), place);
      const places = channels === undefined ? [] : shareOf(channels, share, of);
      const subscribe = (client, at) => client.onMessage(channelName(at), message => handler(message, at));
      const names = apart ? places.map(at => `${options.name}-${at}`) : [options.name];
      const made = names.map(name => connect({ ...options, name }));
      clients = made.map(({ client }) => client);
      connected = () => Promise.all(made.map(({ connected }) => connected()));
      if (own) clients[0].onMessage(handler);
      else if (channels === undefined) clients[0].onMessage(channel, handler);
      else places.forEach((at, i) => subscribe(clients[apart ? i : 0], at));
      if (!late) await connected();
    },
    ...reception.verbs,
    /** Connects at last; tells when it began to. */
    async come() {
      const began = now();
      await connected();
      return { began };
    },
    stop: closeAll,
  };
}

/** Many clients that get nothing. */
function crowd() {
  const clients = [];
  let options;
  return {
    start: given => void (options = given),
    async come({ count }) {
      const { port, name } = options;
      for (let i = 0; i < count; i++) {
        const { client, connected } = connect({ port, name: `${name}-${clients.length}` });
        clients.push(client);
        client.onMessage(CHANNEL, () => undefined);
        await connected();
      }
    },
    stop: () => Promise.all(clients.map(client => client.close())),
  };
}

/** Sends back what it gets. */
function echo() {
  let client;
  return {
    async start({ persistent, ...options }) {
      const { client: made, connected } = connect(options);
      client = made;
      client.onMessage('ping', ({ data }) => {
        client.sendMessage(library.BroadcastMessage.createChannelMessage('pong', data, { persistent }));
      });
      await connected();
    },
    stop: () => client?.close(),
  };
}

/** One message to the echo and back at a time. */
function pinger() {
  let client;
  let arrived = () => undefined;
  return {
    async start(options) {
      const { client: made, connected } = connect(options);
      client = made;
      client.onMessage('pong', ({ data }) => arrived(data));
      await connected();
    },
    run({ persistent, ...options }) {
      const send = data =>
        client.sendMessage(library.BroadcastMessage.createChannelMessage('ping', data, { persistent }));
      return pingPong(options, send, handler => (arrived = handler));
    },
    stop: () => client?.close(),
  };
}

const roles = {
  ...{ server, publisher, subscriber, echo, pinger, crowd },
  ...limitRoles({ now, once, percentiles, HISTOGRAM }),
  ...bareRoles({ now, once, turn, progress, pingPong, payload, BURST, CHANNEL }),
  bareStore: () => bareStore(once),
};

serve(roles[role]());
