// Both ends of the channel between a run and its roles: questions with answers, each within a time, and the CPU time
// that a role has used.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const ROLES = fileURLToPath(new URL('./roles.js', import.meta.url));

/** Milliseconds on the machine's monotonic clock, the same for all processes. */
export function now() {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1e3 + nanoseconds / 1e6;
}

/** In the role's process: answers what the parent asks. A role that is another program's has a `cpu` of its own. */
export function serve(verbs) {
  process.on('message', async ({ id, verb, args }) => {
    try {
      if (verb === 'cpu') process.send({ id, answer: verbs.cpu?.() ?? process.cpuUsage() });
      else process.send({ id, answer: await verbs[verb](args) });
    } catch (error) {
      process.send({ id, failure: error.stack ?? String(error) });
    }
    if (verb === 'stop') process.disconnect();
  });
  // A role never outlives the run.
  process.on('disconnect', () => process.exit());
  process.send({ id: 0 });
}

/** In the parent: one role's process. */
export class Role {
  #child;
  #asked = 0;
  #open = new Map();
  #timeout;
  #started;
  #group;

  constructor(role, { file = ROLES, entry, timeout, profile, label }) {
    this.name = label ?? role;
    this.#timeout = timeout;
    const execArgv = profile ? ['--cpu-prof', `--cpu-prof-dir=${profile}`, `--cpu-prof-name=${label}.cpuprofile`] : [];
    this.#child = fork(file, [role, entry], { execArgv, stdio: ['ignore', 2, 2, 'ipc'] });
    this.#child.on('message', message => this.#answer(message));
    this.#child.on('exit', (code, signal) => this.#gone(`${this.name} ended (${signal ?? code})`));
    this.#started = this.#expect(0, 'start');
  }

  #answer({ id, answer, failure }) {
    // A program that it has started beside itself, which must not outlive it.
    this.#group ??= answer?.group;
    const open = this.#open.get(id);
    this.#open.delete(id);
    clearTimeout(open?.timer);
    if (failure === undefined) open?.resolve(answer);
    else open?.reject(new Error(`${this.name}: ${failure}`));
  }

  #gone(text) {
    for (const { reject, timer } of this.#open.values()) {
      clearTimeout(timer);
      reject(new Error(text));
    }
    this.#open.clear();
  }

  #expect(id, verb) {
    const answer = new Promise((resolve, reject) => {
      const late = () => {
        this.#open.delete(id);
        reject(new Error(`${this.name} did not answer "${verb}" within ${this.#timeout / 1000} s`));
      };
      this.#open.set(id, { resolve, reject, timer: setTimeout(late, this.#timeout) });
    });
    answer.catch(() => undefined); // whoever awaits it hears of it
    return answer;
  }

  get #isOver() {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  async ask(verb, args) {
    await this.#started;
    if (this.#isOver) throw new Error(`${this.name} has ended`);
    const id = ++this.#asked;
    const answer = this.#expect(id, verb);
    // One that ends meanwhile is known by its end.
    if (this.#child.connected) this.#child.send({ id, verb, args }, () => undefined);
    return answer;
  }

  /** Seconds of CPU that the process has used, all its threads together. */
  async cpu() {
    const { user, system } = await this.ask('cpu');
    return (user + system) / 1e6;
  }

  /** Ends it in good order, or at least ends it. */
  async stop() {
    if (this.#isOver) return;
    const exited = once(this.#child, 'exit');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 15_000);
    await this.ask('stop').catch(() => this.#child.kill('SIGKILL'));
    await exited;
    clearTimeout(timer);
    this.#endGroup();
  }

  kill() {
    this.#child.kill('SIGKILL');
    this.#endGroup();
  }

  /** Ends it at once, and waits until it is gone. */
  async crash() {
    const exited = once(this.#child, 'exit');
    this.kill();
    await exited;
  }

  #endGroup() {
    if (this.#group === undefined) return;
    try {
      process.kill(-this.#group, 'SIGKILL');
    } catch {
      // it has ended
    }
  }
}
