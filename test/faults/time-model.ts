/**
 * One random life of a durable server whose clocks are set: messages with and without a time to live, time that passes,
 * wall clocks that jump, restarts in good order and by a kill, receivers that come and go. A small model says what must
 * have been handled, in which order, and what must have expired.
 *
 *   model time: monotonic while the server runs; a downtime counts by the wall clock, as nothing at least, one day at most
 */
import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import {
  BroadcastMessage,
  BroadcastTcpClient,
  BroadcastTcpServer,
  type BroadcastClient,
  type BroadcastServer,
  type DeliveryInfo,
  type Receipt,
} from '../../src/index.js';
import { systemClock, type Clock } from '../../src/clock.js';
import { diskEngine } from '../../src/engine/index.js';
import { TestClock } from '../../src/testing/index.js';
import { seeded } from '../helpers/seeded.cjs';
import { recordingLogger } from '../helpers/scene.js';
import { withEvidence } from './evidence.js';
import { QuietFiles } from './quiet-files.js';
import { within } from './suite.js';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const STEPS = 40;
/** Real time in which a step has ended, and half of it for what a step waits for, so that this is what is named. */
const STEP_SECONDS = 60;
const SECONDS = STEP_SECONDS / 2;
/** Nothing is judged that is so close to its end: requests and reconnections take real time. */
const CLOSE = MINUTE;
const TTLS = [10 * MINUTE, 2 * HOUR, 12 * HOUR, 30 * HOUR, 10 * DAY];
const TICKS = [SECOND, 30 * SECOND, 11 * MINUTE, HOUR, 26 * HOUR];
const JUMPS = [HOUR, -HOUR, DAY, -DAY];
const DOWN = [0, MINUTE, HOUR, 20 * HOUR, 3 * DAY];

/** What one life has seen. */
export interface TimeFigures {
  readonly messages: number;
  readonly delivered: number;
  readonly expired: number;
  readonly jumps: number;
  readonly restarts: number;
}

/** The machine's clock, set by a test: for clients, whose timers go on by themselves. `Date` shows what it is set to. */
class SetClock implements Clock {
  readonly #dateNow = Date.now;
  #wall = 0;
  #passed = 0;
  readonly setTimeout = systemClock.setTimeout;
  readonly setInterval = systemClock.setInterval;

  now(): number {
    return this.#dateNow() + this.#wall + this.#passed;
  }

  /** Whatever asks for the time without a clock of its own, such as one that makes ids, gets this one's. */
  install(): void {
    Date.now = () => this.#dateNow() + this.#wall;
  }

  uninstall(): void {
    Date.now = this.#dateNow;
  }

  monotonic(): number {
    return systemClock.monotonic() + this.#passed;
  }

  jump(ms: number): void {
    this.#wall += ms;
  }

  pass(ms: number): void {
    this.#passed += ms;
  }
}

interface Sent {
  readonly n: number;
  readonly id: string;
  /** Model time after which it is never delivered. */
  deadline: number;
  state: 'waiting' | 'handled' | 'expired';
  /** What was sent to a server that is down has its deadline when that is back. */
  isOpen?: boolean;
}

/** Runs one life. */
export async function runTime(seed: number): Promise<TimeFigures> {
  const life = new Life(seed);
  await withEvidence(
    { suite: 'time', seed, options: { steps: STEPS }, history: () => life.steps },
    folder => life.run(folder),
    () => life.end(),
  );
  return life.figures();
}

class Life {
  readonly steps: string[] = [];
  readonly #random: () => number;
  readonly #clientClock = new SetClock();
  #clock = new TestClock();
  #server: BroadcastServer | undefined;
  #port = 0;
  #folder = '';
  #data = 1;
  #files = new QuietFiles();
  #sender!: BroadcastClient;
  #receiver: BroadcastClient | undefined;
  readonly #sent: Sent[] = [];
  readonly #handled: { readonly n: number; readonly id: string; readonly subscription: string }[] = [];
  /** Messages that notices have called expired, with repeats. */
  readonly #expired: string[] = [];
  #expiredCount = 0;
  #now = 0;
  #jumps = 0;
  #restarts = 0;
  #break!: (error: Error) => void;
  /** Rejects as soon as a notice cannot be right: what it was about would be waited for in vain. */
  readonly #broken = new Promise<never>((_resolve, reject) => (this.#break = reject));

  constructor(seed: number) {
    this.#random = seeded(seed);
    this.#broken.catch(() => undefined);
  }

  figures(): TimeFigures {
    const count = (state: Sent['state']): number => this.#sent.filter(sent => sent.state === state).length;
    return {
      messages: this.#sent.length,
      delivered: count('handled'),
      expired: count('expired'),
      jumps: this.#jumps,
      restarts: this.#restarts,
    };
  }

  #pick<T>(all: readonly T[]): T {
    return all[Math.floor(this.#random() * all.length)] as T;
  }

  async run(folder: string): Promise<void> {
    this.#folder = folder;
    this.#clientClock.install();
    await this.#start();
    this.#sender = this.#client('sender');
    this.#sender.onDeliveryFailure(({ final, reason, messageId, count = 1 }) => {
      if (!final) return;
      this.#doubt(messageId, reason);
      this.#expired.push(messageId);
      this.#expiredCount += count;
    });
    await this.#sender.connect();
    // The name is known, and subscribes, from the beginning.
    await this.#come();
    await this.#leave();
    await Promise.race([this.#steps(), this.#broken]);
    await this.#judge();
  }

  async #steps(): Promise<void> {
    for (let step = 0; step < STEPS; step++)
      await within(STEP_SECONDS, this.#step(), () => `this has not ended: ${this.steps.at(-1) ?? ''}`);
    if (this.#receiver === undefined) await this.#come();
  }

  #doubt(messageId: string, reason: string): void {
    const sent = this.#sent.find(({ id }) => id === messageId);
    if (sent === undefined || reason !== 'expired') this.#break(new Error(`${messageId} ended as ${reason}`));
    else if (sent.state === 'waiting' && sent.isOpen !== true) {
      const left = `${String((sent.deadline - this.#now) / MINUTE)} min`;
      this.#break(new Error(`message ${String(sent.n)} was called expired, and has ${left} left`));
    }
  }

  async #step(): Promise<void> {
    const kind = this.#random();
    if (kind < 0.4) await this.#publish();
    else if (kind < 0.6) await this.#tick(this.#pick(TICKS));
    else if (kind < 0.75) this.#jump();
    else if (kind < 0.85) await this.#restart();
    else if (this.#receiver === undefined) await this.#come();
    else await this.#leave();
  }

  #say(text: string): void {
    this.steps.push(`${String(this.#now / MINUTE)} min: ${text}`);
  }

  // ---- the server and its clocks ------------------------------------------------------------------------------------------

  async #start(): Promise<void> {
    // Nobody answers between the parts of a long tick.
    const patient = { pingInterval: 20 * DAY, deadAfter: 24 * DAY, instanceGrace: 20 * DAY };
    this.#files = new QuietFiles();
    const directory = join(this.#folder, String(this.#data));
    this.#server = new BroadcastTcpServer({
      host: '127.0.0.1',
      port: this.#port,
      engine: diskEngine({ directory, files: this.#files.files, segmentBytes: 64 * 1024, reserveBytes: 0 }),
      clock: this.#clock,
      logger: recordingLogger(),
      limits: { sessionTtl: 1000 * DAY },
      ...patient,
    });
    await this.#server.start();
    this.#port = (this.#server.address as { port: number }).port;
  }

  /** So much time that no message is left in doubt. */
  #unambiguous(ms: number): number {
    let wanted = ms;
    const isClose = ({ state, deadline }: Sent): boolean =>
      state === 'waiting' && Math.abs(deadline - (this.#now + wanted)) < CLOSE;
    while (this.#sent.some(isClose)) wanted += CLOSE;
    return wanted;
  }

  #passed(ms: number): void {
    this.#now += ms;
    for (const sent of this.#sent) if (sent.state === 'waiting' && sent.deadline <= this.#now) sent.state = 'expired';
  }

  async #tick(wanted: number): Promise<void> {
    const ms = this.#unambiguous(wanted);
    this.#say(`tick ${String(ms / MINUTE)} min`);
    this.#clientClock.pass(ms);
    this.#clock.tick(ms);
    this.#passed(ms);
    await this.#sender.flush();
  }

  #jump(): void {
    const [server, client] = [this.#pick([...JUMPS, 0]), this.#pick([...JUMPS, 0])];
    this.#say(`jump: server ${String(server / HOUR)} h, client ${String(client / HOUR)} h`);
    this.#clock.jump(server);
    this.#clientClock.jump(client);
    this.#jumps++;
  }

  /**
   * In good order, or by a kill: then the next one finds what the disk held at that moment. While it is down the clients'
   * time passes, a message is sent, and the wall clock may be set.
   */
  async #restart(): Promise<void> {
    const killed = this.#random() < 0.5;
    const down = this.#pick(DOWN);
    const set = this.#pick([0, 0, ...JUMPS, 365 * DAY]);
    const counted = Math.min(DAY, Math.max(0, down + set));
    // A crash soon after the clock was set may count that; the disk engine looks at its clocks every five seconds.
    await this.#tick(5 * SECOND);
    while (this.#unambiguous(counted) !== counted) await this.#tick(CLOSE);
    this.#say(
      `${killed ? 'kill' : 'stop'}, down for ${String(down / MINUTE)} min, wall clock set by ${String(set / HOUR)} h`,
    );
    const clients = [this.#sender, ...(this.#receiver === undefined ? [] : [this.#receiver])];
    const back = clients.map(client => new Promise<void>(resolve => client.once('online', resolve)));
    const before = join(this.#folder, String(this.#data));
    await this.#files.quiet();
    if (killed) {
      this.#data++;
      await cp(before, join(this.#folder, String(this.#data)), { recursive: true });
    }
    await this.#server?.stop();
    const meanwhile = this.#random() < 0.5 ? this.#publishWhileDown(down) : undefined;
    this.#clientClock.pass(down);
    this.#clock = new TestClock(this.#clock.now() + down + set);
    this.#passed(counted);
    await this.#start();
    await within(SECONDS, Promise.all(back), () => 'not everybody is back');
    await meanwhile?.();
    this.#restarts++;
  }

  /** It waits in the outbox, where its time runs by the client's clock; what is left of it counts when it arrives. */
  #publishWhileDown(down: number): () => Promise<void> {
    const ttl = this.#pick(TTLS.filter(one => Math.abs(one - down) > CLOSE));
    const { sent, receipt } = this.#send(ttl);
    sent.deadline = Infinity;
    sent.isOpen = true;
    return async () => {
      sent.deadline = this.#now + ttl - down;
      await receipt;
      sent.isOpen = false;
      if (ttl <= down) sent.state = 'expired';
      else if (this.#receiver !== undefined) sent.state = 'handled';
    };
  }

  // ---- clients --------------------------------------------------------------------------------------------------------------

  #client(name: string): BroadcastClient {
    const config = { host: '127.0.0.1', port: this.#port, reconnectInterval: 5, logger: recordingLogger() };
    return new BroadcastTcpClient({ ...config, clock: this.#clientClock }, name);
  }

  #send(ttl: number | undefined): { sent: Sent; receipt: Promise<Receipt> } {
    const n = this.#sent.length;
    const options = ttl === undefined ? {} : { ttl };
    const message =
      this.#random() < 0.5
        ? BroadcastMessage.createClientMessage('receiver', n, options)
        : BroadcastMessage.createChannelMessage('room', n, options);
    this.#say(`publish ${String(n)}, ${ttl === undefined ? 'for ever' : `for ${String(ttl / MINUTE)} min`}`);
    const deadline = ttl === undefined ? Infinity : this.#now + ttl;
    const sent: Sent = { n, id: message.id, deadline, state: 'waiting' };
    this.#sent.push(sent);
    const until = this.#receiver === undefined ? 'safe' : 'delivered';
    return { sent, receipt: this.#sender.sendMessage(message, { until }) };
  }

  async #publish(): Promise<void> {
    const { sent, receipt } = this.#send(this.#random() < 0.6 ? this.#pick(TTLS) : undefined);
    const { status } = await receipt;
    const wanted = this.#receiver === undefined ? 'stored' : 'delivered';
    if (status !== wanted) throw new Error(`${String(sent.n)} is ${status}, not ${wanted}`);
    if (this.#receiver !== undefined) sent.state = 'handled';
  }

  async #come(): Promise<void> {
    this.#say('the receiver comes');
    const receiver = this.#client('receiver');
    const waiting = this.#sent.filter(({ state }) => state === 'waiting');
    let left = waiting.length;
    let done!: () => void;
    const all = new Promise<void>(resolve => (done = resolve));
    const handle = ({ data, id }: BroadcastMessage, { channel }: DeliveryInfo): void => {
      this.#handled.push({ n: data as number, id, subscription: channel ?? '' });
      if (--left === 0) done();
    };
    receiver.onMessage('room', handle);
    receiver.onMessage(handle);
    this.#receiver = receiver;
    await receiver.connect();
    const missing = (): string => `${String(left)} of ${String(waiting.length)} that waited have not come`;
    if (waiting.length > 0) await within(SECONDS, all, missing);
    for (const sent of waiting) sent.state = 'handled';
    await receiver.flush();
  }

  async #leave(): Promise<void> {
    this.#say('the receiver leaves');
    await this.#receiver?.close();
    this.#receiver = undefined;
    // Its acknowledgements are written before anything else happens.
    await this.#sender.flush();
  }

  // ---- the end --------------------------------------------------------------------------------------------------------------

  async #judge(): Promise<void> {
    const wrong: string[] = [];
    const expected = this.#sent.filter(({ state }) => state === 'expired');
    // The sender hears of what was stored up to a second later, and no later.
    this.#clock.tick(SECOND);
    const isTold = async (): Promise<void> => {
      while (this.#expiredCount < expected.length) await this.#sender.flush();
    };
    const told = (): string => `${String(this.#expiredCount)} of ${String(expected.length)} that expired were told of`;
    await within(SECONDS, isTold(), told);
    const byId = new Map(this.#sent.map(sent => [sent.id, sent]));
    if (byId.size !== this.#sent.length) wrong.push('two messages have one id');
    if (this.#expiredCount !== expected.length)
      wrong.push(`${String(this.#expiredCount)} notices for ${String(expected.length)} that expired`);
    for (const id of this.#expired)
      if (byId.get(id)?.state !== 'expired') wrong.push(`${String(byId.get(id)?.n)} was called expired wrongly`);
    const times = new Map<number, number>();
    for (const { n, id } of this.#handled) {
      times.set(n, (times.get(n) ?? 0) + 1);
      if (this.#sent[n]?.id !== id) wrong.push(`${String(n)} came with another id`);
      if (this.#sent[n]?.state === 'expired') wrong.push(`${String(n)} was delivered though it had expired`);
    }
    for (const { n, state } of this.#sent)
      if ((times.get(n) ?? 0) !== (state === 'handled' ? 1 : 0))
        wrong.push(`${String(n)} is ${state}, and was handled ${String(times.get(n) ?? 0)} times`);
    // Two subscriptions do not wait for each other; each has its own order.
    for (const subscription of ['', 'room']) {
      const numbers = this.#handled.filter(one => one.subscription === subscription).map(({ n }) => n);
      const late = numbers.findIndex((n, i) => n < (numbers[i - 1] ?? 0));
      if (late >= 0) wrong.push(`${String(numbers[late])} came after ${String(numbers[late - 1])}`);
    }
    if (wrong.length > 0) throw new Error(`${wrong.length} promises were broken:\n${wrong.slice(0, 10).join('\n')}`);
  }

  async end(): Promise<void> {
    this.#clientClock.uninstall();
    await this.#receiver?.close({ timeout: 0 }).catch(() => undefined);
    await (this.#sender as BroadcastClient | undefined)?.close({ timeout: 0 }).catch(() => undefined);
    await this.#server?.stop();
  }
}
