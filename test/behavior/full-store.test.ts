/** A store without room, and recipients that leave, or whose session or subscription ends, meanwhile: what only memory holds has its outcome. */
import { describe, expect, it } from 'vitest';
import { BroadcastMessage, type BroadcastClient, type DeliveryFailure, type Receipt } from '../../src/index.js';
import { FRAME } from '../../src/protocol/constants.js';
import { TestClock } from '../../src/testing/index.js';
import { fillable, PATIENT, stuck } from '../helpers/full-store.js';
import { RawPeer } from '../helpers/raw-peer.js';
import {
  connectedClient,
  departures,
  gate,
  heldReader,
  Inbox,
  newClient,
  queuedFor,
  startServer,
} from '../helpers/scene.js';

describe('what waits in memory for a recipient, because the store is full', () => {
  it.each<[string, (server: { forget(name: string): Promise<void> }, client: BroadcastClient) => Promise<void>]>([
    ['when its session is forgotten', server => server.forget('reader')],
    ['when its subscription ends', (_, client) => client.unsubscribe('room')],
  ])('has its outcome %s: the sender hears of what was begun and of what was not', async (_, end) => {
    const { engine } = fillable();
    const { server, port } = await startServer('memory', { ...PATIENT, engine, limits: { windowMessages: 1 } });
    const sender = await connectedClient(port, 'sender');
    const failures: DeliveryFailure[] = [];
    sender.onDeliveryFailure(failure => failures.push(failure));
    const { client, started, leave } = await stuck(port, ['room']);
    const receipts: PromiseLike<Receipt>[] = [];
    for (const n of [1, 2, 3]) {
      receipts.push(sender.sendMessage(BroadcastMessage.createChannelMessage('room', n)));
      await sender.flush();
    }
    await started.reached(1);
    await end(server, client);
    for (const receipt of receipts.slice(1)) expect(await receipt).toMatchObject({ status: 'undelivered' });
    await sender.flush();
    const target = { client: 'reader', channel: 'room' };
    const said = failures.flatMap(({ count = 1, attempts, ...rest }) =>
      Array<object>(count).fill({ attempts, ...rest }),
    );
    expect(said).toHaveLength(3);
    for (const failure of said) expect(failure).toMatchObject({ reason: 'dropped', target, final: true });
    expect(said.map(failure => (failure as DeliveryFailure).attempts).sort()).toEqual([0, 0, 1]);
    // What was begun has its receipt when its recipient is done with it, or gone.
    await leave();
    expect(await receipts[0]).toMatchObject({ status: 'undelivered' });
    expect(await queuedFor(server, 'reader')).toBe(0);
  });

  it('keeps count of its attempts', async () => {
    const { engine } = fillable();
    const { port } = await startServer('memory', { ...PATIENT, engine });
    const sender = await connectedClient(port, 'sender');
    const clock = new TestClock();
    const first = newClient(port, 'reader', { clock });
    const failed = new Inbox();
    first.onMessage('room', ({ data }) => {
      failed.push(data);
      throw new Error('no');
    });
    await first.connect();
    const receipts = [1, 2].map(n =>
      sender.sendMessage(BroadcastMessage.createChannelMessage('room', n), { until: 'delivered' }),
    );
    await failed.reached(1);
    await first.flush();
    await first.close({ timeout: 1 });
    const second = await stuck(port, ['room']);
    expect(await second.started.reached(1)).toMatchObject([{ data: 1, attempt: 2, redelivered: true }]);
    await second.leave();
    const third = newClient(port, 'reader');
    const inbox = new Inbox();
    third.onMessage('room', ({ data }) => inbox.push(data));
    await third.connect();
    await Promise.all(receipts);
    expect(inbox.items).toEqual([1, 2]);
  });

  it('keeps count of its attempts when the store has room again', async () => {
    const { engine, store } = fillable();
    const clock = new TestClock();
    const { port, server } = await startServer('memory', { clock, engine });
    const gone = departures(server);
    const sender = await connectedClient(port, 'sender');
    const first = newClient(port, 'reader', { clock: new TestClock() });
    const failed = new Inbox();
    first.onMessage('room', ({ data }) => {
      failed.push(data);
      throw new Error('no');
    });
    await first.connect();
    const receipt = sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1), { until: 'delivered' });
    await failed.reached(1);
    await first.flush();
    await first.close({ timeout: 1 });
    await gone.reached(1);
    store.full = false;
    for (let look = 0; look < 5; look++) clock.tick(50);
    expect(await queuedFor(server, 'reader')).toBe(1);
    const inbox = new Inbox();
    const second = newClient(port, 'reader');
    second.onMessage('room', ({ data }, { attempt, redelivered }) => inbox.push({ data, attempt, redelivered }));
    await second.connect();
    expect(await receipt).toMatchObject({ status: 'delivered' });
    expect(inbox.items).toEqual([{ data: 1, attempt: 2, redelivered: true }]);
  });

  it('is charged an attempt whenever a process dies at it', async () => {
    const { engine } = fillable();
    const clock = new TestClock();
    const { port, server } = await startServer('memory', { ...PATIENT, clock, engine, instanceGrace: 1000 });
    const gone = departures(server);
    const sender = await connectedClient(port, 'sender');
    let receipt: PromiseLike<Receipt> | undefined;
    for (const deaths of [1, 2, 3]) {
      const doomed = await RawPeer.open(port, { name: 'reader', host: 'elsewhere', pid: 1 });
      await doomed.subscribe('room', 5);
      receipt ??= sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1));
      await doomed.next(FRAME.MESSAGES);
      doomed.socket.destroy();
      await gone.reached(deaths);
      clock.tick(1000);
    }
    const inbox = new Inbox();
    const next = newClient(port, 'reader');
    next.onMessage('room', ({ data }, { attempt }) => inbox.push([data, attempt]));
    await next.connect();
    expect(await receipt).toMatchObject({ status: 'delivered' });
    expect(inbox.items).toEqual([[1, 4]]);
  });

  it.each<[string, (reader: { open(): void; leave(): Promise<void> }) => unknown]>([
    ['handles it all the same', reader => reader.open()],
    ['leaves', reader => reader.leave()],
  ])('is not stored later, when its subscription has ended meanwhile and its recipient %s', async (_, end) => {
    const { engine, store } = fillable();
    const { port, server } = await startServer('memory', { ...PATIENT, engine });
    const sender = await connectedClient(port, 'sender');
    const failures = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failure => failure.final && failures.push(failure));
    const reader = await stuck(port, ['room']);
    const receipt = sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1), { until: 'delivered' });
    await reader.started.reached(1);
    await reader.client.unsubscribe('room');
    expect(await failures.reached(1)).toMatchObject([{ reason: 'dropped', target: { channel: 'room' } }]);
    store.full = false;
    // With it everything is stored that its sender has sent before.
    const away = await sender.sendMessage(BroadcastMessage.createClientMessage('nobody', 2));
    expect(away).toMatchObject({ status: 'stored' });
    expect(await queuedFor(server, 'reader')).toBe(0);
    await end(reader);
    expect(await receipt).toMatchObject({ status: 'undelivered' });
    await sender.flush();
    expect(await queuedFor(server, 'reader')).toBe(0);
    expect(failures.items).toHaveLength(1);
  });

  it('is given once when it was stored meanwhile and its recipient does not come back, and its sender hears of each recipient', async () => {
    const { engine, store } = fillable();
    const clock = new TestClock();
    const { port, server } = await startServer('memory', { ...PATIENT, clock, engine, instanceGrace: 1000 });
    const gone = departures(server);
    const sender = await connectedClient(port, 'sender');
    const lost = await RawPeer.open(port, { name: 'reader' });
    await lost.subscribe('room', 5);
    const slow = newClient(port, 'slow');
    const { promise, open } = gate();
    slow.onMessage('room', () => promise);
    await slow.connect();
    let ended = 0;
    const receipts = [1, 2, 3].map(n => {
      const message = BroadcastMessage.createChannelMessage('room', n);
      return sender.sendMessage(message, { until: 'delivered' }).then(receipt => (ended++, receipt));
    });
    await lost.next(FRAME.MESSAGES);
    lost.socket.destroy();
    await gone.reached(1);
    store.full = false;
    // With it everything is stored that its sender has sent before.
    await sender.sendMessage(BroadcastMessage.createClientMessage('nobody', 4));
    const inbox = new Inbox();
    for (let i = 0; i < 2; i++) {
      const other = newClient(port, 'reader');
      other.onMessage('room', ({ data }, { redelivered }) => inbox.push([data, redelivered]));
      await other.connect();
    }
    const before = server.stats().messagesOut;
    clock.tick(1000);
    // The one that is lost had all of them.
    expect((await inbox.reached(3)).sort()).toEqual([
      [1, true],
      [2, true],
      [3, true],
    ]);
    await sender.flush();
    while ((await queuedFor(server, 'reader')) > 0) await sender.flush();
    expect(server.stats().messagesOut - before).toBe(3);
    expect(ended).toBe(0);
    open();
    for (const receipt of receipts) expect((await receipt).status).toBe('delivered');
    expect(inbox.items).toHaveLength(3);
  });

  it('is not offered to the store again at every look', async () => {
    const { engine, store } = fillable();
    const clock = new TestClock();
    const { port } = await startServer('memory', { clock, engine, limits: { windowMessages: 1 } });
    const sender = await connectedClient(port, 'sender');
    const { started, running } = await heldReader(port, 'room');
    const STEPS = 150;
    for (let n = 0; n < 2 * STEPS; n++) {
      sender.sendMessage(BroadcastMessage.createChannelMessage('room', n)).then(undefined, () => undefined);
      await sender.flush();
    }
    // It holds too much, and no time has passed.
    expect(store.refusals).toBe(1);
    for (let n = 0; n < STEPS; n++) {
      await started.reached(n + 1);
      clock.tick(15);
      running[n]?.();
    }
    // 2.25 seconds: the oldest has waited for too long after one, and is looked at again a second later.
    expect(store.refusals).toBeGreaterThan(1);
    expect(store.refusals).toBeLessThanOrEqual(3);
  });
});
