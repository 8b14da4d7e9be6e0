/** What the broker makes of an engine that cannot give back what it was given. */
import { describe, expect, it } from 'vitest';
import { diskEngine, memoryEngine, type Engine, type EngineHost } from '../../src/engine/index.js';
import {
  BroadcastMessage,
  BroadcastReject,
  type DeadLetter,
  type DeliveryFailure,
  type Receipt,
} from '../../src/index.js';
import { connectedClient, Inbox, newClient, recordingLogger, startServer } from '../helpers/scene.js';
import { SimulatedDisk, type Inode } from '../helpers/simulated-files.js';

function flip(disk: SimulatedDisk, text: string): void {
  for (const inode of disk.names.values() as Iterable<Inode>) {
    const at = inode.data.indexOf(text);
    if (at >= 0) inode.data[at] = (inode.data[at] as number) ^ 1;
  }
}

/** An engine some of whose methods a test takes over. */
function wrapped(engine: Engine, change: Partial<Engine>): Engine {
  return new Proxy(engine, {
    get: (target, key) => {
      const own = (change as Record<PropertyKey, unknown>)[key];
      const value = (own ?? Reflect.get(target, key)) as unknown;
      return typeof value === 'function' ? (value as () => unknown).bind(target) : value;
    },
  });
}

/** An engine whose answers to reads of the queues of "away" wait, while `slow`, until a test lets them go. */
function slowReads(slow = true, change: Partial<Engine> = {}) {
  const memory = memoryEngine();
  const held = new Inbox<() => void>();
  const state = { slow, fails: false };
  const read: Engine['read'] = (...args) => {
    const answer = memory.read(...args);
    if (!state.slow || !args[0].startsWith('q/away')) return answer;
    return new Promise((resolve, reject) =>
      held.push(() => (state.fails ? reject(new Error('closed')) : resolve(answer))),
    );
  };
  return { memory, held, state, engine: wrapped(memory, { ...change, read }) };
}

describe('messages that are damaged in the store', () => {
  it('are no longer counted, and who followed one hears that it is lost', async () => {
    const disk = new SimulatedDisk();
    const logger = recordingLogger();
    const engine = (): Engine => diskEngine({ directory: '/d', files: disk, reserveBytes: 0 });
    const first = await startServer('memory', { engine: engine(), logger });
    const { port } = first;
    const sender = await connectedClient(port, 'sender');
    const failures = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failure => (failure.final ? failures.push(failure) : undefined));
    const outcome = new Inbox<Receipt>();
    const send = (text: string): Promise<Receipt> =>
      sender.sendMessage(BroadcastMessage.createClientMessage('away', text), { until: 'delivered' });
    const whole = send('whole one');
    await sender.flush();
    const lost = BroadcastMessage.createClientMessage('away', 'broken one');
    void sender.sendMessage(lost, { until: 'delivered' }).then(outcome.push);
    await sender.flush();
    await first.server.stop();
    const { server } = await startServer('memory', { engine: engine(), logger, port });
    flip(disk, 'broken one');
    const queued = async (): Promise<unknown> => (await server.sessions()).find(({ name }) => name === 'away');
    expect(await queued()).toMatchObject({ queued: 2 });
    const inbox = new Inbox();
    const away = newClient(port, 'away');
    away.onMessage(message => inbox.push(message.data));
    await away.connect();
    expect(await inbox.reached(1)).toEqual(['whole one']);
    await away.flush();
    expect(logger.warnings.join('\n')).toContain('1 damaged in the store: lost for "away"');
    expect(await queued()).toMatchObject({ queued: 0, queuedBytes: 0 });
    expect(await whole).toMatchObject({ status: 'delivered' });
    expect((await outcome.reached(1))[0]).toMatchObject({ status: 'undelivered' });
    expect((await failures.reached(1))[0]).toMatchObject({ messageId: lost.id, reason: 'dropped', attempts: 0 });
  });
});

describe('a read that fails', () => {
  it.each(['rejects', 'throws'])('and %s is made again after a while', async how => {
    let fails = 1;
    const memory = memoryEngine();
    const read: Engine['read'] = (...args) => {
      if (args[0].startsWith('q/') && fails-- > 0) {
        const error = new Error('not now');
        if (how === 'throws') throw error;
        return Promise.reject(error);
      }
      return memory.read(...args);
    };
    const logger = recordingLogger();
    const { port } = await startServer('memory', { engine: wrapped(memory, { read }), logger });
    const sender = await connectedClient(port, 'sender');
    expect(await sender.sendMessage(BroadcastMessage.createClientMessage('away', 1))).toMatchObject({
      status: 'stored',
    });
    const inbox = new Inbox();
    const away = newClient(port, 'away');
    away.onMessage(message => inbox.push(message.data));
    await away.connect();
    expect(await inbox.reached(1)).toEqual([1]);
    expect(logger.warnings.join()).toContain('it is tried again: not now');
  });

  it('later than what was stored meanwhile is made again at once', async () => {
    const { held, state, engine } = slowReads(false);
    const { port } = await startServer('memory', { engine });
    const sender = await connectedClient(port, 'sender');
    await sender.sendMessage(BroadcastMessage.createClientMessage('away', 1));
    state.slow = true;
    const inbox = new Inbox();
    const away = newClient(port, 'away');
    away.onMessage(message => inbox.push(message.data));
    await away.connect();
    await held.reached(1);
    held.items[0]?.();
    await inbox.reached(1);
    await held.reached(2);
    // The second answer, with nothing in it, is on its way while a message is stored.
    await sender.sendMessage(BroadcastMessage.createClientMessage('away', 2));
    held.items[1]?.();
    await held.reached(3);
    held.items[2]?.();
    expect(await inbox.reached(2)).toEqual([1, 2]);
  });

  it.each([false, true])(
    'with nothing in it is made again if the engine has said that something came: %s',
    async came => {
      let host: EngineHost | undefined;
      const open: Engine['open'] = given => memory.open((host = given));
      const { memory, held, engine } = slowReads(true, { open });
      const { port } = await startServer('memory', { engine });
      const sender = await connectedClient(port, 'sender');
      await sender.sendMessage(BroadcastMessage.createClientMessage('away', 1));
      const inbox = new Inbox();
      const away = newClient(port, 'away');
      away.onMessage(message => inbox.push(message.data));
      await away.connect();
      await held.reached(1);
      held.items[0]?.();
      await held.reached(2);
      if (came) host?.arrived('q/away\0');
      held.items[1]?.();
      await away.flush();
      expect(held.items).toHaveLength(came ? 3 : 2);
      held.items[2]?.();
      await away.flush();
      void sender.sendMessage(BroadcastMessage.createClientMessage('away', 2));
      expect(await inbox.reached(2)).toEqual([1, 2]);
    },
  );

  it.each(['answers', 'fails'])('that %s after the server has stopped is of no use any more', async how => {
    const { held, state, engine } = slowReads();
    state.fails = how === 'fails';
    const logger = recordingLogger();
    const { port, server } = await startServer('memory', { engine, logger });
    const sender = await connectedClient(port, 'sender');
    await sender.sendMessage(BroadcastMessage.createClientMessage('away', 1));
    const away = newClient(port, 'away');
    away.onMessage(() => undefined);
    await away.connect();
    await held.reached(1);
    await server.stop();
    held.items[0]?.();
    await new Promise(setImmediate);
    expect(held.items).toHaveLength(1);
    expect(logger.warnings.join()).not.toContain('it is tried again');
  });

  it('without what has come back to the queue meanwhile is made again', async () => {
    const { held, state, engine } = slowReads(false);
    const { port, server } = await startServer('memory', { engine });
    const sender = await connectedClient(port, 'sender');
    const send = (n: number) =>
      sender.sendMessage(BroadcastMessage.createClientMessage('away', n), { until: 'delivered' });
    const first = newClient(port, 'away');
    first.onMessage(() => {
      throw new BroadcastReject('not yet');
    });
    await first.connect();
    await Promise.all([send(1), send(2)]);
    await first.close();
    await sender.sendMessage(BroadcastMessage.createClientMessage('away', 3));
    const letters = server.deadLetters('away');
    const [one, two] = await letters.list();
    await letters.retry((one as DeadLetter).id);
    state.slow = true;
    const inbox = new Inbox();
    const away = newClient(port, 'away');
    away.onMessage(message => inbox.push(message.data));
    await away.connect();
    await held.reached(1);
    await letters.retry((two as DeadLetter).id);
    state.slow = false;
    held.items[0]?.();
    expect(await inbox.reached(3)).toEqual([1, 2, 3]);
  });
});
