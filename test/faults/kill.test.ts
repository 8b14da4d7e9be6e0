/**
 * kill -9 of server, senders and receivers at random moments under load, with a bias to those that matter: a sync under
 * way, a change of segment, reclaiming, start-up, and recovery from the kill before. A run of the long form is one kill;
 * the oracle judges 25 of them together.
 */
import { expect, it } from 'vitest';
import type { Part } from './oracle/part.js';
import { play, RECIPIENTS, type Recipient, type Scenario } from './oracle/scenario.js';
import { Tally } from './oracle/tally.js';
import { extentOf, report, seedsOf, timeoutOf } from './suite.js';

/** Kills that one scenario sees, about. */
const KILLS = 25;
/** These are never killed: what a living process is promised is seen in them. */
const SPARED = ['steady', 'first'];
/** So many messages are handled while a file operation is waited for at which the server kills itself. */
const PATIENCE = 300;
/** And for one that belongs to a segment, of which there is one for every hundred messages or so. */
const LONG_PATIENCE = 1500;
/** From so many kills on, each kind of file operation must have been hit. */
const MANY = 500;

/** A file operation of the server, and where it is hit. */
interface Trap {
  readonly kind: string;
  readonly passing: number;
  readonly moment: 'before' | 'during' | 'after';
}

/** File operations under load: writes and syncs of groups, segments that come, and where the log is mostly dead, go. */
const FILLING = ['sync', 'sync', 'sync', 'write', 'create', 'rename', 'rename', 'sync-directory'];
const RUNNING = [...FILLING, 'unlink', 'unlink', 'unlink', 'unlink', 'unlink', 'unlink'];
/** And of a recovery, which cuts a tail, and makes the segment that is written on. Each is made once or not at all. */
const RECOVERING = [
  'open',
  'write',
  'sync',
  'truncate',
  'truncate',
  'truncate',
  'create',
  'rename',
  'rename',
  'sync-directory',
];
/** Segments come and go much more rarely than groups are written: the next time. */
const RARE = ['create', 'rename', 'unlink', 'sync-directory', 'truncate'];

const whileRunning = (kind: string): string => `of the server, at ${kind}`;
const whileRecovering = (kind: string): string => `of the server, at ${kind} while it recovers`;

class Killer {
  readonly #scenario: Scenario;
  readonly #tally: Tally;
  readonly #running: readonly string[];
  #kills = 0;

  /** `running`: kinds of file operations to wait for under load. */
  constructor(scenario: Scenario, tally: Tally, running: readonly string[]) {
    this.#scenario = scenario;
    this.#tally = tally;
    this.#running = running;
  }

  async run(): Promise<void> {
    let [quiet, faults] = [0, 0];
    while (this.#kills < KILLS) {
      const begin = performance.now();
      // About a quarter of the time without faults, or nothing ever gets well.
      if (quiet <= faults / 3) {
        await this.#scenario.progress(100);
        quiet += performance.now() - begin;
      } else {
        await this.#strike();
        faults += performance.now() - begin;
      }
    }
  }

  get #random(): () => number {
    return this.#scenario.random;
  }

  #one<T>(all: readonly T[]): T {
    return all[Math.floor(this.#random() * all.length)] as T;
  }

  #note(what: string): void {
    this.#kills++;
    this.#tally.add('kills');
    this.#tally.add(`kills ${what}`);
    this.#scenario.note(`kill ${what}`);
  }

  /** The server, clients, or both at a time. */
  async #strike(): Promise<void> {
    const luck = this.#random();
    await Promise.all([luck < 0.8 ? this.#strikeServer() : undefined, luck > 0.4 ? this.#strikeClients() : undefined]);
  }

  // ---- the server --------------------------------------------------------------------------------------------------------

  async #strikeServer(): Promise<void> {
    const { server } = this.#scenario;
    if (this.#random() < 0.25) {
      await pause(this.#random() * 100);
      await server.kill();
      this.#note('of the server, at any time');
    } else {
      const trap = this.#trap(this.#running, 2);
      server.tell({ type: 'trap', trap });
      // Whatever fails meanwhile, the scenario knows.
      const patience = RARE.includes(trap.kind) ? LONG_PATIENCE : PATIENCE;
      const enough = this.#scenario.progress(patience).catch(() => undefined);
      await Promise.race([server.ended(), enough]);
      const isCaught = !server.isRunning;
      await server.kill();
      this.#note(isCaught ? whileRunning(trap.kind) : 'of the server, at any time');
    }
    while (this.#random() < 0.35) await this.#strikeRecovery();
    await this.#scenario.startServer();
  }

  #trap(kinds: readonly string[], most: number): Trap {
    const kind = this.#one(kinds);
    return {
      kind,
      passing: RARE.includes(kind) ? 0 : Math.floor(this.#random() * most),
      moment: this.#one(['before', 'during', 'after']),
    };
  }

  /** The server is started, and killed before it is ready, or just then. */
  async #strikeRecovery(): Promise<void> {
    const { server } = this.#scenario;
    const luck = this.#random();
    const trap = luck < 0.6 ? this.#trap(RECOVERING, 3) : undefined;
    if (trap !== undefined) await this.#scenario.startServer({ trap });
    else {
      server.start();
      if (luck < 0.9) await server.saw('opening');
      await pause(this.#random() * 50);
    }
    const isCaught = trap !== undefined && !server.isRunning;
    const isReady = server.hasSaid('listening');
    await server.kill();
    if (isCaught) this.#note(whileRecovering(trap.kind));
    else this.#note(isReady ? 'of the server, just after its start' : 'of the server, while it starts or recovers');
  }

  // ---- clients -----------------------------------------------------------------------------------------------------------

  async #strikeClients(): Promise<void> {
    const { present, senders } = this.#scenario;
    const victims = [...present, ...senders].filter(({ label }) => !SPARED.includes(label));
    const count = 1 + Math.floor(this.#random() * 3);
    const chosen = new Set(Array.from({ length: count }, () => this.#one(victims)));
    await Promise.all(
      [...chosen].map(part => this.#strikeClient(part, senders.includes(part) ? 'sender' : 'receiver')),
    );
  }

  async #strikeClient(part: Part, role: string): Promise<void> {
    const { random } = this.#scenario;
    await pause(random() * 100);
    await part.kill();
    this.#note(`of a ${role}`);
    part.start();
    if (random() > 0.2) return;
    await pause(random() * 150);
    await part.kill();
    this.#note(`of a ${role}, while it starts`);
    part.start();
  }
}

function pause(ms: number): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, ms));
}

const isMostlyDead = (seed: number): boolean => seed % 2 !== 0;

/**
 * Where much waits for who is away, segments are written and recovered; where little does, the log is mostly dead, and
 * segments are given back whose last messages are written again; where nothing does, they are given back all the time.
 */
function recipientsFor(seed: number): readonly Recipient[] {
  if (!isMostlyDead(seed)) return RECIPIENTS;
  const own = seed % 4 === 1;
  return RECIPIENTS.map(one => (one.away === undefined ? one : { ...one, channels: [], own }));
}

const extent = extentOf({ runs: 50 });

it(
  'kill -9 of anybody loses nothing that was safe, repeats nothing in a living process, and keeps the order',
  async () => {
    const tally = new Tally();
    for (const seed of seedsOf({ ...extent, runs: Math.ceil(extent.runs / KILLS) })) {
      const options = { suite: 'kill', seed, server: { segmentBytes: 32 * 1024 }, recipients: recipientsFor(seed) };
      const running = isMostlyDead(seed) ? RUNNING : FILLING;
      const verdict = await play(options, scenario => new Killer(scenario, tally, running).run());
      tally.addVerdict(verdict);
      tally.add('scenarios');
    }
    report('kill', extent, tally.figures);
    const kills = tally.count('kills');
    expect(kills).toBeGreaterThanOrEqual(extent.isShort ? extent.runs : 1);
    const kinds = new Set([...RUNNING.map(whileRunning), ...RECOVERING.map(whileRecovering)]);
    const missed = [...kinds].filter(kind => tally.count(`kills ${kind}`) === 0);
    if (kills >= MANY) expect(missed, `kinds that ${String(kills)} kills have not hit`).toEqual([]);
  },
  timeoutOf(extent),
);
