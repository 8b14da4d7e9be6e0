/** A disk engine on a simulated disk, for tests that break it. */
import { appendTo, messagesOf, type SampleOptions } from '../../src/engine/conformance/batches.js';
import { diskEngine, type Engine, type EngineHost, type EngineState } from '../../src/engine/index.js';
import { TestClock } from '../../src/testing/test-clock.js';
import { SimulatedDisk } from './simulated-files.js';

export const DIRECTORY = '/data';

export class DiskBench {
  disk: SimulatedDisk;
  readonly clock = new TestClock();
  readonly failures: Error[] = [];
  readonly warnings: string[] = [];
  readonly damage: { queue: string; handle: number; count: number; bytes: number }[] = [];
  readonly options: { segmentBytes?: number; reserveBytes?: number };
  roomAgain = 0;
  engine!: Engine;
  state!: EngineState;
  #position = 1;

  constructor(disk = new SimulatedDisk(), options: DiskBench['options'] = {}) {
    this.disk = disk;
    this.options = options;
  }

  async open(storeBytes?: number): Promise<EngineState> {
    const host: EngineHost = {
      clock: this.clock,
      storeBytes,
      failed: error => void this.failures.push(error),
      roomAgain: () => {
        this.roomAgain++;
      },
      arrived: () => undefined,
      damaged: (queue, handle, count, bytes) => void this.damage.push({ queue, handle, count, bytes }),
      warn: text => void this.warnings.push(text),
    };
    this.engine = diskEngine({
      directory: DIRECTORY,
      files: this.disk,
      segmentBytes: 16 * 1024,
      reserveBytes: 0,
      ...this.options,
    });
    this.state = await this.engine.open(host);
    return this.state;
  }

  /** Stores one batch; positions go on by themselves. */
  append(queue: string, texts: readonly string[], options: SampleOptions = {}): number {
    const first = this.#position;
    const [handle] = this.engine.append([appendTo([queue], texts, { first, ...options })]) as [number];
    this.#position += texts.length;
    return handle;
  }

  async texts(queue: string): Promise<string[]> {
    const texts: string[] = [];
    for (let from = 0; ;) {
      const found = messagesOf(await this.engine.read(queue, from, 100, 100_000));
      const last = found[found.length - 1];
      if (last === undefined) return texts;
      texts.push(...found.map(({ text }) => text));
      from = last.handle + 1;
    }
  }

  /** The names of the segments, in order. */
  get segments(): string[] {
    return [...this.disk.names.keys()]
      .filter(name => /segment-\d+\.log$/.test(name) && !name.includes('damaged'))
      .sort();
  }
}

/** Lets everything that the simulated disk still does come to its end. */
export async function settled(): Promise<void> {
  for (let i = 0; i < 50; i++) await new Promise(resolve => setImmediate(resolve));
}

/** Waits until something is so, a turn of the event loop at a time. */
export async function until(isSo: () => boolean): Promise<void> {
  for (let i = 0; !isSo(); i++) {
    if (i > 10_000) throw new Error('it never came to be');
    await new Promise(resolve => setImmediate(resolve));
  }
}

/** Lets time pass, half a second every now and then, until something has ended. */
export async function ticking<T>(clock: TestClock, running: Promise<T>): Promise<T> {
  const state = { ended: false };
  const end = (): void => void (state.ended = true);
  running.then(end, end);
  for (let i = 1; !state.ended; i++) {
    await new Promise(resolve => setImmediate(resolve));
    if (i % 50 === 0) clock.tick(500);
  }
  return running;
}
