/**
 * A scenario: a server, senders and receivers in processes of their own, a load that follows a seed, faults that a suite
 * injects, a drain, and the verdict of the oracle. The histories lie in memory (/dev/shm), the store elsewhere, which is checked.
 *
 *   const verdict = await play({ suite: 'kill', seed }, async scenario => { await scenario.server.kill(); … });
 */
import { appendFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { once } from 'node:events';
import { crc32 } from 'node:zlib';
import { seeded } from '../../helpers/seeded.cjs';
import { announce, apartFolder, keep, MEMORY, type Run } from '../evidence.js';
import { check, type Verdict } from './checker.js';
import { Part, type Role, type Said } from './part.js';
import { Histories } from './records.js';

/** A name that receives. */
export interface Recipient {
  readonly name: string;
  /** Processes that run under it at a time. Default 1. */
  readonly processes?: number;
  readonly channels: readonly string[];
  /** It takes what is addressed to its name. */
  readonly own: boolean;
  /** Options of its handlers, by channel. */
  readonly handlers?: Readonly<Record<string, { concurrency: number }>>;
  /** `after`: it subscribes, and leaves before anything is sent; `from the start`: it was never seen. Both come for the drain. */
  readonly away?: 'after' | 'from the start';
}

/** What senders do; sizes in bytes. */
export interface Load {
  /** Messages of a sender that have no receipt yet, about. */
  readonly window: number;
  /** Messages at a time, and milliseconds between. */
  readonly burst: number;
  readonly pause: number;
  readonly body: number;
  /** Of every fiftieth message. */
  readonly largeBody: number;
  /** Shares of the messages: expire before they can arrive, are not persistent, are followed until they are delivered. */
  readonly expiring: number;
  readonly transient: number;
  readonly followed: number;
}

export interface ScenarioOptions {
  readonly suite: string;
  /** What tells its runs from others of the suite. */
  readonly part?: string;
  readonly seed: number;
  /** Folder of the store; one that is removed at the end by default. */
  readonly dataDir?: string;
  /** What the server is told: `segmentBytes`, `reserveBytes`, and as `config` its options. */
  readonly server?: Readonly<Record<string, unknown>>;
  /** Options of every client, beside where its server is. */
  readonly client?: Readonly<Record<string, unknown>>;
  /** The port that a client connects to, when it is not the server's own. */
  readonly through?: (port: number, name: string) => number | Promise<number>;
  readonly recipients?: readonly Recipient[];
  readonly senders?: readonly string[];
  readonly load?: Partial<Load>;
  /** Share of the messages at which a handler fails the first time. */
  readonly failing?: number;
  /** Why persistent messages may fail. Default: they expire. */
  readonly reasons?: readonly string[];
  /** Makes the store readable again, when a run has failed and nobody has its files open: called before they are kept. */
  readonly mend?: () => void;
  /** Milliseconds that the drain may take. */
  readonly drainMs?: number;
}

export const RECIPIENTS: readonly Recipient[] = [
  { name: 'steady', channels: ['x', 'y', 'z'], own: true, handlers: { z: { concurrency: 4 } } },
  { name: 'alone', channels: ['x', 'y', 'z'], own: true },
  { name: 'shared', processes: 2, channels: ['x', 'z'], own: true },
  { name: 'away', channels: ['x'], own: true, away: 'after' },
  { name: 'late', channels: ['void'], own: true, away: 'from the start' },
];

const LOAD: Load = {
  window: 200,
  burst: 10,
  pause: 15,
  body: 400,
  largeBody: 30_000,
  expiring: 0.02,
  transient: 0.08,
  followed: 0.1,
};

/** No progress for so long is a failure of its own. */
/** What lives longer is waited for at the end. */
const LONG_MS = 60_000;
const STALL_MS = 60_000;

export class Scenario {
  readonly options: ScenarioOptions;
  readonly random: () => number;
  readonly port: number;
  /** Of the store. */
  readonly dataDir: string;
  /** The histories have another file system than the store. */
  readonly isApart: boolean;
  readonly server: Part;
  readonly receivers: Part[] = [];
  readonly senders: Part[] = [];
  readonly #folder: string;
  readonly #temporary: string;
  readonly #recipients: readonly Recipient[];
  readonly #histories: Histories;
  /** Receivers that are not there before the drain. */
  readonly #away = new Set<Part>();
  #handled = 0;
  #failure: Error | undefined;
  #waiters: (() => void)[] = [];
  #isDrained = false;

  private constructor(options: ScenarioOptions, port: number) {
    const { suite, seed, dataDir, server } = options;
    this.options = options;
    this.port = port;
    this.random = seeded(seed);
    this.#recipients = options.recipients ?? RECIPIENTS;
    this.#temporary = mkdtempSync(join(tmpdir(), `broadcast-${suite}-`));
    this.#folder = apartFolder(`broadcast-${suite}-${String(seed)}-`);
    this.#histories = new Histories(this.#folder);
    this.dataDir = dataDir ?? join(this.#temporary, 'data');
    this.isApart = areApart(this.#folder, dirname(this.dataDir));
    this.server = this.#part('server', 'server', id => {
      return { port, dataDir: this.dataDir, log: join(this.#folder, `${id}.log`), ...server };
    });
  }

  static async start(options: ScenarioOptions): Promise<Scenario> {
    const scenario = new Scenario(options, await freePort(options.seed));
    try {
      await scenario.#begin();
      return scenario;
    } catch (error) {
      throw (await scenario.end(error)) as Error;
    }
  }

  /**
   * What a file system does to a store must not be done to what judges it. Where there is a second one, that it is not used is
   * a mistake of the run; where there is none, the report says so.
   */
  #demandApart(): void {
    if (this.isApart) return;
    const where = `the histories lie on the file system of the store (${this.#folder}, ${dirname(this.dataDir)})`;
    if (existsSync(MEMORY)) throw new Error(`${where}: put the store elsewhere, by TMPDIR or dataDir`);
    console.log(`${this.options.suite}: ${where}, as there is no other one here`);
  }

  #part(role: Role, label: string, options: (id: string) => Record<string, unknown>): Part {
    return new Part({
      role,
      label,
      folder: this.#folder,
      options,
      heard: said => this.#hear(said),
      failed: error => this.#fail(error),
    });
  }

  async #begin(): Promise<void> {
    this.#demandApart();
    await this.startServer();
    for (const recipient of this.#recipients) {
      for (let i = 1; i <= (recipient.processes ?? 1); i++) {
        const part = await this.#client('receiver', recipient.name, (recipient.processes ?? 1) > 1 ? i : 0, recipient);
        this.receivers.push(part);
        if (recipient.away !== undefined) this.#away.add(part);
        if (recipient.away !== 'from the start') part.start();
      }
    }
    for (const part of this.receivers) await this.online(part);
    for (const part of this.#away) await part.close();
    for (const name of this.options.senders ?? ['first', 'second', 'third']) {
      const part = await this.#client('sender', name, 0);
      this.senders.push(part);
      part.start();
    }
  }

  async #client(role: Role, name: string, index: number, recipient?: Recipient): Promise<Part> {
    const { load, failing = 0.0003, through, client = {} } = this.options;
    const port = (await through?.(this.port, name)) ?? this.port;
    const cast = this.#recipients.map(({ name: other, channels, own, away }) => {
      return { name: other, channels, own, isAway: away !== undefined };
    });
    const own =
      recipient === undefined
        ? { cast, load: { ...LOAD, ...load } }
        : { channels: recipient.channels, own: recipient.own, handlers: recipient.handlers ?? {}, failing };
    const label = index === 0 ? name : `${name}-${String(index)}`;
    return this.#part(role, label, id => {
      // Its own, whatever else was drawn before.
      const seed = crc32(`${String(this.options.seed)} ${id}`);
      return { name, id, port, seed, history: join(this.#folder, `${id}.jsonl`), config: client, ...own };
    });
  }

  // ---- for suites ----------------------------------------------------------------------------------------------------------

  /** What is done to whom, for those who read the histories. */
  note(what: string): void {
    appendFileSync(join(this.#folder, 'faults.log'), `${performance.now().toFixed(1)} ${what}\n`);
  }

  /** Starts the server, and waits until it listens or was killed. `more` is added to what it is told. */
  async startServer(more: Record<string, unknown> = {}): Promise<void> {
    this.server.start(more);
    await this.#watch(this.server.saw('listening'), 'the server has not begun to listen');
  }

  /** Until a client that was started is online, or was killed. */
  async online(part: Part): Promise<void> {
    await this.#watch(part.saw('online'), `${part.label} has not come online`);
  }

  /** Receivers that are there while faults are injected. */
  get present(): Part[] {
    return this.receivers.filter(part => !this.#away.has(part));
  }

  get handled(): number {
    return this.#handled;
  }

  /** Until so many further messages have been handled, or about so many. */
  async progress(count: number): Promise<void> {
    const goal = this.#handled + count;
    while (this.#handled < goal)
      await this.#watch(new Promise<void>(resolve => this.#waiters.push(resolve)), 'nobody has handled anything');
  }

  #hear({ type, count, text }: Said): void {
    if (type === 'engine-failed' && !this.server.isCondemned)
      this.#fail(new Error(`the store has failed by itself: ${String(text)}`));
    if (type !== 'handled') return;
    this.#handled += count as number;
    this.#wake();
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }

  /** What is waited for, unless something fails or it takes too long: `what` says what is so then. */
  async #watch<T>(wanted: Promise<T>, what: string): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const stall = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`for ${String(STALL_MS)} ms ${what}`)), STALL_MS);
    });
    const failure = new Promise<void>(resolve => this.#waiters.push(resolve)).then(() => this.#check(wanted));
    try {
      const result = await Promise.race([wanted, failure, stall]);
      if (this.#failure !== undefined) throw this.#failure;
      return result;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Waiters are woken by progress too. */
  #check<T>(wanted: Promise<T>): Promise<T> {
    return this.#failure === undefined ? wanted : Promise.reject(this.#failure);
  }

  // ---- the end ---------------------------------------------------------------------------------------------------------------

  /** Everything runs, nothing further is sent; until every receipt is in and every queue is empty, or the time is over. */
  async drain(): Promise<void> {
    const end = performance.now() + (this.options.drainMs ?? 60_000);
    if (!this.server.isRunning) await this.startServer();
    for (const part of [...this.receivers, ...this.senders]) if (!part.isRunning) part.start();
    for (const part of [...this.receivers, ...this.senders]) await this.online(part);
    const settled = this.senders.map(part => part.ask({ type: 'stop' }, 'settled'));
    await this.#watch(Promise.race([Promise.all(settled), pause(end - performance.now())]), 'receipts are waited for');
    const open = new Outstanding(this.#histories);
    let isEmpty = false;
    for (let quiet = 0; quiet < 3 && performance.now() < end;) {
      await pause(50);
      if (this.#failure !== undefined) throw this.#failure;
      const said = await this.#watch(this.server.ask({ type: 'stats' }, 'stats'), 'the server does not answer');
      const { queued = 1, backlog = 1 } = (said?.['stats'] ?? {}) as { queued?: number; backlog?: number };
      isEmpty = queued === 0 && backlog === 0;
      // The server may be wrong about it: then something is missing, and has a while to come.
      quiet = !isEmpty ? 0 : quiet + (open.read() === 0 ? 1 : 0.05);
    }
    if (!isEmpty) throw new Error('the server says that messages wait still, long after everybody was there');
    this.#isDrained = true;
  }

  /** Everybody leaves, and the oracle says what it thinks. */
  async finish(): Promise<Verdict> {
    const leaving = Promise.all([...this.senders, ...this.receivers].map(part => part.close()));
    await this.#watch(
      leaving.then(() => this.server.close()),
      'not everybody has left in order',
    );
    this.#demandUndamaged();
    this.#histories.readAll();
    const shared = this.#recipients.filter(({ processes = 1 }) => processes > 1).map(({ name }) => name);
    const unordered = this.#recipients.flatMap(({ name, handlers = {} }) =>
      Object.keys(handlers).map(channel => `${name}/${channel}`),
    );
    const { reasons = ['expired'] } = this.options;
    const cast = { shared, unordered, reasons, drained: this.#isDrained, expirySlack: 5000 };
    return check(this.#histories.all, cast);
  }

  /** What cannot be mended must not hide why the run has failed. */
  #mend(): void {
    try {
      this.options.mend?.();
    } catch (error) {
      this.note(`could not be mended: ${String(error)}`);
    }
  }

  /** A crash leaves a torn tail, and no damage in what was synced: a server that names some has taken one for the other. */
  #demandUndamaged(): void {
    const logs = readdirSync(this.#folder).filter(name => /^server\.\d+\.log$/.test(name));
    for (const name of logs) {
      const named = /^.*the store was damaged.*$/m.exec(readFileSync(join(this.#folder, name), 'utf8'));
      if (named !== null) throw new Error(`${name}: ${named[0]}`);
    }
  }

  /** Ends every process. Returns the problem, if there was one, with where everything is kept. */
  async end(problem?: unknown, verdict?: Verdict): Promise<Error | undefined> {
    await Promise.all([...this.senders, ...this.receivers, this.server].map(part => part.kill()));
    const run = { ...runOf(this.options), history: () => ({ verdict }) };
    if (problem !== undefined) this.#mend();
    const folders = { histories: this.#folder, data: this.dataDir };
    const failure = problem === undefined ? undefined : await keep(run, problem, folders);
    rmSync(this.#folder, { recursive: true, force: true });
    rmSync(this.#temporary, { recursive: true, force: true });
    return failure;
  }
}

/** Pairs of message and recipient for which an answer of a handler may still come. */
class Outstanding {
  readonly #histories: Histories;
  readonly #open = new Set<string>();
  /** Handled before it was read that they were to be sent. */
  readonly #early = new Set<string>();

  constructor(histories: Histories) {
    this.#histories = histories;
  }

  /** Reads what is new. */
  read(): number {
    for (const { process, record } of this.#histories.read()) {
      if (record.k === 'intent' && record.persistent && (record.ttl ?? Infinity) > LONG_MS)
        for (const recipient of record.to)
          this.#move(`${process}:${String(record.n)} ${recipient}`, this.#early, this.#open);
      const name = process.replace(/(-\d+)?\.\d+$/, '');
      if (record.k === 'done') this.#move(`${record.key} ${name}/${record.sub}`, this.#open, this.#early);
    }
    return this.#open.size;
  }

  /** Intent and end of a handler cancel each other. */
  #move(pair: string, from: Set<string>, to: Set<string>): void {
    if (!from.delete(pair)) to.add(pair);
  }
}

function runOf({ suite, part, seed, ...options }: ScenarioOptions): Omit<Run, 'history'> {
  return { suite, seed, options, ...(part !== undefined && { part }) };
}

/** A verdict, and whether the histories had a file system of their own: 0, or 1 where there is no second one. */
type Played = Verdict & { readonly historiesBesideTheStore: number };

/** Plays a scenario to its end. Throws when a promise was broken, and says how the run is repeated. */
export async function play(options: ScenarioOptions, faults: (scenario: Scenario) => Promise<void>): Promise<Played> {
  announce(runOf(options));
  const scenario = await Scenario.start(options);
  let verdict: Verdict | undefined;
  try {
    await faults(scenario);
    await scenario.drain();
    verdict = await scenario.finish();
    if (verdict.text.length > 0) throw new Error(verdict.text.join('\n'));
  } catch (error) {
    throw (await scenario.end(error, verdict)) as Error;
  }
  await scenario.end();
  return { ...verdict, historiesBesideTheStore: scenario.isApart ? 0 : 1 };
}

/** True when two folders lie on different file systems. */
function areApart(one: string, other: string): boolean {
  return statSync(one).dev !== statSync(other).dev;
}

function pause(ms: number): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, Math.max(0, ms)));
}

/** Outside of the range from which the system takes ports for connections: clients knock while nobody listens. */
async function freePort(seed: number): Promise<number> {
  for (let i = 0; ; i++) {
    const port = 20_000 + ((process.pid * 7 + seed * 13 + i) % 12_000);
    const server = createServer();
    server.listen(port, '127.0.0.1');
    const isFree = await once(server, 'listening').then(
      () => true,
      () => false,
    );
    if (!isFree) continue;
    server.close();
    await once(server, 'close');
    return port;
  }
}
