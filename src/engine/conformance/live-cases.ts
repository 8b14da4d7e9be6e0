/** Obligations that every engine has while it is open. */
import assert from 'node:assert/strict';
import { isEngine } from '../engine.js';
import { appendTo, messagesOf, sampleBatch, textsOf } from './batches.js';
import { caseOf, type ConformanceCase } from './harness.js';

const ALL = Number.MAX_SAFE_INTEGER;

function isStoreError(code: string): (error: unknown) => boolean {
  return error => (error as { code?: unknown }).code === code;
}

export const liveCases: readonly ConformanceCase[] = [
  caseOf('has the shape of an engine, and says what a commit means', async ({ engine }) => {
    assert.ok(isEngine(engine));
    assert.ok(['memory', 'fsync', 'replicated'].includes(engine.durability));
    assert.ok(engine.kind.length > 0);
    await engine.commit();
  }),

  caseOf('opens empty, with an id of the store', async ({ state, engine }) => {
    assert.match(state.storeId, /^[\x21-\x7e]{1,64}$/);
    assert.ok(state.nextHandle >= 1);
    assert.equal(state.entries.size, 0);
    assert.deepEqual([...state.queues, ...state.senders, ...state.tracked, ...state.expiring, ...state.damage], []);
    assert.deepEqual([...engine.queues('')], []);
    assert.deepEqual(engine.usage('q'), { messages: 0, bytes: 0 });
    assert.deepEqual(await engine.read('q', 0, 10, 1000), []);
  }),

  caseOf('gives consecutive, growing handles, and reads back what was appended, as it was', async bench => {
    const { engine } = bench;
    const envelope = {
      name: 'a name',
      headers: { ['__proto__']: 'x', key: 'wert ä' },
      ttl: 5000,
      tracked: true,
      channels: ['one', 'two'],
      clients: ['three'],
      everyone: false,
      persistent: true,
    };
    const first = { ...appendTo(['q'], ['a', 'bb', ''], { first: 7, envelope }), expiresAt: 12_345.5 };
    const [one, two] = engine.append([first, appendTo(['q'], ['c'], { first: 10, name: undefined })]) as [
      number,
      number,
    ];
    assert.ok(one >= bench.state.nextHandle);
    assert.equal(two, one + 3);
    const [three] = engine.append([appendTo(['q'], ['d'], { first: 11 })]) as [number];
    assert.equal(three, two + 1);
    await engine.commit();
    const runs = await bench.all('q');
    assert.deepEqual(messagesOf(runs), [
      { handle: one, text: 'a' },
      { handle: one + 1, text: 'bb' },
      { handle: one + 2, text: '' },
      { handle: two, text: 'c' },
      { handle: three, text: 'd' },
    ]);
    const { batch, expiresAt, attempts, note } = runs[0] as (typeof runs)[0];
    const { wire: _wire, ...read } = batch;
    const { wire: _wire2, ...written } = first.batch;
    assert.deepEqual(read.envelope, written.envelope);
    assert.deepEqual({ ...read, items: Buffer.from(read.items) }, { ...written, items: Buffer.from(written.items) });
    assert.deepEqual({ expiresAt, attempts, note }, { expiresAt: 12_345.5, attempts: 0, note: undefined });
    assert.equal(runs.find(run => run.handle === two)?.batch.sender.name, undefined);
  }),

  caseOf('reads an append at once, before any commit', async bench => {
    bench.engine.append([appendTo(['q'], ['a', 'b'])]);
    await bench.isIn('q', ['a', 'b']);
  }),

  caseOf('puts one message in several queues, and gives each queue only its share', async bench => {
    const { engine } = bench;
    engine.append([
      {
        batch: sampleBatch(['a', 'b', 'c', 'd']),
        expiresAt: 0,
        queues: [
          { queue: 'all', offset: 0, count: 4 },
          { queue: 'some', offset: 0, count: 1 },
          { queue: 'some', offset: 2, count: 2 },
        ],
      },
    ]);
    await bench.isIn('all', ['a', 'b', 'c', 'd']);
    await bench.isIn('some', ['a', 'c', 'd']);
    const [run] = (await bench.all('some')).slice(-1);
    assert.equal(run?.batch.first, 3);
    assert.equal(run.batch.idBase, 2);
  }),

  caseOf('keeps nothing of a batch that no queue takes', async ({ engine }) => {
    engine.append([{ batch: sampleBatch(['a']), expiresAt: 0, queues: [] }]);
    assert.deepEqual(engine.totals().messages, 0);
    assert.deepEqual([...engine.queues('')], []);
    await engine.commit();
  }),

  caseOf('does not pin or follow the caller’s buffer', async bench => {
    const large = Buffer.alloc(1024 * 1024);
    const batch = sampleBatch(['keep me']);
    batch.items.copy(large, 100);
    const items = large.subarray(100, 100 + batch.items.length);
    bench.engine.append([{ batch: { ...batch, items }, expiresAt: 0, queues: [{ queue: 'q', offset: 0, count: 1 }] }]);
    const [run] = await bench.all('q');
    assert.ok((run?.batch.items.buffer.byteLength ?? Infinity) < large.length);
  }),

  caseOf('takes messages of a megabyte and empty ones', async bench => {
    const texts = ['x'.repeat(1024 * 1024), '', 'y'.repeat(300_000)];
    bench.engine.append([appendTo(['q'], texts)]);
    await bench.engine.commit();
    await bench.isIn('q', texts);
  }),

  caseOf('reads from a handle on, within the messages and bytes that were asked for, at least one', async bench => {
    const { engine } = bench;
    const texts = Array.from({ length: 10 }, (_, i) => `m${String(i)}`);
    const [first] = engine.append([appendTo(['q'], texts, { bodyBytes: 100 })]) as [number];
    await engine.commit();
    const read = async (from: number, messages: number, bytes: number): Promise<string[]> =>
      messagesOf(await engine.read('q', from, messages, bytes)).map(({ text }) => text);
    assert.deepEqual(await read(first + 3, 2, 1e6), ['m3', 'm4']);
    assert.deepEqual(await read(first + 9, 5, 1), ['m9']);
    assert.ok((await read(0, 100, 1)).length >= 1);
    assert.deepEqual(await read(first + 10, 5, 1e6), []);
    assert.deepEqual(
      messagesOf(await bench.all('q', 3)).map(({ text }) => text),
      texts,
    );
  }),

  caseOf('lets acknowledged messages leave, in any order, and passes over others', async bench => {
    const { engine } = bench;
    const [first] = engine.append([appendTo(['q', 'r'], ['a', 'b', 'c', 'd', 'e'])]) as [number];
    engine.ack('q', first + 1, 1);
    engine.ack('q', first + 3, 1);
    await bench.isIn('q', ['a', 'c', 'e']);
    engine.ack('q', first + 1, 3);
    engine.ack('q', first + 500, 7);
    engine.ack('nowhere', first, 1);
    await bench.isIn('q', ['a', 'e']);
    await bench.isIn('r', ['a', 'b', 'c', 'd', 'e']);
    engine.ack('q', 0, ALL);
    await bench.isIn('q', []);
    assert.deepEqual([...engine.queues('')], ['r']);
    assert.equal(engine.totals().messages, 5);
    engine.ack('r', first, 5);
    assert.equal(engine.totals().messages, 0);
    assert.equal(engine.totals().bytes, 0);
  }),

  caseOf('counts messages and bytes of a queue exactly', async bench => {
    const { engine } = bench;
    const batch = sampleBatch(['a', 'bb', 'ccc', 'dddd']);
    const [first] = engine.append([{ batch, expiresAt: 0, queues: [{ queue: 'q', offset: 0, count: 4 }] }]) as [number];
    await engine.commit();
    assert.deepEqual(engine.usage('q'), { messages: 4, bytes: batch.items.length });
    engine.ack('q', first + 1, 1);
    assert.deepEqual(engine.usage('q'), { messages: 3, bytes: batch.items.length - 7 });
    engine.move('q', 'r', first + 3, 1);
    assert.deepEqual(engine.usage('q'), { messages: 2, bytes: 6 + 8 });
    assert.deepEqual(engine.usage('r'), { messages: 1, bytes: 9 });
  }),

  caseOf('moves messages to the place that their handles give them, with their attempts', async bench => {
    const { engine } = bench;
    const [a] = engine.append([appendTo(['from'], ['a', 'b'])]) as [number];
    engine.append([appendTo(['to'], ['c'], { first: 3 })]);
    const [d] = engine.append([appendTo(['from'], ['d'], { first: 4 })]) as [number];
    engine.append([appendTo(['to'], ['e'], { first: 5 })]);
    engine.attempt('from', d, 3);
    engine.move('from', 'to', a + 1, 1);
    engine.move('from', 'to', d, 1, 'a note');
    await bench.isIn('from', ['a']);
    await bench.isIn('to', ['b', 'c', 'd', 'e']);
    const moved = (await bench.all('to')).find(run => run.handle === d);
    assert.deepEqual([moved?.attempts, moved?.note], [3, 'a note']);
    engine.move('from', 'to');
    await bench.isIn('to', ['a', 'b', 'c', 'd', 'e']);
    assert.deepEqual([...engine.queues('')], ['to']);
    engine.move('to', 'to');
    assert.deepEqual(engine.move('nowhere', 'to'), []);
    await bench.isIn('to', ['a', 'b', 'c', 'd', 'e']);
  }),

  caseOf('lets a moved message that the target has already only leave its source, and says so', async bench => {
    const { engine } = bench;
    const [a] = engine.append([appendTo(['one', 'two'], ['a', 'b', 'c'])]) as [number];
    engine.ack('two', a + 1, 1);
    const known = engine.move('one', 'two', a, 3);
    assert.deepEqual(known, [
      { handle: a, count: 1 },
      { handle: a + 2, count: 1 },
    ]);
    await bench.isIn('one', []);
    await bench.isIn('two', ['a', 'b', 'c']);
    engine.ack('two', a, 3);
    assert.equal(engine.totals().messages, 0);
    assert.equal(engine.totals().bytes, 0);
  }),

  caseOf('records attempts of single messages, each a run of its own', async bench => {
    const { engine } = bench;
    const [a] = engine.append([appendTo(['q'], ['a', 'b', 'c'])]) as [number];
    engine.attempt('q', a + 1, 2);
    engine.attempt('q', a + 100, 2);
    engine.attempt('nowhere', a, 2);
    const runs = await bench.all('q');
    assert.deepEqual(
      runs.map(({ handle, attempts, batch }) => [handle, attempts, textsOf(batch)]),
      [
        [a, 0, ['a']],
        [a + 1, 2, ['b']],
        [a + 2, 0, ['c']],
      ],
    );
    engine.attempt('q', a + 1, 3);
    assert.equal((await bench.all('q'))[1]?.attempts, 3);
  }),

  caseOf('ends a queue that is dropped, and begins it anew', async bench => {
    const { engine } = bench;
    engine.append([appendTo(['q', 'r'], ['a', 'b'])]);
    engine.drop('q');
    engine.drop('q');
    await bench.isIn('q', []);
    await bench.isIn('r', ['a', 'b']);
    engine.append([appendTo(['q'], ['c'], { first: 3 })]);
    await bench.isIn('q', ['c']);
  }),

  caseOf('finds queues by the beginning of their ids, which mean nothing to it', async bench => {
    const odd = ['__proto__', 'constructor', '../x', 'q/a\0b', 'q/\u00e4', ''];
    bench.engine.append([appendTo(odd, ['a'])]);
    assert.deepEqual([...bench.engine.queues('')].sort(), [...odd].sort());
    assert.deepEqual([...bench.engine.queues('q/')].sort(), ['q/a\0b', 'q/\u00e4']);
    for (const queue of odd) await bench.isIn(queue, ['a']);
  }),

  caseOf('keeps order when much is acknowledged, moved away and given back at random', async bench => {
    const { engine } = bench;
    const model = new Map<number, string>();
    let seed = 7;
    const random = (n: number): number => (seed = (seed * 16807) % 2147483647) % n;
    for (let round = 0; round < 300; round++) {
      const count = 1 + random(5);
      const texts = Array.from({ length: count }, (_, i) => `${String(round)}.${String(i)}`);
      const [first] = engine.append([appendTo(['q'], texts, { first: 1 + round * 10 })]) as [number];
      texts.forEach((text, i) => model.set(first + i, text));
      const handle = 1 + random(first + count);
      if (round % 3 === 0) {
        engine.ack('q', handle, 2);
        model.delete(handle);
        model.delete(handle + 1);
      } else {
        engine.move('q', 'away', handle, 3);
        if (round % 2 === 0) engine.move('away', 'q');
        else engine.move('away', 'q', handle, 3);
      }
    }
    engine.move('away', 'q');
    const expected = [...model].sort(([a], [b]) => a - b).map(([handle, text]) => ({ handle, text }));
    assert.deepEqual(messagesOf(await bench.all('q', 50)), expected);
    assert.equal(engine.usage('q').messages, expected.length);
  }),

  caseOf(
    'refuses what exceeds its limit whole, and says when there is room again',
    async bench => {
      const { engine } = bench;
      const handles: number[] = [];
      assert.throws(() => {
        for (let i = 0; i < 1000; i++)
          handles.push(...engine.append([appendTo(['q'], ['x'], { bodyBytes: 1000, first: i + 1 })]));
      }, isStoreError('store-full'));
      assert.ok(handles.length > 10 && handles.length <= 100);
      const before = { usage: engine.usage('q'), totals: engine.totals() };
      assert.throws(
        () =>
          engine.append([
            appendTo(['other'], ['y'], { bodyBytes: 50_000 }),
            appendTo(['q'], ['z'], { bodyBytes: 60_000 }),
          ]),
        isStoreError('store-full'),
      );
      assert.deepEqual({ usage: engine.usage('q'), totals: engine.totals() }, before);
      assert.deepEqual(engine.usage('other'), { messages: 0, bytes: 0 });
      assert.ok(before.totals.bytes <= before.totals.limit);
      assert.equal(bench.roomAgain, 0);
      engine.drop('q');
      assert.equal(bench.roomAgain, 1);
      engine.append([appendTo(['q'], ['again'])]);
      await bench.isIn('q', ['again']);
      await engine.commit();
    },
    { storeBytes: 100_000 },
  ),

  caseOf('counts its time by the monotonic clock, whatever the wall clock does', async ({ engine, clock }) => {
    const before = engine.time();
    clock.tick(1500);
    clock.jump(-86_400_000 * 30);
    assert.equal(engine.time() - before, 1500);
    await engine.commit();
  }),

  caseOf('is closed more than once, has nothing in it then, and can be opened anew', async bench => {
    const { engine } = bench;
    bench.store = { ...bench.store, engine: () => engine };
    await assert.rejects(bench.open(), isStoreError('store-locked'));
    engine.append([appendTo(['q'], ['a'])]);
    await Promise.all([engine.close(), engine.close()]);
    await engine.close();
    assert.throws(() => engine.append([appendTo(['q'], ['a'])]), isStoreError('store-failed'));
    await assert.rejects(engine.commit(), isStoreError('store-failed'));
    assert.deepEqual(await engine.read('q', 0, 1, 1), []);
    engine.ack('q', 1, 1);
    engine.move('q', 'r');
    engine.attempt('q', 1, 1);
    engine.drop('q');
    engine.put('k', 'v');
    engine.floor('0'.repeat(32), 1);
    assert.deepEqual(engine.usage('q'), { messages: 0, bytes: 0 });
    assert.deepEqual([...engine.queues('')], []);
    assert.equal(engine.totals().messages, 0);
    assert.equal(typeof engine.time(), 'number');
    await bench.open();
    engine.append([appendTo(['new'], ['b'], { first: 2 })]);
    await bench.isIn('new', ['b']);
  }),
];
