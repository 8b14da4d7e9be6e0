/**
 * Ends a process that an input has caught in a loop: nothing in the same thread could. It looks on from a thread of its
 * own, and says which input it was.
 */
import { Worker } from 'node:worker_threads';

/** An input may take so long, also on a machine that has much else to do. */
const LIMIT_MS = 60_000;
const LABEL_BYTES = 256;

const LOOK = `
const { workerData: { progress, label, limit } } = require('node:worker_threads');
const { writeSync } = require('node:fs');
const counter = new Int32Array(progress);
let seen = -1;
let since = Date.now();
setInterval(() => {
  const now = Atomics.load(counter, 0);
  if (now !== seen || now === 0) {
    seen = now;
    since = Date.now();
  } else if (Date.now() - since > limit) {
    const text = Buffer.from(label).toString('latin1').replace(/\\0.*$/s, '');
    writeSync(2, '\\nno end within ' + limit + ' ms: ' + text + '\\n');
    process.kill(process.pid, 'SIGKILL');
  }
}, Math.min(1000, limit / 4));
`;

export class Watchdog {
  readonly #progress = new Int32Array(new SharedArrayBuffer(4));
  readonly #label = Buffer.from(new SharedArrayBuffer(LABEL_BYTES));
  readonly #worker: Worker;

  constructor(limit: number = LIMIT_MS) {
    const workerData = { progress: this.#progress.buffer, label: this.#label.buffer, limit };
    this.#worker = new Worker(LOOK, { eval: true, workerData });
    this.#worker.unref();
  }

  /** The next input begins. */
  next(target: string, seed: number, execution: number): void {
    this.#progress[0] = ((this.#progress[0] as number) % 1_000_000_000) + 1;
    // The words change with the target only; what counts up is written as it is.
    const end = this.#label.write(`${target}, seed ${String(seed)}, execution ${String(execution)}`, 0, 'latin1');
    this.#label[end] = 0;
  }

  /** Nothing is going on. */
  idle(): void {
    this.#progress[0] = 0;
  }

  async stop(): Promise<void> {
    await this.#worker.terminate();
  }
}
