/** What becomes of messages, and of who waits for their outcome, when a subscription, a session or a store ends. */
import { describe, expect, it } from 'vitest';
import { memoryEngine, type Engine, type EngineHost } from '../../src/engine/index.js';
import { BroadcastMessage, type DeliveryFailure, type Receipt } from '../../src/index.js';
import { TestClock } from '../../src/testing/test-clock.js';
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
