/**
 * One run of a server whose disk is full: its store lies on a small tmpfs. A sender fills it with messages for a name that
 * is away, is told so, and goes on with a receiver that is here; then the one who was away comes, and there is room again.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { BroadcastTcpClient, type BroadcastClient, type DeliveryFailure, type Receipt } from '../../src/index.js';
import { seeded } from '../helpers/seeded.cjs';
import { recordingLogger } from '../helpers/scene.js';
import { withEvidence } from './evidence.js';
import { Ledger } from './ledger.js';
import { StoreProcess, type StoreOptions } from './store-process.js';

const KIB = 1024;
const MIB = 1024 * KIB;

interface FullOptions {
  readonly diskBytes: number;
  readonly segmentBytes: number;
  readonly reserveBytes: number;
  readonly messageBytes: number;
  /** Somebody else's file takes what is left, reserve included. */
  readonly stranger: boolean;
  /** The server is killed while the disk is full, and must start on it. */
  readonly killed: boolean;
}

/** What one run has seen. */
export interface FullFigures {
  readonly messages: number;
  readonly stored: number;
  readonly refused: number;
  readonly fillings: number;
  /** A stranger's file had to go before what was accepted could be stored, and what waits behind it acknowledged. */
  readonly stuck: number;
}

/** So many refusals in a row are a full disk; then so many more messages are sent to who is here. */
const REFUSALS = 20;
const MEANWHILE = 50;
/** So many are a recovery: a single one may have found a place that was left. */
const STORED_AGAIN = 20;

export function canMount(): boolean {
  return process.platform === 'linux' && process.getuid?.() === 0 && spawnSync('mount', ['-V']).status === 0;
}

export function fullOptions(seed: number): FullOptions {
  const random = seeded(seed);
  const pick = (all: readonly number[]): number => all[Math.floor(random() * all.length)]!;
  return {
    diskBytes: pick([6, 8, 12]) * MIB,
    segmentBytes: pick([256, 512, 1024]) * KIB,
    reserveBytes: pick([512, 1024, 2048]) * KIB,
    messageBytes: pick([4, 16, 60]) * KIB,
    stranger: seed % 3 === 0,
    killed: seed % 2 === 0,
  };
}

export async function runFull(seed: number): Promise<FullFigures> {
  const options = fullOptions(seed);
  const run = new FullRun(options);
  await withEvidence(
    { suite: 'disk', part: 'full', seed, options, history: () => run.history() },
    folder => run.run(join(folder, 'disk')),
    folder => run.end(join(folder, 'disk')),
  );
  return run.figures();
}

class FullRun {
  readonly #options: FullOptions;
  readonly #ledger = new Ledger();
  readonly #clients: BroadcastClient[] = [];
  readonly #logs: string[] = [];
  /** Final notices, as the sender heard them. */
  readonly #notices: DeliveryFailure[] = [];
  #server: StoreProcess | undefined;
  #fillings = 0;
  #stuck = 0;

  constructor(options: FullOptions) {
    this.#options = options;
  }

  figures(): FullFigures {
    const [stored, refused] = [this.#ledger.counted('stored'), this.#ledger.counted('undelivered')];
    return { messages: this.#ledger.intents.length, stored, refused, fillings: this.#fillings, stuck: this.#stuck };
  }

  history(): unknown {
    return {
      intents: this.#ledger.intents,
      handled: [...this.#ledger.handled],
      log: [...this.#logs, ...(this.#server?.log ?? [])],
    };
  }

  async run(disk: string): Promise<void> {
    const { diskBytes, segmentBytes, reserveBytes, killed, stranger } = this.#options;
    mkdirSync(disk);
    mount(disk, diskBytes);
    const store = { directory: join(disk, 'data'), segmentBytes, reserveBytes };
    this.#server = await StoreProcess.start({ store, port: 0 });
    const sender = this.#client('sender');
    sender.onDeliveryFailure(failure => failure.final && this.#notices.push(failure));
    this.#client('here').onMessage('room', this.#ledger.handlerOf('here'));
    await Promise.all(this.#clients.map(client => client.connect()));

    const other = join(disk, 'of-somebody-else');
    await this.#fill(sender, 'away', stranger ? other : undefined);
    await this.#goesOn(sender);
    if (killed) await this.#again({ store, port: this.#server.port });
    // What was accepted and has no room any more is in front of what makes room (docs/store-format.md).
    const isStuck = !killed && this.#ledger.settled < this.#ledger.intents.length;
    if (stranger && isStuck) {
      this.#stuck++;
      rmSync(other);
    }
    await this.#consume('away');
    if (stranger && !isStuck) rmSync(other);
    await this.#recovers(sender, 'later');
    await this.#fill(sender, 'later', undefined);
    await this.#again({ store, port: this.#server.port });
    await this.#consume('later');
    await this.#recovers(sender, 'last');
    await this.#consume('last');
    await this.#judge(sender);
  }

  #client(name: string): BroadcastClient {
    const { port } = this.#server as StoreProcess;
    const config = { host: '127.0.0.1', port, reconnectInterval: 20, logger: recordingLogger() };
    const client = new BroadcastTcpClient(config, name);
    this.#clients.push(client);
    return client;
  }

  #send(sender: BroadcastClient, name: string): { readonly receipt: Receipt | Error | undefined } {
    return this.#ledger.send(sender, { client: name, expected: [name] }, this.#options.messageBytes);
  }

  /** Until it is refused so many times in a row. A stranger takes what is left when a third of it is full. */
  async #fill(sender: BroadcastClient, name: string, stranger: string | undefined): Promise<void> {
    const { diskBytes, messageBytes } = this.#options;
    const most = Math.ceil((4 * diskBytes) / messageBytes);
    let pending = stranger;
    let refused = 0;
    for (let sent = 0; refused < REFUSALS;) {
      const some = Array.from({ length: 8 }, () => this.#send(sender, name));
      sent += some.length;
      if (sent > most) throw new Error(`${sent} messages of ${messageBytes} bytes and the disk is not full`);
      const answered = (): boolean => some.every(({ receipt }) => receipt !== undefined);
      if (pending !== undefined && sent * messageBytes > diskBytes / 3) {
        fillUp(pending);
        pending = undefined;
      }
      // What was accepted while somebody else took the room waits for it, and nothing says that it is safe. In some runs no more
      // comes, and there is room for acknowledgements; in the others it is pressed on until somebody is refused.
      if (stranger !== undefined && pending === undefined)
        return this.#options.killed ? undefined : this.#refusesMore(sender, name);
      await this.#ledger.until(answered, 'the disk took or refused a message');
      for (const { receipt } of some) refused = isRefusal(receipt) ? refused + 1 : 0;
    }
    this.#fillings++;
  }

  /** What was accepted before somebody else took the room waits for it, untold; who sends more is told that there is none. */
  async #refusesMore(sender: BroadcastClient, name: string): Promise<void> {
    const { diskBytes, messageBytes } = this.#options;
    const before = this.#ledger.counted('undelivered');
    for (let sent = 0; this.#ledger.counted('undelivered') < before + REFUSALS; sent++) {
      if (sent * messageBytes > 4 * diskBytes) throw new Error('the disk is full, and nobody is told');
      this.#send(sender, name);
      await this.#server?.look();
    }
    this.#fillings++;
  }

  /** What is for those who are here does not feel it. */
  async #goesOn(sender: BroadcastClient): Promise<void> {
    for (let i = 0; i < MEANWHILE; i++) {
      const { n } = this.#ledger.send(sender, { channel: 'room', expected: ['here'] }, 100);
      if (i === MEANWHILE - 1)
        await this.#ledger.until(() => this.#ledger.has('here', n), 'who is here had its messages');
    }
    const { address } = (await this.#server?.look()) ?? {};
    if (address === null) throw new Error('the server does not listen any longer');
  }

  /** Whoever was away comes back to a full disk, and gets what is safe. */
  async #consume(name: string): Promise<void> {
    const client = this.#client(name);
    client.onMessage(this.#ledger.handlerOf(name));
    await client.connect();
    const { intents } = this.#ledger;
    const isDone = ({ n, expected, receipt }: (typeof intents)[number]): boolean =>
      !expected.includes(name) || receipt === undefined || isRefusal(receipt) || this.#ledger.has(name, n);
    let done = 0;
    const areDone = (): boolean => {
      for (let next = intents[done]; next !== undefined && isDone(next); next = intents[done]) done++;
      return done === intents.length;
    };
    await this.#ledger.until(areDone, `${name} had what was safe`);
  }

  /** By itself, once there is room: tries until some messages are stored, for which there was none. */
  async #recovers(sender: BroadcastClient, name: string): Promise<void> {
    await this.#ledger.untilSettled();
    const end = performance.now() + 30_000;
    for (let stored = 0; stored < STORED_AGAIN;) {
      const sent = this.#send(sender, name);
      await this.#ledger.until(() => sent.receipt !== undefined, 'the disk took or refused a message');
      if (!isRefusal(sent.receipt)) {
        stored++;
        continue;
      }
      if (performance.now() > end) throw new Error('there is room for half a minute, and messages are still refused');
      await new Promise(resolve => setTimeout(resolve, 20));
    }
  }

  async #again(options: StoreOptions): Promise<void> {
    await this.#server?.kill();
    this.#logs.push(...(this.#server?.log ?? []));
    this.#server = await StoreProcess.start(options);
  }

  async #judge(sender: BroadcastClient): Promise<void> {
    await this.#ledger.untilSettled();
    await Promise.all(this.#clients.map(client => client.flush()));
    const wrong = [...this.#ledger.wrong(), ...this.#ledger.lost()];
    for (const { n, receipt } of this.#ledger.intents) {
      const { status, durability, failures } = receipt as Receipt;
      if (status === 'stored' && durability !== 'fsync') wrong.push(`${n} is stored with ${durability}`);
      if (status !== 'undelivered') continue;
      const isClear = failures.some(({ reason, final, queued }) => reason === 'queue-full' && final && !queued);
      if (!isClear) wrong.push(`${n} was refused with ${JSON.stringify(failures)}`);
    }
    const told = this.#notices.reduce((sum, { count = 1 }) => sum + count, 0);
    const refused = this.#ledger.counted('undelivered');
    if (told !== refused) wrong.push(`${refused} were refused, and ${told} final notices came`);
    if (this.#notices.some(({ reason }) => reason !== 'queue-full')) wrong.push('a notice gives another reason');
    if (sender.outbox.messages > 0) wrong.push('something stays in the outbox');
    if (wrong.length > 0) throw new Error(`${wrong.length} promises were broken:\n${wrong.slice(0, 10).join('\n')}`);
  }

  async end(disk: string): Promise<void> {
    await this.#server?.kill();
    await Promise.all(this.#clients.map(client => client.close({ timeout: 0 }).catch(() => undefined)));
    unmount(disk);
  }
}

function isRefusal(receipt: Receipt | Error | undefined): boolean {
  return receipt !== undefined && !(receipt instanceof Error) && receipt.status === 'undelivered';
}

/** A small disk. */
export function mount(folder: string, bytes: number): void {
  const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', folder]);
  if (status !== 0) throw new Error(`a tmpfs cannot be mounted: ${String(stderr)}`);
}

export function unmount(folder: string): void {
  spawnSync('umount', ['-l', folder]);
}

/** Writes until nothing is left. */
function fillUp(path: string): void {
  const file = openSync(path, 'w');
  for (let size = 64 * KIB; size >= KIB;) {
    try {
      writeSync(file, Buffer.alloc(size));
    } catch {
      size /= 2;
    }
  }
  closeSync(file);
}
