/**
 * One run of a crowd whose server is killed and started again: clients in processes of their own, and one at home to which
 * each of them says something, and which says something to each of them, in four rounds. The oracle judges it.
 */
import { seeded } from '../helpers/seeded.cjs';
import { CrowdProcesses, type CrowdFigures, type CrowdProcess, type ServerFigures } from './crowd-process.js';
import { check, type Verdict } from './oracle/checker.js';
import { Histories } from './oracle/records.js';

const ROUNDS = 4;

/** The figures of all together, once those of each are as wanted. */
async function together(crowd: CrowdProcess[], wanted: (figures: CrowdFigures) => boolean): Promise<CrowdFigures> {
  const all = await Promise.all(crowd.map(one => one.until(wanted)));
  const sum = (key: Exclude<keyof CrowdFigures, 'ends'>): number =>
    all.reduce((total, figures) => total + figures[key], 0);
  return {
    online: sum('online'),
    count: sum('count'),
    got: sum('got'),
    receipts: sum('receipts'),
    ends: endsOf(all),
  };
}

function endsOf(all: readonly CrowdFigures[]): Record<string, number> {
  const ends: Record<string, number> = {};
  for (const figures of all)
    for (const [why, count] of Object.entries(figures.ends)) ends[why] = (ends[why] ?? 0) + count;
  return ends;
}

export interface KilledFigures {
  /** Of the clients, when everything has come or the time is over. */
  readonly crowd: CrowdFigures;
  /** Of the server while nothing happens to it, and of the one that took its place. */
  readonly calm: ServerFigures;
  readonly server: ServerFigures;
  /** That have come. */
  readonly receipts: number;
  readonly allBackAfterMs: number;
  readonly verdict: Verdict;
}

export class KilledCrowd {
  readonly processes = new CrowdProcesses();
  readonly #count: number;
  readonly #seed: number;
  readonly #histories: string;
  #crowd: CrowdProcess[] = [];
  #home: CrowdProcess | undefined;

  /** `histories` is a folder on another file system than the store's. */
  constructor(count: number, seed: number, histories: string) {
    this.#count = count;
    this.#seed = seed;
    this.#histories = histories;
  }

  async run(dataDir: string): Promise<KilledFigures> {
    const { process: first, port } = await this.processes.start('server', { port: 0, dataDir });
    this.#crowd = await this.processes.clients('member', this.#count, port, this.#histories);
    await this.#together(isFull);
    const home = { port, histories: this.#histories, crowd: this.#count };
    const { process: atHome } = await this.processes.start('home', home);
    this.#home = atHome;
    await first.ask('watch');
    await this.#round(1);
    await this.#settled(1);
    const calm = (await first.ask('figures')) as ServerFigures;

    const isSent = this.#round(2);
    await atHome.ask('reached', this.#count + 1 + Math.floor(seeded(this.#seed)() * this.#count * 0.9));
    await first.kill();
    await isSent;
    await this.#round(3);
    const killedAt = performance.now();
    const { process: second } = await this.processes.start('server', { dataDir, port });
    await this.#inTime(this.#together(isFull));
    const allBackAfterMs = performance.now() - killedAt;
    await this.#round(ROUNDS);
    await this.#inTime(this.#settled(ROUNDS));
    const server = (await second.ask('figures')) as ServerFigures;
    const crowd = await this.#together(() => true);
    const { receipts } = (await atHome.ask('figures')) as CrowdFigures;
    return { crowd, calm, server, allBackAfterMs, receipts: crowd.receipts + receipts, verdict: await this.#judge() };
  }

  /** Each of the crowd says something to the client at home, and is told something by it. */
  async #round(number: number): Promise<void> {
    const all = [...this.#crowd, this.#home as CrowdProcess];
    await Promise.all(all.map(one => one.ask('send', `round ${String(number)}`)));
  }

  /** So many rounds have come, and are said to have come. */
  async #settled(rounds: number): Promise<void> {
    const isThere = ({ got, receipts, count }: CrowdFigures): boolean => Math.min(got, receipts) >= rounds * count;
    await Promise.all([this.#together(isThere), (this.#home as CrowdProcess).until(isThere)]);
  }

  #together(wanted: (figures: CrowdFigures) => boolean): Promise<CrowdFigures> {
    return together(this.#crowd, wanted);
  }

  /** What does not come is for the oracle to find, not waited for. */
  async #inTime(what: Promise<unknown>): Promise<void> {
    const late = new Promise(resolve => setTimeout(resolve, patienceFor(this.#count)).unref());
    await Promise.race([what, late]);
  }

  /** Everybody leaves, and the oracle says what it thinks. */
  async #judge(): Promise<Verdict> {
    await Promise.all([...this.#crowd, this.#home as CrowdProcess].map(one => one.ask('close')));
    const histories = new Histories(this.#histories);
    histories.readAll();
    return check(histories.all, { shared: [], unordered: [], reasons: [], drained: true });
  }

  /** How everybody is; all are ended. */
  history(): Promise<unknown> {
    return this.processes.history();
  }

  end(): Promise<void> {
    return this.processes.end();
  }
}

function isFull({ online, count }: CrowdFigures): boolean {
  return online === count;
}

/** For what must come, on a machine that does something else. */
export function patienceFor(count: number): number {
  return 60_000 + count * 40;
}
