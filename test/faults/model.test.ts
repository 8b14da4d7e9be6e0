/**
 * Random sequences of what clients, networks and servers do, on the real client, server and engines, against a small
 * model of what was promised (test/faults/model/). All time is a clock's that the sequence moves. A sequence is decided
 * by its seed; one that breaks a promise is shrunk to the shortest that still does, and the same seed finds it again.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, it } from 'vitest';
import { TestClock } from '../../src/testing/index.js';
import { seededRandom } from '../helpers/simulated-files.js';
import { commands } from './model/commands.js';
import { Model } from './model/model.js';
import { Processes } from './model/processes.js';
import { Scene } from './model/scene.js';
import { World } from './model/world.js';
import { keepDisk } from './evidence.js';
import { extentOf, report, seedsOf, timeoutOf } from './suite.js';

const extent = extentOf({ runs: 60 });
const LENGTH = 60;

class Suite {
  readonly #folder: string;
  readonly #isDurable: boolean;
  readonly #processes = new Processes();
  #tries = 0;
  /** The last try that failed: the shortest one, when a failing sequence has been shrunk. */
  #failed: Scene | undefined;
  readonly figures: Record<string, number> = { sequences: 0, failed: 0 };

  constructor(folder: string, isDurable: boolean) {
    this.#folder = folder;
    this.#isDurable = isDurable;
  }

  /** Throws the shortest sequence that is wrong, if the seed's is. */
  async run(seed: number): Promise<void> {
    const restore = this.#processes.install();
    try {
      const sequences = fc.noBias(fc.commands(commands(), { maxCommands: LENGTH, size: 'max' }));
      const property = fc.asyncProperty(sequences, sequence => this.#try(sequence, seed));
      await fc.assert(property, { seed, numRuns: 1, interruptAfterTimeLimit: 120_000 });
    } catch (error) {
      this.figures['failed']!++;
      const { message, cause } = error as Error;
      const again = `npm run faults -- model --seed ${seed} --runs 1 -t ${this.#isDurable ? 'disk' : 'memory'}`;
      const what = (cause as Error | undefined)?.message ?? '';
      const problem = new Error(`${what}\n${message}\nagain: ${again}`, { cause: error });
      const { steps, model, world } = this.#failed ?? {};
      const history = (): unknown => ({
        steps,
        sent: model?.sent.map(({ n, shape, receipt }) => ({ n, shape, receipt })),
      });
      const options = { engine: this.#isDurable ? 'disk' : 'memory', length: LENGTH };
      throw await keepDisk({ suite: 'model', part: options.engine, seed, options, history }, problem, world?.disk);
    } finally {
      restore();
    }
    this.figures['sequences']!++;
  }

  async #try(sequence: Iterable<fc.AsyncCommand<Scene, Scene>>, seed: number): Promise<void> {
    const clock = new TestClock();
    const model = new Model(this.#isDurable, clock);
    const path = join(this.#folder, String(++this.#tries));
    const world = new World(model, clock, path, this.#processes, seededRandom(seed));
    const scene = new Scene(model, world);
    await world.startServer();
    try {
      await fc.asyncModelRun(() => ({ model: scene, real: scene }), sequence);
      await scene.end();
    } catch (error) {
      this.#failed = scene;
      throw error;
    } finally {
      await world.end();
      for (const [name, count] of Object.entries({ commands: scene.steps.length, ...world.counts, ...model.counts }))
        this.figures[name] = (this.figures[name] ?? 0) + count;
    }
  }
}

describe.each(['memory', 'disk'])('sequences on the %s engine', kind => {
  it('keep every promise of the model', { timeout: timeoutOf(extent) }, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'model-'));
    const suite = new Suite(folder, kind === 'disk');
    try {
      // Half of the time for each engine.
      for (const seed of seedsOf({ ...extent, minutes: extent.minutes / 2 })) await suite.run(seed);
    } finally {
      await rm(folder, { recursive: true, force: true });
      report(`model (${kind})`, extent, suite.figures);
    }
  });
});
