/**
 * Random work on a disk engine over a simulated disk, cut short by a power cut at a random operation, checked against a
 * model after every restart, several times over for each seed. What was promised must be there; what was not may be, as a
 * whole and in order. Used by the tests with a few thousand seeds, and by scripts/crash-points.js with as many as one likes.
 */
import assert from 'node:assert/strict';
import { appendTo, messagesOf, newInstance } from '../../src/engine/conformance/batches.js';
import { diskEngine, type Engine, type EngineHost, type EngineState } from '../../src/engine/index.js';
import { TestClock } from '../../src/testing/test-clock.js';
import { PowerCut, seededRandom, SimulatedDisk } from './simulated-files.js';

const QUEUES = ['a', 'b', 'c'];
const KEYS = ['k1', 'k2', 'k3'];

/** A message of the model: in which queues it must be, and in which it may be. */
interface Known {
  readonly text: string;
  readonly append: number;
  attempts: number;
}

/** One change, as the model redoes it. */
type Change =
  | {
      readonly kind: 'append';
      readonly id: number;
      readonly parts: readonly { handle: number; texts: string[]; queues: string[] }[];
    }
  | { readonly kind: 'ack'; readonly queue: string; readonly handle: number; readonly count: number }
  | {
      readonly kind: 'move';
      readonly from: string;
      readonly to: string;
      readonly handle: number;
      readonly count: number;
    }
  | { readonly kind: 'drop'; readonly queue: string }
  | { readonly kind: 'attempt'; readonly queue: string; readonly handle: number; readonly attempts: number }
  | { readonly kind: 'put'; readonly key: string; readonly value: string | null };

class Model {
  readonly queues = new Map<string, Map<number, Known>>(QUEUES.map(queue => [queue, new Map<number, Known>()]));
  readonly entries = new Map<string, string>();

  apply(change: Change): void {
    const queue = (id: string): Map<number, Known> => this.queues.get(id) as Map<number, Known>;
    switch (change.kind) {
      case 'append':
        for (const { handle, texts, queues } of change.parts)
          for (const id of queues)
            texts.forEach((text, i) => queue(id).set(handle + i, { text, append: change.id, attempts: 0 }));
        return;
      case 'ack':
        for (let i = 0; i < change.count; i++) queue(change.queue).delete(change.handle + i);
        return;
      case 'move':
        for (const [handle, known] of [...queue(change.from)]) {
          if (handle < change.handle || handle >= change.handle + change.count) continue;
          queue(change.from).delete(handle);
          if (!queue(change.to).has(handle)) queue(change.to).set(handle, known);
        }
        return;
      case 'drop':
        queue(change.queue).clear();
        return;
      case 'attempt': {
        const known = queue(change.queue).get(change.handle);
        if (known !== undefined) queue(change.queue).set(change.handle, { ...known, attempts: change.attempts });
        return;
      }
      case 'put':
        if (change.value === null) this.entries.delete(change.key);
        else this.entries.set(change.key, change.value);
    }
  }

  /** What the queues and pairs hold, to be compared. */
  describe(): string {
    const queues = QUEUES.map(id =>
      [...(this.queues.get(id) as Map<number, Known>)]
        .sort(([a], [b]) => a - b)
        .map(([h, k]) => [h, k.text, k.attempts]),
    );
    return JSON.stringify([queues, [...this.entries].sort()]);
  }
}

async function observe(engine: Engine, state: EngineState): Promise<Model> {
  const found = new Model();
  for (const queue of QUEUES) {
    const into = found.queues.get(queue) as Map<number, Known>;
    let last = 0;
    for (let from = 0; ;) {
      const runs = await engine.read(queue, from, 7, 2000);
      const end = runs[runs.length - 1];
      if (end === undefined) break;
      for (const run of runs) {
        assert.ok(run.handle > last, 'runs come in order and do not overlap');
        for (const { handle, text } of messagesOf([run])) into.set(handle, { text, append: 0, attempts: run.attempts });
        last = run.handle + run.batch.count - 1;
      }
      from = last + 1;
    }
    assert.equal(engine.usage(queue).messages, into.size);
  }
  for (const [key, value] of state.entries) found.entries.set(key, value);
  return found;
}

export interface CrashOptions {
  readonly segmentBytes: number;
  /** Restarts for each seed. */
  readonly lives: number;
}

/** Runs one seed; throws with what is wrong. Returns how many power cuts there were. */
export async function runSeed(seed: number, { segmentBytes, lives }: CrashOptions): Promise<number> {
  const random = seededRandom(seed);
  const pick = (n: number): number => Math.floor(random() * n);
  let disk = new SimulatedDisk();
  const clock = new TestClock();
  /** The state that every change since was made on, and those changes, of which so many are promised. */
  let base = new Model();
  let changes: Change[] = [];
  let promised = 0;
  let cuts = 0;
  let appends = 0;
  let position = 1;
  const instance = newInstance();

  for (let life = 0; life < lives; life++) {
    const failures: Error[] = [];
    const cutAt = random() < 0.25 ? Infinity : pick(life === 0 ? 60 : 160);
    const dying = disk;
    const host: EngineHost = {
      clock,
      storeBytes: undefined,
      failed: error => void failures.push(error),
      roomAgain: () => undefined,
      arrived: () => undefined,
      damaged: () => undefined,
      warn: text => assert.ok(dying.operations > cutAt, text),
    };
    const engine = diskEngine({ directory: '/d', files: disk, segmentBytes, reserveBytes: 0 });
    dying.fault = (_, index) => (index === cutAt ? 'power-cut' : undefined);
    let state: EngineState | undefined;
    try {
      state = await engine.open(host);
      assert.deepEqual(state.damage, [], 'a power cut is no damage');
      const found = await observe(engine, state);
      base = findSuffix(base, changes, promised, found);
      changes = [];
      promised = 0;
      const steps = 5 + pick(60);
      for (let step = 0; step < steps && failures.length === 0; step++) {
        const change = nextChange(pick, random, base, changes, appends);
        if (change.kind === 'append') appends++;
        position = make(engine, change, position, instance, random);
        changes.push(change);
        if (random() < 0.3) {
          const upTo = changes.length;
          const commit = engine.commit().then(() => void (promised = Math.max(promised, upTo)));
          if (random() < 0.7) await commit;
          else commit.catch(() => undefined);
        }
        if (random() < 0.1) clock.tick(60);
        if (random() < 0.1) await new Promise(resolve => setImmediate(resolve));
      }
      await engine.close();
      if (failures.length === 0 && dying.operations <= cutAt) promised = changes.length;
    } catch (error) {
      await engine.close();
      if (!isPowerCut(error)) throw error;
    }
    if (dying.operations > cutAt) {
      cuts++;
      disk = dying.afterPowerCut(random);
    } else {
      disk = dying.afterKill();
      assert.equal(dying.openFiles, 0, 'closed files');
    }
    if (state === undefined) continue; // it died while it was opened: the same is asked of the next life
  }
  return cuts;
}

function isPowerCut(error: unknown): boolean {
  for (let at: unknown = error; at instanceof Error; at = at.cause) if (at instanceof PowerCut) return true;
  return false;
}

/** The model after some changes, at least those that were promised, that equals what was found; acknowledgements may be missing. */
function findSuffix(base: Model, changes: readonly Change[], promised: number, found: Model): Model {
  const wanted = found.describe();
  for (let upTo = changes.length; upTo >= promised; upTo--) {
    const model = new Model();
    copyInto(base, model);
    for (const change of changes.slice(0, upTo)) model.apply(change);
    if (model.describe() === wanted) return model;
    // What no commit covers may be lost where it is only an acknowledgement.
    const late = changes.slice(promised, upTo).filter(({ kind }) => kind === 'ack');
    for (let lost = 1; lost < 1 << Math.min(late.length, 10); lost++) {
      const without = new Set(late.filter((_, i) => (lost & (1 << i)) !== 0));
      const other = new Model();
      copyInto(base, other);
      for (const change of changes.slice(0, upTo)) if (!without.has(change)) other.apply(change);
      if (other.describe() === wanted) return other;
    }
  }
  const least = new Model();
  copyInto(base, least);
  for (const change of changes.slice(0, promised)) least.apply(change);
  assert.fail(
    `found ${wanted}\npromised at least ${least.describe()}\nthen ${JSON.stringify(changes.slice(promised))}`,
  );
}

function copyInto(from: Model, to: Model): void {
  for (const [id, messages] of from.queues)
    for (const [handle, known] of messages) to.queues.get(id)?.set(handle, known);
  for (const [key, value] of from.entries) to.entries.set(key, value);
}

function nextChange(
  pick: (n: number) => number,
  random: () => number,
  base: Model,
  changes: readonly Change[],
  appends: number,
): Change {
  const now = new Model();
  copyInto(base, now);
  for (const change of changes) now.apply(change);
  const queue = QUEUES[pick(QUEUES.length)] as string;
  const handles = [...(now.queues.get(queue) as Map<number, Known>).keys()];
  const handle = handles[pick(handles.length)] ?? 1;
  const kind = random();
  if (kind < 0.45) {
    const parts = Array.from({ length: 1 + pick(3) }, (_, part) => ({
      handle: 0,
      texts: Array.from({ length: 1 + pick(4) }, (_m, i) => `${String(appends)}.${String(part)}.${String(i)}`),
      queues: QUEUES.filter(() => random() < 0.5),
    }));
    return { kind: 'append', id: appends, parts };
  }
  if (kind < 0.7) return { kind: 'ack', queue, handle, count: 1 + pick(5) };
  if (kind < 0.8) {
    const to = QUEUES[(QUEUES.indexOf(queue) + 1) % QUEUES.length] as string;
    return random() < 0.2
      ? { kind: 'move', from: queue, to, handle: 0, count: Number.MAX_SAFE_INTEGER }
      : { kind: 'move', from: queue, to, handle, count: 1 + pick(3) };
  }
  if (kind < 0.87) return { kind: 'attempt', queue, handle, attempts: 1 + pick(4) };
  if (kind < 0.9) return { kind: 'drop', queue };
  const key = KEYS[pick(KEYS.length)] as string;
  return { kind: 'put', key, value: random() < 0.2 ? null : `${String(pick(1000))}${'x'.repeat(pick(200))}` };
}

/** Makes a change on the engine; an append's handles are filled in. Returns the next free position. */
function make(engine: Engine, change: Change, position: number, instance: string, random: () => number): number {
  switch (change.kind) {
    case 'append': {
      let at = position;
      const batches = change.parts.map(({ texts, queues }) => {
        const first = at;
        at += texts.length;
        return appendTo(queues, texts, { first, instance, bodyBytes: random() < 0.1 ? 1500 : 40 });
      });
      engine.append(batches).forEach((handle, i) => {
        (change.parts[i] as { handle: number }).handle = handle;
      });
      return at;
    }
    case 'ack':
      engine.ack(change.queue, change.handle, change.count);
      break;
    case 'move':
      engine.move(change.from, change.to, change.handle, change.count);
      break;
    case 'drop':
      engine.drop(change.queue);
      break;
    case 'attempt':
      engine.attempt(change.queue, change.handle, change.attempts);
      break;
    case 'put':
      engine.put(change.key, change.value);
  }
  return position;
}
