/**
 * Seeded work on a disk engine over a simulated disk: what is changed, how much of it has been promised, and a host that
 * notes what it is told. The same seed makes the same changes, as long as no operation fails.
 */
import assert from 'node:assert/strict';
import { appendTo, textsOf } from '../../src/engine/conformance/batches.js';
import { diskEngine, type Engine, type EngineHost, type EngineState } from '../../src/engine/index.js';
import { TestClock } from '../../src/testing/test-clock.js';
import type { SimulatedDisk } from '../helpers/simulated-files.js';
import { bodyOf, identify, KEYS, QUEUES, type Model, type Change, type Part } from './log-model.js';

export const FOLDER = '/d';
const INSTANCES = ['1'.repeat(32), '2'.repeat(32)];

/** The last that were made in this process: those of a run that has just failed. */
export const latest: { bench?: LogBench; work?: LogWork } = {};

/** An engine on a simulated disk, and what it says to its host. */
export class LogBench {
  readonly engine: Engine;
  readonly clock = new TestClock();
  readonly failures: Error[] = [];
  /** It failed a turn of the event loop ago, or earlier. */
  isOver = false;
  readonly warnings: string[] = [];
  readonly damaged: { readonly queue: string; readonly handle: number; readonly count: number }[] = [];

  readonly disk: SimulatedDisk;
  #reads: Promise<string[]>[] = [];

  constructor(disk: SimulatedDisk, segmentBytes: number) {
    this.disk = disk;
    this.engine = diskEngine({ directory: FOLDER, files: disk, segmentBytes, reserveBytes: 0 });
    latest.bench = this;
  }

  open(): Promise<EngineState> {
    const host: EngineHost = {
      clock: this.clock,
      storeBytes: undefined,
      failed: error => {
        this.failures.push(error);
        // Who waits for a commit that was fulfilled just before hears of it in this turn.
        setImmediate(() => (this.isOver = true));
      },
      roomAgain: () => undefined,
      arrived: () => undefined,
      damaged: (queue, handle, count) => void this.damaged.push({ queue, handle, count }),
      warn: text => void this.warnings.push(text),
    };
    return this.engine.open(host);
  }

  /** Somebody reads all queues now, whatever the engine is at. */
  readAll(): void {
    for (const queue of QUEUES) {
      const read = async (): Promise<string[]> => {
        const runs = await this.engine.read(queue, 0, 64, 16 * 1024);
        return runs.flatMap(({ batch }) => textsOf(batch)).map(identify);
      };
      // A disk that has gone says so everywhere.
      this.#reads.push(read().catch(() => []));
    }
  }

  /** Bodies that were read and are not as they were written, when everything that was to be read has been. */
  async wrongReads(): Promise<string[]> {
    const texts = await Promise.all(this.#reads.splice(0));
    return texts.flat().filter(text => text.startsWith('wrong '));
  }
}

/** The next turn of the event loop. */
export function turn(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve));
}

/** Changes on an engine, chosen by a generator, and the model of all of them. */
export class LogWork {
  /** The state that all changes here were made on, and the state now. */
  readonly base: Model;
  readonly now: Model;
  readonly changes: Change[] = [];
  /** So many of the changes are covered by a commit that was fulfilled. */
  promised = 0;
  /** Commits that were fulfilled after the engine had said that it failed. */
  lies = 0;
  #bench: LogBench;
  readonly #random: () => number;
  /** First position of each sender that was not used. */
  readonly #positions: Map<string, number>;

  /** Bytes that most bodies do not reach, and of the longest ones. */
  readonly #usual: number;
  readonly #longest: number;

  constructor(
    bench: LogBench,
    base: Model,
    random: () => number,
    { positions = new Map<string, number>(), usual = 80, longest = 1500 } = {},
  ) {
    this.#bench = bench;
    this.base = base;
    this.now = base.copy();
    this.#random = random;
    this.#positions = positions;
    this.#usual = usual;
    this.#longest = longest;
    latest.work = this;
  }

  /** Goes on with another engine, that has opened what this one left. */
  moveTo(bench: LogBench): void {
    this.#bench = bench;
  }

  #pick(n: number): number {
    return Math.floor(this.#random() * n);
  }

  /** Makes so many changes, until the engine fails; commits, time and turns of the event loop come in between. */
  async run(steps: number): Promise<void> {
    for (let step = 0; step < steps && this.#bench.failures.length === 0; step++) {
      this.make(this.next());
      if (this.#random() < 0.3) {
        const commit = this.commit();
        if (this.#random() < 0.7) await commit;
        else commit.catch(() => undefined);
      }
      if (this.#random() < 0.1) this.#bench.clock.tick(60);
      if (this.#random() < 0.1) await turn();
    }
  }

  async commit(): Promise<void> {
    const upTo = this.changes.length;
    const hadFailed = this.#bench.failures.length > 0;
    await this.#bench.engine.commit();
    this.promised = Math.max(this.promised, upTo);
    if (hadFailed || this.#bench.isOver) this.lies++;
  }

  /** Makes a change on the engine and the model; an append's handles are filled in. */
  make(change: Change): void {
    const { engine } = this.#bench;
    if (change.kind === 'append') append(engine, change);
    else if (change.kind === 'ack')
      for (const [handle, count] of change.ranges) engine.ack(change.queue, handle, count);
    else if (change.kind === 'move') engine.move(change.from, change.to, change.handle, change.count, change.note);
    else if (change.kind === 'drop') engine.drop(change.queue);
    else if (change.kind === 'attempt') engine.attempt(change.queue, change.handle, change.attempts);
    else if (change.kind === 'put') engine.put(change.key, change.value);
    else if (change.kind === 'floor') engine.floor(change.instance, change.floor);
    else assert.fail(`only a log says ${change.kind}`);
    this.changes.push(change);
    this.now.apply(change);
  }

  /** A change that suits what is there. */
  next(): Change {
    const kind = this.#random();
    if (kind < 0.42) return this.#append();
    const queue = QUEUES[this.#pick(QUEUES.length)] as string;
    const handles = [...this.now.queue(queue).keys()];
    const handle = handles[this.#pick(handles.length)] ?? 1;
    if (kind < 0.66) return { kind: 'ack', queue, ranges: [[handle, 1 + this.#pick(5)]] };
    if (kind < 0.76) {
      const to = QUEUES[(QUEUES.indexOf(queue) + 1) % QUEUES.length] as string;
      const note = this.#random() < 0.3 ? `note ${String(this.#pick(100))}` : undefined;
      return this.#random() < 0.2
        ? { kind: 'move', from: queue, to, handle: 0, count: Number.MAX_SAFE_INTEGER, note }
        : { kind: 'move', from: queue, to, handle, count: 1 + this.#pick(3), note };
    }
    if (kind < 0.83) return { kind: 'attempt', queue, handle, attempts: 1 + this.#pick(4) };
    if (kind < 0.86) return { kind: 'drop', queue };
    if (kind < 0.93) {
      const key = KEYS[this.#pick(KEYS.length)] as string;
      const value = this.#random() < 0.2 ? null : `${String(this.#pick(1000))}${'x'.repeat(this.#pick(200))}`;
      return { kind: 'put', key, value };
    }
    const instance = INSTANCES[this.#pick(INSTANCES.length)] as string;
    const end = this.#positions.get(instance) ?? 1;
    return { kind: 'floor', instance, floor: this.#random() < 0.1 ? null : Math.max(1, end - this.#pick(8)) };
  }

  #append(): Change {
    const instance = INSTANCES[this.#pick(INSTANCES.length)] as string;
    let first = this.#positions.get(instance) ?? 1;
    const parts = Array.from({ length: 1 + this.#pick(3) }, (_, p): Part => {
      const texts = Array.from({ length: 1 + this.#pick(4) }, (_m, i) => {
        const length = this.#random() < 0.1 ? this.#longest : this.#pick(this.#usual);
        return `${instance.slice(0, 1)}.${String(first + i)}/${String(length)}`;
      });
      const part = {
        handle: 0,
        texts,
        first,
        expiresAt: this.#random() < 0.1 ? 1_000_000 + p : 0,
        tracked: this.#random() < 0.15,
        queues: QUEUES.filter(() => this.#random() < 0.5),
      };
      first += texts.length;
      return part;
    });
    this.#positions.set(instance, first);
    return { kind: 'append', instance, parts };
  }
}

function append(engine: Engine, { parts, instance }: Extract<Change, { kind: 'append' }>): void {
  const batches = parts.map(({ texts, queues, first, expiresAt, tracked }) => {
    const bodies = texts.map(text => {
      const [id, length] = text.split('/') as [string, string];
      return bodyOf(id, Number(length));
    });
    return appendTo(queues, bodies, { first, instance, expiresAt, envelope: { tracked } });
  });
  engine.append(batches).forEach((handle, i) => {
    (parts[i] as Part).handle = handle;
  });
}
