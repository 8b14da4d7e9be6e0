/** What a conformance case is, and what it runs on. Knows no test runner: a case fails by throwing. */
import assert from 'node:assert/strict';
import { TestClock } from '../../testing/test-clock.js';
import type { Engine, EngineHost, EngineState, StoredRun } from '../engine.js';
import { messagesOf } from './batches.js';

/** What an engine can do beyond what every engine can; cases that need more are left out. */
export interface EngineAbilities {
  /** What was committed is there when the store is opened again, by `reopen`. */
  readonly durable: boolean;
}

/** Makes an engine on a store of its own, empty and not open; called again with what it returned, one on the same store. */
export interface EngineMaker {
  /** What the engine can do beyond the least. */
  readonly abilities: EngineAbilities;
  /**
   * A new, empty store.
   * @example
   * const store = await maker.create();
   */
  create(): Promise<TestStore> | TestStore;
}

/** A store that engines are made on. */
export interface TestStore {
  /**
   * An engine on the store, not yet open.
   * @example
   * const engine = store.engine();
   */
  engine(): Engine;
  /**
   * For durable engines: the process ends here, without `close`. What the next `engine()` finds is what a kill leaves.
   * @example
   * await store.kill?.();
   * await store.engine().open(host); // what was committed is there
   */
  kill?(): Promise<void> | void;
  /**
   * Takes the store away when the case has ended.
   * @example
   * afterEach(() => store.remove?.());
   */
  remove?(): Promise<void> | void;
}

/** One obligation of an engine. */
export interface ConformanceCase {
  /** The obligation, as a sentence. */
  readonly name: string;
  /** What the engine must be able to do for the case to apply. */
  readonly needs: Partial<EngineAbilities>;
  /**
   * Rejects when the engine does not keep to it.
   * @example
   * it(name, () => run(maker));
   */
  run(maker: EngineMaker): Promise<void>;
}

/** A store that is open, with a host that remembers what it was told. */
export class Bench {
  store: TestStore;
  readonly clock = new TestClock();
  readonly failures: Error[] = [];
  readonly warnings: string[] = [];
  readonly damage: { queue: string; handle: number; count: number; bytes: number }[] = [];
  roomAgain = 0;
  engine!: Engine;
  state!: EngineState;

  constructor(store: TestStore) {
    this.store = store;
  }

  async open(options: { storeBytes?: number } = {}): Promise<EngineState> {
    const host: EngineHost = {
      clock: this.clock,
      storeBytes: options.storeBytes,
      failed: error => void this.failures.push(error),
      roomAgain: () => {
        this.roomAgain++;
      },
      arrived: () => undefined,
      damaged: (queue, handle, count, bytes) => void this.damage.push({ queue, handle, count, bytes }),
      warn: text => void this.warnings.push(text),
    };
    this.engine = this.store.engine();
    this.state = await this.engine.open(host);
    return this.state;
  }

  async reopen(meanwhile?: () => void): Promise<EngineState> {
    await this.engine.close();
    meanwhile?.();
    return this.open();
  }

  /** Everything in a queue, read in pieces. */
  async all(queue: string, maxMessages = 1000, maxBytes = 1024 * 1024): Promise<StoredRun[]> {
    const found: StoredRun[] = [];
    for (let from = 0; ;) {
      const runs = await this.engine.read(queue, from, maxMessages, maxBytes);
      const last = runs[runs.length - 1];
      if (last === undefined) return found;
      found.push(...runs);
      from = last.handle + last.batch.count;
    }
  }

  async texts(queue: string): Promise<string[]> {
    return messagesOf(await this.all(queue)).map(({ text }) => text);
  }

  async isIn(queue: string, texts: readonly string[]): Promise<void> {
    assert.deepEqual(await this.texts(queue), texts);
    assert.equal(this.engine.usage(queue).messages, texts.length);
  }
}

/** A case on an open store, which is closed and removed behind it. */
export function caseOf(
  name: string,
  run: (bench: Bench) => Promise<void>,
  options: { needs?: Partial<EngineAbilities>; storeBytes?: number } = {},
): ConformanceCase {
  return {
    name,
    needs: options.needs ?? {},
    async run(maker) {
      const store = await maker.create();
      const bench = new Bench(store);
      try {
        await bench.open(options.storeBytes === undefined ? {} : { storeBytes: options.storeBytes });
        await run(bench);
        assert.deepEqual(bench.failures, []);
      } finally {
        await (bench.engine as Engine | undefined)?.close();
        await store.remove?.();
      }
    },
  };
}
