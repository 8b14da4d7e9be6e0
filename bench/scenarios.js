// What is measured. A scenario starts its roles, warms them up, and measures one phase or two; each phase gives a rate
// or latencies, the CPU time of the roles, and how much of the machine others have used meanwhile.
import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { Role, now } from './role-channel.js';

const TICKS_PER_SECOND = 100;
// More than the bare store writes.
const BARE_MESSAGES_PER_SECOND = 3e6;
const BARE_BYTES_PER_SECOND = 600e6;

const OWN = {
  relay: 'server',
  store: 'server',
  sender: 'publisher',
  receiver: 'subscriber',
  echo: 'echo',
  pinger: 'pinger',
};
const BARE = {
  relay: 'bareRelay',
  store: 'bareStore',
  sender: 'barePublisher',
  receiver: 'bareSubscriber',
  echo: 'bareEcho',
  pinger: 'barePinger',
};
const LIMIT = { relay: 'relay', sender: 'source', receiver: 'sink', echo: 'mirror', pinger: 'prober' };

/** Seconds that all processors have been busy, where the system tells. */
function busySeconds() {
  try {
    const fields = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0].trim().split(/\s+/).slice(1, 9).map(Number);
    const [user, nice, system, , , irq, softirq, steal] = fields;
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND;
  } catch {
    return NaN;
  }
}

/** One run of one scenario: its roles, its folder, and what ends them. */
class Run {
  #settings;
  #roles = [];
  #folder;

  constructor(settings) {
    this.#settings = settings;
  }

  get settings() {
    return this.#settings;
  }

  role(role, label = role, profiled = true) {
    const { entry, timeout, profile, key } = this.#settings;
    const made = new Role(role, {
      entry,
      timeout,
      label: `${key}-${label}`,
      profile: profiled ? profile : undefined,
    });
    this.#roles.push(made);
    return made;
  }

  async folder() {
    this.#folder ??= await mkdtemp(join(this.#settings.dir, 'broadcast-bench-'));
    return this.#folder;
  }

  /** Runs a phase; `roles` are asked for their CPU time, per million of what the phase says it has counted. */
  async measure(roles, phase) {
    const usage = () => Promise.all(roles.map(({ role }) => role.cpu()));
    const parent = () => Object.values(process.cpuUsage()).reduce((a, b) => a + b) / 1e6;
    const before = { roles: await usage(), busy: busySeconds(), parent: parent(), at: now() };
    const { messages, ...measured } = await phase();
    const after = { roles: await usage(), busy: busySeconds(), parent: parent(), at: now() };
    const used = after.roles.map((seconds, i) => seconds - before.roles[i]);
    const own = used.reduce((a, b) => a + b, after.parent - before.parent);
    const available = ((after.at - before.at) / 1000) * availableParallelism();
    const foreign = Math.max(0, after.busy - before.busy - own) / available;
    const cpu = {};
    roles.forEach(({ as, per }, i) => (cpu[as] = (cpu[as] ?? 0) + (used[i] / (messages * per)) * 1e6));
    return { ...measured, messages, cpu, foreign };
  }

  /** What the server and the senders have to say when a run has failed. */
  async describe() {
    for (const role of this.#roles) {
      const state = await Promise.race([role.ask('stats'), pause(2000)]).catch(() => undefined);
      if (state !== undefined) process.stderr.write(`${role.name}: ${JSON.stringify(state)}\n`);
    }
  }

  async end() {
    await Promise.all(this.#roles.map(role => role.stop()));
    if (this.#folder !== undefined) await rm(this.#folder, { recursive: true, force: true });
  }

  kill() {
    for (const role of this.#roles) role.kill();
  }
}

/** One publisher, one server, some subscribers of a channel. */
function fanOut(kind, { subscribers, persistent = true, durable = false }) {
  return async (run, size) => {
    const count = subscribers === 'many' ? run.settings.subscribers : subscribers;
    const server = run.role(kind.relay);
    const dataDir = durable ? join(await run.folder(), 'data') : undefined;
    const { port } = await server.ask('start', { dataDir, patient: !persistent });
    const receivers = Array.from({ length: count }, (_, i) =>
      run.role(kind.receiver, `${kind.receiver}-${i}`, i === 0),
    );
    await Promise.all(receivers.map((role, i) => role.ask('start', { port, size, name: `subscriber-${i}` })));
    const sender = run.role(kind.sender);
    await sender.ask('start', { port, name: 'publisher' });
    const phase = async amount => {
      const { began, first, sent } = await sender.ask('publish', { size, persistent, ...amount });
      const settled = sender.ask('settled');
      const [, ...ends] = await Promise.all([settled, ...receivers.map(role => role.ask('reach', { count: sent }))]);
      const messages = sent - first;
      const seconds = (Math.max(...ends.map(({ at }) => at)) - began) / 1000;
      return { messages, seconds, rate: (messages * count) / seconds };
    };
    await phase(run.settings.warmUp);
    const roles = [
      { role: sender, as: 'publisher', per: 1 },
      { role: server, as: 'server', per: count },
      ...receivers.map(role => ({ role, as: 'subscriber', per: count })),
    ];
    const before = await server.ask('stats');
    const measured = await run.measure(roles, () => phase(run.settings.amount));
    const after = await server.ask('stats');
    return { '': { ...measured, stored: (after.stored - before.stored) / measured.messages } };
  };
}

/** Bytes that the bare store makes its file of, for a phase; it grows if they are too few. */
const roomFor = (size, { seconds, messages }) =>
  messages === undefined
    ? seconds * Math.min(BARE_MESSAGES_PER_SECOND * size, BARE_BYTES_PER_SECOND)
    : messages * (size + 16);

/** Messages for a client that is away, until every receipt says that they are stored; then the client comes. */
function storeAndDrain(kind) {
  return async (run, size) => {
    const server = run.role(kind.store);
    const { amount, warmUp } = run.settings;
    const room = roomFor(size, amount) + roomFor(size, warmUp);
    const { port } = await server.ask('start', { dataDir: join(await run.folder(), 'data'), room });
    const sender = run.role(kind.sender);
    await sender.ask('start', { port, name: 'publisher' });
    const receiver = run.role(kind.receiver);

    const store = async (target, amount) => {
      const options = { size, persistent: true, keep: true, target };
      const { began, first, sent } = await sender.ask('publish', { ...options, ...amount });
      const { at } = await sender.ask('settled', { acknowledged: true });
      const seconds = (at - began) / 1000;
      return { messages: sent - first, seconds, rate: (sent - first) / seconds, first, sent };
    };
    const prepare = (name, first) => receiver.ask('start', { port, size, name, own: true, late: true, from: first });
    const drain = async (first, sent) => {
      const { began } = await receiver.ask('come');
      const { at } = await receiver.ask('reach', { count: sent });
      const seconds = (at - began) / 1000;
      return { messages: sent - first, seconds, rate: (sent - first) / seconds };
    };
    const check = () => sender.ask('check', { status: 'stored', durability: 'fsync' });

    const warm = await store('recipient-0', warmUp);
    await check();
    await prepare('recipient-0', warm.first);
    await drain(warm.first, warm.sent);

    const publisher = { role: sender, as: 'publisher', per: 1 };
    const subscriber = { role: receiver, as: 'subscriber', per: 1 };
    const relay = { role: server, as: 'server', per: 1 };
    const stored = await run.measure([publisher, relay], () => store('recipient-1', amount));
    await check();
    await prepare('recipient-1', stored.first);
    const drained = await run.measure([subscriber, relay], () => drain(stored.first, stored.sent));
    return { store: stored, drain: drained };
  };
}

/** One message to an echoing client and back at a time. */
function roundTrip(kind, persistent) {
  return async (run, size) => {
    const server = run.role(kind.relay);
    const { port } = await server.ask('start', {});
    const echo = run.role(kind.echo);
    await echo.ask('start', { port, name: 'echo', persistent });
    const pinger = run.role(kind.pinger);
    await pinger.ask('start', { port, name: 'pinger' });
    const roles = [{ role: server, as: 'server', per: 1 }];
    const { trips: messages, warmTrips: warmUp } = run.settings;
    const measured = await run.measure(roles, async () => ({
      messages,
      ...(await pinger.ask('run', { size, persistent, messages, warmUp })),
    }));
    return { '': { ...measured, cpu: {} } };
  };
}

/** One stored message at a time, each awaited. */
async function synced(run, size) {
  const server = run.role('server');
  const { port } = await server.ask('start', { dataDir: join(await run.folder(), 'data') });
  const sender = run.role('publisher');
  await sender.ask('start', { port, name: 'publisher' });
  const { syncs: messages, warmSyncs: warmUp } = run.settings;
  const measured = await run.measure([{ role: server, as: 'server', per: 1 }], async () => ({
    messages,
    ...(await sender.ask('synced', { target: 'recipient', size, messages, warmUp })),
  }));
  return { '': { ...measured, cpu: {} } };
}

/** The same file operations and one trip over the loopback, without us. */
async function syncedLimit(run, size) {
  const server = run.role('fileServer');
  const { port } = await server.ask('start', { folder: await run.folder() });
  const prober = run.role('prober');
  await prober.ask('start', { port });
  const { syncs: messages, warmSyncs: warmUp } = run.settings;
  const measured = await run.measure([{ role: server, as: 'server', per: 1 }], async () => ({
    messages,
    ...(await prober.ask('run', { size, messages, warmUp })),
  }));
  return { '': { ...measured, cpu: {} } };
}

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
  'limit-synced': { title: 'limit, file and round trip', latency: true, run: syncedLimit },
  synced: { title: 'stored, one at a time', limit: 'limit-synced', latency: true, run: synced },
};

/** What others are compared with, and which is the same for every checkout. */
export const isReference = name => /^(limit|bare)-/.test(name);

/** Runs a scenario once; every role has ended when it returns. */
export async function runScenario(name, size, settings) {
  const run = new Run(settings);
  const kill = () => run.kill();
  process.once('exit', kill);
  try {
    const measured = await SCENARIOS[name].run(run, size);
    await run.end();
    return measured;
  } catch (error) {
    await run.describe();
    run.kill();
    await run.end().catch(() => undefined);
    throw error;
  } finally {
    process.off('exit', kill);
  }
}
