/** What becomes of messages, and of who waits for their outcome, when a subscription, a session or a store ends. */
import { describe, expect, it } from 'vitest';
import { memoryEngine, type Engine, type EngineHost } from '../../src/engine/index.js';
import { BroadcastMessage, BroadcastReject, type DeliveryFailure, type Receipt } from '../../src/index.js';
import { Reader } from '../../src/protocol/bytes.js';
import { FRAME, FRAME_HEADER } from '../../src/protocol/constants.js';
import { decodeDelivery } from '../../src/protocol/frames.js';
import { TestClock } from '../../src/testing/test-clock.js';
import { RawPeer } from '../helpers/raw-peer.js';
import { connectedClient, gate, Inbox, newClient, startServer } from '../helpers/scene.js';

describe('unsubscribing while a handler runs', () => {
  it('does not settle a message for the subscriber that still waits for it', async () => {
    const { server, port } = await startServer('memory', { storeAfter: 5 });
    const slow = newClient(port, 'slow');
    const { promise, open } = gate();
    const started = new Inbox();
    slow.onMessage('room', message => {
      started.push(message.data);
      return promise;
    });
    await slow.connect();
    const away = newClient(port, 'away');
    away.onMessage('room', () => undefined);
    await away.connect();
    await away.close();
    const sender = await connectedClient(port, 'sender');
    const outcome = new Inbox<Receipt>();
    const failures = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failure => (failure.final ? failures.push(failure) : undefined));
    void sender
      .sendMessage(BroadcastMessage.createChannelMessage('room', 1), { until: 'delivered' })
      .then(outcome.push);
    await sender.flush();
    await started.reached(1);
    await slow.unsubscribe('room');
    expect(await failures.reached(1)).toMatchObject([{ reason: 'dropped', attempts: 1 }]);
    open();
    await slow.flush();
    await sender.flush();
    expect(outcome.items).toEqual([]);
    expect((await server.sessions()).map(({ name, queued }) => [name, queued])).toContainEqual(['slow', 0]);
    const inbox = new Inbox();
    const back = newClient(port, 'away');
    back.onMessage('room', message => inbox.push(message.data));
    await back.connect();
    await inbox.reached(1);
    expect(await outcome.reached(1)).toMatchObject([{ status: 'delivered' }]);
  });
});

describe('a subscription that no instance has declared for sessionTtl', () => {
  it('ends with what waits for it, and the senders hear of it', async () => {
    const clock = new TestClock();
    const { port, server } = await startServer('memory', { clock, limits: { sessionTtl: 60_000 } });
    const sender = await connectedClient(port, 'sender');
    const failures = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failure => (failure.final ? failures.push(failure) : undefined));
    const old = newClient(port, 'reader');
    old.onMessage('room', () => undefined);
    await old.connect();
    await old.close();
    await connectedClient(port, 'reader');
    await sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1));
    clock.tick(90_000);
    expect(await failures.reached(1)).toMatchObject([{ reason: 'session-expired', target: { channel: 'room' } }]);
    expect(await server.sessions()).toContainEqual(expect.objectContaining({ name: 'reader', queued: 0 }));
  });
});

describe('a store that has failed', () => {
  it('is not asked to forget what has expired', async () => {
    const clock = new TestClock();
    let host: EngineHost | undefined;
    const memory = memoryEngine();
    const engine: Engine = Object.create(memory, {
      open: { value: (given: EngineHost) => memory.open((host = given)) },
    }) as Engine;
    for (const method of ['append', 'read', 'ack', 'move', 'attempt', 'drop', 'put', 'floor', 'commit'] as const) {
      const call = (...args: unknown[]): unknown => {
        if (isBroken) throw new Error('store-failed');
        return (memory[method] as (...all: unknown[]) => unknown)(...args);
      };
      Object.defineProperty(engine, method, { value: call });
    }
    for (const method of ['usage', 'queues', 'totals', 'time', 'close'] as const)
      Object.defineProperty(engine, method, { value: memory[method].bind(memory) });
    let isBroken = false;
    const { port } = await startServer('memory', { clock, engine, limits: { sessionTtl: 60_000 } });
    const sender = await connectedClient(port, 'sender');
    await sender.sendMessage(BroadcastMessage.createClientMessage('away', 1));
    await sender.close();
    isBroken = true;
    host?.failed(new Error('broken'));
    expect(() => clock.tick(900_000)).not.toThrow();
  });
});

describe('a store that is full', () => {
  it('is told as the end of a message, and never that it waits', async () => {
    const { port } = await startServer('memory', { limits: { storeBytes: 5000 } });
    const sender = await connectedClient(port, 'sender');
    const notices: DeliveryFailure[] = [];
    sender.onDeliveryFailure(failure => notices.push(failure));
    const send = (): PromiseLike<Receipt> =>
      sender.sendMessage(BroadcastMessage.create('away', 'nobody', 'x'.repeat(3000)));
    expect((await send()).failures.map(({ reason, queued }) => [reason, queued])).toEqual([
      ['offline', true],
      ['no-subscribers', true],
    ]);
    const { status, failures } = await send();
    expect(status).toBe('undelivered');
    expect(failures.map(({ reason, queued }) => [reason, queued])).toEqual([
      ['queue-full', false],
      ['queue-full', false],
    ]);
    await sender.flush();
    expect(notices.map(({ final }) => final)).toEqual([false, false, true, true]);
  });

  it('leaves the place of a channel without a backlog to another one', async () => {
    const { port } = await startServer('memory', { limits: { backlogChannels: 2, storeBytes: 5000 } });
    const sender = await connectedClient(port, 'sender');
    const reasons = async (channel: string, bytes: number): Promise<string[]> => {
      const { failures } = await sender.sendMessage(BroadcastMessage.createChannelMessage(channel, 'x'.repeat(bytes)));
      return failures.map(({ reason }) => reason);
    };
    expect(await reasons('a', 3000)).toEqual(['no-subscribers']);
    expect(await reasons('b', 3000)).toEqual(['queue-full']);
    expect(await reasons('c', 1)).toEqual(['no-subscribers']);
  });

  it('takes what a client that has gone left in memory, once there is room', async () => {
    const clock = new TestClock();
    const options = { clock, instanceGrace: 100, deadAfter: 50, pingInterval: 20 };
    const { port, server } = await startServer('memory', { ...options, limits: { storeBytes: 40_000 } });
    const sender = await connectedClient(port, 'sender');
    const reader = newClient(port, 'reader');
    const { promise, open } = gate();
    const started = new Inbox();
    reader.onMessage('room', message => {
      started.push(message.data);
      return promise;
    });
    await reader.connect();
    for (;;) {
      const { status } = await sender.sendMessage(BroadcastMessage.createClientMessage('away', 'x'.repeat(3000)));
      if (status === 'undelivered') break;
    }
    const receipt = sender.sendMessage(BroadcastMessage.createChannelMessage('room', 'y'.repeat(5000)));
    await started.reached(1);
    await reader.close({ timeout: 1 });
    await sender.flush();
    expect((await server.sessions()).find(({ name }) => name === 'reader')).toMatchObject({ instances: 0, queued: 0 });
    clock.tick(200);
    await server.forget('away');
    clock.tick(100);
    expect(await receipt).toMatchObject({ status: 'stored' });
    open();
  });
});

describe('an engine that fails when a client leaves or comes', () => {
  it('is nothing that ends the process', async () => {
    const engine = memoryEngine();
    const { port, server } = await startServer('memory', { engine });
    const generated = newClient(port);
    generated.onMessage('room', () => undefined);
    await generated.connect();
    const gone = new Promise(resolve => server.on('disconnect', resolve));
    const { commit } = engine;
    engine.commit = () => Promise.reject(new Error('EIO'));
    await Promise.all([generated.close(), gone]);
    await new Promise(setImmediate);
    engine.commit = commit;
  });
});

describe('a message with a time to live', () => {
  it('expires once, where what comes to a client in two ways waits in turns', async () => {
    const clock = new TestClock();
    const { port, server } = await startServer('memory', { clock, limits: { windowMessages: 2 } });
    const sender = await connectedClient(port, 'sender');
    const expired: DeliveryFailure[] = [];
    sender.onDeliveryFailure(failure => failure.final && expired.push(failure));
    const reader = newClient(port, 'reader');
    const started = new Inbox();
    const { promise, open } = gate();
    reader.onMessage(({ data }) => {
      started.push(data);
      return promise;
    });
    await reader.connect();
    const options = { ttl: 60_000 };
    const receipts = Array.from({ length: 20 }, (_, n) =>
      sender.sendMessage(
        n % 2 === 0
          ? BroadcastMessage.createBroadcastMessage(n, options)
          : BroadcastMessage.createClientMessage('reader', n, options),
      ),
    );
    await started.reached(1);
    // Stored for want of progress; then their time passes.
    while ((await server.sessions()).find(({ name }) => name === 'reader')?.queued !== 20) {
      clock.tick(20);
      await sender.flush();
    }
    await Promise.all(receipts);
    clock.tick(61_000);
    while (((await server.sessions()).find(({ name }) => name === 'reader')?.queued ?? 0) > 2) await sender.flush();
    await sender.flush();
    const told = new Map<string, number>();
    for (const { messageId, count = 1 } of expired) told.set(messageId, (told.get(messageId) ?? 0) + count);
    expect([...told.values()].reduce((sum, n) => sum + n, 0)).toBe(18);
    expect([...told.values()].filter(n => n > 1)).toEqual([]);
    open();
  });

  it('gives the place of its backlog to another channel when it expires', async () => {
    const clock = new TestClock();
    const { port } = await startServer('memory', { clock, limits: { backlogChannels: 1 } });
    const sender = await connectedClient(port, 'sender');
    const expired = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failure => failure.final && expired.push(failure));
    await sender.sendMessage(BroadcastMessage.createChannelMessage('a', 1, { ttl: 1000 }));
    clock.tick(1001);
    await expired.reached(1);
    const { failures } = await sender.sendMessage(BroadcastMessage.createChannelMessage('b', 1));
    expect(failures.map(({ reason }) => reason)).toEqual(['no-subscribers']);
  });

  it('expires where it waits, also when it got there on its way to a client that left', async () => {
    const clock = new TestClock();
    const { port, server } = await startServer('memory', {
      clock,
      instanceGrace: 5000,
      deadAfter: 2500,
      pingInterval: 1000,
    });
    const sender = await connectedClient(port, 'sender');
    const failures = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failure => (failure.final ? failures.push(failure) : undefined));
    const reader = newClient(port, 'reader');
    const { promise, open } = gate();
    const started = new Inbox();
    reader.onMessage('room', message => {
      started.push(message.data);
      return promise;
    });
    await reader.connect();
    const message = BroadcastMessage.createChannelMessage('room', 1, { ttl: 60_000 });
    const outcome = sender.sendMessage(message, { until: 'delivered' });
    await started.reached(1);
    await reader.close({ timeout: 1 });
    await sender.flush();
    expect((await server.sessions()).find(({ name }) => name === 'reader')).toMatchObject({ instances: 0, queued: 1 });
    for (let i = 0; i < 70; i++) {
      clock.tick(1000);
      await sender.flush();
    }
    expect(await failures.reached(1)).toMatchObject([{ reason: 'expired' }]);
    expect((await outcome).status).toBe('undelivered');
    open();
  });
});

/** A memory engine whose commits, from `hold()` on, do not return before what that returns is called. */
function patientEngine(): { engine: Engine; hold: () => () => void } {
  const engine = memoryEngine();
  const commit = engine.commit.bind(engine);
  let held: Promise<void> = Promise.resolve();
  engine.commit = () => held.then(commit);
  const hold = (): (() => void) => {
    const { promise, open } = gate();
    held = promise;
    return open;
  };
  return { engine, hold };
}

it('the death of a process is on record before the next one is given what it may have died of', async () => {
  const { engine, hold } = patientEngine();
  const charged = gate();
  const attempt = engine.attempt.bind(engine);
  engine.attempt = (queue, handle, attempts) => {
    attempt(queue, handle, attempts);
    charged.open();
  };
  const { port, server } = await startServer('memory', { engine, instanceGrace: 10, storeAfter: 5 });
  const first = await RawPeer.open(port, { name: 'w' });
  await first.subscribe('', 5);
  const receipt = await server.sendMessage(BroadcastMessage.createClientMessage('w', 1));
  expect(receipt.status).toBe('stored');
  await first.next(FRAME.MESSAGES);
  const second = await RawPeer.open(port, { name: 'w' });
  await second.subscribe('', 5);
  const open = hold();
  first.socket.destroy();
  await charged.promise;
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
  expect(second.frames.map(({ type }) => type)).not.toContain(FRAME.MESSAGES);
  open();
  const note = decodeDelivery(new Reader(await second.next(FRAME.DELIVERY), FRAME_HEADER));
  expect(note).toMatchObject({ attempt: 2, redelivered: true });
});

it.each(['stored before', 'only in memory'])(
  'what has become a dead letter is told of once the store knows it: its sender would hear it twice after a crash (%s)',
  async how => {
    const { engine, hold } = patientEngine();
    const moved = gate();
    const move = engine.move.bind(engine);
    engine.move = (...args) => {
      if (args[1].startsWith('d/')) moved.open();
      return move(...args);
    };
    const { port } = await startServer('memory', { engine });
    const sender = await connectedClient(port, 'sender');
    const failures = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failure => failure.final && failures.push(failure));
    const reader = newClient(port, 'w');
    let outcome: Promise<Receipt> | undefined;
    let settled = false;
    const send = (): void => {
      outcome = sender.sendMessage(BroadcastMessage.createClientMessage('w', 1), { until: 'delivered' });
      void outcome.then(() => (settled = true));
    };
    const { promise: handled, open: handle } = gate();
    reader.onMessage(async () => {
      await handled;
      throw new BroadcastReject('never');
    });
    if (how === 'stored before') {
      send();
      await sender.flush();
    }
    await reader.connect();
    if (how !== 'stored before') send();
    const open = hold();
    handle();
    await moved.promise;
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
    expect([failures.items, settled]).toEqual([[], false]);
    open();
    expect(await failures.reached(1)).toMatchObject([{ reason: 'rejected', attempts: 1 }]);
    expect(await outcome).toMatchObject({ status: 'undelivered', failures: [{ reason: 'rejected' }] });
  },
);
