/**
 * Throws inputs at a target and judges the answers: a value, or a refusal with a code that the target may give; never
 * another exception, a changed prototype, memory out of proportion, or no end. Everything follows from a seed; a finding
 * is kept, and says what it takes to have it again.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { getHeapStatistics } from 'node:v8';
import { BroadcastError } from '../../../src/errors.js';
import { Mutator } from './mutator.js';
import { checkPrototypes } from './prototypes.js';
import type { Watchdog } from './watchdog.js';
import { revision } from '../suite.js';

export const FINDINGS: string = fileURLToPath(new URL('../../../.cache/faults/hostile-bytes', import.meta.url));

/** What inputs are thrown at. */
export interface Target<I> {
  readonly name: string;
  /** The codes of its refusals. */
  readonly codes: readonly string[];
  make(mutator: Mutator): I;
  /** Throws what comes of the input; returns a word for an answer that is none of the usual. */
  run(input: I): string | undefined | Promise<string | undefined>;
  /** In bytes, about. */
  sizeOf(input: I): number;
  /** The memory of one input in so many is looked at; by default one in 128. */
  readonly measuredEvery?: number;
  /** For the corpus, and back. */
  toText(input: I): string;
  fromText(text: string): I;
}

const SAMPLE = 128;
/** An input of n bytes may take this much and n times the other: a node of a body's table becomes an object with its properties. */
export const MEMORY: { readonly base: number; readonly perByte: number } = { base: 4 * 1024 * 1024, perByte: 512 };

export class Fuzz<I> {
  readonly target: Target<I>;
  readonly seed: number;
  readonly answers = new Map<string, number>();
  executions = 0;
  /** Milliseconds that the longest took. */
  slowest = 0;
  readonly #mutator: Mutator;
  readonly #watchdog: Watchdog | undefined;

  constructor(target: Target<I>, seed: number, watchdog?: Watchdog) {
    this.target = target;
    this.seed = seed;
    this.#mutator = new Mutator(seed);
    this.#watchdog = watchdog;
  }

  /** So many inputs; throws at the first finding. */
  async run(count: number): Promise<void> {
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0; // taking stacks takes longer than all the rest
    try {
      await this.#run(count);
    } finally {
      Error.stackTraceLimit = stackTraceLimit;
      this.#watchdog?.idle();
    }
    checkPrototypes();
  }

  async #run(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      this.executions++;
      const input = this.target.make(this.#mutator);
      this.#watchdog?.next(this.target.name, this.seed, this.executions);
      const start = performance.now();
      try {
        const isMeasured = this.executions % (this.target.measuredEvery ?? SAMPLE) === 0;
        const going = isMeasured ? this.#measured(input) : this.#once(input);
        if (going !== undefined) await going;
      } catch (error) {
        throw this.#finding(input, await this.#again(input, error as Error));
      }
      this.slowest = Math.max(this.slowest, performance.now() - start);
    }
  }

  /** The same error with its stack, if it comes a second time. */
  async #again(input: I, first: Error): Promise<Error> {
    Error.stackTraceLimit = 30;
    try {
      await this.#once(input);
      return first;
    } catch (error) {
      return error as Error;
    }
  }

  /** One input; throws when the answer is not one of those that are allowed. */
  #once(input: I): Promise<void> | undefined {
    try {
      const answer = this.target.run(input);
      if (!(answer instanceof Promise)) {
        this.#note(answer ?? 'taken');
        return undefined;
      }
      return answer.then(
        word => this.#note(word ?? 'taken'),
        (error: unknown) => this.#note(this.#codeOf(error)),
      );
    } catch (error) {
      this.#note(this.#codeOf(error));
      return undefined;
    }
  }

  #note(answer: string): void {
    for (const key in {}) throw new Error(`Object.prototype has got "${key}"`);
    if (this.executions % 1024 === 0) checkPrototypes();
    this.answers.set(answer, (this.answers.get(answer) ?? 0) + 1);
  }

  #codeOf(error: unknown): string {
    if (error instanceof BroadcastError && this.target.codes.includes(error.code)) return error.code;
    throw error;
  }

  /** What a collection gave back meanwhile is not seen, so that an input that seems to take too much is looked at again. */
  async #measured(input: I): Promise<void> {
    const bound = MEMORY.base + MEMORY.perByte * this.target.sizeOf(input);
    let least = Infinity;
    for (let tries = 0; tries < 3 && least > bound; tries++) {
      const before = used();
      await this.#once(input);
      least = Math.min(least, used() - before);
    }
    if (least > bound)
      throw new Error(`${String(least)} bytes of memory for an input of ${String(this.target.sizeOf(input))}`);
  }

  #finding(input: I, cause: Error): Error {
    const text = this.target.toText(input);
    const file = join(FINDINGS, `${this.target.name}-${String(this.seed)}-${String(this.executions)}.json`);
    mkdirSync(FINDINGS, { recursive: true });
    writeFileSync(file, `${JSON.stringify({ what: String(cause), input: text })}\n`);
    const where = `${this.target.name}, seed ${String(this.seed)}, execution ${String(this.executions)}`;
    return new Error(`${where}: ${String(cause)}\n${text.slice(0, 400)}\nrevision ${revision()}; kept in ${file}`, {
      cause,
    });
  }
}

function used(): number {
  const { used_heap_size, external_memory, malloced_memory } = getHeapStatistics() as ReturnType<
    typeof getHeapStatistics
  > & { external_memory: number };
  return used_heap_size + external_memory + malloced_memory;
}
