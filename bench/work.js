// How it is measured, whoever is measured: a run starts its roles, warms them up, and measures one phase or two; each phase
// gives a rate or latencies, the CPU time of the roles, and how much of the machine others have used meanwhile. A kind says
// which roles play the parts, in which file they are, and what they are told when they start.
import { rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { Role, now } from './role-channel.js';

/** With more of the machine in other hands, a run says little. */
export const NOISY = 0.1;
/** A run that others have spoilt is made again so often. */
const REPEATS = 2;
const TICKS_PER_SECOND = 100;
// More than the bare store writes.
const BARE_MESSAGES_PER_SECOND = 3e6;
const BARE_BYTES_PER_SECOND = 600e6;

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

  /** A process that plays a part. */
  role(kind, part, label = kind[part], profiled = true) {
    const { entry, timeout, profile, key } = this.#settings;
    const made = new Role(kind[part], {
      file: kind.file,
      entry,
      timeout,
      label: `${key}-${label}`,
      profile: profiled ? profile : undefined,
    });
    this.#roles.push(made);
    return made;
  }

  /** Another process in the place of one that has ended. */
  again(role, ...part) {
    const made = this.role(...part);
    this.#roles.pop();
    this.#roles[this.#roles.indexOf(role)] = made;
    return made;
  }

  /** Made at once: who is stopped meanwhile knows what to remove. */
  folder() {
    this.#folder ??= mkdtempSync(join(this.#settings.dir, 'broadcast-bench-'));
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
    // The server is the first; clients end before it does.
    const [server, ...clients] = this.#roles;
    await Promise.all(clients.map(role => role.stop()));
    await server?.stop();
    if (this.#folder !== undefined) await rm(this.#folder, { recursive: true, force: true });
  }

  kill() {
    for (const role of this.#roles) role.kill();
  }

  /** At the end of this process, which waits for nobody. */
  abandon() {
    this.kill();
    if (this.#folder !== undefined) rmSync(this.#folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

const sum = numbers => numbers.reduce((a, b) => a + b, 0);

/**
 * Publishers, one server, subscribers of a channel. Every subscriber gets everything; or, `apart`, each publisher has a
 * channel of its own with one subscriber.
 */
export function fanOut(kind, { publishers = 1, subscribers, apart = false, persistent = true, durable = false }) {
  return async (run, size) => {
    const count = subscribers === 'many' ? run.settings.subscribers : subscribers;
    const copies = apart ? 1 : count;
    const { start = {} } = kind;
    const server = run.role(kind, 'relay');
    const dataDir = durable ? join(run.folder(), 'data') : undefined;
    const { port } = await server.ask('start', { ...start, dataDir, folder: run.folder(), patient: !persistent });
    const place = i => ({ ...start, port, size, persistent, ...(apart && { channel: `bench-${i}` }) });
    const receivers = Array.from({ length: count }, (_, i) =>
      run.role(kind, 'receiver', `${kind.receiver}-${i}`, i === 0),
    );
    await Promise.all(receivers.map((role, i) => role.ask('start', { ...place(i), name: `subscriber-${i}` })));
    const senders = Array.from({ length: publishers }, (_, i) =>
      run.role(kind, 'sender', `${kind.sender}-${i}`, i === 0),
    );
    const nameOf = i => (publishers === 1 ? 'publisher' : `publisher-${i}`);
    await Promise.all(
      senders.map((role, i) => role.ask('start', { ...place(i), name: nameOf(i), number: apart ? 0 : i, copies })),
    );
    const phase = async amount => {
      const told = { size, persistent, ...amount };
      const parts = await Promise.all(senders.map(role => role.ask('publish', told)));
      const settled = senders.map(role => role.ask('settled'));
      const expected = i => (apart ? parts[i].sent : sum(parts.map(({ sent }) => sent)));
      const reached = receivers.map((role, i) => role.ask('reach', { count: expected(i) }));
      await Promise.all(settled);
      const ends = await Promise.all(reached);
      const messages = sum(parts.map(({ first, sent }) => sent - first));
      const began = Math.min(...parts.map(part => part.began));
      const seconds = (Math.max(...ends.map(({ at }) => at)) - began) / 1000;
      return { messages, seconds, rate: (messages * copies) / seconds };
    };
    await phase(run.settings.warmUp);
    const roles = [
      ...senders.map(role => ({ role, as: 'publisher', per: 1 })),
      { role: server, as: 'server', per: copies },
      ...receivers.map(role => ({ role, as: 'subscriber', per: copies })),
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

/** A server with a data directory, a sender, and a recipient that is away and comes: warmed up, and what is done with them. */
async function startStore(kind, run, size, messages) {
  const { start = {} } = kind;
  const server = run.role(kind, 'store');
  const { warmUp } = run.settings;
  const room = roomFor(size, messages) + roomFor(size, warmUp);
  const folder = run.folder();
  const { port } = await server.ask('start', { ...start, dataDir: join(folder, 'data'), folder, room });
  const sender = run.role(kind, 'sender');
  await sender.ask('start', { ...start, port, name: 'publisher', durable: true });
  const receiver = run.role(kind, 'receiver');

  /** Until every receipt says that they are stored. */
  const store = async (target, amount) => {
    const options = { size, persistent: true, keep: true, target };
    const { began, first, sent } = await sender.ask('publish', { ...options, ...amount });
    const { at } = await sender.ask('settled', { acknowledged: true });
    const seconds = (at - began) / 1000;
    return { messages: sent - first, seconds, rate: (sent - first) / seconds, first, sent };
  };
  const prepare = (name, first) =>
    receiver.ask('start', { ...start, port, size, name, own: true, late: true, from: first });
  const drain = async (first, sent, marks = []) => {
    const asked = [receiver.ask('come'), receiver.ask('reach', { count: sent, marks })];
    const [{ began }, { at, marks: times }] = await Promise.all(asked);
    const seconds = (at - began) / 1000;
    return { messages: sent - first, seconds, rate: (sent - first) / seconds, times: [began, ...(times ?? []), at] };
  };
  const check = () => sender.ask('check', { status: 'stored', durability: 'fsync' });

  const warm = await store('recipient-0', warmUp);
  await check();
  await prepare('recipient-0', warm.first);
  await drain(warm.first, warm.sent);
  return {
    ...{ store, prepare, drain, check },
    publisher: { role: sender, as: 'publisher', per: 1 },
    subscriber: { role: receiver, as: 'subscriber', per: 1 },
    relay: { role: server, as: 'server', per: 1 },
  };
}

/** Messages for a client that is away; then the client comes. */
export function storeAndDrain(kind) {
  return async (run, size) => {
    const { amount } = run.settings;
    const { publisher, subscriber, relay, ...depot } = await startStore(kind, run, size, amount);
    const stored = await run.measure([publisher, relay], () => depot.store('recipient-1', amount));
    await depot.check();
    await depot.prepare('recipient-1', stored.first);
    const drained = await run.measure([subscriber, relay], () => depot.drain(stored.first, stored.sent));
    return { store: stored, drain: drained };
  };
}

/** The same in steps, on top of what waits: the rate of each, and of as many when they are drained. */
export function storeInSteps(kind) {
  return async (run, size) => {
    const { steps, step } = run.settings;
    const { publisher, subscriber, relay, ...depot } = await startStore(kind, run, size, { messages: steps * step });
    const stored = [];
    for (let i = 0; i < steps; i++) {
      const part = await run.measure([publisher, relay], () => depot.store('recipient-1', { messages: step }));
      stored.push({ ...part, waiting: i * step });
    }
    await depot.check();
    const [{ first }] = stored;
    const { sent } = stored.at(-1);
    await depot.prepare('recipient-1', first);
    const marks = stored.slice(0, -1).map(({ sent }) => sent);
    const { times, cpu, foreign } = await run.measure([subscriber, relay], () => depot.drain(first, sent, marks));
    const drained = stored.map(({ waiting, messages }, i) => ({
      ...{ waiting: steps * step - waiting, messages, cpu, foreign },
      rate: (messages / (times[i + 1] - times[i])) * 1000,
    }));
    return { store: stored, drain: drained };
  };
}

/** One message to an echoing client and back at a time. */
export function roundTrip(kind, persistent) {
  return async (run, size) => {
    const { start = {} } = kind;
    const server = run.role(kind, 'relay');
    const { port } = await server.ask('start', { ...start, folder: run.folder() });
    const echo = run.role(kind, 'echo');
    await echo.ask('start', { ...start, port, name: 'echo', persistent });
    const pinger = run.role(kind, 'pinger');
    await pinger.ask('start', { ...start, port, name: 'pinger', persistent });
    const roles = [server, echo, pinger].map(role => ({ role, as: 'all', per: 1 }));
    const { trips: messages, warmTrips: warmUp } = run.settings;
    const measured = await run.measure(roles, async () => ({
      messages,
      ...(await pinger.ask('run', { size, persistent, messages, warmUp })),
    }));
    return { '': { ...measured, cpu: {} } };
  };
}

/** So many processes share the clients of one run. */
const CROWDS = 4;

/** Clients that have subscribed to something and get nothing: the server's memory for each. */
export function idle(kind) {
  return async run => {
    const { start = {} } = kind;
    const { connections, warmConnections } = run.settings;
    const server = run.role(kind, 'relay');
    const { port } = await server.ask('start', { ...start, folder: run.folder() });
    const crowds = Array.from({ length: CROWDS }, (_, i) => run.role(kind, 'crowd', `${kind.crowd}-${i}`, false));
    await Promise.all(crowds.map((role, i) => role.ask('start', { ...start, port, name: `crowd-${i}` })));
    const come = count => Promise.all(crowds.map(role => role.ask('come', { count: count / CROWDS })));
    // What the server needs for the first ones it needs once.
    await come(warmConnections);
    const { memory: before } = await server.ask('stats');
    const roles = [server, ...crowds].map(role => ({ role, as: 'all', per: 1 }));
    const measured = await run.measure(roles, async () => {
      await come(connections);
      return { messages: connections };
    });
    const { memory: after } = await server.ask('stats');
    return { '': { ...measured, cpu: {}, bytesEach: (after - before) / connections } };
  };
}

/**
 * Many channels, shared out among the processes of `subscribers`, and one publisher that sends to one after the other: by
 * chance, or as `order` says (see Scattering). With `apart` each channel has a client of its own in its process.
 */
export function manyChannels(kind, { persistent = true, subscribers = 10, apart = false, order = {} } = {}) {
  return async (run, size) => {
    const { start = {} } = kind;
    const { channels, amount, warmUp } = run.settings;
    const server = run.role(kind, 'relay');
    const { port } = await server.ask('start', { ...start, folder: run.folder(), patient: !persistent });
    const told = { ...start, port, size, persistent, channels, apart };
    const { memory: before } = await server.ask('stats');
    const receivers = Array.from({ length: subscribers }, (_, i) =>
      run.role(kind, 'receiver', `${kind.receiver}-${i}`, i === 0),
    );
    await Promise.all(
      receivers.map((role, share) =>
        role.ask('start', { ...told, name: `subscriber-${share}`, share, of: receivers.length }),
      ),
    );
    const sender = run.role(kind, 'sender');
    await sender.ask('start', { ...told, name: 'publisher', copies: 1 });
    const phase = async amount => {
      const { began, first, sent, shares } = await sender.ask('scatter', {
        ...{ size, persistent, channels, of: receivers.length },
        ...order,
        ...amount,
      });
      const reached = receivers.map((role, i) => role.ask('reach', { count: shares[i] }));
      await sender.ask('settled');
      const ends = await Promise.all(reached);
      const seconds = (Math.max(...ends.map(({ at }) => at)) - began) / 1000;
      return { messages: sent - first, seconds, rate: (sent - first) / seconds };
    };
    // What is done for a channel's first message is not to be measured.
    if (order.inTurn) await phase({ messages: channels, run: 1 });
    await phase(warmUp);
    const roles = [
      { role: sender, as: 'publisher', per: 1 },
      { role: server, as: 'server', per: 1 },
      ...receivers.map(role => ({ role, as: 'subscriber', per: 1 })),
    ];
    const measured = await run.measure(roles, () => phase(amount));
    const { memory: after } = await server.ask('stats');
    return { '': { ...measured, memory: after - before } };
  };
}

/** One publisher at a rate, one subscriber: how long messages are on their way. */
export function paced(kind, { persistent = true } = {}) {
  return async (run, size) => {
    const { start = {} } = kind;
    const server = run.role(kind, 'relay');
    const { port } = await server.ask('start', { ...start, folder: run.folder(), patient: !persistent });
    const told = { ...start, port, size, persistent };
    const receiver = run.role(kind, 'receiver');
    await receiver.ask('start', { ...told, name: 'subscriber' });
    const sender = run.role(kind, 'sender');
    await sender.ask('start', { ...told, name: 'publisher', copies: 1 });
    const { rate, seconds, warmSeconds } = run.settings.pace;
    const phase = async lasts => {
      const { first, sent } = await sender.ask('pace', { size, persistent, rate, messages: Math.ceil(rate * lasts) });
      await sender.ask('settled');
      await receiver.ask('reach', { count: sent });
      return { messages: sent - first };
    };
    await phase(warmSeconds);
    const roles = [server, sender, receiver].map(role => ({ role, as: 'all', per: 1 }));
    const measured = await run.measure(roles, async () => {
      await receiver.ask('watch');
      const { messages } = await phase(seconds);
      return { messages, ...(await receiver.ask('latencies')) };
    });
    return { '': { ...measured, cpu: {} } };
  };
}

/** One stored message at a time, each awaited. */
export const synced = kind => async (run, size) => {
  const server = run.role(kind, 'store');
  const { port } = await server.ask('start', { dataDir: join(run.folder(), 'data') });
  const sender = run.role(kind, 'sender');
  await sender.ask('start', { port, name: 'publisher' });
  const { syncs: messages, warmSyncs: warmUp } = run.settings;
  const measured = await run.measure([{ role: server, as: 'server', per: 1 }], async () => ({
    messages,
    ...(await sender.ask('synced', { target: 'recipient', size, messages, warmUp })),
  }));
  return { '': { ...measured, cpu: {} } };
};

/** The same file operations and one trip over the loopback, without us. */
export const syncedLimit = kind => async (run, size) => {
  const server = run.role(kind, 'store');
  const { port } = await server.ask('start', { folder: run.folder() });
  const prober = run.role(kind, 'pinger');
  await prober.ask('start', { port });
  const { syncs: messages, warmSyncs: warmUp } = run.settings;
  const measured = await run.measure([{ role: server, as: 'server', per: 1 }], async () => ({
    messages,
    ...(await prober.ask('run', { size, messages, warmUp })),
  }));
  return { '': { ...measured, cpu: {} } };
};

/** Runs a scenario once; every role has ended when it returns. */
export async function runOnce(scenario, size, settings) {
  const run = new Run(settings);
  const abandon = () => run.abandon();
  process.once('exit', abandon);
  try {
    const measured = await scenario(run, size);
    await run.end();
    return measured;
  } catch (error) {
    await run.describe();
    run.kill();
    await run.end().catch(() => undefined);
    throw error;
  } finally {
    process.off('exit', abandon);
  }
}

const noiseOf = results =>
  Math.max(
    ...Object.values(results)
      .flat()
      .map(({ foreign }) => foreign),
  );

/** The same; again when others have used the machine meanwhile, and the best of these. */
export async function runQuietly(scenario, size, settings) {
  let best;
  for (let attempt = 0; attempt <= REPEATS; attempt++) {
    const results = await runOnce(scenario, size, settings);
    if (best === undefined || noiseOf(results) < noiseOf(best)) best = results;
    if (!(noiseOf(best) > NOISY)) break;
  }
  return best;
}
