/**
 * One run of a server whose disk fails: strace makes the n-th call of a kind fail, or lie. Messages flow before and after
 * it, the server is started again without the fault, and every promise is held against what arrived.
 */
import { existsSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { basename, join } from 'node:path';
import type { DiskEngineOptions } from '../../src/engine/disk/disk-engine.js';
import { BroadcastTcpClient, type BroadcastClient } from '../../src/index.js';
import { seeded } from '../helpers/seeded.cjs';
import { recordingLogger } from '../helpers/scene.js';
import { withEvidence } from './evidence.js';
import { Ledger, type Target } from './ledger.js';
import { has, StoreProcess, type StoreOptions } from './store-process.js';
import { forgetUnsynced, TRACED } from './unsynced.js';

const KIB = 1024;
/** What was hit by the last call of all may be said a little later. */
export const SAYS_SO_MS = 10_000;

/** What strace does to which call, counted from the start of the server. */
export interface DiskFault {
  readonly call: 'fdatasync' | 'pwrite64' | 'fsync';
  /** `lies`: the call is not made, and 40 bytes are said to be written. */
  readonly how: 'EIO' | 'ENOSPC' | 'lies';
  readonly at: number;
  readonly times: number;
}

interface FailingOptions {
  readonly fault: DiskFault;
  readonly segmentBytes: number;
  readonly bursts: number;
  /** Of these so many on a server without the fault, which is killed: the fault then meets a recovery. */
  readonly prelude: number;
}

/** What became of the server. */
export type FailingOutcome = 'fail-stop' | 'refused to start' | 'went on' | 'not reached';

/** What one run has seen. */
export interface FailingFigures {
  readonly outcome: FailingOutcome;
  readonly fault: string;
  readonly messages: number;
  /** Bytes that were written and not synced, and taken away. */
  readonly forgotten: number;
  /** Of those that a disk that lied did not keep: named as damage. */
  readonly named: number;
}

export const canInject = (): boolean => process.platform === 'linux' && has('strace', '-V');

/** Kinds of faults in turn, so that a few runs see each of them. */
export const KINDS: readonly Pick<DiskFault, 'call' | 'how'>[] = [
  { call: 'fdatasync', how: 'EIO' },
  { call: 'pwrite64', how: 'ENOSPC' },
  { call: 'fdatasync', how: 'ENOSPC' },
  { call: 'pwrite64', how: 'EIO' },
  { call: 'pwrite64', how: 'lies' },
  { call: 'fsync', how: 'EIO' },
  { call: 'fsync', how: 'ENOSPC' },
];

export function failingOptions(seed: number): FailingOptions {
  const random = seeded(seed);
  const kind = KINDS[(seed - 1) % KINDS.length] as (typeof KINDS)[number];
  // A start makes a few calls of each kind; some faults are to hit it.
  const at = kind.call === 'fsync' ? 1 + Math.floor(random() * 6) : 1 + Math.floor(random() ** 2 * 40);
  const times = kind.how === 'ENOSPC' ? 1 + Math.floor(random() * 3) : 1;
  const segmentBytes = [64, 128, 1024][Math.floor(random() * 3)]! * KIB;
  return { fault: { ...kind, at, times }, segmentBytes, bursts: 30, prelude: random() < 0.4 ? 8 : 0 };
}

export function underStrace({ call, how, at, times }: DiskFault, log: string): string[] {
  const what = how === 'lies' ? 'retval=40' : `error=${how}`;
  const when = times === 1 ? String(at) : `${at}..${at + times - 1}`;
  const inject = `inject=${call}:${what}:when=${when}`;
  const trace = `trace=${[...new Set([call, ...TRACED])].join(',')}`;
  return ['strace', '-f', '-y', '-s', '512', '-q', '--seccomp-bpf', '-o', log, '-e', trace, '-e', inject];
}

/** One line of strace: `7 fdatasync(21</data/segment-0000000002.new>) = -1 ENOSPC (No space left on device) (INJECTED)`. */
const CALL = /(\w+)\((?:\d+<([^>]*)>|"([^"]*)")/;

/**
 * The calls after which the server must not go on, of those that failed. A sync is final whatever its error says, that of a
 * folder too: nobody knows what it has written, and the system takes it for clean. Only a segment that is being made may be
 * thrown away when there is no space for it: nothing is in it, and it is not synced again. Space for a write may come back.
 */
export function finalOnes({ how }: DiskFault, log: string): string[] {
  const calls = existsSync(log) ? readFileSync(log, 'utf8').split('\n') : [];
  return calls.filter((line, i) => {
    if (how === 'lies' || !line.includes('(INJECTED)')) return false;
    const [, call, path = ''] = CALL.exec(line) ?? [];
    if (how === 'EIO') return true;
    return call !== 'pwrite64' && !(path.endsWith('.new') && isThrownAway(path, calls.slice(i + 1)));
  });
}

/** A call was made to fail. */
export function wasHit(log: string): boolean {
  return existsSync(log) && readFileSync(log, 'utf8').includes('(INJECTED)');
}

/** What is done next to a file is that it is removed. */
function isThrownAway(path: string, later: readonly string[]): boolean {
  return later.find(line => line.includes(basename(path)))?.includes('unlink(') === true;
}

export async function runFailing(seed: number): Promise<FailingFigures> {
  const options = failingOptions(seed);
  const run = new FailingRun(seed, options);
  const history = () => ({ intents: run.ledger.intents, handled: [...run.ledger.handled], log: run.logs });
  await withEvidence(
    { suite: 'disk', part: 'failing', seed, options, history },
    folder => run.run(folder),
    () => run.end(),
  );
  return run.figures();
}

class FailingRun {
  readonly ledger = new Ledger();
  readonly logs: string[] = [];
  readonly #options: FailingOptions;
  readonly #random: () => number;
  readonly #clients: BroadcastClient[] = [];
  /** Why those left the server with the fault who were on it. */
  readonly #left: Promise<Error | undefined>[] = [];
  #server: StoreProcess | undefined;
  #outcome: FailingOutcome = 'not reached';
  #forgotten = 0;
  #lost: readonly string[] = [];

  constructor(seed: number, options: FailingOptions) {
    this.#options = options;
    this.#random = seeded(seed);
  }

  figures(): FailingFigures {
    const { call, how } = this.#options.fault;
    return {
      outcome: this.#outcome,
      fault: `${call} ${how}`,
      messages: this.ledger.intents.length,
      forgotten: this.#forgotten,
      named: this.#lost.length,
    };
  }

  async run(folder: string): Promise<void> {
    const { fault, segmentBytes, bursts, prelude } = this.#options;
    const trace = join(folder, 'strace.log');
    const store = { directory: join(folder, 'data'), segmentBytes, reserveBytes: 0 };
    const env = { UV_THREADPOOL_SIZE: '1' };
    if (prelude > 0) await this.#prelude(store, prelude);
    const port = this.#server?.port ?? 0;
    await this.#start(() => StoreProcess.start({ store, port }, underStrace(fault, trace), env), { store, port });
    if (prelude === 0) this.#connect();
    const traffic = this.#traffic(bursts - prelude);
    await this.#suffer(trace, traffic);
    await this.#again({ store, port: this.#port }, this.#outcome, trace);
    await traffic;
    await this.#drain();
    this.#judge();
  }

  /** Until the server has stopped, or the messages are sent: then nothing may have happened for which it must stop. */
  async #suffer(trace: string, traffic: Promise<void>): Promise<void> {
    // It goes on without a fault, and everything is as usual.
    if (this.#outcome === 'refused to start') return traffic;
    const failed = this.#failed().then(() => true);
    let isFailed = await Promise.race([failed, traffic.then(() => false)]);
    const [final] = finalOnes(this.#options.fault, trace);
    if (!isFailed && final !== undefined) isFailed = await Promise.race([failed, after(SAYS_SO_MS)]);
    if (isFailed) {
      this.#outcome = 'fail-stop';
      await this.#isStopped();
    } else if (final !== undefined) throw new Error(`this failed, and the server went on: ${final}`);
    else if (wasHit(trace)) this.#outcome = 'went on';
  }

  /** A server that cannot start says why with a code, and has not harmed what is there. */
  async #start(start: () => Promise<StoreProcess>, options: StoreOptions): Promise<void> {
    try {
      this.#server = await start();
    } catch (error) {
      const { code } = error as { code?: string };
      if (code !== 'store-unreadable' && code !== 'store-failed') throw error;
      this.#outcome = 'refused to start';
      this.#server = await StoreProcess.start(options);
    }
  }

  get #port(): number {
    return this.#server?.port as number;
  }

  #client(name: string): BroadcastClient {
    const config = { host: '127.0.0.1', port: this.#port, reconnectInterval: 20, logger: recordingLogger() };
    const client = new BroadcastTcpClient(config, name);
    this.#clients.push(client);
    void client.connect();
    return client;
  }

  /** The sender and a receiver, who notice why they lose this server. */
  #connect(): void {
    this.#client('sender');
    this.#client('here').onMessage('room', this.ledger.handlerOf('here'));
    this.#clients.forEach(client => this.#notice(client));
  }

  #notice(client: BroadcastClient): void {
    client.once('online', () => this.#left.push(new Promise(resolve => client.once('offline', resolve))));
  }

  /** A server without the fault, with something in its store when it is killed. */
  async #prelude(store: DiskEngineOptions, bursts: number): Promise<void> {
    this.#server = await StoreProcess.start({ store, port: 0 });
    this.#connect();
    await this.#traffic(bursts);
    await this.#server.kill();
    await Promise.all(this.#left.splice(0));
    this.#clients.forEach(client => this.#notice(client));
  }

  async #failed(): Promise<void> {
    await this.#server?.saw('engineError').catch(() => new Promise<never>(() => undefined));
  }

  /** Some for a name that is away, some for one that is here, some for both. */
  async #traffic(bursts: number): Promise<void> {
    const [sender] = this.#clients as [BroadcastClient];
    const targets: Target[] = [
      { client: 'away', expected: ['away'] },
      { channel: 'room', expected: ['here'] },
      { client: 'away', channel: 'room', expected: ['away', 'here'] },
    ];
    for (let burst = 0; burst < bursts && this.#outcome !== 'fail-stop'; burst++) {
      for (let i = Math.floor(this.#random() * 8); i >= 0; i--)
        this.ledger.send(sender, targets[Math.floor(this.#random() * 3)]!, Math.floor(this.#random() ** 3 * 20 * KIB));
      await this.ledger.untilSettled();
    }
  }

  /**
   * Fail-stop: everybody is told why, nobody gets in, the process is there to say so. That nothing was acknowledged which
   * the failed call was for shows when what was not synced is taken away.
   */
  async #isStopped(): Promise<void> {
    for (const reason of await Promise.all(this.#left)) {
      const { code } = (reason ?? {}) as { code?: string };
      if (code !== 'store-failed') throw new Error(`a client heard ${String(code)} and not store-failed`);
    }
    await refuses(this.#port);
    await this.#server?.look();
    if (!this.logged('the store has failed')) throw new Error('the log does not say that the store has failed');
  }

  logged(text: string): boolean {
    return this.#server?.log.some(line => line.includes(text)) ?? false;
  }

  /** Without the fault: after a failure or a kill with what was synced and perhaps more, else in good order. */
  async #again(options: StoreOptions, outcome: FailingOutcome, trace: string): Promise<void> {
    const { how } = this.#options.fault;
    if (outcome !== 'fail-stop' && (how === 'lies' || this.#random() < 0.5)) await this.#server?.stop();
    else {
      const pid = await this.#server?.kill();
      if (pid !== undefined && outcome !== 'refused to start')
        this.#forgotten = await forgetUnsynced(trace, pid, this.#random);
    }
    this.logs.push(...(this.#server?.log ?? []));
    this.#server = await StoreProcess.start(options);
  }

  /** Everything that was sent before the last message has arrived before it. */
  async #drain(): Promise<void> {
    const [sender] = this.#clients as [BroadcastClient];
    const last = this.ledger.send(sender, { client: 'away', channel: 'room', expected: ['away', 'here'] }, 10);
    this.#client('away').onMessage(this.ledger.handlerOf('away'));
    await this.ledger.until(
      () => this.ledger.has('away', last.n) && this.ledger.has('here', last.n),
      'the last one came',
    );
    await this.ledger.untilSettled();
    // Behind it nothing comes any more; what did all the same has come before the answer to this.
    await Promise.all(this.#clients.map(client => client.flush()));
    this.logs.push(...(this.#server?.log ?? []));
  }

  /** A disk that said that it has written what it has not may cost messages, but never without a word. */
  #judge(): void {
    const wrong = this.ledger.wrong();
    this.#lost = this.ledger.lost();
    const isNamed = this.#options.fault.how === 'lies' && this.logs.some(line => line.includes('damaged'));
    if (!isNamed) wrong.push(...this.#lost);
    if (wrong.length > 0) throw new Error(`${wrong.length} promises were broken:\n${wrong.slice(0, 10).join('\n')}`);
  }

  async end(): Promise<void> {
    await this.#server?.kill();
    await Promise.all(this.#clients.map(client => client.close({ timeout: 0 }).catch(() => undefined)));
  }
}

async function after(ms: number): Promise<false> {
  await new Promise(resolve => setTimeout(resolve, ms));
  return false;
}

/** Connections to it are refused; one that came in before it stopped listening is ended. */
async function refuses(port: number): Promise<void> {
  for (;;) {
    const socket = connect(port, '127.0.0.1');
    const code = await new Promise<string>(resolve => {
      socket.once('error', error => resolve((error as NodeJS.ErrnoException).code ?? 'error'));
      socket.once('close', () => resolve('ended'));
      socket.resume();
    });
    if (code === 'ECONNREFUSED') return;
  }
}
