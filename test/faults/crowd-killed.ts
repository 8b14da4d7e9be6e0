/**
 * One run of a crowd whose server is killed and started again: clients in processes of their own, and one here to which each
 * of them says something, and which says something to each of them, in four rounds.
 */
import { BroadcastMessage, BroadcastTcpClient, type BroadcastClient } from '../../src/index.js';
import { seeded } from '../helpers/seeded.cjs';
import { recordingLogger } from '../helpers/scene.js';
import { CrowdProcesses, type CrowdFigures, type CrowdProcess, type ServerFigures } from './crowd-process.js';

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
    duplicated: sum('duplicated'),
    disordered: sum('disordered'),
    receipts: sum('receipts'),
    refused: sum('refused'),
    ends: endsOf(all),
  };
}

function endsOf(all: readonly CrowdFigures[]): Record<string, number> {
  const ends: Record<string, number> = {};
  for (const figures of all)
    for (const [why, count] of Object.entries(figures.ends)) ends[why] = (ends[why] ?? 0) + count;
  return ends;
}

/** Counts what comes from each of the crowd, which must be 1, 2, 3 …, and lets one wait for it. */
class Home {
  readonly next: number[];
  arrived = 0;
  duplicated = 0;
  disordered = 0;
  #waiting: { count: number; resolve: () => void } | undefined;

  constructor(count: number) {
    this.next = new Array<number>(count).fill(1);
  }

  take([id, data]: readonly [number, number]): void {
    const next = this.next[id] as number;
    if (data < next) this.duplicated++;
    else if (data > next) this.disordered++;
    this.next[id] = Math.max(next, data + 1);
    if (++this.arrived === this.#waiting?.count) this.#waiting.resolve();
  }

  async reached(count: number): Promise<void> {
    if (this.arrived < count) await new Promise<void>(resolve => (this.#waiting = { count, resolve }));
  }
}

export interface KilledFigures {
  /** Of the clients, when everything has come or the time is over. */
  readonly crowd: CrowdFigures;
  /** Of the server while nothing happens to it, and of the one that took its place. */
  readonly calm: ServerFigures;
  readonly server: ServerFigures;
  readonly arrived: number;
  readonly lost: number;
  readonly failed: number;
  readonly duplicated: number;
  readonly disordered: number;
  readonly receipts: number;
  readonly allBackAfterMs: number;
}

export class KilledCrowd {
  readonly processes = new CrowdProcesses();
  readonly #count: number;
  readonly #seed: number;
  readonly #home: Home;
  readonly #statuses: string[] = [];
  readonly #rounds: Promise<unknown>[] = [];
  #client: BroadcastClient | undefined;
  #crowd: CrowdProcess[] = [];

  constructor(count: number, seed: number) {
    this.#count = count;
    this.#seed = seed;
    this.#home = new Home(count);
  }

  async run(dataDir: string): Promise<KilledFigures> {
    const options = { dataDir, pingInterval: 60_000, deadAfter: 120_000 };
    const { process: first, port } = await this.processes.start('server', { port: 0, ...options });
    this.#crowd = await this.processes.clients('member', this.#count, port);
    await this.#together(isFull);
    await this.#connectHome(port);
    await first.ask('watch');
    await this.#round(1);
    await this.#home.reached(this.#count);
    const calm = (await first.ask('figures')) as ServerFigures;

    void this.#round(2);
    await this.#home.reached(this.#count + 1 + Math.floor(seeded(this.#seed)() * this.#count * 0.9));
    await first.kill();
    void this.#round(3);
    const killedAt = performance.now();
    const { process: second } = await this.processes.start('server', { ...options, port });
    await this.#inTime(this.#together(isFull));
    const allBackAfterMs = performance.now() - killedAt;
    void this.#round(ROUNDS);
    await this.#inTime(Promise.all([...this.#rounds, this.#home.reached(ROUNDS * this.#count)]));
    const isAll = ({ got, receipts, count }: CrowdFigures): boolean => got === ROUNDS * count && receipts === got;
    await this.#inTime(this.#together(isAll));
    const server = (await second.ask('figures')) as ServerFigures;
    return { ...this.#judge(await this.#together(() => true)), calm, server, allBackAfterMs };
  }

  async #connectHome(port: number): Promise<void> {
    const config = { host: '127.0.0.1', port, reconnectInterval: 1000, logger: recordingLogger() };
    this.#client = new BroadcastTcpClient(config, 'home');
    this.#client.onMessage<[number, number]>('home', ({ data }) => this.#home.take(data));
    await this.#client.connect();
  }

  /** Each of the crowd says something to the client here, and is told something by it. */
  async #round(data: number): Promise<void> {
    const sent = [...this.#crowd.map(one => one.ask('send', data)), ...this.#sendToAll(data)];
    for (const one of sent) one.catch(() => undefined); // what does not settle in time ends with the clients
    this.#rounds.push(...sent);
    await Promise.all(sent);
  }

  #sendToAll(data: number): Promise<void>[] {
    return Array.from({ length: this.#count }, async (_, i) => {
      const message = BroadcastMessage.createClientMessage(`member-${String(i)}`, data);
      const receipt = await this.#client?.sendMessage(message);
      this.#statuses.push(String(receipt?.status));
    });
  }

  #together(wanted: (figures: CrowdFigures) => boolean): Promise<CrowdFigures> {
    return together(this.#crowd, wanted);
  }

  /** What does not come is counted as lost, not waited for. */
  async #inTime(what: Promise<unknown>): Promise<void> {
    const late = new Promise(resolve => setTimeout(resolve, patienceFor(this.#count)).unref());
    await Promise.race([what, late]);
  }

  #judge(crowd: CrowdFigures): Omit<KilledFigures, 'calm' | 'server' | 'allBackAfterMs'> {
    const arrived = this.#home.next.reduce((sum, next) => sum + next - 1, crowd.got);
    return {
      crowd,
      arrived,
      lost: 2 * ROUNDS * this.#count - arrived,
      failed: this.#statuses.filter(status => status === 'undelivered').length + crowd.refused,
      duplicated: this.#home.duplicated + crowd.duplicated,
      disordered: this.#home.disordered + crowd.disordered,
      receipts: this.#statuses.length + crowd.receipts,
    };
  }

  /** What was seen so far; everybody is ended. */
  async history(): Promise<unknown> {
    const { arrived, duplicated, disordered, next } = this.#home;
    const home = { arrived, duplicated, disordered, next, statuses: this.#statuses };
    return { home, processes: await this.processes.history() };
  }

  async end(): Promise<void> {
    await this.#client?.close({ timeout: 500 });
    await this.processes.end();
  }
}

function isFull({ online, count }: CrowdFigures): boolean {
  return online === count;
}

/** For what must come, on a machine that does something else. */
export function patienceFor(count: number): number {
  return 60_000 + count * 40;
}
