/**
 * A server in a process whose wall clock is set while it runs, by libfaketime; its monotonic clock, and with it its
 * timers, go on. Its messages wait through jumps either way and restarts, and expire when their time is over, never before.
 */
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BroadcastMessage, BroadcastTcpClient, type BroadcastClient } from '../../src/index.js';
import { seeded } from '../helpers/seeded.cjs';
import { Inbox, recordingLogger } from '../helpers/scene.js';
import { withEvidence } from './evidence.js';
import { StoreProcess } from './store-process.js';
import { within } from './suite.js';

const LIBRARIES = '/usr/lib';

/** The library, where Debian and its like put it. */
export function findFaketime(): string | undefined {
  if (process.platform !== 'linux') return undefined;
  const folders = readdirSync(LIBRARIES).map(name => join(LIBRARIES, name, 'faketime'));
  return folders.map(folder => join(folder, 'libfaketimeMT.so.1')).find(path => existsSync(path));
}

/** Sets the wall clock of processes that are given its `env`. */
class SetClock {
  readonly env: NodeJS.ProcessEnv;
  readonly #file: string;

  constructor(library: string, folder: string) {
    this.#file = join(folder, 'offset');
    this.set(0);
    this.env = {
      LD_PRELOAD: library,
      FAKETIME_TIMESTAMP_FILE: this.#file,
      FAKETIME_NO_CACHE: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
    };
  }

  /** So many milliseconds ahead of the real clock. */
  set(ahead: number): void {
    const seconds = Math.round(ahead / 1000);
    writeFileSync(this.#file, `${seconds < 0 ? '-' : '+'}${String(Math.abs(seconds))}s\n`);
  }
}

const HOUR = 60 * 60 * 1000;
const DAY = 24 * HOUR;
const MINUTE = 60 * 1000;
/** Real time in which the server does what it must do at once. */
const SECONDS = 30;

export interface FaketimeFigures {
  readonly jumps: number;
  readonly messages: number;
  readonly expired: number;
}

/** One server, jumped in an order that the seed says. */
export async function runFaketime(seed: number, library: string): Promise<FaketimeFigures> {
  const run = new FaketimeRun(seed);
  const history = () => ({ handled: run.handled, expired: run.expired.items });
  await withEvidence(
    { suite: 'time', part: 'faketime', seed, options: {}, history },
    folder => run.run(folder, library),
    () => run.end(),
  );
  return { jumps: run.jumps, messages: run.messages.length, expired: run.expired.items.length };
}

class FaketimeRun {
  readonly messages: BroadcastMessage[] = [];
  readonly handled: string[] = [];
  readonly expired = new Inbox<string>();
  jumps = 0;
  readonly #random: () => number;
  readonly #clients: BroadcastClient[] = [];
  #server: StoreProcess | undefined;
  #lost = 0;

  constructor(seed: number) {
    this.#random = seeded(seed);
  }

  async run(folder: string, library: string): Promise<void> {
    const clock = new SetClock(library, folder);
    const start = async (port: number): Promise<StoreProcess> => {
      const options = { port, dataDir: join(folder, 'data'), pingInterval: 500, deadAfter: 10_000 };
      return (this.#server = await StoreProcess.start(options, [], clock.env));
    };
    let server = await start(0);
    const sender = await this.#connect('sender');
    const here = await this.#connect('here', message => void this.handled.push(`here ${message.id}`));
    sender.onDeliveryFailure(({ final, messageId, count }) => {
      if (final) for (let n = count ?? 1; n > 0; n--) this.expired.push(messageId);
    });
    for (const client of [sender, here]) client.on('offline', () => this.#lost++);
    const late = await this.#keep(sender, [HOUR, 12 * HOUR]);
    const kept = await this.#keep(sender, [3 * DAY, undefined]);
    for (const jump of shuffled([HOUR, -HOUR, DAY, -DAY], this.#random)) {
      clock.set(jump);
      this.jumps++;
      await this.#isSet(server, jump);
      const set = `with a clock that is set by ${String(jump / HOUR)} h`;
      await within(SECONDS, this.#delivers(sender), () => `a message was not delivered, ${set}`);
      await within(SECONDS, this.#expiresSoon(sender), () => `a message for 200 ms has not expired, ${set}`);
      kept.push(...(await this.#keep(sender, [3 * DAY])));
    }
    if (this.#lost > 0) throw new Error('a connection was lost when the clock was set');
    // Set back by a day while it is down, which counts as nothing; then by a year, which counts as a day.
    for (const jump of [-2 * DAY, 365 * DAY]) {
      const back = new Promise<void>(resolve => sender.once('online', resolve));
      const { port } = server;
      if (this.expired.items.length !== 4) throw new Error('something expired before its time');
      await server.stop();
      clock.set(jump);
      this.jumps++;
      server = await start(port);
      await this.#isSet(server, jump);
      await within(SECONDS, back, () => 'the sender is not back');
      await sender.flush();
    }
    const untold = (): string => `${String(this.expired.items.length)} of ${String(4 + late.length)} have expired`;
    const gone = await within(SECONDS, this.expired.reached(4 + late.length), untold);
    await this.#judge(late, kept, gone);
  }

  async #connect(name: string, handler?: (message: BroadcastMessage) => void): Promise<BroadcastClient> {
    const { port } = this.#server as StoreProcess;
    const config = { host: '127.0.0.1', port, reconnectInterval: 20, logger: recordingLogger() };
    const client = new BroadcastTcpClient(config, name);
    this.#clients.push(client);
    if (handler !== undefined) client.onMessage(handler);
    await client.connect();
    return client;
  }

  async #isSet(server: StoreProcess, ahead: number): Promise<void> {
    const { clock = 0 } = await server.look();
    if (Math.abs(clock - Date.now() - ahead) > MINUTE) throw new Error('the clock of the server was not set');
  }

  #message(to: string, ttl: number | undefined): BroadcastMessage {
    const message = BroadcastMessage.createClientMessage(to, this.messages.length, ttl === undefined ? {} : { ttl });
    this.messages.push(message);
    return message;
  }

  async #keep(sender: BroadcastClient, ttls: readonly (number | undefined)[]): Promise<string[]> {
    const messages = ttls.map(ttl => this.#message('away', ttl));
    for (const message of messages) {
      const { status } = await sender.sendMessage(message);
      if (status !== 'stored') throw new Error(`a message for who is away is ${status}`);
    }
    return messages.map(({ id }) => id);
  }

  async #delivers(sender: BroadcastClient): Promise<void> {
    const message = this.#message('here', HOUR);
    await sender.sendMessage(message, { until: 'delivered' });
    if (!this.handled.includes(`here ${message.id}`)) throw new Error('a message for who is here was not handled');
  }

  /** Whatever the wall clock shows, its time is over after some milliseconds. */
  async #expiresSoon(sender: BroadcastClient): Promise<void> {
    const before = this.expired.items.length;
    const message = this.#message('nobody', 200);
    await sender.sendMessage(message);
    const [id] = (await this.expired.reached(before + 1)).slice(before);
    if (id !== message.id) throw new Error('another message expired than the one whose time was over');
  }

  async #judge(late: readonly string[], kept: readonly string[], gone: readonly string[]): Promise<void> {
    const all = new Inbox<string>();
    await this.#connect('away', message => all.push(message.id));
    const missing = (): string => `${String(all.items.length)} of ${String(kept.length)} that have time left came`;
    const found = await within(SECONDS, all.reached(kept.length), missing);
    await (this.#clients.at(-1) as BroadcastClient).flush();
    if (found.join() !== kept.join() || all.items.length !== kept.length)
      throw new Error(`${String(all.items.length)} of ${String(kept.length)} that had time left came, or not in order`);
    if (gone.slice(4).sort().join() !== late.slice().sort().join()) throw new Error('others expired than those due');
    if (new Set(this.messages.map(({ id }) => id)).size !== this.messages.length) throw new Error('an id came twice');
  }

  async end(): Promise<void> {
    await Promise.all(this.#clients.map(client => client.close({ timeout: 0 }).catch(() => undefined)));
    await this.#server?.kill();
  }
}

function shuffled<T>(all: readonly T[], random: () => number): T[] {
  return all
    .map(one => ({ one, at: random() }))
    .sort((a, b) => a.at - b.at)
    .map(({ one }) => one);
}
