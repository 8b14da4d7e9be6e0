// What npm run bench measures, by name: Broadcast, and what it is compared with.
import { fanOut, manyChannels, roundTrip, storeAndDrain, synced, syncedLimit } from './work.js';

export const OWN = {
  relay: 'server',
  store: 'server',
  sender: 'publisher',
  receiver: 'subscriber',
  echo: 'echo',
  pinger: 'pinger',
  crowd: 'crowd',
};
const BARE = {
  relay: 'bareRelay',
  store: 'bareStore',
  sender: 'barePublisher',
  receiver: 'bareSubscriber',
  echo: 'bareEcho',
  pinger: 'barePinger',
};
export const LIMIT = {
  relay: 'relay',
  store: 'fileServer',
  sender: 'source',
  receiver: 'sink',
  echo: 'mirror',
  pinger: 'prober',
};

/** Every scenario by name. `limit` and `bare` name those that it is compared with, part by part where there are several. */
export const SCENARIOS = {
  'limit-one': { title: 'limit, 1 → 1', run: fanOut(LIMIT, { subscribers: 1 }) },
  'bare-one': { title: 'bare, 1 → 1', limit: 'limit-one', run: fanOut(BARE, { subscribers: 1 }) },
  one: {
    title: '1 → 1 persistent',
    limit: 'limit-one',
    bare: 'bare-one',
    run: fanOut(OWN, { subscribers: 1 }),
  },
  'one-transient': {
    title: '1 → 1 non-persistent',
    limit: 'limit-one',
    bare: 'bare-one',
    run: fanOut(OWN, { subscribers: 1, persistent: false }),
  },
  'one-durable': {
    title: '1 → 1 persistent, with dataDir',
    limit: 'limit-one',
    bare: 'bare-one',
    run: fanOut(OWN, { subscribers: 1, durable: true }),
  },
  'limit-many': { title: 'limit, 1 → N', run: fanOut(LIMIT, { subscribers: 'many' }) },
  'bare-many': { title: 'bare, 1 → N', limit: 'limit-many', run: fanOut(BARE, { subscribers: 'many' }) },
  many: {
    title: '1 → N persistent',
    limit: 'limit-many',
    bare: 'bare-many',
    run: fanOut(OWN, { subscribers: 'many' }),
  },
  'many-transient': {
    title: '1 → N non-persistent',
    limit: 'limit-many',
    bare: 'bare-many',
    run: fanOut(OWN, { subscribers: 'many', persistent: false }),
  },
  'bare-store-drain': { title: 'bare, durable queue', limit: 'limit-one', run: storeAndDrain(BARE) },
  'store-drain': {
    title: 'durable queue',
    limit: 'limit-one',
    bare: 'bare-store-drain',
    sizes: [128, 1024],
    run: storeAndDrain(OWN),
  },
  scatter: { title: '1 → 10 through many channels', run: manyChannels(OWN) },
  'limit-latency': { title: 'limit, round trip', latency: true, run: roundTrip(LIMIT) },
  'bare-latency': { title: 'bare, round trip', limit: 'limit-latency', latency: true, run: roundTrip(BARE) },
  latency: {
    title: 'round trip, persistent',
    limit: 'limit-latency',
    bare: 'bare-latency',
    latency: true,
    run: roundTrip(OWN, true),
  },
  'latency-transient': {
    title: 'round trip, non-persistent',
    limit: 'limit-latency',
    bare: 'bare-latency',
    latency: true,
    run: roundTrip(OWN, false),
  },
  'limit-synced': { title: 'limit, file and round trip', latency: true, run: syncedLimit(LIMIT) },
  synced: { title: 'stored, one at a time', limit: 'limit-synced', latency: true, run: synced(OWN) },
};

/** What others are compared with, and which is the same for every checkout. */
export const isReference = name => /^(limit|bare)-/.test(name);
