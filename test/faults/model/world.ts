/**
 * The real parts: a server on one of the engines, clients on lines of their own, one clock for all of them. What is done
 * here is done to the model as well. Everything runs in this process, over Unix sockets and a simulated disk, so that it
 * comes to rest within a few turns of the event loop: then nothing is on its way that is not held back.
 */
import { setImmediate as turn } from 'node:timers/promises';
import {
  BroadcastMessage,
  BroadcastTcpServer,
  type BroadcastServer,
  type Logger,
  type MessageOptions,
} from '../../../src/index.js';
import { diskEngine } from '../../../src/engine/disk/disk-engine.js';
import { memoryEngine } from '../../../src/engine/memory/memory-engine.js';
import type { TestClock } from '../../../src/testing/index.js';
import { SimulatedDisk } from '../../helpers/simulated-files.js';
import { Line } from './line.js';
import { Member } from './member.js';
import { GRACE, type Model, type Shape } from './model.js';
import type { Processes } from './processes.js';

const silent = (): void => undefined;
export const QUIET: Logger = { debug: silent, info: silent, warn: silent, error: silent };

/** Everything rests when so many turns have changed nothing. */
const QUIET_TURNS = 8;
/** Time passes in pieces of this at most, so that both ends hear each other's heartbeat. */
const PIECE = 5000;
/** After so long a client has tried again to connect. */
const RECONNECTED = 1250;
/** A client that closes is given so long. */
const LEAVING = 1000;
/** Messages in hand at most: with few of them much waits. */
const WINDOWS = [1, 2, 8];

export type End = 'stopped' | 'killed' | 'power cut';

export class World {
  readonly clock: TestClock;
  readonly model: Model;
  readonly members: Member[] = [];
  readonly #path: string;
  readonly #processes: Processes;
  readonly #random: () => number;
  readonly #window: number;
  #disk = new SimulatedDisk();
  #activity = 0;
  #server: BroadcastServer | undefined;
  /** The client that introduces itself, and those that have, by the ids of their instances. */
  #speaker: Member | undefined;
  readonly #instances = new Map<string, Member>();
  readonly counts = { restarts: 0, crashes: 0 };

  /** Sockets are at `path`, and more of them beside it; `random` decides how large windows are, and what a power cut leaves. */
  constructor(model: Model, clock: TestClock, path: string, processes: Processes, random: () => number) {
    this.model = model;
    this.clock = clock;
    this.#path = path;
    this.#processes = processes;
    this.#random = random;
    this.#window = WINDOWS[Math.floor(random() * WINDOWS.length)] as number;
  }

  /** Of the server; nothing is on it in memory. */
  get disk(): SimulatedDisk {
    return this.#disk;
  }

  get server(): BroadcastServer {
    return this.#server as BroadcastServer;
  }

  // ---- time and rest ---------------------------------------------------------------------------------------------------

  readonly #stir = (): void => {
    this.#activity++;
  };

  /** Until nothing happens any more. */
  async settle(): Promise<void> {
    let before = -1;
    for (let quiet = 0, turns = 0; quiet < QUIET_TURNS; turns++) {
      if (turns > 20_000) throw new Error('it never comes to rest');
      await turn();
      const now = this.#activity + this.#disk.operations;
      quiet = now === before ? quiet + 1 : 0;
      before = now;
    }
  }

  async turns(count: number): Promise<void> {
    for (let i = 0; i < count; i++) await turn();
  }

  async pass(ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= PIECE) {
      const piece = Math.min(left, PIECE);
      // The model's time first: what happens at the end of this piece happens then.
      this.model.timePasses(piece);
      this.clock.tick(piece);
      await this.settle();
    }
  }

  // ---- the server ------------------------------------------------------------------------------------------------------

  async startServer(): Promise<void> {
    const { model } = this;
    const engine = model.isDurable
      ? diskEngine({ directory: '/store', files: this.#disk, segmentBytes: 64 * 1024, reserveBytes: 0 })
      : memoryEngine();
    const server = new BroadcastTcpServer({
      url: `unix:${this.#path}`,
      engine,
      clock: this.clock,
      logger: QUIET,
      instanceGrace: GRACE,
      limits: { windowMessages: this.#window },
    });
    // What is left of a server that was killed has no say.
    const sees = (note: () => void): void => {
      if (this.#server === server) this.#active(note);
    };
    server.onMessage(message => sees(() => model.takes(message.id)));
    server.on('failure', failure => sees(() => model.tells(failure)));
    server.on('connect', ({ instance }) => sees(() => this.#instances.set(instance, this.#speaker as Member)));
    server.on('disconnect', ({ instance }, reason) => sees(() => this.#lost(this.#instances.get(instance)!, reason)));
    server.on('engineError', error => sees(() => model.fail(`the store has failed: ${error.message}`)));
    this.#server = server;
    await server.start();
  }

  /** The server has found that a connection is gone: from now on it waits for the instance, or does not. */
  #lost(member: Member, reason: string): void {
    const { model } = this;
    if (!member.isOnline) return;
    if (member.line.isUp && reason !== 'goodbye') model.fail(`the server has sent ${member.label} away: ${reason}`);
    if (reason === 'goodbye') {
      model.retires(member);
      return;
    }
    model.loses(member);
    if (!this.#processes.lives(member.pid)) model.retires(member);
  }

  /** A promise that is broken within a callback of the library must not be swallowed by it. */
  #active(note: () => void): void {
    this.#stir();
    try {
      note();
    } catch (error) {
      this.model.fail(String(error));
    }
  }

  /** The server ends, and starts again with what is left; nobody is connected then. */
  async restart(end: End): Promise<void> {
    const old = this.server;
    this.counts[end === 'stopped' ? 'restarts' : 'crashes']++;
    if (end === 'stopped') await this.#stop(old);
    else this.#kill(end);
    this.#server = undefined;
    this.model.serverEnds();
    if (end !== 'stopped') await this.#bury(old);
    await this.startServer();
    await this.settle();
  }

  async #stop(server: BroadcastServer): Promise<void> {
    for (const { line } of this.members) if (!line.isClear) line.cut();
    for (const { line } of this.members) line.isUp = false;
    await server.stop();
    for (const { line } of this.members) line.cut();
    if (this.model.isDurable) this.#disk = this.#disk.afterKill();
    await this.settle();
  }

  /** From one instant to the next nothing of it reaches anybody. */
  #kill(end: End): void {
    for (const { line } of this.members) line.cut();
    const dead = this.#disk;
    dead.fault = () => 'power-cut';
    this.#disk = end === 'killed' ? dead.afterKill() : dead.afterPowerCut(this.#random);
  }

  /** What is left of it in this process ends, unheard. */
  async #bury(server: BroadcastServer): Promise<void> {
    const stopped = server.stop({ timeout: 1 }).catch(() => undefined);
    await this.turns(4);
    this.model.timePasses(2);
    this.clock.tick(2);
    await stopped;
    await this.settle();
  }

  // ---- clients ---------------------------------------------------------------------------------------------------------

  async join(name: string, subscriptions: readonly string[]): Promise<Member> {
    const pid = this.#processes.start();
    const index = this.members.length;
    const line = new Line(`${this.#path}.${index}`, this.#path, this.#stir);
    await line.listen();
    const count = this.members.filter(member => member.name === name).length;
    const member = new Member(this.model, this.clock, `${name}${count + 1}`, name, pid, line);
    this.members.push(member);
    for (const subscription of subscriptions) member.handle(subscription);
    line.isUp = true;
    this.#introduce(member);
    member.client.connect();
    await this.settle();
    return member;
  }

  #introduce(member: Member): void {
    this.#speaker = member;
    this.#processes.speaking = member.pid;
    this.model.attach(member, member.scripts.keys());
  }

  /** Its line is up again, and it has come back. */
  async reconnect(member: Member): Promise<void> {
    member.line.isUp = true;
    this.model.timePasses(RECONNECTED);
    this.clock.tick(RECONNECTED);
    this.#introduce(member);
    await this.settle();
  }

  /** The connection is lost. */
  lose(member: Member): void {
    member.line.cut();
  }

  /** The process dies. `seen`: the server finds that out at once. */
  async crash(member: Member, isSeen: boolean): Promise<void> {
    const wasLost = member.state === 'lost';
    this.#end(member);
    if (isSeen) this.#processes.end(member.pid);
    this.lose(member);
    member.line.close();
    this.model.dies(member);
    await this.settle();
    if (!isSeen || !wasLost) return;
    // Of one that was lost before the system is asked now and then.
    await this.pass(1000);
    this.model.retires(member);
  }

  #end(member: Member): void {
    member.isAlive = false;
    member.isLeaving = true;
    void member.client.close({ timeout: 1 });
  }

  /** It leaves in good order; what hangs is let go. */
  async close(member: Member): Promise<void> {
    const wasClear = member.isClear;
    member.isLeaving = true;
    const state = { isClosed: false };
    const closed = member.client.close({ timeout: LEAVING }).then(() => (state.isClosed = true));
    for (const { hanging } of member.hanging) hanging?.open('ends');
    await this.settle();
    // What it has sent is stored by and by, for those who do not take it.
    for (let passed = 0; !state.isClosed && passed <= LEAVING; passed += 100) await this.pass(100);
    await closed;
    await this.settle();
    if (!wasClear) {
      await this.crash(member, true);
      return;
    }
    member.isAlive = false;
    member.line.close();
    this.#processes.end(member.pid);
  }

  send(member: Member, shape: Shape): void {
    const { channels, clients, persistent, ttl, followed } = shape;
    const { model } = this;
    const sent = model.sends(member, shape);
    const options: MessageOptions = { persistent, ...(ttl !== undefined && { ttl }) };
    const message =
      channels.length === 0
        ? BroadcastMessage.createGroupMessage(clients, sent.n, options)
        : clients.length === 0
          ? BroadcastMessage.createMultiChannelMessage(channels, sent.n, options)
          : BroadcastMessage.create(clients[0], channels[0], sent.n, options);
    model.identify(message.id, sent);
    member.client.sendMessage(message, { until: followed ? 'delivered' : 'safe' }).then(
      receipt => this.#active(() => member.isAlive && model.receives(sent, receipt)),
      (error: unknown) => this.#active(() => member.isAlive && model.refusesReceipt(sent, error as Error)),
    );
  }

  /** Ends everything. */
  async end(): Promise<void> {
    for (const member of this.members) {
      member.line.close();
      if (member.isAlive) this.#end(member);
      this.#processes.end(member.pid);
    }
    const stopped = this.server.stop({ timeout: 1 });
    await this.turns(4);
    this.clock.tick(2);
    await stopped;
  }
}
