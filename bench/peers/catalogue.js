// What npm run bench:peers measures: kinds of work, and who does them with which guarantee.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { execFileSync } from 'node:child_process';
import { LIMIT, OWN } from '../scenarios.js';
import { fanOut, idle, manyChannels, paced, roundTrip, storeAndDrain } from '../work.js';
import { findCommand } from './daemon.js';

/** The same parts as Broadcast's, in a file of their own. */
const PARTS = { ...OWN, file: fileURLToPath(new URL('roles.js', import.meta.url)) };

/** The kinds of work. `run` makes a scenario of who does it. */
export const WORK = {
  one: { title: '1 → 1', run: ({ kind, how }) => fanOut(kind, { subscribers: 1, ...how }) },
  many: { title: '1 → 10', run: ({ kind, how }) => fanOut(kind, { subscribers: 10, ...how }) },
  gather: { title: '10 → 1', run: ({ kind, how }) => fanOut(kind, { publishers: 10, subscribers: 1, ...how }) },
  channels: {
    title: '10 → 10 through 10 channels',
    run: ({ kind, how }) => fanOut(kind, { publishers: 10, subscribers: 10, apart: true, ...how }),
  },
  trip: { title: 'round trip', run: ({ kind, how }) => roundTrip(kind, how?.persistent) },
  // The time of sending has no room in the smallest objects.
  paced: { title: '20,000 messages a second', leastSize: 100, run: ({ kind, how }) => paced(kind, how) },
  scatter: { title: '100,000 channels, 10 subscribers', run: ({ kind, how }) => manyChannels(kind, how) },
  idle: { title: '10,000 connections', sizes: [0], run: ({ kind }) => idle(kind) },
  store: { title: 'durable queue', run: ({ kind }) => storeAndDrain(kind) },
};

const FLOW = ['one', 'many', 'gather', 'channels', 'trip', 'paced', 'scatter', 'idle'];
const BOTH = ['json', 'msgpack'];

/** A peer with one of its guarantees, in each of the codecs. */
function peer(name, { title, guarantee, module = name, quality, needs, work = FLOW, codecs = BOTH, packages }) {
  return codecs.map(codec => ({
    name: codec === 'json' ? name : `${name}+mp`,
    title: codec === 'json' ? title : `${title}, msgpack`,
    ...{ guarantee, needs, work, packages },
    kind: { ...PARTS, start: { peer: module, codec, quality, ...(codec === 'json' && { plain: true }) } },
  }));
}

const AT_MOST_ONCE = 'at most once';
const IN_MEMORY = 'acknowledged, in memory';
const SYNCED = 'acknowledged, synced';

/** Who does them, in the order of the tables. `needs` is a command, `packages` are what is named with its version. */
export const PEERS = [
  {
    name: 'broadcast',
    title: 'Broadcast',
    guarantee: 'receipt, acknowledged after the handler',
    work: FLOW,
    kind: OWN,
  },
  {
    name: 'broadcast-transient',
    title: 'Broadcast, not persistent',
    guarantee: AT_MOST_ONCE,
    work: FLOW,
    kind: OWN,
    how: { persistent: false },
  },
  {
    name: 'broadcast-durable',
    title: 'Broadcast with dataDir',
    guarantee: 'receipt, acknowledged after the handler; stored ones synced',
    work: ['one', 'many', 'store'],
    kind: OWN,
    how: { durable: true },
  },
  { name: 'limit', title: 'limit', guarantee: 'bytes, unseen', work: ['one', 'many', 'trip'], kind: LIMIT },
  ...peer('nats', {
    title: 'NATS core',
    guarantee: AT_MOST_ONCE,
    needs: 'nats-server',
    packages: ['@nats-io/transport-node'],
  }),
  ...peer('jetstream', {
    title: 'NATS JetStream, file',
    guarantee: 'acknowledged, written, synced every two minutes',
    needs: 'nats-server',
    work: ['one', 'many', 'store'],
    packages: ['@nats-io/jetstream'],
  }),
  ...peer('redis', { title: 'Redis pub/sub', guarantee: AT_MOST_ONCE, needs: 'redis-server', packages: ['ioredis'] }),
  ...peer('redis-streams', {
    title: 'Redis streams, AOF always',
    guarantee: SYNCED,
    needs: 'redis-server',
    work: ['one', 'many', 'store'],
    packages: ['ioredis'],
  }),
  ...peer('mosquitto-0', {
    title: 'Mosquitto, QoS 0',
    guarantee: AT_MOST_ONCE,
    module: 'mosquitto',
    quality: 0,
    needs: 'mosquitto',
    packages: ['mqtt'],
  }),
  ...peer('mosquitto-1', {
    title: 'Mosquitto, QoS 1',
    guarantee: IN_MEMORY,
    module: 'mosquitto',
    quality: 1,
    needs: 'mosquitto',
    work: [...FLOW, 'store'],
    packages: ['mqtt'],
  }),
  ...peer('aedes-0', {
    title: 'Aedes, QoS 0',
    guarantee: AT_MOST_ONCE,
    module: 'aedes',
    quality: 0,
    packages: ['aedes', 'mqtt'],
  }),
  ...peer('aedes-1', {
    title: 'Aedes, QoS 1',
    guarantee: IN_MEMORY,
    module: 'aedes',
    quality: 1,
    work: [...FLOW, 'store'],
    packages: ['aedes', 'mqtt'],
  }),
  ...peer('socket.io', {
    title: 'Socket.IO',
    guarantee: AT_MOST_ONCE,
    module: 'socket-io',
    packages: ['socket.io', 'socket.io-client'],
  }),
  ...peer('ws', { title: 'ws', guarantee: AT_MOST_ONCE, packages: ['ws'] }),
  // A context of its sockets has a limit of a thousand.
  ...peer('zeromq', {
    title: 'ZeroMQ',
    guarantee: AT_MOST_ONCE,
    work: FLOW.filter(name => name !== 'idle'),
    packages: ['zeromq'],
  }),
  ...peer('rabbitmq', {
    title: 'RabbitMQ',
    guarantee: AT_MOST_ONCE,
    needs: 'rabbitmq-env',
    packages: ['amqplib'],
  }),
  ...peer('rabbitmq-quorum', {
    title: 'RabbitMQ, quorum queue',
    guarantee: SYNCED,
    module: 'rabbitmq',
    quality: 'quorum',
    needs: 'rabbitmq-env',
    work: ['one', 'many', 'store'],
    packages: ['amqplib'],
  }),
];

/** Debian's packages of the servers, and how each says its version. */
export const SERVERS = {
  'nats-server': { debian: 'nats-server', version: () => said('nats-server', '--version') },
  'redis-server': { debian: 'redis-server', version: () => said('redis-server', '--version') },
  mosquitto: { debian: 'mosquitto', version: () => said('mosquitto', '-h') },
  'rabbitmq-env': { debian: 'rabbitmq-server', version: () => said('dpkg-query', '-W', 'rabbitmq-server') },
};

function said(command, ...args) {
  try {
    return firstVersion(execFileSync(findCommand(command) ?? command, args, { encoding: 'utf8' }));
  } catch (error) {
    // Some end with a failure when they have only been asked.
    return firstVersion(String(error.stdout ?? ''));
  }
}

const firstVersion = text => /\d+\.\d+(\.\d+)?/.exec(text)?.[0] ?? 'unknown';

/** Versions of everything that is measured, servers and packages. */
export function versionsOf(peers) {
  const versions = {};
  for (const { needs, packages = [] } of peers) {
    if (needs !== undefined) versions[SERVERS[needs].debian] ??= SERVERS[needs].version();
    for (const name of packages) {
      const file = new URL(`node_modules/${name}/package.json`, import.meta.url);
      versions[name] ??= JSON.parse(readFileSync(file, 'utf8')).version;
    }
  }
  return versions;
}
