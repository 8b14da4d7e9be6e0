/** What only shows with megabytes: groups, pieces, the cache. On the real disk. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { appendTo, messagesOf, newInstance } from '../../../src/engine/conformance/batches.js';
import { diskEngine, type Engine, type EngineHost, type EngineState } from '../../../src/engine/index.js';
import { TestClock } from '../../../src/testing/test-clock.js';
import { temporaryFolder } from '../../helpers/scene.js';

const MIB = 1024 * 1024;

interface Opened {
  readonly engine: Engine;
  readonly state: EngineState;
  readonly directory: string;
  readonly warnings: string[];
}

async function open(directory: string, segmentBytes = 2 * MIB): Promise<Opened> {
  const warnings: string[] = [];
  const host: EngineHost = {
    clock: new TestClock(),
    storeBytes: undefined,
    failed: error => void warnings.push(error.message),
    roomAgain: () => undefined,
    arrived: () => undefined,
    damaged: () => undefined,
    warn: text => void warnings.push(text),
  };
  const engine = diskEngine({ directory, segmentBytes });
  return { engine, state: await engine.open(host), directory, warnings };
}

async function newStore(segmentBytes?: number): Promise<Opened> {
  return open(join(await temporaryFolder(), 'data'), segmentBytes);
}

async function texts(engine: Engine, queue: string): Promise<string[]> {
  const found: string[] = [];
  for (let from = 0; ;) {
    const part = messagesOf(await engine.read(queue, from, 1000, MIB));
    const last = part[part.length - 1];
    if (last === undefined) return found;
    found.push(...part.map(({ text }) => text));
    from = last.handle + 1;
  }
}

/** Sends so many bytes through a queue. */
async function churn(engine: Engine, bytes: number, first = 100_000): Promise<void> {
  for (let written = 0; written < bytes; written += MIB / 4) {
    const [handle] = engine.append([appendTo(['through'], ['x'], { first: first + written, bodyBytes: MIB / 4 })]) as [
      number,
    ];
    engine.ack('through', handle, 1);
    await engine.commit();
  }
}

describe('the disk engine with much', () => {
  it('writes what gathers in groups, and keeps a large append whole in one', async () => {
    const { engine, directory } = await newStore();
    const small = Array.from({ length: 40 }, (_, i) => `small ${String(i)}`);
    for (const [i, text] of small.entries())
      engine.append([appendTo(['q'], [text], { first: i + 1, bodyBytes: MIB / 2 })]);
    const parts = Array.from({ length: 24 }, (_, i) => `part ${String(i)}`);
    engine.append(parts.map((text, i) => appendTo(['q'], [text], { first: 100 + i, bodyBytes: MIB / 2 })));
    expect(await texts(engine, 'q')).toEqual([...small, ...parts]);
    await engine.commit();
    await engine.close();
    const sizes = await Promise.all(
      (await readdir(directory)).map(async name => (await stat(join(directory, name))).size),
    );
    expect(Math.max(...sizes)).toBeGreaterThan(12 * MIB);
    const again = await open(directory);
    expect(again.state.damage).toEqual([]);
    expect(await texts(again.engine, 'q')).toEqual([...small, ...parts]);
    await again.engine.close();
  });

  it('moves many messages, pairs and senders out of an old segment while they change', async () => {
    const { engine, directory, warnings } = await newStore(8 * MIB);
    const waiting = Array.from({ length: 300 }, (_, i) => `waiting ${String(i)}`);
    const handles = waiting.map(
      (text, i) => engine.append([appendTo(['away'], [text], { first: i + 1, bodyBytes: 10_000 })])[0] as number,
    );
    const instances = Array.from({ length: 3 }, () => newInstance());
    for (const instance of instances) engine.append([appendTo([], ['taken'], { instance, first: 5 })]);
    for (let i = 0; i < 30; i++) engine.put(`key ${String(i)}`, `${String(i)} `.repeat(30_000));
    await engine.commit();
    // Every commit on the way changes some of what is being moved.
    for (let i = 0; i < 150; i++) {
      await churn(engine, MIB, 1_000_000 * (i + 1));
      engine.ack('away', handles[i] as number, 1);
      engine.put(`key ${String(i % 10)}`, i % 3 === 0 ? null : `new ${String(i)}`);
      if (i === 120) engine.floor(instances[0] as string, null);
    }
    await engine.commit();
    const names = (await readdir(directory)).filter(name => name.endsWith('.log'));
    expect(names).not.toContain('segment-0000000001.log');
    expect(await texts(engine, 'away')).toEqual(waiting.slice(150));
    await engine.close();
    expect(warnings).toEqual([]);
    const again = await open(directory);
    expect(again.state.damage).toEqual([]);
    expect(await texts(again.engine, 'away')).toEqual(waiting.slice(150));
    expect(again.state.entries.get('key 15')).toBe('15 '.repeat(30_000));
    expect(again.state.entries.get('key 9')).toBe('new 149');
    expect(again.state.entries.has('key 7')).toBe(false);
    const known = new Set(again.state.senders.map(({ instance }) => instance));
    expect(instances.map(instance => known.has(instance))).toEqual([false, true, true]);
    await again.engine.close();
  });

  it('is closed while it gives space back, and goes on with it after the next start', async () => {
    const { engine, directory } = await newStore();
    for (let i = 0; i < 8; i++)
      engine.append([appendTo(['away'], [`waiting ${String(i)}`], { first: i + 1, bodyBytes: 200_000 })]);
    await engine.commit();
    await churn(engine, 20 * MIB);
    await engine.close();
    const again = await open(directory);
    await churn(again.engine, 20 * MIB, 90_000_000);
    expect(await texts(again.engine, 'away')).toHaveLength(8);
    await again.engine.close();
  });
});
