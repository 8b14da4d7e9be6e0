/** Obligations of an engine whose store outlives its process. */
import assert from 'node:assert/strict';
import { appendTo, messagesOf, INSTANCE, newInstance } from './batches.js';
import { caseOf, type Bench, type ConformanceCase } from './harness.js';

const DAY = 24 * 60 * 60 * 1000;

/** The two ways in which a process ends. */
const endings: readonly {
  readonly name: string;
  readonly again: (bench: Bench, meanwhile?: () => void) => Promise<unknown>;
}[] = [
  { name: 'after close', again: (bench, meanwhile) => bench.reopen(meanwhile) },
  {
    name: 'after a kill',
    again: async (bench, meanwhile) => {
      if (bench.store.kill === undefined) return bench.reopen(meanwhile);
      const dead = bench.engine;
      await bench.store.kill();
      meanwhile?.();
      await bench.open();
      // It holds no lock on what is a new store now, but it holds files.
      return dead.close();
    },
  },
];

function both(
  name: string,
  run: (bench: Bench, again: (meanwhile?: () => void) => Promise<unknown>) => Promise<void>,
): ConformanceCase[] {
  return endings.map(ending =>
    caseOf(`${name}, ${ending.name}`, bench => run(bench, meanwhile => ending.again(bench, meanwhile)), {
      needs: { durable: true },
    }),
  );
}

export const durableCases: readonly ConformanceCase[] = [
  ...both('gives no handle a second time, not even one that no commit covered', async (bench, again) => {
    bench.engine.append([appendTo(['q'], ['a'])]);
    await bench.engine.commit();
    const [last] = bench.engine.append([appendTo(['q'], ['b'], { first: 2 })]) as [number];
    await again();
    assert.ok(bench.state.nextHandle > last);
    assert.ok((bench.engine.append([appendTo(['q'], ['c'], { first: 3 })])[0] as number) > last);
  }),
  ...both('finds what was committed, with its order, attempts, notes and the id of the store', async (bench, again) => {
    const { engine, state } = bench;
    const [a] = engine.append([appendTo(['q', 'r'], ['a', 'b', 'c']), appendTo(['q'], ['d'], { first: 4 })]) as [
      number,
    ];
    engine.attempt('q', a + 1, 4);
    engine.ack('q', a, 1);
    engine.move('q', 'dead', a + 2, 1, 'why');
    engine.append([appendTo(['gone'], ['x'], { first: 5 })]);
    const rich = {
      name: 'n',
      headers: { key: 'wert' },
      ttl: 7,
      everyone: true,
      channels: [],
      resent: true,
      persistent: false,
    };
    engine.append([appendTo(['rich'], ['y'], { first: 6, envelope: rich, name: undefined })]);
    engine.drop('gone');
    await engine.commit();
    await again();
    assert.equal(bench.state.storeId, state.storeId);
    assert.deepEqual(bench.state.damage, []);
    const { nextHandle } = bench.state;
    for (const id of ['q', 'r', 'rich'])
      for (const run of await bench.all(id)) assert.ok(run.handle + run.batch.count <= nextHandle);
    assert.ok((bench.engine.append([appendTo(['later'], ['z'], { first: 7 })])[0] as number) >= nextHandle);
    bench.engine.drop('later');
    await bench.isIn('q', ['b', 'd']);
    await bench.isIn('r', ['a', 'b', 'c']);
    await bench.isIn('dead', ['c']);
    assert.equal((await bench.all('q'))[0]?.attempts, 4);
    const { idPrefix, ...envelope } = (await bench.all('rich'))[0]?.batch.envelope ?? {};
    assert.equal(idPrefix, 'AAAAAAAAAAAA');
    assert.deepEqual(envelope, { clients: [], tracked: false, ...rich });
    assert.equal((await bench.all('dead'))[0]?.note, 'why');
    assert.deepEqual(
      [...bench.state.queues].sort((x, y) => (x.queue < y.queue ? -1 : 1)),
      ['dead', 'q', 'r', 'rich'].map(queue => ({ queue, ...bench.engine.usage(queue) })),
    );
  }),

  ...both('leaves out of a read what is acknowledged or moved away before its answer', async (bench, again) => {
    bench.engine.append([appendTo(['q'], ['a', 'b', 'c', 'd'])]);
    await bench.engine.commit();
    await again();
    const [all] = await bench.engine.read('q', 0, 100, 1_000_000);
    const { handle } = all as { handle: number };
    const answer = bench.engine.read('q', 0, 100, 1_000_000);
    if (!(answer instanceof Promise)) return;
    bench.engine.ack('q', handle, 1);
    bench.engine.move('q', 'r', handle + 2, 1);
    bench.engine.attempt('q', handle + 3, 2);
    const runs = await answer;
    assert.deepEqual(
      messagesOf(runs).map(({ text }) => text),
      ['b', 'd'],
    );
    assert.equal(runs.at(-1)?.attempts, 2);
  }),

  ...both('makes acknowledgements and floors durable with a commit; a floor never falls', async (bench, again) => {
    const { engine } = bench;
    const [a] = engine.append([appendTo(['q'], ['a', 'b', 'c'])]) as [number];
    await engine.commit();
    engine.ack('q', a, 2);
    engine.floor(INSTANCE, 3);
    engine.floor(INSTANCE, 2);
    await engine.commit();
    await again();
    await bench.isIn('q', ['c']);
    assert.deepEqual(bench.state.senders, [
      { instance: INSTANCE, name: 'sender', floor: 3, taken: [{ first: 3, count: 1 }] },
    ]);
  }),

  ...both('keeps pairs: the last value, any text, none that was removed', async (bench, again) => {
    const { engine } = bench;
    engine.put('a', '1');
    engine.put('__proto__', 'x'.repeat(200_000));
    engine.put('b', 'ä');
    engine.put('a', '2');
    engine.put('b', null);
    engine.put('never', null);
    await engine.commit();
    await again();
    assert.deepEqual([...bench.state.entries].sort(), [
      ['__proto__', 'x'.repeat(200_000)],
      ['a', '2'],
    ]);
  }),

  ...both(
    'remembers which positions a sender’s stored messages took, also when they have left',
    async (bench, again) => {
      const { engine } = bench;
      const other = newInstance();
      const [a] = engine.append([appendTo(['q'], ['a', 'b'], { first: 1 })]) as [number];
      engine.append([appendTo(['q'], ['d'], { first: 4 })]);
      engine.append([{ ...appendTo([], ['z'], { first: 9, instance: other, name: undefined }) }]);
      engine.ack('q', a, 10);
      await engine.commit();
      await again();
      const senders = [...bench.state.senders].sort(
        (x, y) => (x.instance === INSTANCE ? -1 : 1) - (y.instance === INSTANCE ? -1 : 1),
      );
      assert.deepEqual(senders, [
        {
          instance: INSTANCE,
          name: 'sender',
          floor: 1,
          taken: [
            { first: 1, count: 2 },
            { first: 4, count: 1 },
          ],
        },
        { instance: other, name: undefined, floor: 1, taken: [{ first: 9, count: 1 }] },
      ]);
    },
  ),

  ...both('forgets an instance that will not come back, and knows it anew when it does', async (bench, again) => {
    const { engine } = bench;
    engine.append([appendTo(['q'], ['a'], { first: 1 })]);
    engine.floor(INSTANCE, 2);
    engine.floor(INSTANCE, null);
    engine.floor(newInstance(), 7);
    engine.append([appendTo(['q'], ['b'], { first: 5 })]);
    await engine.commit();
    await again();
    assert.deepEqual(bench.state.senders, [
      { instance: INSTANCE, name: 'sender', floor: 1, taken: [{ first: 5, count: 1 }] },
    ]);
  }),

  ...both('tells of tracked messages in which queues they are, and of those that expire', async (bench, again) => {
    const { engine } = bench;
    const envelope = { tracked: true };
    const [a] = engine.append([appendTo(['q', 'r'], ['a', 'b'], { envelope, expiresAt: 5000 })]) as [number];
    engine.append([appendTo(['q'], ['c'], { first: 3 })]);
    engine.ack('q', a, 1);
    await engine.commit();
    await again();
    const tracked = bench.state.tracked.map(one => ({ ...one, queues: [...one.queues].sort() }));
    assert.deepEqual(
      tracked.sort((x, y) => x.handle - y.handle),
      [
        { instance: INSTANCE, position: 1, handle: a, queues: ['r'], id: 'AAAAAAAAAAAA0' },
        { instance: INSTANCE, position: 2, handle: a + 1, queues: ['q', 'r'], id: 'AAAAAAAAAAAA1' },
      ],
    );
    assert.deepEqual(
      [...bench.state.expiring].sort((x, y) => (x.queue < y.queue ? -1 : 1)),
      [
        { queue: 'q', handle: a + 1, count: 1, expiresAt: 5000 },
        { queue: 'r', handle: a, count: 2, expiresAt: 5000 },
      ],
    );
  }),

  ...both('never uses a handle again, also when everything has left', async (bench, again) => {
    const [a] = bench.engine.append([appendTo(['q'], ['a', 'b', 'c'])]) as [number];
    bench.engine.drop('q');
    await bench.engine.commit();
    await again();
    const [b] = bench.engine.append([appendTo(['q'], ['d'], { first: 4 })]) as [number];
    assert.ok(b >= a + 3);
  }),

  ...both('counts downtime by the wall clock, from nothing to one day', async (bench, again) => {
    const { clock } = bench;
    bench.engine.put('k', 'v');
    clock.tick(1000);
    await bench.engine.commit();
    for (const [jump, counted] of [
      [5000, 5000],
      [-70_000, 0],
      [40 * DAY, DAY],
    ] as const) {
      bench.engine.put('k', String(jump));
      await bench.engine.commit();
      const before = bench.engine.time();
      await again(() => clock.jump(jump));
      assert.equal(bench.state.time - before, counted);
      assert.equal(bench.engine.time(), bench.state.time);
    }
  }),

  caseOf(
    'fulfils commits in turn, and one that has nothing to do at once',
    async ({ engine }) => {
      const order: number[] = [];
      const commits = [0, 1, 2].map(i => {
        engine.append([appendTo(['q'], ['a'], { first: i + 1 })]);
        return engine.commit().then(() => void order.push(i));
      });
      await Promise.all(commits);
      assert.deepEqual(order, [0, 1, 2]);
      await engine.commit();
    },
    { needs: { durable: true } },
  ),

  caseOf(
    'closes with everything that was done before',
    async bench => {
      bench.engine.append([appendTo(['q'], ['a'])]);
      bench.engine.put('k', 'v');
      await bench.reopen();
      await bench.isIn('q', ['a']);
      assert.equal(bench.state.entries.get('k'), 'v');
    },
    { needs: { durable: true } },
  ),
];
