/** A server and its clients for one test, real and on free ports; everything ends with the test. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';
import {
  BroadcastTcpClient,
  BroadcastTcpServer,
  type BroadcastClient,
  type BroadcastServer,
  type ClientConfig,
  type Logger,
  type ServerConfig,
} from '../../src/index.js';

/** A logger that keeps what it is told. */
export function recordingLogger(): Logger & { readonly warnings: string[] } {
  const warnings: string[] = [];
  const keep = (...parts: unknown[]): void => void warnings.push(parts.map(String).join(' '));
  const pass = (): void => undefined;
  return { warnings, debug: pass, info: pass, warn: keep, error: keep };
}

export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'broadcast-test-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

export type EngineKind = 'memory' | 'disk';

/** A server in this process. */
export async function startServer(
  kind: EngineKind,
  options: ServerConfig = {},
): Promise<{ server: BroadcastServer; port: number }> {
  const dataDir =
    kind === 'disk' && options.dataDir === undefined ? { dataDir: join(await temporaryFolder(), 'data') } : {};
  const server = new BroadcastTcpServer({
    host: '127.0.0.1',
    port: 0,
    logger: recordingLogger(),
    ...dataDir,
    ...options,
  });
  await server.start();
  onTestFinished(() => server.stop());
  return { server, port: (server.address as { port: number }).port };
}

/** How many messages the server has stored for a name. */
export async function queuedFor(server: BroadcastServer, name: string): Promise<number> {
  return (await server.sessions()).find(session => session.name === name)?.queued ?? 0;
}

/** A client that reconnects quickly and is closed with the test. */
export function newClient(port: number, name?: string, options: ClientConfig = {}): BroadcastClient {
  const client = new BroadcastTcpClient(
    { host: '127.0.0.1', port, reconnectInterval: 20, logger: recordingLogger(), ...options },
    name,
  );
  onTestFinished(() => client.close({ timeout: 500 }));
  return client;
}

export async function connectedClient(
  port: number,
  name?: string,
  options: ClientConfig = {},
): Promise<BroadcastClient> {
  const client = newClient(port, name, options);
  await client.connect();
  return client;
}

/** Collects what a handler gets, and lets a test wait for it. */
export class Inbox<T = unknown> {
  readonly items: T[] = [];
  #waiters: { count: number; resolve: (items: T[]) => void }[] = [];

  push = (item: T): void => {
    this.items.push(item);
    this.#waiters = this.#waiters.filter(({ count, resolve }) => {
      if (this.items.length < count) return true;
      resolve(this.items.slice());
      return false;
    });
  };

  /** The items, when there are so many. */
  reached(count: number): Promise<T[]> {
    if (this.items.length >= count) return Promise.resolve(this.items.slice());
    return new Promise(resolve => this.#waiters.push({ count, resolve }));
  }
}

/** Connections of a server that have ended, from now on. */
export function departures(server: BroadcastServer): Inbox {
  const gone = new Inbox();
  server.on('disconnect', gone.push);
  return gone;
}

/** A client that takes a channel, one message after the other: each is handled until the test lets it go. */
export async function heldReader(port: number, channel: string): Promise<{ started: Inbox; running: (() => void)[] }> {
  const reader = newClient(port, 'reader');
  const running: (() => void)[] = [];
  const started = new Inbox();
  reader.onMessage(channel, ({ data }) => {
    started.push(data);
    const { promise, open } = gate();
    running.push(open);
    return promise;
  });
  await reader.connect();
  return { started, running };
}

/** A promise and the function that fulfils it. */
export function gate<T = void>(): { promise: Promise<T>; open: (value: T) => void } {
  let open!: (value: T) => void;
  const promise = new Promise<T>(resolve => {
    open = resolve;
  });
  return { promise, open };
}

const PROCESS = fileURLToPath(new URL('./process.cjs', import.meta.url));

/** How a role is run. */
export interface RoleHow {
  /** The file that has it; process.cjs by default. */
  readonly file?: string;
  /** A command that runs another one, such as one in a network namespace. */
  readonly inside?: readonly string[];
}

/** A process of the built package that runs one of the roles of process.cjs, or of another file of the kind. */
export class Role {
  readonly child: ChildProcess;
  readonly messages = new Inbox<Record<string, unknown>>();

  constructor(role: string, options: Record<string, unknown>, { file = PROCESS, inside = [] }: RoleHow = {}) {
    const [command, ...args] = [...inside, process.execPath, file, role, JSON.stringify(options)];
    this.child = spawn(command, args, {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    this.child.on('message', message => this.messages.push(message as Record<string, unknown>));
    onTestFinished(() => this.kill());
  }

  /** The first message of a type that comes, or came. */
  async saw(type: string, count = 1): Promise<Record<string, unknown>> {
    for (let size = 1; ; size++) {
      const seen = (await this.messages.reached(size)).filter(message => message['type'] === type);
      if (seen.length >= count) return seen[count - 1] as Record<string, unknown>;
    }
  }

  async kill(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const exited = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await exited;
  }
}
