/** The built command line in processes of its own. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';

export const CLI = fileURLToPath(new URL('../../dist/cjs/cli/main.js', import.meta.url));

export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command that runs; it is killed with the test. */
export class Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  #stdout = '';
  #stderr = '';
  #waiters: {
    stream: 'stdout' | 'stderr';
    text: string | RegExp;
    resolve: () => void;
    reject: (error: Error) => void;
  }[] = [];

  constructor(command: string, args: readonly string[], env: NodeJS.ProcessEnv) {
    this.child = spawn(command, args, { stdio: 'pipe', env, cwd: tmpdir(), detached: true });
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout += text;
      this.#look();
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
      this.#look();
    });
    this.child.stdin?.on('error', () => undefined);
    this.ended = once(this.child, 'close').then(([code]) => {
      for (const { text, reject } of this.#waiters)
        reject(new Error(`it ended with ${String(code)} without ${String(text)}\n${this.#stdout}\n${this.#stderr}`));
      return { code: code as number | null, stdout: this.#stdout, stderr: this.#stderr };
    });
    onTestFinished(async () => {
      // With all that it has started: a shell's pipeline too.
      try {
        process.kill(-(this.child.pid as number), 'SIGKILL');
      } catch {
        // it has ended
      }
      await this.ended;
    });
  }

  get stdout(): string {
    return this.#stdout;
  }

  get stderr(): string {
    return this.#stderr;
  }

  #look(): void {
    this.#waiters = this.#waiters.filter(({ stream, text, resolve }) => {
      const all = stream === 'stdout' ? this.#stdout : this.#stderr;
      if (typeof text === 'string' ? !all.includes(text) : !text.test(all)) return true;
      resolve();
      return false;
    });
  }

  #sees(stream: 'stdout' | 'stderr', text: string | RegExp): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiters.push({ stream, text, resolve, reject });
      this.#look();
    });
  }

  /** Fulfilled when standard output shows it. */
  prints(text: string | RegExp): Promise<void> {
    return this.#sees('stdout', text);
  }

  /** Fulfilled when standard error shows it. */
  says(text: string | RegExp): Promise<void> {
    return this.#sees('stderr', text);
  }

  /** Gives standard input and ends it. */
  input(text: string): this {
    this.child.stdin?.end(text);
    return this;
  }

  signal(signal: NodeJS.Signals): Promise<Ended> {
    this.child.kill(signal);
    return this.ended;
  }
}

/** The environment without what a developer may have set. */
export function cleanEnvironment(more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(
    ([name]) => !/^(BROADCAST_|XDG_STATE_HOME|NO_COLOR|FORCE_COLOR|CI$)/.test(name),
  );
  return { ...Object.fromEntries(kept), BROADCAST_RECONNECT_INTERVAL: '20', ...more };
}

export function start(args: readonly string[], env: NodeJS.ProcessEnv = {}): Running {
  return new Running(process.execPath, [CLI, ...args], cleanEnvironment(env));
}

/** Runs to the end. */
export async function run(args: readonly string[], { input = '', env = {} } = {}): Promise<Ended> {
  return start(args, env).input(input).ended;
}

/** A server on a free port. */
export async function serve(
  args: readonly string[] = ['--memory'],
): Promise<{ server: Running; reach: string[]; port: number }> {
  const server = start(['serve', '--host', '127.0.0.1', '--port', '0', '--json', ...args]);
  await server.says('"address"');
  const { port } = (
    JSON.parse(server.stderr.split('\n').find(line => line.includes('"address"')) as string) as {
      address: { port: number };
    }
  ).address;
  return { server, port, reach: ['--host', '127.0.0.1', '--port', String(port)] };
}

/** What was printed, line by line. */
export function linesOf(text: string): string[] {
  return text.split('\n').slice(0, -1);
}

/** A command in a pseudo terminal, as `script` of util-linux gives one. */
export function inTerminal(command: string, env: NodeJS.ProcessEnv = {}): Running {
  return new Running('script', ['-qec', command, '/dev/null'], cleanEnvironment({ TERM: 'xterm', ...env }));
}
