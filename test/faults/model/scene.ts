/** The model and the real parts side by side, and what must be so of both when everything rests. */
import type { Member } from './member.js';
import { describe, type Duty, type Model } from './model.js';
import type { World } from './world.js';

/** Roles: who reads channels, and who writes to them. Nobody gets its own words, and what that means for a backlog is
 * told elsewhere (test/behavior/promises.test.ts). */
export const READERS = ['a', 'b', 'c'];
export const WRITERS = ['v', 'w'];
export const CHANNELS = ['x', 'y'];
/** `''`: what is addressed to the name. */
export const SUBSCRIPTIONS = ['', ...CHANNELS];

/** Whoever is waited for in vain is given up, and every pause between attempts is over. */
const CALM = 45_000;

export class Scene {
  readonly model: Model;
  readonly world: World;
  /** What was done, in words. */
  readonly steps: string[] = [];

  constructor(model: Model, world: World) {
    this.model = model;
    this.world = world;
  }

  get living(): Member[] {
    return this.world.members.filter(({ isAlive }) => isAlive);
  }

  get readers(): Member[] {
    return this.living.filter(({ name }) => READERS.includes(name));
  }

  /** After each step, when everything has come to rest. */
  check(): void {
    const { model } = this;
    for (const { sender, run, n, receipt } of model.sent)
      if (run < 0 && receipt === undefined && sender.isClear) model.fail(`#${n} never came to the server`);
    model.rests();
    this.judge();
  }

  /** Some time after everything has come to rest, what is not delivered is stored, and every sender knows. */
  checkReceipts(): void {
    const { model } = this;
    for (const { sender, n, shape, run, receipt } of model.sent)
      if (!shape.followed && receipt === undefined && run >= 0 && sender.isClear) model.fail(`#${n} has no receipt`);
    this.judge();
  }

  /** Everything works for a while: then nothing waits of which a handler is there. */
  async calm(): Promise<void> {
    const { model, world } = this;
    for (const member of this.living) {
      member.works();
      if (member.isOnline) for (const direction of ['up', 'down'] as const) member.release(direction);
    }
    await world.settle();
    this.check();
    await world.pass(CALM);
    this.check();
    for (const duty of model.duties())
      if (model.isLeft(duty) && !duty.sent.isDoubtful && this.#isHandled(duty)) this.#isLost(duty);
    this.checkReceipts();
  }

  #isHandled({ name, subscription }: Duty): boolean {
    return this.living.some(peer => peer.name === name && peer.isOnline && peer.declared.has(subscription));
  }

  #isLost(duty: Duty): void {
    this.model.counts.lost++;
    this.model.fail(`${describe(duty)}, and nothing is in its way`);
  }

  /** Everybody is back and everything works; then all that was promised must have happened. */
  async end(): Promise<void> {
    const { world, model } = this;
    await this.calm();
    for (const member of this.living) if (!member.isOnline) await world.reconnect(member);
    for (const name of READERS) await world.join(name, SUBSCRIPTIONS);
    await this.calm();
    for (const duty of model.duties()) {
      if (model.isLeft(duty)) this.#isLost(duty);
      if (duty.isUnsure) model.counts.unsure++;
    }
    for (const { n, sender, receipt } of model.sent)
      if (sender.isAlive && receipt === undefined)
        model.fail(`#${n} has come to its end, and its sender does not know`);
    this.#checkNotices();
    await this.#checkCounters();
    this.judge();
  }

  /** Who lives, or another one of its name, has heard of everything that will not arrive. */
  #checkNotices(): void {
    if (!this.model.isDurable) return;
    for (const { n, sender, told } of this.model.sent) {
      if (!sender.isAlive) continue;
      const heard = new Set(
        this.world.members.flatMap(({ name, heard: all }) => (name === sender.name ? [...all] : [])),
      );
      for (const notice of told)
        if (!heard.has(`#${n} ${notice}`)) this.model.fail(`nobody has told ${sender.label} of "#${n} ${notice}"`);
    }
  }

  /** What the server says of itself is what the model says. */
  async #checkCounters(): Promise<void> {
    const { model } = this;
    const { server } = this.world;
    const { queued, backlog, deadLetters } = server.stats();
    if (queued !== 0 || backlog !== 0) model.fail(`${queued} are still queued, ${backlog} in backlogs`);
    const found = new Set<string>();
    for (const { name, queued: waiting, queuedBytes } of await server.sessions()) {
      if (waiting !== 0 || queuedBytes !== 0)
        model.fail(`${waiting} of ${name} (${queuedBytes} bytes) are still queued`);
      for (const letter of await this.deadLetters(name)) found.add(letter.key);
    }
    if (found.size !== deadLetters) model.fail(`${deadLetters} dead letters, of which ${found.size} are listed`);
    for (const [key, isSure] of model.dead) if (isSure && !found.has(key)) model.fail(`the dead letter ${key} is lost`);
    for (const key of found) if (!model.dead.has(key)) model.fail(`nobody expected the dead letter ${key}`);
  }

  async deadLetters(name: string): Promise<{ key: string; id: string }[]> {
    const all = await this.world.server.deadLetters(name).list();
    return all.map(({ id, message }) => ({ id, key: `${message.data as number}/${name}/${id.split('@')[1] ?? ''}` }));
  }

  /** Throws what is wrong, with what led to it. */
  judge(): void {
    const { wrong } = this.model;
    if (wrong.length === 0) return;
    const steps = this.steps.map((step, i) => `  ${i + 1}. ${step}`);
    throw new Error([...wrong, 'after', ...steps].join('\n'));
  }
}
