/** A part of a scenario: a name under which one process runs at a time, is killed, and is started again as another one. */
import { spawn, type ChildProcess } from 'node:child_process';
import { openSync, closeSync } from 'node:fs';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export type Role = 'server' | 'sender' | 'receiver';

export interface PartOptions {
  readonly role: Role;
  /** What its files are called; a number is added for each process. */
  readonly label: string;
  /** Folder of the histories, and of what the processes write to their standard error. */
  readonly folder: string;
  /** What a process is told, by its id and its number. */
  readonly options: (id: string, number: number) => Record<string, unknown>;
  /** Called with what a process says. */
  readonly heard: (message: Said) => void;
  /** Called when a process ends by itself, or says that it has failed. */
  readonly failed: (error: Error) => void;
}

/** How a process is run: by a command such as strace with its options, and with variables beside those of this one. */
export interface How {
  readonly wrap?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** What a process says. */
export interface Said {
  readonly type: string;
  readonly [key: string]: unknown;
}

export class Part {
  readonly label: string;
  readonly #options: PartOptions;
  #child: ChildProcess | undefined;
  #number = 0;
  #isEnding = false;
  #said: Said[] = [];
  #waiters: { type: string; resolve: (said: Said | undefined) => void }[] = [];

  constructor(options: PartOptions) {
    this.#options = options;
    this.label = options.label;
  }

  /** It has a process that was not killed. */
  get isRunning(): boolean {
    const child = this.#child;
    return child !== undefined && child.exitCode === null && child.signalCode === null;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Starts a process, the next one of this part. `more` is added to what it is told. */
  start(more: Record<string, unknown> = {}, { wrap = [], env = {} }: How = {}): void {
    const { role, label, folder, options, failed } = this.#options;
    const id = `${label}.${String(++this.#number)}`;
    const told = JSON.stringify({ ...options(id, this.#number), ...more });
    const script = fileURLToPath(new URL(`./${role}.cjs`, import.meta.url));
    const [command, ...args] = [...wrap, process.execPath, script, told] as unknown as [string, ...string[]];
    const errors = openSync(join(folder, `${id}.err`), 'a');
    const child = spawn(command, args, { stdio: ['ignore', errors, errors, 'ipc'], env: { ...process.env, ...env } });
    closeSync(errors);
    this.#child = child;
    this.#said = [];
    this.#isEnding = false;
    child.on('error', failed);
    child.on('message', message => {
      // What one has said before it was killed may come when the next one runs.
      if (this.#child === child) this.#hear(message as Said);
    });
    child.on('exit', (code, signal) => {
      for (const { resolve } of this.#waiters.splice(0)) resolve(undefined);
      // A process that is killed was killed by a fault; one that ends with a code has done so by itself.
      if (!this.#isEnding && signal !== 'SIGKILL')
        failed(new Error(`${id} has ended by itself with ${String(code ?? signal)}; see ${id}.err`));
    });
  }

  #hear(said: Said): void {
    this.#said.push(said);
    if (said.type === 'failed' && !this.#isEnding)
      this.#options.failed(new Error(`${this.label}: ${String(said['text'])}`));
    this.#options.heard(said);
    const ready = this.#waiters.filter(({ type }) => type === said.type);
    this.#waiters = this.#waiters.filter(({ type }) => type !== said.type);
    for (const { resolve } of ready) resolve(said);
  }

  /** What its process said, or will say; undefined when it ends before. */
  saw(type: string): Promise<Said | undefined> {
    const before = this.#said.find(said => said.type === type);
    return before === undefined ? this.#next(type) : Promise.resolve(before);
  }

  #next(type: string): Promise<Said | undefined> {
    if (!this.isRunning) return Promise.resolve(undefined);
    return new Promise(resolve => this.#waiters.push({ type, resolve }));
  }

  tell(message: Said): void {
    if (this.#child?.connected === true) this.#child.send(message, () => undefined);
  }

  /** Tells it something, and waits for what it says then; undefined when it ends before. */
  ask(message: Said, answer: string): Promise<Said | undefined> {
    const said = this.#next(answer);
    this.tell(message);
    return said;
  }

  /** Its process may fail from now on, in any way: what it needs was taken from it. Until it is started again. */
  condemn(): void {
    this.#isEnding = true;
  }

  /** It was condemned, or is to end. */
  get isCondemned(): boolean {
    return this.#isEnding;
  }

  /** Its process has said it. */
  hasSaid(type: string): boolean {
    return this.#said.some(said => said.type === type);
  }

  signal(signal: NodeJS.Signals): void {
    if (this.isRunning) this.#child?.kill(signal);
  }

  /** When its process has ended, whoever ended it. */
  async ended(): Promise<void> {
    if (this.isRunning) await once(this.#child as ChildProcess, 'exit');
  }

  async kill(): Promise<void> {
    this.signal('SIGKILL');
    await this.ended();
  }

  /** It leaves in order, or has failed. */
  async close(): Promise<void> {
    if (this.#child === undefined) return;
    this.#isEnding = true;
    this.tell({ type: 'close' });
    await this.ended();
    const { exitCode, signalCode } = this.#child;
    if (exitCode !== 0) this.#options.failed(new Error(`${this.label} left with ${String(exitCode ?? signalCode)}`));
  }
}
