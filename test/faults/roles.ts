/** The roles of roles.cjs as a test uses them: started, asked, stopped and continued. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Role } from '../helpers/scene.js';
import { ifAnswered } from './evidence.js';

const FILE = fileURLToPath(new URL('./roles.cjs', import.meta.url));

/** What a receiver has seen. */
export interface Seen {
  readonly count: number;
  readonly last: number;
  readonly redelivered: number;
  /** Of the numbers up to the last one, the first that have not come. */
  readonly missing: readonly number[];
  readonly twice: readonly number[];
  readonly unordered: readonly number[];
}

export class FaultRole extends Role {
  readonly role: string;
  readonly options: Readonly<Record<string, unknown>>;

  constructor(role: string, options: Record<string, unknown>, inside: readonly string[] = []) {
    super(role, options, { file: FILE, inside });
    this.role = role;
    this.options = options;
  }

  get isRunning(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  get pid(): number {
    return this.child.pid as number;
  }

  /** How many messages of a type came so far. */
  count(type: string): number {
    return this.messages.items.filter(message => message['type'] === type).length;
  }

  /** The texts of a type's messages so far. */
  texts(type: string): string[] {
    return this.messages.items.filter(message => message['type'] === type).map(({ text }) => text as string);
  }

  /** The next message of a type that says so, from now on. */
  async next(type: string, says: Readonly<Record<string, unknown>> = {}): Promise<Record<string, unknown>> {
    const entries = Object.entries({ type, ...says });
    const from = this.messages.items.length;
    for (let size = from + 1; ; size++) {
      const message = (await this.messages.reached(size))[size - 1] as Record<string, unknown>;
      if (entries.every(([field, value]) => message[field] === value)) return message;
    }
  }

  /** Asks for something; the next message of that type is the answer. */
  ask(request: Record<string, unknown>, type: string): Promise<Record<string, unknown>> {
    const answer = this.next(type);
    this.tell(request);
    return answer;
  }

  /** One that has ended hears nothing: whoever waits for an answer then is the failure, and says more. */
  tell(request: Record<string, unknown>): void {
    this.child.send(request, () => undefined);
  }

  /** What it has seen so far. */
  async report(): Promise<Seen> {
    return (await this.ask({ report: true }, 'report')) as unknown as Seen;
  }

  stop(): void {
    this.child.kill('SIGSTOP');
  }

  resume(): void {
    this.child.kill('SIGCONT');
  }

  /** Memory that it occupies, in bytes. */
  get residentBytes(): number {
    const [, kib] = /^VmRSS:\s+(\d+) kB/m.exec(
      readFileSync(`/proc/${String(this.pid)}/status`, 'utf8'),
    ) as RegExpExecArray;
    return Number(kib) * 1024;
  }
}

/** The processes of one run: they end together, and what each has said is evidence when the run fails. */
export class FaultRoles {
  readonly #all: FaultRole[] = [];

  start(role: string, options: Record<string, unknown>, inside: readonly string[] = []): FaultRole {
    const started = new FaultRole(role, options, inside);
    this.#all.push(started);
    return started;
  }

  /** What each has said, and how it is now, if it still answers; then all are ended. */
  async history(): Promise<unknown> {
    await Promise.all(
      this.#all.map(async role => {
        role.resume();
        if (role.isRunning) await ifAnswered(role.report());
      }),
    );
    await this.end();
    return this.#all.map(({ role, options, child, messages }) => {
      const { exitCode, signalCode } = child;
      return { role, options, ended: signalCode ?? exitCode, said: messages.items };
    });
  }

  async end(): Promise<void> {
    await Promise.all(this.#all.map(role => role.kill()));
  }
}
