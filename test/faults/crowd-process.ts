/** The processes of a crowd, started with whatever stands before `node`, and asked questions. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';
import { ifAnswered } from './evidence.js';

const FILE = fileURLToPath(new URL('./crowd-process.cjs', import.meta.url));

export interface ServerFigures {
  readonly clients: number;
  readonly rss: number;
  readonly heap: number;
  readonly cpuMs: number;
  readonly utilization: number;
  /** Of its event loop, in milliseconds. */
  readonly delayP99: number;
  readonly delayMax: number;
  /** What of it was its own work, in milliseconds of the processor. */
  readonly workP99: number;
  readonly workMax: number;
}

export interface CrowdFigures {
  readonly online: number;
  /** Clients that it has; of the one at home, that it speaks to. */
  readonly count: number;
  /** Messages that were handled. */
  readonly got: number;
  readonly receipts: number;
  /** Why connections ended, and how often. */
  readonly ends: Readonly<Record<string, number>>;
}

interface Answer {
  readonly number: number;
  readonly answer?: unknown;
  readonly failed?: string;
}

export class CrowdProcess {
  readonly role: string;
  readonly options: object;
  readonly child: ChildProcess;
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  readonly #ended: Promise<never>;
  #numbers = 0;
  /** What it has written to its standard error. */
  log = '';
  #onLog: (() => void) | undefined;

  constructor(before: readonly string[], role: string, options: object) {
    this.role = role;
    this.options = options;
    const [command, ...args] = [...before, process.execPath, '--expose-gc', FILE, role, JSON.stringify(options)];
    this.child = spawn(command, args, { stdio: ['ignore', 'inherit', 'pipe', 'ipc'] });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.log += text;
      this.#onLog?.();
    });
    this.child.on('message', (message: Answer) => this.#waiting.get(message.number)?.(message));
    this.#ended = once(this.child, 'exit').then(([code, signal]) => {
      throw new Error(`the process has ended with ${String(code ?? signal)}\n${this.log}`);
    });
    this.#ended.catch(() => undefined); // nobody may be waiting for an answer
    onTestFinished(() => this.kill());
  }

  /** What it says first. */
  async ready(): Promise<{ port: number }> {
    return (await this.#answerTo(0)) as { port: number };
  }

  async #answerTo(number: number): Promise<unknown> {
    const answer = new Promise<Answer>(resolve => this.#waiting.set(number, resolve));
    const { failed, answer: value } = await Promise.race([answer, this.#ended]);
    this.#waiting.delete(number);
    if (failed !== undefined) throw new Error(failed);
    return value;
  }

  ask(command: string, argument?: unknown): Promise<unknown> {
    const number = ++this.#numbers;
    const answer = this.#answerTo(number);
    this.child.send({ number, command, argument }, () => undefined); // that it has ended, the answer says
    return answer;
  }

  /** Asks for the figures until they are as wanted. */
  async until<F>(wanted: (figures: F) => boolean): Promise<F> {
    for (;;) {
      const figures = (await this.ask('figures')) as F;
      if (wanted(figures)) return figures;
      // It has a turn to do something else in between.
      await new Promise(resolve => setTimeout(resolve, 20));
    }
  }

  /** Fulfilled when the log has so many lines with this in them; rejects when it has not for a minute. */
  async logged(text: string, lines: number): Promise<void> {
    const late = new Promise<never>((_, reject) => {
      setTimeout(() => reject(new Error(`nothing of "${text}" in the log:\n${this.log}`)), 60_000).unref();
    });
    late.catch(() => undefined); // it was there in time
    while (this.log.split('\n').filter(line => line.includes(text)).length < lines) {
      await Promise.race([late, new Promise<void>(resolve => (this.#onLog = resolve))]);
    }
  }

  get isRunning(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  async kill(): Promise<void> {
    if (!this.isRunning) return;
    const exited = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await exited;
  }
}

/** A process has no more clients than this, as each takes a descriptor. */
const MOST = 2500;

/** The processes of one run: they end together, and how each is, is evidence when the run fails. */
export class CrowdProcesses {
  readonly #all: CrowdProcess[] = [];

  /** Starts one and waits until it is ready; `before` is a command that starts commands. */
  async start(
    role: 'server' | 'clients' | 'home',
    options: object,
    before: readonly string[] = [],
  ): Promise<{ process: CrowdProcess; port: number }> {
    const started = new CrowdProcess(before, role, options);
    this.#all.push(started);
    return { process: started, port: (await started.ready()).port };
  }

  /** So many clients, in two processes or more; with a folder for histories they note for the oracle what they do. */
  async clients(name: string, count: number, port: number, histories?: string): Promise<CrowdProcess[]> {
    const processes = Math.max(2, Math.ceil(count / MOST));
    const size = Math.ceil(count / processes);
    const started: CrowdProcess[] = [];
    for (let from = 0; from < count; from += size) {
      const options = { port, name, from, count: Math.min(size, count - from), histories };
      started.push((await this.start('clients', options)).process);
    }
    return started;
  }

  /** How each is, if it still answers, and what it has written to its log; then all are ended. */
  async history(): Promise<unknown> {
    const seen = await Promise.all(
      this.#all.map(async one => {
        const { role, options, log } = one;
        return { role, options, figures: one.isRunning ? await ifAnswered(one.ask('figures')) : 'ended', log };
      }),
    );
    await this.end();
    return seen;
  }

  async end(): Promise<void> {
    await Promise.all(this.#all.map(one => one.kill()));
  }
}
