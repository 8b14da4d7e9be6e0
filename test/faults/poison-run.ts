/**
 * One run of poisoned work: a name whose workers are processes that are started again when they die, messages that say what
 * their handlers are to do, and an oracle that knows from the workers' own histories what was begun and what has ended.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { BroadcastMessage, BroadcastTcpClient, type DeliveryFailure, type Receipt } from '../../src/index.js';
import { seeded } from '../helpers/seeded.cjs';
import { recordingLogger } from '../helpers/scene.js';
import { demandNothingWrong, withEvidence } from './evidence.js';
import { FaultRoles, type FaultRole } from './roles.js';

export const POISONS = ['throw', 'reject', 'hang', 'exit', 'kill', 'killLater', 'uncaught'] as const;
export type Poison = (typeof POISONS)[number];
type Does = Poison | 'nothing' | 'async';

/** They end their process. */
const DEADLY: readonly Does[] = ['exit', 'kill', 'killLater', 'uncaught'];
/** They end it before anything that was begun beside them can end. */
const SUDDEN: readonly Does[] = ['exit', 'kill'];

export interface PoisonOptions {
  readonly seed: number;
  readonly does: readonly Does[];
  readonly concurrency: number;
  readonly workers: number;
  readonly maxAttempts: number;
  readonly engine: 'memory' | 'disk';
  /** The server is killed, and started again, after so many deaths of workers; never when it is 0. */
  readonly killAfter: number;
}

/** A mix of poison and innocent work, as a seed says. */
export function randomMix(seed: number): PoisonOptions {
  const random = seeded(seed);
  const pick = <T>(all: readonly T[]): T => all[Math.floor(random() * all.length)] as T;
  const concurrency = pick([1, 4]);
  // What dies suddenly takes what could have begun beside it along, by rule.
  const poisons = POISONS.filter(poison => concurrency === 1 || !SUDDEN.includes(poison));
  const does: Does[] = Array.from({ length: 30 }, () => pick(['nothing', 'nothing', 'async']));
  for (let n = 3; n > 0; n--) does[Math.floor(random() * does.length)] = pick(poisons);
  const engine = pick(['memory', 'disk'] as const);
  const killAfter = engine === 'disk' ? Math.floor(random() * 4) : 0;
  return { seed, does, concurrency, workers: pick([1, 1, 2, 3]), maxAttempts: pick([2, 3]), engine, killAfter };
}

interface Noted {
  readonly what: 'begin' | 'end';
  readonly n: number;
  readonly attempt: number;
  readonly redelivered: boolean;
  readonly pid: number;
  /** Epoch milliseconds. */
  readonly t: number;
}

interface Letter {
  readonly data: { n: number };
  readonly reason: string;
  readonly attempts: number;
}

export type PoisonFigures = Record<
  | 'runs'
  | 'messages'
  | 'poison'
  | 'delivered'
  | 'deadLetters'
  | 'workerDeaths'
  | 'serverKills'
  | 'attempts'
  | 'chargedInnocents'
  | 'takenAlong',
  number
>;

/** Time on the workers' clocks passes so much faster: the pauses between attempts are 10 s in all. */
const FACTOR = 50;
/** For a run, on a machine that does something else. */
const LIMIT_MS = 60_000;
const NAME = 'worker';
const PATIENT = { pingInterval: 1e8, deadAfter: 1e9 };

export class PoisonRun {
  readonly #options: PoisonOptions;
  readonly #failures: DeliveryFailure[] = [];
  readonly #receipts: (Receipt | undefined)[] = [];
  readonly #ids: string[] = [];
  readonly #wrong: string[] = [];
  readonly #roles = new FaultRoles();
  #folder = '';
  /** Of the workers. */
  #histories = '';
  #sender: BroadcastTcpClient | undefined;
  #letters: readonly Letter[] = [];
  #server: FaultRole | undefined;
  #port = 0;
  #lives = 0;
  #deaths = 0;
  #serverKills = 0;
  #restarted: Promise<void> = Promise.resolve();
  /** Innocent messages that became dead letters, by rule. */
  #takenAlong = 0;
  #isOver = false;

  constructor(options: PoisonOptions) {
    this.#options = options;
  }

  /** Throws when something was wrong. */
  async run(): Promise<PoisonFigures> {
    const { seed, does } = this.#options;
    const poisons = does.filter(what => (POISONS as readonly string[]).includes(what));
    return withEvidence(
      { suite: 'poison', seed, part: poisons.join('-'), options: this.#options, history: () => this.#evidence() },
      (folder, histories) => {
        this.#folder = folder;
        this.#histories = histories;
        return this.#play();
      },
      () => this.#end(),
    );
  }

  async #play(): Promise<PoisonFigures> {
    const { does, workers } = this.#options;
    const sender = await this.#start();
    const sent = Promise.all(does.map((what, n) => this.#send(sender, n, what)));
    sent.catch(() => undefined); // once it is waited for, if nothing else fails before
    await sender.flush();
    for (let n = 0; n < workers; n++) this.#startWorker();
    // Whatever was before it: the next message flows.
    const all = sent.then(() => this.#send(sender, does.length, 'nothing'));
    all.catch(() => undefined);
    if (!(await this.#endsWith(all))) this.#wrong.push('it did not come to an end');
    this.#letters = (await this.#askLetters()) as Letter[];
    const history = await this.#history();
    this.#check(this.#letters, history);
    demandNothingWrong(this.#wrong);
    return this.#figures(this.#letters, history);
  }

  /** Beside what the workers have noted, which lies in the folder. */
  async #evidence(): Promise<unknown> {
    this.#isOver = true;
    return {
      letters: this.#letters,
      receipts: this.#receipts,
      failures: this.#failures,
      processes: await this.#roles.history(),
    };
  }

  async #end(): Promise<void> {
    this.#isOver = true;
    await this.#sender?.close({ timeout: 200 });
    await this.#roles.end();
  }

  /** False when it takes too long, or workers die on and on. */
  async #endsWith(all: Promise<void>): Promise<boolean> {
    const ended = all.then(() => true);
    const end = performance.now() + LIMIT_MS;
    while (performance.now() < end && this.#deaths <= this.#mostDeaths()) {
      if (await Promise.race([ended, delay(10, false)])) return true;
    }
    return false;
  }

  /** Each message that ends its process does so as often as it may be begun. */
  #mostDeaths(): number {
    return this.#options.does.filter(what => DEADLY.includes(what)).length * this.#mostBeginnings('kill');
  }

  async #start(): Promise<BroadcastTcpClient> {
    await this.#startServer();
    const sender = new BroadcastTcpClient(
      { host: '127.0.0.1', port: this.#port, reconnectInterval: 20, logger: recordingLogger(), ...PATIENT },
      'sender',
    );
    this.#sender = sender;
    sender.onDeliveryFailure(failure => void this.#failures.push(failure));
    await sender.connect();
    return sender;
  }

  async #startServer(): Promise<void> {
    const dataDir = this.#options.engine === 'disk' ? { dataDir: join(this.#folder, 'data') } : {};
    this.#server = this.#roles.start('server', { port: this.#port, ...PATIENT, ...dataDir });
    this.#port = (await this.#server.saw('listening'))['port'] as number;
  }

  async #send(sender: BroadcastTcpClient, n: number, does: Does): Promise<void> {
    const message = BroadcastMessage.createClientMessage(NAME, { n, does });
    const receipt = await sender.sendMessage(message, { until: 'delivered' });
    this.#receipts[n] = receipt;
    this.#ids[n] = receipt.id;
  }

  /** A process that works for the name, and another one once it has died. */
  #startWorker(): void {
    const { concurrency, maxAttempts } = this.#options;
    const worker = this.#roles.start('worker', {
      name: NAME,
      file: join(this.#histories, `worker-${String(this.#lives++)}.jsonl`),
      factor: FACTOR,
      handler: { concurrency, maxAttempts, handlerTimeout: 50 * FACTOR },
      config: { host: '127.0.0.1', port: this.#port, reconnectInterval: 20 * FACTOR, ...PATIENT },
    });
    worker.child.once('exit', () => {
      if (this.#isOver) return;
      this.#deaths++;
      this.#startWorker();
      if (this.#deaths === this.#options.killAfter) this.#restarted = this.#killServer();
    });
  }

  async #killServer(): Promise<void> {
    this.#serverKills++;
    await this.#server?.kill();
    await this.#startServer();
  }

  async #askLetters(): Promise<unknown> {
    // One that has not opened its store yet knows of none.
    await this.#restarted;
    const server = this.#server as FaultRole;
    return (await server.ask({ letters: NAME }, 'letters'))['list'];
  }

  /** What each process wrote, in its order. */
  async #history(): Promise<Noted[][]> {
    const files = (await readdir(this.#histories)).filter(file => file.endsWith('.jsonl'));
    const texts = await Promise.all(files.map(file => readFile(join(this.#histories, file), 'utf8')));
    return texts.map(text =>
      text
        .split('\n')
        .filter(Boolean)
        .map(line => JSON.parse(line) as Noted),
    );
  }

  // ---- the oracle --------------------------------------------------------------------------------------------------------

  #check(letters: readonly Letter[], history: readonly (readonly Noted[])[]): void {
    const { does } = this.#options;
    const all = history.flat();
    [...does, 'nothing' as const].forEach((what, n) => {
      const begun = all.filter(noted => noted.n === n && noted.what === 'begin');
      const its = letters.filter(letter => letter.data.n === n);
      this.#checkCharges(n, begun);
      this.#checkRecords(n, begun);
      const isPoison = (POISONS as readonly string[]).includes(what);
      if (isPoison) this.#checkPoison(n, what as Poison, its, begun.length);
      else if (its.length > 0 && this.#wasTakenAlong(n, history)) this.#takenAlong++;
      else this.#checkInnocent(n, its, all.filter(noted => noted.n === n && noted.what === 'end').length);
    });
    for (const noted of history) this.#checkProcess(noted);
  }

  /** What was only fetched in advance is not charged: nothing is attempted a second time before the first. */
  #checkCharges(n: number, begun: readonly Noted[]): void {
    if (this.#options.concurrency > 1 || begun.length === 0) return;
    const first = Math.min(...begun.map(({ attempt }) => attempt));
    if (first > 1)
      this.#wrong.push(`message ${String(n)} was charged ${String(first - 1)} attempts before it was begun`);
  }

  /** An attempt is recorded before it is made: whoever was killed, none comes later under a lower number. */
  #checkRecords(n: number, begun: readonly Noted[]): void {
    let most = 1;
    for (const { attempt } of [...begun].sort((a, b) => a.t - b.t)) {
      if (attempt < most)
        this.#wrong.push(`message ${String(n)}: attempt ${String(attempt)} was begun after attempt ${String(most)}`);
      most = Math.max(most, attempt);
    }
  }

  #checkPoison(n: number, what: Poison, letters: readonly Letter[], begun: number): void {
    const { maxAttempts } = this.#options;
    const name = `message ${String(n)} (${what})`;
    const [letter] = letters;
    if (letters.length !== 1) this.#wrong.push(`${name} is ${String(letters.length)} dead letters`);
    if (letter !== undefined && what !== 'reject' && letter.attempts !== maxAttempts)
      this.#wrong.push(`${name} was given up after ${String(letter.attempts)} attempts, not ${String(maxAttempts)}`);
    if (begun > this.#mostBeginnings(what)) this.#wrong.push(`${name} was begun ${String(begun)} times`);
    if (this.#receipts[n]?.status !== 'undelivered')
      this.#wrong.push(`${name}: the receipt says ${String(this.#receipts[n]?.status)}`);
    const notices = this.#failures.filter(({ messageId, final }) => final && messageId === this.#ids[n]);
    if (notices.length !== 1 || notices[0]?.reason !== 'rejected')
      this.#wrong.push(
        `${name}: final notices ${JSON.stringify(notices.map(({ reason }) => reason))}, not one "rejected"`,
      );
  }

  /** Crashes of the server charge nothing, and a first death may be charged to what ended in the same turn (once for each worker). */
  #mostBeginnings(what: Poison): number {
    const { maxAttempts, workers, does } = this.#options;
    const deadly = does.filter(one => DEADLY.includes(one)).length;
    const others = DEADLY.includes(what) ? workers : workers + deadly * maxAttempts;
    return maxAttempts + others + this.#serverKills;
  }

  /**
   * Where several run at a time, who dies takes along what has begun beside it: by rule a dead letter when that happened at
   * each attempt. It is short, and does so only where the machine does something else for long.
   */
  #wasTakenAlong(n: number, history: readonly (readonly Noted[])[]): boolean {
    const { concurrency, does, maxAttempts } = this.#options;
    if (concurrency === 1) return false;
    const has = (noted: readonly Noted[], what: Noted['what'], one: number): boolean =>
      noted.some(entry => entry.what === what && entry.n === one);
    const killed = history.filter(noted =>
      does.some((what, one) => DEADLY.includes(what) && has(noted, 'begin', one) && !has(noted, 'end', one)),
    );
    const beside = killed.filter(noted => has(noted, 'begin', n));
    // At one of them it may have ended, in the last turn.
    return beside.length >= maxAttempts && beside.some(noted => !has(noted, 'end', n));
  }

  #checkInnocent(n: number, letters: readonly Letter[], ended: number): void {
    const name = `message ${String(n)} (innocent)`;
    if (letters.length > 0) this.#wrong.push(`${name} is a dead letter: ${letters[0]?.reason ?? ''}`);
    if (ended === 0) this.#wrong.push(`${name} was lost`);
    if (this.#receipts[n]?.status !== 'delivered')
      this.#wrong.push(`${name}: the receipt says ${String(this.#receipts[n]?.status)}`);
    if (this.#failures.some(({ messageId, final }) => final && messageId === this.#ids[n]))
      this.#wrong.push(`${name}: a final notice`);
  }

  /** A handler of a living process ends once for a message; one at a time, they begin in the order in which they were sent. */
  #checkProcess(noted: readonly Noted[]): void {
    const { workers, concurrency } = this.#options;
    const begun = noted.filter(({ what }) => what === 'begin').map(({ n }) => n);
    const late = begun.find((n, i) => i > 0 && n < (begun[i - 1] as number));
    if (workers === 1 && concurrency === 1 && late !== undefined)
      this.#wrong.push(`message ${String(late)} was begun behind one that was sent later`);
    const ended = noted.filter(({ what }) => what === 'end').map(({ n }) => n);
    for (const n of ended.filter((one, i) => ended.indexOf(one) !== i))
      this.#wrong.push(`message ${String(n)} ended twice in one process`);
  }

  #figures(letters: readonly Letter[], history: readonly (readonly Noted[])[]): PoisonFigures {
    const { does } = this.#options;
    const all = history.flat();
    const poisoned = new Set(does.flatMap((what, n) => ((POISONS as readonly string[]).includes(what) ? [n] : [])));
    const charged = all.filter(({ n, attempt }) => attempt > 1 && !poisoned.has(n)).map(({ n }) => n);
    return {
      runs: 1,
      messages: does.length + 1,
      poison: poisoned.size,
      delivered: this.#receipts.filter(receipt => receipt?.status === 'delivered').length,
      deadLetters: letters.length,
      workerDeaths: this.#deaths,
      serverKills: this.#serverKills,
      attempts: all.filter(({ what, n }) => what === 'begin' && poisoned.has(n)).length,
      chargedInnocents: new Set(charged).size,
      takenAlong: this.#takenAlong,
    };
  }
}
