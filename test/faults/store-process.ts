/** A server in a process of its own, alone or under a tool that harms it (strace, faketime), and what it says. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { DiskEngineOptions } from '../../src/engine/disk/disk-engine.js';
import type { ServerConfig } from '../../src/index.js';

const SCRIPT = fileURLToPath(new URL('./store-server.cjs', import.meta.url));

/** What the process says; `type` says which of the fields are there. */
export interface Said {
  readonly type: 'begun' | 'listening' | 'failed' | 'engineError' | 'log' | 'alive' | 'stopped';
  readonly port?: number;
  readonly pid?: number;
  readonly code?: string;
  readonly message?: string;
  readonly text?: string;
  readonly clock?: number;
  readonly address?: unknown;
  readonly stats?: { readonly queued: number; readonly stored: number };
}

export interface StoreOptions extends Pick<ServerConfig, 'port' | 'dataDir' | 'pingInterval' | 'deadAfter'> {
  /** Instead of `dataDir`. */
  readonly store?: DiskEngineOptions;
}

/** True where a command can be run. */
export function has(command: string, ...args: string[]): boolean {
  return spawnSync(command, args, { stdio: 'ignore' }).error === undefined;
}

export class StoreProcess {
  readonly said: Said[] = [];
  readonly #child: ChildProcess;
  readonly #waiters = new Set<() => void>();
  readonly #exited: Promise<unknown>;
  #stderr = '';

  /** `under`: the command and its arguments that run the server's command. */
  constructor(options: StoreOptions, under: readonly string[] = [], env: NodeJS.ProcessEnv = {}) {
    const [command, ...args] = [...under, process.execPath, SCRIPT, JSON.stringify(options)];
    this.#child = spawn(command, args, {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      env: { ...process.env, ...env },
    });
    this.#child.stderr?.on('data', chunk => (this.#stderr += String(chunk)));
    this.#child.on('message', message => this.#hear(message as Said));
    this.#exited = once(this.#child, 'exit').finally(() => this.#look());
  }

  /** A server that listens. Rejects with what it says instead. */
  static async start(
    options: StoreOptions,
    under: readonly string[] = [],
    env: NodeJS.ProcessEnv = {},
  ): Promise<StoreProcess> {
    const server = new StoreProcess(options, under, env);
    try {
      await server.saw('listening');
    } catch (error) {
      await server.kill();
      throw error;
    }
    return server;
  }

  #hear(said: Said): void {
    this.said.push(said);
    this.#look();
  }

  #look(): void {
    for (const waiter of this.#waiters) waiter();
  }

  get port(): number {
    return this.#of('listening')?.port as number;
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** What it had to say to whoever reads its log. */
  get log(): string[] {
    return this.said.flatMap(({ type, text }) => (type === 'log' ? [text as string] : []));
  }

  #of(type: Said['type'], skip = 0): Said | undefined {
    return this.said.filter(said => said.type === type)[skip];
  }

  /** The next (or, without `skip`, the first) of what it says of a type. Rejects when the process ends without. */
  async saw(type: Said['type'], skip = 0): Promise<Said> {
    await new Promise<void>(resolve => {
      const waiter = (): void => {
        if (this.#of(type, skip) === undefined && this.isRunning) return;
        this.#waiters.delete(waiter);
        resolve();
      };
      this.#waiters.add(waiter);
      waiter();
    });
    const said = this.#of(type, skip);
    if (said !== undefined) return said;
    const { code, message } = this.#of('failed') ?? {};
    throw Object.assign(new Error(`the server ended before it was "${type}": ${message ?? this.#stderr}`), { code });
  }

  /** It answers, and how it is. */
  look(): Promise<Said> {
    const before = this.said.filter(({ type }) => type === 'alive').length;
    this.#child.send('look');
    return this.saw('alive', before);
  }

  /** Stops it in good order. */
  async stop(): Promise<void> {
    this.#child.send('stop');
    await this.#exited;
  }

  /** Kills the server itself: a tool that runs it ends with it. The process that was killed. */
  async kill(): Promise<number | undefined> {
    if (!this.isRunning) return undefined;
    const { pid } = await this.saw('begun');
    process.kill(pid as number, 'SIGKILL');
    await this.#exited;
    return pid;
  }
}
