/** A store without room, and messages for two subscriptions of one recipient: each of them has its own share of what waits in memory. */
import { describe, expect, it } from 'vitest';
import { BroadcastMessage, type DeliveryFailure, type Receipt } from '../../src/index.js';
import { FRAME } from '../../src/protocol/constants.js';
import * as frames from '../../src/protocol/frames.js';
import { TestClock } from '../../src/testing/index.js';
import { fillable, PATIENT, stuck } from '../helpers/full-store.js';
import { startProxy } from '../helpers/proxy.js';
import { RawPeer } from '../helpers/raw-peer.js';
import { connectedClient, departures, gate, Inbox, newClient, queuedFor, startServer } from '../helpers/scene.js';

describe('what waits in memory for two subscriptions, because the store is full', () => {
  it.each(['closes', 'is lost'])('waits for each of them by itself when the instance that had both %s', async how => {
    const { engine } = fillable();
    const clock = new TestClock();
    const limits = { queueMessages: 6 };
    const { port } = await startServer('memory', { ...PATIENT, clock, engine, limits, instanceGrace: 1000 });
    const relay = await startProxy(port);
    const sender = await connectedClient(port, 'sender');
    const first = await stuck(relay.port, ['a', 'b']);
    const send = (n: number): PromiseLike<Receipt> =>
      sender.sendMessage(BroadcastMessage.createMultiChannelMessage(['a', 'b'], n), { until: 'delivered' });
    const receipts = [send(1)];
    await sender.flush();
    receipts.push(
      sender.sendMessage(BroadcastMessage.createChannelMessage('b', 2), { until: 'delivered' }),
      sender.sendMessage(BroadcastMessage.createChannelMessage('a', 3), { until: 'delivered' }),
    );
    await first.started.reached(2);
    if (how === 'closes') await first.leave();
    else await relay.close();
    const inbox = new Inbox();
    const take = async (channel: string): Promise<void> => {
      const client = newClient(port, 'reader');
      client.onMessage(channel, ({ data }, { redelivered }) => inbox.push([channel, data, redelivered]));
      await client.connect();
      // It is not waited for any longer.
      clock.tick(1000);
    };
    await take('b');
    expect(await inbox.reached(2)).toEqual([
      ['b', 1, true],
      ['b', 2, expect.any(Boolean)],
    ]);
    await take('a');
    for (const receipt of receipts) expect(await receipt).toMatchObject({ status: 'delivered' });
    expect(inbox.items.slice(2)).toEqual([
      ['a', 1, true],
      ['a', 3, expect.any(Boolean)],
    ]);
    // All of the queue's room is free again.
    for (const n of [3, 4, 5, 6]) expect(await send(n)).toMatchObject({ status: 'delivered' });
  });

  it.each([
    [
      ['a', 'b'],
      ['a', 'b'],
    ],
    [
      ['b', 'a'],
      ['a', 'b'],
    ],
    [
      ['a', 'b'],
      ['b', 'a'],
    ],
    [
      ['b', 'a'],
      ['b', 'a'],
    ],
  ])('keeps the order of each when its recipient comes back: subscribed to %j, sent to %j', async (declared, both) => {
    const { engine } = fillable();
    const { port, server } = await startServer('memory', { ...PATIENT, engine });
    const gone = departures(server);
    const relay = await startProxy(port);
    const reader = newClient(relay.port, 'reader');
    const started = new Inbox();
    const handled: Record<string, unknown[]> = { a: [], b: [] };
    const { promise, open } = gate();
    for (const channel of declared) {
      reader.onMessage(channel, ({ data }) => {
        started.push(data);
        handled[channel]?.push(data);
        return data === 0 ? promise : undefined;
      });
    }
    await reader.connect();
    const sender = await connectedClient(port, 'sender');
    const receipts: PromiseLike<Receipt>[] = [];
    const send = async (channels: readonly string[], n: number): Promise<void> => {
      receipts.push(sender.sendMessage(BroadcastMessage.createMultiChannelMessage([...channels], n)));
      await sender.flush();
    };
    await send(['b'], 0);
    await send(['a'], 0);
    await send(both, 1);
    await send(['b'], 2);
    await send(['a'], 2);
    await send(both, 3);
    await started.reached(2);
    // All of it has come to the reader.
    await reader.flush();
    relay.cut();
    await gone.reached(1);
    // And again, by another connection.
    await reader.flush();
    open();
    for (const receipt of receipts) expect(await receipt).toMatchObject({ status: 'delivered' });
    expect(handled).toEqual({ a: [0, 1, 2, 3], b: [0, 1, 2, 3] });
  });

  it('gives back the room of both when it expires', async () => {
    const { engine } = fillable();
    const clock = new TestClock();
    const limits = { queueMessages: 4 };
    const { port, server } = await startServer('memory', { ...PATIENT, clock, engine, limits, instanceGrace: 1000 });
    const gone = departures(server);
    const relay = await startProxy(port);
    const sender = await connectedClient(port, 'sender');
    const send = (n: number, ttl?: number): PromiseLike<Receipt> =>
      sender.sendMessage(BroadcastMessage.createMultiChannelMessage(['a', 'b'], n, ttl === undefined ? {} : { ttl }));
    const { started, leave } = await stuck(relay.port, ['a', 'b']);
    const expires = send(1, 500);
    await started.reached(2);
    await relay.close();
    await gone.reached(1);
    clock.tick(500);
    expect(await expires).toMatchObject({ status: 'undelivered' });
    await leave();
    // It is not waited for any longer.
    clock.tick(500);
    const next = newClient(port, 'reader');
    for (const channel of ['a', 'b']) next.onMessage(channel, () => undefined);
    await next.connect();
    // Four places are room for two messages.
    for (const receipt of [send(2), send(3)])
      expect(await receipt).toMatchObject({ status: 'delivered', failures: [] });
  });

  it('is undelivered when the session is forgotten before anybody has handled it', async () => {
    const { engine } = fillable();
    const { port, server } = await startServer('memory', { ...PATIENT, engine });
    const gone = departures(server);
    const relay = await startProxy(port);
    const sender = await connectedClient(port, 'sender');
    const failures = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failure => failure.final && failures.push(failure));
    const first = newClient(relay.port, 'reader', { clock: new TestClock() });
    const failed = new Inbox();
    for (const channel of ['a', 'b']) {
      first.onMessage(channel, ({ data }) => {
        failed.push([channel, data]);
        throw new Error('no');
      });
    }
    await first.connect();
    const receipts = [1, 2].map(n => sender.sendMessage(BroadcastMessage.createMultiChannelMessage(['a', 'b'], n)));
    await failed.reached(2);
    await first.flush();
    await relay.close();
    await gone.reached(1);
    await server.forget('reader');
    for (const receipt of receipts) expect(await receipt).toMatchObject({ status: 'undelivered' });
    await sender.flush();
    const said = failures.items.flatMap(({ count = 1, reason, target: { channel = '' }, attempts }) =>
      Array<string>(count).fill(`${channel}: ${reason} after ${attempts}`),
    );
    // All of it had been sent to whoever was lost with it.
    expect(said.sort()).toEqual([
      'a: dropped after 1',
      'a: dropped after 1',
      'b: dropped after 1',
      'b: dropped after 1',
    ]);
    expect(failed.items).toEqual([
      ['a', 1],
      ['b', 1],
    ]);
  });

  it('is stored only for the one that has not refused it, and is told of once', async () => {
    const { engine, store } = fillable();
    const clock = new TestClock();
    const { port, server } = await startServer('memory', { ...PATIENT, clock, engine });
    const sender = await connectedClient(port, 'sender');
    const expired = new Inbox();
    sender.onDeliveryFailure(({ reason, target, final }) => final && expired.push({ reason, ...target }));
    const peer = await RawPeer.open(port, { name: 'reader' });
    for (const channel of ['a', 'b']) await peer.subscribe(channel, 5);
    const receipt = sender.sendMessage(BroadcastMessage.createMultiChannelMessage(['a', 'b'], 1, { ttl: 1000 }));
    await peer.next(FRAME.MESSAGES);
    clock.tick(1000);
    peer.write(frames.encodeReject({ delivery: 1, channel: 'a', kind: 'expired', attempts: 0, reason: 'over' }));
    await peer.flush();
    store.full = false;
    // With it everything is stored that its sender has sent before.
    await sender.sendMessage(BroadcastMessage.createClientMessage('nobody', 2, { ttl: 1000 }));
    expect(await queuedFor(server, 'reader')).toBe(1);
    peer.write(frames.encodeRanges(FRAME.ACK, [{ first: 1, count: 1 }]));
    await peer.flush();
    await receipt;
    expect(await queuedFor(server, 'reader')).toBe(0);
    // Whatever was to be told of what expired earlier is told before this.
    clock.tick(5000);
    expect(await expired.reached(2)).toEqual([
      { reason: 'expired', client: 'reader', channel: 'a' },
      { reason: 'expired', client: 'nobody' },
    ]);
  });
});
