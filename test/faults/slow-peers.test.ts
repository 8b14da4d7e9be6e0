/**
 * Peers that are stopped, or slow: the others do not feel them, the server does not hold for them in memory what waits for
 * them, nobody is taken for dead before what waits in the socket has been read, and nothing is lost, doubled or out of
 * order when they go on. Every client is a process of its own; they are stopped by SIGSTOP.
 */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { startProxy, type Proxy } from '../helpers/proxy.js';
import { seeded } from '../helpers/seeded.cjs';
import { withEvidence } from './evidence.js';
import { FaultRoles, type FaultRole } from './roles.js';
import { playAll } from './oracle/tally.js';
import { playStops } from './slow-scenario.js';
import { extentOf, report, RUN_MS, seedsOf, timeoutOf } from './suite.js';

const extent = extentOf({ runs: 1 });
const { isShort } = extent;
/** Long runs take a minute and more on a machine that does something else. */
const LIMIT_MS = isShort ? RUN_MS : 3 * RUN_MS;
const TIMEOUT = timeoutOf(extent) + LIMIT_MS;
const MIB = 1024 * 1024;
const FINE = { missing: [], twice: [], unordered: [] };

interface Beat {
  readonly pingInterval: number;
  readonly deadAfter: number;
}

/** The server of one run, its clients, and who counts what is sent. */
class SlowScene {
  readonly seed: number;
  readonly server: FaultRole;
  readonly #roles: FaultRoles;
  port = 0;

  constructor(seed: number, roles: FaultRoles, server: FaultRole) {
    this.seed = seed;
    this.#roles = roles;
    this.server = server;
  }

  async client(role: string, name: string, more: Record<string, unknown> = {}, beat?: Beat): Promise<FaultRole> {
    const config = { host: '127.0.0.1', port: this.port, ...beat };
    const client = this.#roles.start(role, { name, channel: 'room', config, ...more });
    await client.saw('connected');
    return client;
  }

  receivers(count: number): Promise<FaultRole[]> {
    return Promise.all(Array.from({ length: count }, (_, i) => this.client('receiver', `receiver-${String(i)}`)));
  }

  /** Everything that was sent has a receipt, none is a failure, and everybody has handled all of it. */
  async judge(sender: FaultRole, receivers: readonly FaultRole[], messages: number): Promise<void> {
    expect(await sender.ask({ settle: true }, 'settled')).toMatchObject({ ok: messages, failed: 0 });
    for (const receiver of receivers) expect(await receiver.report()).toMatchObject({ count: messages, ...FINE });
  }
}

/** A run with a server of its own, on the disk. */
function inScene<T>(
  { part, seed, options }: { part: string; seed: number; options: Record<string, unknown> },
  play: (scene: SlowScene) => Promise<T>,
): Promise<T> {
  const roles = new FaultRoles();
  return withEvidence(
    {
      suite: 'slow-peers',
      part,
      seed,
      options: { ...options, isShort },
      history: () => roles.history(),
      limitMs: LIMIT_MS,
    },
    async folder => {
      const { server = {} } = options as { server?: object };
      const scene = new SlowScene(seed, roles, roles.start('server', { dataDir: join(folder, 'data'), ...server }));
      scene.port = (await scene.server.saw('listening'))['port'] as number;
      return play(scene);
    },
    () => roles.end(),
  );
}

/** The most memory that a process occupies from now on. */
class MemoryWatch {
  most: number;
  readonly #role: FaultRole;
  readonly #timer: NodeJS.Timeout;

  constructor(role: FaultRole) {
    this.#role = role;
    this.most = role.residentBytes;
    this.#timer = setInterval(() => this.#look(), 50);
  }

  #look(): void {
    if (this.#role.isRunning) this.most = Math.max(this.most, this.#role.residentBytes);
  }

  end(): number {
    clearInterval(this.#timer);
    this.#look();
    return this.most;
  }
}

// ---- frozen receivers ------------------------------------------------------------------------------------------------------

const RECEIVERS = isShort ? 10 : 30;
const FROZEN = RECEIVERS / 10;
const SLOW_RATE = 1024;
const RATE = 2000;
/** Of each phase. */
const MESSAGES = isShort ? 2000 : 15_000;
const KEPT = 0.9;
/** In every phase of a long run. */
const LEAST_KEPT = 0.8;
/**
 * Phases with frozen receivers and phases without take turns, and each frozen one is held against the free one just before
 * it: what else the machine does is felt by both. The median of the ratios counts, and all of them are reported: a machine
 * that is busy for a moment spoils one or two of them, a server that is held up by frozen receivers more than half. Long runs
 * are made alone, and are held against the rate itself as well.
 */
const PAIRS = 5;
/** Of each message; what the frozen ones do not read in a long phase is 30 MB, of which they all have the same. */
const BODY = isShort ? 1000 : 2000;
/**
 * Of the memory that is in use once everything has been collected that can be, from the end of a phase without frozen ones
 * to that of the one with them: where each message lies that waits for one of them (some 180 bytes were seen), and not the
 * messages: less than two thirds of what they have not read, where a phase is long.
 */
const PLACE_BYTES = 256;
const USED_FROZEN = 4 * MIB + PLACE_BYTES * MESSAGES * (FROZEN + 1);
/**
 * Of what the process occupies, for what comes and goes at such a rate: 12 to 29 MiB were seen, as much while nobody was
 * frozen, and 52 in long phases where the machine had ten times more to do than it has processors.
 */
const GROWTH_FROZEN = 72 * MIB;
const WINDOW = { windowBytes: MIB / 4 };
/** Long phases last beyond the time after which the frozen ones are taken for dead. */
const FREEZING = { limits: WINDOW, ...(!isShort && { pingInterval: 1000, deadAfter: 3000 }) };

function medianOf(numbers: readonly number[]): number {
  return [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)] as number;
}

interface Frozen {
  /** Of the paced rate, what the others had in each phase with frozen ones, and of what they had just before. */
  readonly reached: readonly number[];
  readonly kept: readonly number[];
  /** What the server's memory had grown by at most in each phase, from the first one on: with nobody frozen, and with some. */
  readonly grownFree: readonly number[];
  readonly grownFrozen: readonly number[];
  /** Of the memory in use, while they were frozen. */
  readonly used: readonly number[];
  readonly messages: number;
}

class Freezer {
  readonly #scene: SlowScene;
  readonly #sender: FaultRole;
  readonly #receivers: readonly FaultRole[];
  /** Reads 1 KB/s while others are frozen. */
  readonly #slow: { readonly receiver: FaultRole; readonly proxy: Proxy };
  readonly #random: () => number;
  #messages = 0;

  constructor(
    scene: SlowScene,
    sender: FaultRole,
    receivers: readonly FaultRole[],
    slow: { readonly receiver: FaultRole; readonly proxy: Proxy },
  ) {
    this.#scene = scene;
    this.#sender = sender;
    this.#receivers = receivers;
    this.#slow = slow;
    this.#random = seeded(scene.seed);
  }

  async run(): Promise<Frozen> {
    const { receiver: slow, proxy } = this.#slow;
    const all = [...this.#receivers, slow];
    // Processes that have just begun are slower, and grow.
    await this.#phase(all);
    const { server } = this.#scene;
    const base = server.residentBytes;
    const [reached, kept]: [number[], number[]] = [[], []];
    const [grownFree, grownFrozen, used]: [number[], number[], number[]] = [[], [], []];
    for (let pair = 0; pair < PAIRS; pair++) {
      const victims = [...this.#receivers].sort(() => this.#random() - 0.5).slice(0, FROZEN);
      const others = this.#receivers.filter(receiver => !victims.includes(receiver));
      const before = new MemoryWatch(server);
      const rate = await this.#phase(others);
      await this.#caughtUp(all);
      grownFree.push(before.end() - base);
      const usedBefore = await this.#used();
      for (const victim of victims) victim.stop();
      proxy.throttle('down', SLOW_RATE);
      const during = new MemoryWatch(server);
      const frozen = await this.#phase(others);
      reached.push(frozen / RATE);
      kept.push(frozen / Math.min(RATE, rate));
      grownFrozen.push(during.end() - base);
      used.push((await this.#used()) - usedBefore);
      expect((await slow.report()).count, 'what the slow one has had').toBeLessThan(this.#messages);
      for (const victim of victims) victim.resume();
      proxy.throttle('down', Infinity);
      await this.#caughtUp(all);
    }
    await this.#scene.judge(this.#sender, all, this.#messages);
    return { reached, kept, grownFree, grownFrozen, used, messages: this.#messages };
  }

  async #used(): Promise<number> {
    return (await this.#scene.server.ask({ memory: true }, 'memory'))['bytes'] as number;
  }

  /** Sends at the rate; messages in a second that each of these receivers got. */
  async #phase(receivers: readonly FaultRole[]): Promise<number> {
    const from = performance.now();
    this.#messages += MESSAGES;
    const reached = this.#caughtUp(receivers);
    this.#sender.tell({ send: { count: MESSAGES, rate: RATE } });
    await reached;
    return (MESSAGES * 1000) / (performance.now() - from);
  }

  async #caughtUp(receivers: readonly FaultRole[]): Promise<void> {
    await Promise.all(receivers.map(receiver => receiver.ask({ until: this.#messages }, 'reached')));
  }
}

function freezeSome(seed: number): Promise<Frozen> {
  const options = { receivers: RECEIVERS, frozen: FROZEN, messages: MESSAGES, pairs: PAIRS, server: FREEZING };
  return inScene({ part: 'frozen', seed, options }, async scene => {
    const sender = await scene.client('sender', 'sender', { bytes: BODY });
    const proxy = await startProxy(scene.port, seed);
    const receiver = await scene.client('receiver', 'slow', { config: { host: '127.0.0.1', port: proxy.port } });
    const freezer = new Freezer(scene, sender, await scene.receivers(RECEIVERS), { receiver, proxy });
    const seen = await freezer.run();
    const ratios = inRatios(seen.kept);
    expect(medianOf(seen.kept), `the median of what the others kept: ${ratios}`).toBeGreaterThanOrEqual(KEPT);
    if (!isShort) {
      const reached = `the median of what they reached of the paced rate: ${inRatios(seen.reached)}`;
      expect(medianOf(seen.reached), reached).toBeGreaterThanOrEqual(KEPT);
      expect(Math.min(...seen.reached), reached).toBeGreaterThanOrEqual(LEAST_KEPT);
    }
    const used = `MiB in use that came while some were frozen: ${inMiB(seen.used)}`;
    expect(Math.max(...seen.used), used).toBeLessThan(USED_FROZEN);
    const grown = `MiB that the server grew by: ${inMiB(seen.grownFrozen)}, without frozen ones ${inMiB(seen.grownFree)}`;
    expect(Math.max(...seen.grownFrozen), grown).toBeLessThan(GROWTH_FROZEN);
    return seen;
  });
}

it(
  'a tenth of the receivers is frozen, and one reads 1 KB/s: the others keep their rate, the server’s memory stays flat, and nothing is lost',
  async () => {
    const runs: Frozen[] = [];
    for (const seed of seedsOf(extent)) runs.push(await freezeSome(seed));
    const messages = runs.reduce((sum, run) => sum + run.messages, 0);
    report('slow-peers', extent, {
      kind: 'frozen',
      receivers: RECEIVERS,
      frozen: FROZEN,
      rate: RATE,
      messages,
      deliveries: messages * (RECEIVERS + 1),
      medianReached: runs.map(run => medianOf(run.reached).toFixed(3)).join(' '),
      medianKept: runs.map(run => medianOf(run.kept).toFixed(3)).join(' '),
      reached: runs.map(run => inRatios(run.reached)).join(', '),
      kept: runs.map(run => inRatios(run.kept)).join(', '),
      usedMiB: inMiB(runs.flatMap(run => run.used)),
      grownMiB: inMiB(runs.flatMap(run => run.grownFrozen)),
      grownWithoutFrozenMiB: inMiB(runs.flatMap(run => run.grownFree)),
    });
  },
  TIMEOUT,
);

function inRatios(ratios: readonly number[]): string {
  return ratios.map(ratio => ratio.toFixed(3)).join(', ');
}

function inMiB(bytes: readonly number[]): string {
  return bytes.map(one => (one / MIB).toFixed(1)).join(' ');
}

// ---- memory ----------------------------------------------------------------------------------------------------------------

const BIG = 64 * 1024;
/** In each half of what is sent while they are slow. */
const BIG_MESSAGES = isShort ? 1000 : 8000;
/** For each slow peer the window, what waits behind it, and what is on its way; and what the collector has not collected. */
const GROWTH = 32 * MIB;
/** While the first half is sent windows and buffers come to their size as well. */
const GROWTH_AT_FIRST = 2 * GROWTH;

/** Returns what the server grew by. */
async function feedSlow(scene: SlowScene, proxy: Proxy): Promise<number> {
  const { server } = scene;
  const sender = await scene.client('sender', 'sender', { bytes: BIG });
  const quick = await scene.client('receiver', 'quick');
  const frozen = await scene.client('receiver', 'frozen');
  const slow = await scene.client('receiver', 'slow', { config: { host: '127.0.0.1', port: proxy.port } });
  const all = [quick, frozen, slow];
  let messages = 0;
  const caughtUp = async (receivers: readonly FaultRole[]): Promise<void> => {
    await Promise.all(receivers.map(receiver => receiver.ask({ until: messages }, 'reached')));
  };
  const send = async (receivers: readonly FaultRole[]): Promise<void> => {
    messages += BIG_MESSAGES;
    const reached = caughtUp(receivers);
    sender.tell({ send: { count: BIG_MESSAGES } });
    await reached;
  };
  await send(all);
  const base = server.residentBytes;
  frozen.stop();
  proxy.throttle('down', SLOW_RATE);
  await send([quick]);
  const before = server.residentBytes;
  expect(before - base, 'bytes that the server grew by at first').toBeLessThan(GROWTH_AT_FIRST);
  const watch = new MemoryWatch(server);
  await send([quick]);
  const grown = watch.end() - before;
  expect((await slow.report()).count).toBeLessThan(messages);
  frozen.resume();
  proxy.throttle('down', Infinity);
  await caughtUp(all);
  await scene.judge(sender, all, messages);
  expect([slow.count('offline'), slow.count('refused')]).toEqual([0, 0]);
  expect(grown, 'bytes that the server grew by').toBeLessThan(GROWTH);
  return grown;
}

it(
  'one receiver is frozen and one reads 1 KB/s: the server’s memory stays flat, and they get everything in order later',
  async () => {
    const grown: number[] = [];
    for (const seed of seedsOf(extent)) {
      const options = { bytes: BIG, messages: BIG_MESSAGES, server: { limits: { windowBytes: MIB } } };
      const run = { part: 'memory', seed, options };
      grown.push(await inScene(run, async scene => feedSlow(scene, await startProxy(scene.port, seed))));
    }
    report('slow-peers', extent, {
      kind: 'memory',
      runs: grown.length,
      sentMiB: (BIG * BIG_MESSAGES) / MIB,
      grownMiB: inMiB(grown),
      boundMiB: GROWTH / MIB,
    });
  },
  TIMEOUT,
);

// ---- stopped processes -----------------------------------------------------------------------------------------------------

/** Long: the default heartbeat, stopped for 20 s and for 60 s. Short: the same in a twelfth of the time. */
const SCALE = isShort ? 0.08 : 1;
const BEAT: Beat = { pingInterval: 10_000 * SCALE, deadAfter: 25_000 * SCALE };
const PATIENT: Beat = { pingInterval: 120_000, deadAfter: 300_000 };
const SHORTER = 20_000 * SCALE;
const LONGER = 60_000 * SCALE;
/** Not long enough to be taken for dead; in the short form with as much to spare as a busy machine needs. */
const NOT_DEAD = isShort ? 0.4 * BEAT.deadAfter : SHORTER;

const MANY_BYTES = 16 * 1024;

interface Stop {
  readonly who: 'server' | 'receiver';
  readonly server: Beat;
  readonly client: Beat;
  readonly ms: number;
  /** Whether a connection may be given up: a peer that is not stopped hears nothing for longer than its `deadAfter`. */
  readonly mayDrop: boolean;
  /** Of each message; with many, what waits in the socket is more than one read takes. */
  readonly bytes?: number;
}

const STOPS: readonly Stop[] = [
  { who: 'server', server: BEAT, client: BEAT, ms: NOT_DEAD, mayDrop: false },
  { who: 'server', server: BEAT, client: PATIENT, ms: SHORTER, mayDrop: false, bytes: MANY_BYTES },
  { who: 'server', server: BEAT, client: PATIENT, ms: LONGER, mayDrop: false },
  { who: 'server', server: BEAT, client: BEAT, ms: LONGER, mayDrop: true },
  { who: 'receiver', server: BEAT, client: BEAT, ms: NOT_DEAD, mayDrop: false },
  { who: 'receiver', server: PATIENT, client: BEAT, ms: LONGER, mayDrop: false, bytes: MANY_BYTES },
  { who: 'receiver', server: BEAT, client: BEAT, ms: LONGER, mayDrop: true },
];
const BURST = 500;
/** A process that has not run gives others time to speak before it judges them: a `pingInterval`, and some looks more. */
const JUDGED_AGAIN = 1.5 * BEAT.pingInterval;

/** Connections that were given up. */
function stopOne(seed: number, number: number, stop: Stop): Promise<number> {
  const { who, server: serverBeat, client, ms, mayDrop, bytes = 0 } = stop;
  const run = { part: `stopped-${String(number)}`, seed, options: { ...stop, server: serverBeat } };
  return inScene(run, async scene => {
    const { server } = scene;
    const receiver = await scene.client('receiver', 'receiver', {}, client);
    const sender = await scene.client('sender', 'sender', { bytes }, client);
    const first = receiver.ask({ until: BURST }, 'reached');
    sender.tell({ send: { count: BURST } });
    await first;
    const stopped = who === 'server' ? server : receiver;
    stopped.stop();
    // It waits in the sockets, and behind them.
    sender.tell({ send: { count: BURST } });
    await delay(ms);
    const all = receiver.ask({ until: 2 * BURST }, 'reached');
    stopped.resume();
    await all;
    // Who was stopped is judged anew after a while; what waits behind a connection that is given up comes before this.
    if (!mayDrop) await delay(JUDGED_AGAIN);
    const last = receiver.ask({ until: 2 * BURST + 1 }, 'reached');
    sender.tell({ send: { count: 1 } });
    await last;
    await scene.judge(sender, [receiver], 2 * BURST + 1);
    const dropped = server.count('left') + receiver.count('offline') + sender.count('offline');
    if (!mayDrop) expect(dropped, 'connections that were given up').toBe(0);
    expect(receiver.count('refused') + sender.count('refused'), 'refused').toBe(0);
    return dropped;
  });
}

it(
  'a process that was stopped drops nobody before it has read what waits in its sockets, and nothing is lost',
  async () => {
    let stops = 0;
    let dropped = 0;
    for (const seed of seedsOf(extent)) {
      const runs = STOPS.map((stop, number) => stopOne(seed, number, stop));
      await Promise.allSettled(runs); // one that fails does not keep the others from keeping what they have seen
      for (const count of await Promise.all(runs)) dropped += count;
      stops += STOPS.length;
    }
    report('slow-peers', extent, {
      kind: 'stopped',
      stops,
      seconds: `${String(SHORTER / 1000)} and ${String(LONGER / 1000)}`,
      messages: stops * (2 * BURST + 1),
      givenUpRightly: dropped,
    });
  },
  TIMEOUT,
);

it(
  'processes that are stopped for moments and for longer get everything that was safe, once and in order, says the oracle',
  async () => {
    await playAll('slow-peers', 'judged by the oracle', extent, playStops);
  },
  TIMEOUT,
);
