/** What the broker tells of followed messages that a damaged store has no longer, by what else is left of them. */
import { expect, it } from 'vitest';
import { memoryEngine, type Engine, type EngineState } from '../../src/engine/index.js';
import { BroadcastMessage, type DeliveryFailure } from '../../src/index.js';
import { connectedClient, gate, newClient, recordingLogger, startServer } from '../helpers/scene.js';

const PREFIX = 'AbCdEfGh01234-_z';
const ID = '0123456789abcdef0123456789abcdef';

const SESSION = {
  generated: false,
  shared: false,
  lastSeen: 0,
  occupied: false,
  doubtBelow: 0,
  backlogs: [],
  processes: [],
};

/** A store that was found like this, and the session of the sender in it. */
function found(pairs: Readonly<Record<string, string>>, state: Partial<EngineState> = {}): Engine {
  const entries = { 's/sender': JSON.stringify(SESSION), ...pairs };
  const engine = memoryEngine();
  const open = engine.open.bind(engine);
  engine.open = async host => {
    const empty = await open(host);
    for (const [key, value] of Object.entries(entries)) engine.put(key, value);
    return { ...empty, damage: ['a record'], entries: new Map(Object.entries(entries)), ...state };
  };
  return engine;
}

function group(fields: object = {}): string {
  return JSON.stringify({ name: 'sender', prefix: PREFIX, base: 36, count: 3, target: { client: 'away' }, ...fields });
}

/** The final notices that the sender gets when it comes. */
async function noticesOf(engine: Engine): Promise<DeliveryFailure[]> {
  const { port } = await startServer('memory', { engine });
  const sender = newClient(port, 'sender');
  const failures: DeliveryFailure[] = [];
  const { promise, open } = gate();
  sender.onDeliveryFailure(failure => {
    if (failure.target.client === 'nobody') open();
    else failures.push(failure);
  });
  await sender.connect();
  // Behind the notices that wait for it comes one of its own.
  sender.sendMessage(BroadcastMessage.createClientMessage('nobody', 1, { persistent: false }));
  await promise;
  return failures;
}

it.each<[string, Record<string, string>, object[]]>([
  ['all of it', {}, [{ messageId: `${PREFIX}10`, count: 3 }]],
  ['one that had no outcome', { p: '[{"first":0,"count":1},{"first":2,"count":1}]' }, [{ messageId: `${PREFIX}11` }]],
  ['none when all had theirs', { p: '[{"first":0,"count":3}]' }, []],
  ['what no recipient has', { o: '' }, [{ messageId: `${PREFIX}10` }, { messageId: `${PREFIX}12` }]],
  ['all of it, where what is known of it cannot be read', { p: '[{"first":2,"count":-1}]' }, [{ count: 3 }]],
])('a batch that is gone: its sender hears of %s', async (_, { p, o }, expected) => {
  const entries = {
    [`f/${ID}/7`]: group(),
    ...(p !== undefined && { [`p/${ID}/7`]: p }),
    ...(o !== undefined && { [`o/${ID}/8`]: o }),
  };
  const notices = await noticesOf(found(entries));
  expect(notices).toHaveLength(expected.length);
  const common = { reason: 'dropped', target: { client: 'away' }, final: true, attempts: 1, count: undefined };
  for (const [i, notice] of notices.entries())
    expect({ ...common, ...notice }).toMatchObject({ ...common, ...expected[i] });
});

it('messages whose ids do not follow one another are named each by its own', async () => {
  const entries = { [`f/${ID}/7`]: group({ steps: [0, 5, 2] }), [`p/${ID}/7`]: '[{"first":0,"count":2}]' };
  expect(await noticesOf(found(entries))).toMatchObject([{ messageId: `${PREFIX}17` }]);
});

it('what is there of a batch is waited for, and what is gone of it is told', async () => {
  const state = { tracked: [{ instance: ID, position: 8, handle: 5, queues: ['q/away\0'], id: `${PREFIX}11` }] };
  const engine = found({ [`f/${ID}/7`]: group() }, state);
  const kept: string[] = [];
  const put = engine.put.bind(engine);
  engine.put = (key, value) => {
    if (/^[fp]\//.test(key)) kept.push(`${key.slice(0, 2)}${String(value)}`);
    put(key, value);
  };
  expect(await noticesOf(engine)).toMatchObject([{ messageId: `${PREFIX}10` }, { messageId: `${PREFIX}12` }]);
  // That they were told of is kept beside what waits: the next start does not tell it again.
  expect(kept.at(-1)).toBe('p/[{"first":0,"count":1},{"first":2,"count":1}]');
});

it('without damage a batch of which nothing is there has had its outcomes', async () => {
  expect(await noticesOf(found({ [`f/${ID}/7`]: group() }, { damage: [] }))).toEqual([]);
});

it('a pair that says nothing of the kind is named and passed over', async () => {
  const logger = recordingLogger();
  const { port } = await startServer('memory', { engine: found({ [`f/${ID}/7`]: group({ count: 0 }) }), logger });
  await connectedClient(port, 'sender');
  expect(logger.warnings.filter(text => text.includes('cannot be read'))).toHaveLength(1);
});
