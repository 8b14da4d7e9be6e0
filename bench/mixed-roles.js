// The clients of the mixed load, each in a process of its own: node mixed-roles.js ROLE ENTRY, told what to do over the
// channel to its parent. Each counts what it sends or handles, kind by kind.
import { connect as dial, createServer } from 'node:net';
import { once } from 'node:events';
import { pipeline } from 'node:stream';
import { setTimeout as pause } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { pace, QUIET } from './measures.js';
import { cycle, FAILS, isPersistent, KINDS, kindsOf, REJECTS, SENDERS } from './mixed.js';
import { collected } from './occupied.js';
import { ChannelOrder, numberOf, Order, payload, publisherOf } from './payload.js';
import { serve } from './role-channel.js';

const [, , role, entry] = process.argv;
const { BroadcastMessage, BroadcastReject, BroadcastTcpClient } = await import(pathToFileURL(entry));
/** Milliseconds between two looks at what is still to come. */
const LOOK = 50;
/** What is told of as final, as it should be. */
const EXPECTED = ['expired', 'rejected'];
const { numberOf: numberIn } = payload(KINDS.steady.size);

/** What fails on purpose, and breaks, is not complained of. */
const clientOf = (port, name) => new BroadcastTcpClient({ host: '127.0.0.1', port, logger: QUIET }, name);

async function until(isSo) {
  while (!isSo()) await pause(LOOK);
}

/** Sends all kinds at a rate. */
function sender() {
  const kinds = cycle();
  const makers = Object.fromEntries(Object.entries(KINDS).map(([kind, { size }]) => [kind, payload(size).make]));
  const sent = Object.fromEntries(Object.keys(KINDS).map(kind => [kind, 0]));
  const failures = {};
  let client;
  let number;
  let turns = 0;
  let followed = 0;
  let fault;

  function messageOf(kind) {
    const { channel, clients, persistent, ttl } = KINDS[kind];
    const data = makers[kind](numberOf(sent[kind]++, number));
    const options = { name: kind, persistent, ttl };
    if (channel !== undefined) return BroadcastMessage.createChannelMessage(channel, data, options);
    if (clients.length > 1) return BroadcastMessage.createGroupMessage(clients, data, options);
    return BroadcastMessage.createClientMessage(clients[0], data, options);
  }

  async function follow(receipt) {
    followed++;
    const { status } = await receipt.catch(error => ({ status: error.message }));
    followed--;
    if (status !== 'delivered') fault ??= `a receipt says "${status}" instead of "delivered"`;
  }

  function send() {
    const kind = kinds[turns++ % kinds.length];
    const { until } = KINDS[kind];
    const receipt = client.sendMessage(messageOf(kind), { until });
    if (until !== undefined) void follow(receipt);
  }

  return {
    async start(options) {
      ({ number } = options);
      client = clientOf(options.port, options.name);
      client.onDeliveryFailure(({ final, reason, count = 1 }) => {
        if (final) failures[reason] = (failures[reason] ?? 0) + count;
      });
      await client.connect();
    },
    memory: collected,
    stats: () => ({ sent, failures, followed, outbox: client.outbox.messages }),
    pace: options => pace({ size: KINDS.steady.size, ...options }, send),
    /** Waits until everything is known to be handled or stored, and everything that expires has; tells what was sent. */
    async settled() {
      await client.flush();
      await until(() => fault !== undefined || (followed === 0 && (failures.expired ?? 0) >= sent.expiring));
      const unexpected = Object.keys(failures).find(reason => !EXPECTED.includes(reason));
      if (unexpected !== undefined) fault ??= `${failures[unexpected]} messages were lost: ${unexpected}`;
      if (failures.expired > sent.expiring) fault ??= `${failures.expired} of ${sent.expiring} messages expired`;
      if (fault !== undefined) throw new Error(fault);
      return { sent, rejected: failures.rejected ?? 0 };
    },
    stop: () => client?.close(),
  };
}

/** A way to the server that can be broken. */
async function breakable(port) {
  const ways = new Set();
  const server = createServer(near => {
    ways.add(near);
    const far = dial({ host: '127.0.0.1', port });
    pipeline(near, far, near, () => ways.delete(near));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: server.address().port,
    break() {
      for (const way of ways) way.destroy();
    },
  };
}

/** Takes the kinds that are for it, and checks that each message of each sender comes once and in order. */
function member() {
  const orders = {};
  let name;
  let way;
  let client;
  let failed = 0;
  let rejected = 0;

  /** Throws for some messages; one that is refused for good counts as handled. */
  function fail(number, attempt) {
    if (number % FAILS === 0 && attempt === 1) {
      failed++;
      throw new Error('it fails the first time');
    }
    if (number % REJECTS !== 1) return;
    rejected++;
    orders.failing.take(number);
    throw new BroadcastReject('it fails for good');
  }

  function handle({ name: kind, data }, { attempt }) {
    const number = numberIn(data);
    if (kind === 'failing') fail(number, attempt);
    orders[kind].take(number, publisherOf(number));
  }

  async function come() {
    client = clientOf(way.port, name);
    const kinds = kindsOf(name);
    for (const { channel } of kinds.map(kind => KINDS[kind]))
      if (channel !== undefined) client.onMessage(channel, handle);
    if (kinds.some(kind => KINDS[kind].clients !== undefined)) client.onMessage(handle);
    await client.connect();
  }

  const handled = () => Object.values(orders).reduce((sum, { received }) => sum + received, 0);

  return {
    async start({ port, ...options }) {
      ({ name } = options);
      way = await breakable(port);
      for (const kind of kindsOf(name)) orders[kind] = isPersistent(kind) ? new Order() : new ChannelOrder(SENDERS);
      await come();
    },
    memory: collected,
    stats: () => ({ handled: handled(), failed, rejected, kinds: orders }),
    come,
    leave: () => client.close(),
    break: () => way.break(),
    /** Waits for all that was sent; what is not persistent may be lost, and it is told how much was. */
    async reach({ counts }) {
      const missing = kind => counts[kind] - orders[kind].received;
      const kinds = Object.keys(orders);
      await until(() => kinds.every(kind => !isPersistent(kind) || missing(kind) <= 0));
      for (const kind of kinds) orders[kind].check(isPersistent(kind) ? counts[kind] : orders[kind].received);
      const lost = kinds.filter(kind => !isPersistent(kind)).reduce((sum, kind) => sum + missing(kind), 0);
      return { handled: handled(), failed, rejected, lost };
    },
    stop: () => client?.close(),
  };
}

serve({ sender, member }[role]());
