/**
 * What a store must hold, as plain maps: the queues with their messages, the pairs, the senders. Changes are applied to it
 * as they are made on an engine; what an engine holds is read out into another one, and the two are compared as texts.
 */
import assert from 'node:assert/strict';
import { textsOf } from '../../src/engine/conformance/batches.js';
import type { Engine, EngineState } from '../../src/engine/index.js';
import { seededRandom } from '../helpers/simulated-files.js';

export const QUEUES = ['a', 'b', 'c'];
export const KEYS = ['k1', 'k2', 'k3'];

/** What bodies are made of: text without rhythm, so that none of it can stand for another part. */
const NOISE = noise(4096);

function noise(length: number): string {
  const random = seededRandom(length);
  return Array.from({ length }, () => String.fromCharCode(33 + Math.floor(random() * 94))).join('');
}

/** The body of a message that says who it is: its id, and so much that follows from it. */
export function bodyOf(id: string, length: number): string {
  const from = (Number(id.slice(2)) * 37) % (NOISE.length - length);
  return `${id}:${NOISE.slice(from, from + length)}`;
}

/** Who a message is, and how long, by its body; `wrong` in front when the body is not that message's. */
export function identify(body: string): string {
  const at = body.indexOf(':');
  const id = body.slice(0, at);
  const length = body.length - at - 1;
  return (bodyOf(id, length) === body ? '' : 'wrong ') + `${id}/${String(length)}`;
}

/** A message in a queue. */
export interface Known {
  /** Says who it is, with the length of its body. */
  readonly text: string;
  readonly attempts: number;
  readonly note: string | undefined;
  readonly expiresAt: number;
}

/** A batch, or what is left of it, and the queues that its messages are put in. */
export interface Part {
  handle: number;
  readonly texts: readonly string[];
  readonly first: number;
  readonly expiresAt: number;
  readonly tracked: boolean;
  readonly queues: readonly string[];
}

/** A message of a log that was written again, in one of its queues. */
export interface StoredAgain extends Known {
  readonly queue: string;
  readonly handle: number;
  /** Its sender's instance and position, when that wants to hear of it. */
  readonly tracked: string | undefined;
}

/** One change. */
export type Change =
  | { readonly kind: 'append'; readonly instance: string; readonly parts: readonly Part[] }
  | { readonly kind: 'ack'; readonly queue: string; readonly ranges: readonly (readonly [number, number])[] }
  | {
      readonly kind: 'move';
      readonly from: string;
      readonly to: string;
      readonly handle: number;
      readonly count: number;
      readonly note: string | undefined;
    }
  | { readonly kind: 'drop'; readonly queue: string }
  | { readonly kind: 'attempt'; readonly queue: string; readonly handle: number; readonly attempts: number }
  | { readonly kind: 'put'; readonly key: string; readonly value: string | null }
  | { readonly kind: 'floor'; readonly instance: string; readonly floor: number | null }
  /** What a log says again when its oldest segment goes. */
  | { readonly kind: 'again'; readonly messages: readonly StoredAgain[] }
  | { readonly kind: 'sender'; readonly instance: string; readonly floor: number; readonly taken: readonly number[] };

interface Sender {
  floor: number;
  taken: Set<number>;
}

export class Model {
  readonly queues = new Map<string, Map<number, Known>>(QUEUES.map(queue => [queue, new Map<number, Known>()]));
  readonly entries = new Map<string, string>();
  readonly senders = new Map<string, Sender>();
  /** Positions of the messages whose senders want to hear of them. */
  readonly tracked = new Map<number, string>();

  queue(id: string): Map<number, Known> {
    return this.queues.get(id) as Map<number, Known>;
  }

  copy(): Model {
    const other = new Model();
    for (const [id, messages] of this.queues) other.queues.set(id, new Map(messages));
    for (const [key, value] of this.entries) other.entries.set(key, value);
    for (const [id, { floor, taken }] of this.senders) other.senders.set(id, { floor, taken: new Set(taken) });
    for (const [handle, position] of this.tracked) other.tracked.set(handle, position);
    return other;
  }

  apply(change: Change): void {
    switch (change.kind) {
      case 'append':
        for (const part of change.parts) this.#append(change.instance, part);
        return;
      case 'ack':
        for (const [handle, count] of change.ranges) remove(this.queue(change.queue), handle, count);
        return;
      case 'move':
        this.#move(change);
        return;
      case 'drop':
        this.queue(change.queue).clear();
        return;
      case 'attempt': {
        const known = this.queue(change.queue).get(change.handle);
        if (known !== undefined) this.queue(change.queue).set(change.handle, { ...known, attempts: change.attempts });
        return;
      }
      case 'put':
        if (change.value === null) this.entries.delete(change.key);
        else this.entries.set(change.key, change.value);
        return;
      case 'floor':
        this.#floor(change.instance, change.floor);
        return;
      case 'again':
        for (const { queue, handle, tracked, ...known } of change.messages) {
          this.queue(queue).set(handle, known);
          if (tracked !== undefined) this.tracked.set(handle, tracked);
        }
        return;
      case 'sender':
        this.senders.set(change.instance, { floor: change.floor, taken: new Set(change.taken) });
    }
  }

  #append(instance: string, { handle, texts, first, expiresAt, tracked, queues }: Part): void {
    let sender = this.senders.get(instance);
    if (sender === undefined) this.senders.set(instance, (sender = { floor: 1, taken: new Set() }));
    for (const [i, text] of texts.entries()) {
      for (const id of queues) this.queue(id).set(handle + i, { text, attempts: 0, note: undefined, expiresAt });
      if (first + i >= sender.floor) sender.taken.add(first + i);
      if (tracked) this.tracked.set(handle + i, `${instance} ${String(first + i)}`);
    }
  }

  #move({ from, to, handle, count, note }: Extract<Change, { kind: 'move' }>): void {
    for (const [at, known] of [...this.queue(from)]) {
      if (at < handle || at >= handle + count) continue;
      this.queue(from).delete(at);
      if (!this.queue(to).has(at)) this.queue(to).set(at, { ...known, note: note ?? known.note });
    }
  }

  #floor(instance: string, floor: number | null): void {
    const sender = this.senders.get(instance);
    if (sender === undefined) return;
    if (floor === null) {
      this.senders.delete(instance);
      return;
    }
    sender.floor = Math.max(sender.floor, floor);
    for (const position of sender.taken) if (position < sender.floor) sender.taken.delete(position);
  }

  /** Messages in queues. */
  get size(): number {
    let size = 0;
    for (const messages of this.queues.values()) size += messages.size;
    return size;
  }

  /** What the queues hold, to be compared. */
  messages(): string {
    return JSON.stringify(this.#messages());
  }

  #messages(): unknown[] {
    return QUEUES.map(id =>
      [...this.queue(id)]
        .sort(([a], [b]) => a - b)
        .map(([handle, { text, attempts, note, expiresAt }]) => [handle, text, attempts, note, expiresAt]),
    );
  }

  /** Everything that it holds, to be compared; what of it is said in turns is sorted. */
  describe(): string {
    const senders = [...this.senders]
      .map(([id, { floor, taken }]) => [id, floor, [...taken].sort((a, b) => a - b)] as const)
      .sort(([a], [b]) => (a < b ? -1 : 1));
    const tracked = [...this.tracked]
      .map(([handle, sender]) => [handle, sender, QUEUES.filter(id => this.queue(id).has(handle))] as const)
      .filter(([, , where]) => where.length > 0)
      .sort(([a], [b]) => a - b);
    return JSON.stringify([this.#messages(), [...this.entries].sort(), senders, tracked]);
  }
}

function remove(messages: Map<number, Known>, handle: number, count: number): void {
  if (count <= messages.size) for (let i = 0; i < count; i++) messages.delete(handle + i);
  else for (const at of [...messages.keys()]) if (at >= handle && at < handle + count) messages.delete(at);
}

/** What an engine holds that has just been opened; also asserts that it reads in order and counts well. */
export async function observe(engine: Engine, state: EngineState): Promise<Model> {
  const found = new Model();
  for (const queue of QUEUES) {
    const into = found.queue(queue);
    let last = 0;
    for (let from = 0; ;) {
      const answer = engine.read(queue, from, 64, 16 * 1024);
      const runs = answer instanceof Promise ? await answer : answer;
      const end = runs[runs.length - 1];
      if (end === undefined) break;
      for (const run of runs) {
        assert.ok(run.handle > last, `the runs of ${queue} overlap at ${String(run.handle)}`);
        const { attempts, note, expiresAt } = run;
        for (const [i, text] of textsOf(run.batch).map(identify).entries())
          into.set(run.handle + i, { text, attempts, note, expiresAt });
        last = run.handle + run.batch.count - 1;
      }
      from = last + 1;
    }
    assert.equal(engine.usage(queue).messages, into.size, `messages counted in ${queue}`);
  }
  for (const [key, value] of state.entries) found.entries.set(key, value);
  for (const { instance, floor, taken } of state.senders) {
    const positions = taken.flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i));
    found.senders.set(instance, { floor, taken: new Set(positions) });
  }
  for (const { handle, instance, position, queues } of state.tracked) {
    found.tracked.set(handle, `${instance} ${String(position)}`);
    const held = QUEUES.filter(id => found.queue(id).has(handle));
    assert.deepEqual([...queues].sort(), held, `queues of the tracked message ${String(handle)}`);
  }
  return found;
}

/**
 * The state that was found: what was before, and as many of the changes since as have survived, at least those that were
 * promised. Acknowledgements and floors that no commit covers may be missing by themselves. Throws when there is none.
 */
export function survivingState(base: Model, changes: readonly Change[], promised: number, found: Model): Model {
  const wanted = found.describe();
  const least = base.copy();
  for (const change of changes.slice(0, promised)) least.apply(change);
  const now = least.copy();
  for (let upTo = promised; ; upTo++) {
    if (now.describe() === wanted) return now;
    if (upTo === changes.length) break;
    now.apply(changes[upTo] as Change);
  }
  for (let upTo = promised + 1; upTo <= changes.length; upTo++) {
    const late = changes.slice(promised, upTo);
    const soft = late.filter(({ kind }) => kind === 'ack' || kind === 'floor');
    for (let lost = 1; lost < 1 << Math.min(soft.length, 8); lost++) {
      const without = new Set(soft.filter((_, i) => (lost & (1 << i)) !== 0));
      const other = least.copy();
      for (const change of late) if (!without.has(change)) other.apply(change);
      if (other.describe() === wanted) return other;
    }
  }
  const then = JSON.stringify(changes.slice(promised));
  assert.fail(`found ${wanted}\npromised at least ${least.describe()}\nthen ${then}`);
}
