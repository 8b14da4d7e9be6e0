/** What each process of a shared name was to have, and what becomes of it when one of them gives it back, or is gone. */
import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { BroadcastMessage, type BroadcastClient, type BroadcastServer, type Receipt } from '../../src/index.js';
import { TestClock } from '../../src/testing/index.js';
import { FRAME } from '../../src/protocol/constants.js';
import * as frames from '../../src/protocol/frames.js';
import { fillable, PATIENT } from '../helpers/full-store.js';
import { RawPeer } from '../helpers/raw-peer.js';
import { connectedClient, departures, gate, Inbox, newClient, queuedFor, startServer } from '../helpers/scene.js';

function takesAway(peer: RawPeer): void {
  peer.write(frames.encodeUnhandle({ request: 7, channel: 'room' }));
}

function givesBack(peer: RawPeer, delivery = 1): void {
  peer.write(frames.encodeRanges(FRAME.RELEASE, [{ first: delivery, count: 1 }]));
}

function acknowledges(peer: RawPeer): void {
  peer.write(frames.encodeRanges(FRAME.ACK, [{ first: 1, count: 1 }]));
}

function declines(peer: RawPeer): void {
  peer.write(frames.encodeReject({ delivery: 1, channel: 'room', kind: 'no-handler', attempts: 0, reason: '' }));
  acknowledges(peer);
}

/** Each of the two that were there got it, one handled it, and nothing waits. */
async function isHandledOnce(server: BroadcastServer, third: BroadcastClient, inbox: Inbox): Promise<void> {
  await third.flush();
  expect((await server.sessions()).find(({ name }) => name === 'shared')).toMatchObject({ queued: 0 });
  expect(server.stats()).toMatchObject({ messagesOut: 2 });
  expect(inbox.items).toEqual([1]);
}

describe.each(['memory', 'disk'] as const)('the shares of a shared name on the %s engine', kind => {
  describe.each([
    { how: 'gives back', does: [givesBack] },
    { how: 'takes its handler away and gives back', does: [takesAway, givesBack] },
    { how: 'declines', does: [declines] },
    { how: 'takes its handler away and declines', does: [takesAway, declines] },
  ])('what one instance has handled and another one $how', ({ does }) => {
    it('counts as delivered, and is not given to a third one', async () => {
      const { port, server } = await startServer(kind);
      const sender = await connectedClient(port, 'sender');
      const other = await RawPeer.open(port, { name: 'shared' });
      await other.subscribe('room');
      const inbox = new Inbox();
      const first = newClient(port, 'shared');
      first.onMessage('room', message => inbox.push(message.data));
      await first.connect();
      const receipt = sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1), { until: 'delivered' });
      await other.next(FRAME.MESSAGES);
      await inbox.reached(1);
      await first.flush();
      const third = newClient(port, 'shared');
      third.onMessage('room', message => inbox.push(message.data));
      await third.connect();
      for (const act of does) act(other);
      await other.flush();
      expect((await receipt).status).toBe('delivered');
      await isHandledOnce(server, third, inbox);
    });
  });

  it.each([
    { how: 'comes back', comesBack: true },
    { how: 'does not come back', comesBack: false },
  ])('the same when it has taken its handler away, is lost, and $how', async ({ comesBack }) => {
    const clock = new TestClock();
    const { port, server } = await startServer(kind, { clock });
    const sender = await connectedClient(port, 'sender');
    const instance = randomBytes(16).toString('hex');
    const other = await RawPeer.open(port, { name: 'shared', instance });
    await other.subscribe('room');
    const inbox = new Inbox();
    const first = newClient(port, 'shared');
    first.onMessage('room', message => inbox.push(message.data));
    await first.connect();
    const receipt = sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1), { until: 'delivered' });
    await other.next(FRAME.MESSAGES);
    await inbox.reached(1);
    await first.flush();
    takesAway(other);
    await other.flush();
    const third = newClient(port, 'shared');
    third.onMessage('room', message => inbox.push(message.data));
    await third.connect();
    const gone = departures(server);
    other.socket.destroy();
    await gone.reached(1);
    if (comesBack) await RawPeer.open(port, { name: 'shared', instance });
    else clock.tick(31_000);
    expect((await receipt).status).toBe('delivered');
    await isHandledOnce(server, third, inbox);
  });

  it.each([
    { what: 'has it in hand', isLost: false },
    { what: 'is away too', isLost: true },
  ])(
    'marks what it gives of one that is lost while another one, which $what, may have handled it',
    async ({ isLost }) => {
      const clock = new TestClock();
      const { port, server } = await startServer(kind, { clock, instanceGrace: 1000 });
      const sender = await connectedClient(port, 'sender');
      const gone = departures(server);
      const lost = await RawPeer.open(port, { name: 'shared' });
      await lost.subscribe('room');
      const other = await RawPeer.open(port, { name: 'shared', host: 'elsewhere', pid: 1 });
      await other.subscribe('room', 5);
      lost.socket.destroy();
      await gone.reached(1);
      clock.tick(500);
      await sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1));
      await other.next(FRAME.MESSAGES);
      if (isLost) {
        other.socket.destroy();
        await gone.reached(2);
      }
      const inbox = new Inbox();
      const third = newClient(port, 'shared');
      third.onMessage('room', (message, { redelivered }) => inbox.push([message.data, redelivered]));
      await third.connect();
      clock.tick(500);
      expect(await inbox.reached(1)).toEqual([[1, true]]);
    },
  );

  it('gives each message to one of them, also what waited in memory and was stored with a later one when one of them left', async () => {
    const { port, server } = await startServer(kind, { storeAfter: 10_000, limits: { windowMessages: 1 } });
    const sender = await connectedClient(port, 'sender');
    const inbox = new Inbox();
    const { promise, open } = gate();
    const workers = ['A', 'B', 'C'].map(() => {
      const worker = newClient(port, 'workers');
      worker.onMessage(message => {
        inbox.push(message.data);
        return promise;
      });
      return worker;
    });
    const slow = await RawPeer.open(port, { name: 'slow' });
    await slow.subscribe('');
    const [leaving, staying, coming] = workers as [BroadcastClient, BroadcastClient, BroadcastClient];
    await leaving.connect();
    await staying.connect();
    const receipts: PromiseLike<Receipt>[] = [];
    for (let n = 0; n < 5; n++) {
      const message = BroadcastMessage.createGroupMessage(['workers', 'slow'], n);
      receipts.push(sender.sendMessage(message, { until: 'delivered' }));
      await sender.flush();
    }
    await inbox.reached(2);
    let ended = 0;
    for (const receipt of receipts)
      receipt.then(
        () => ended++,
        () => undefined,
      );
    const another = await connectedClient(port, 'another');
    void another.sendMessage(BroadcastMessage.createClientMessage('workers', 5));
    await another.flush();
    // With it everything is stored that its sender has sent before, and nothing of another one.
    await sender.sendMessage(BroadcastMessage.createClientMessage('nobody', 'x'));
    await leaving.close({ timeout: 1 });
    await coming.connect();
    open();
    while ((await queuedFor(server, 'workers')) > 0) await sender.flush();
    // What the one that left had in hand is handled by another one too.
    expect([...(await inbox.reached(7))].sort()).toEqual([0, 0, 1, 2, 3, 4, 5]);
    await sender.flush();
    expect(ended).toBe(0);
    expect(await queuedFor(server, 'slow')).toBe(5);
    for (let delivery = 1; delivery <= 5; delivery++) {
      await slow.next(FRAME.MESSAGES);
      slow.write(frames.encodeRanges(FRAME.ACK, [{ first: delivery, count: 1 }]));
    }
    for (const receipt of receipts) expect((await receipt).status).toBe('delivered');
  });

  it('a dead letter of one instance that is sent again is new to all, also when another one had handled it', async () => {
    const { port, server } = await startServer(kind);
    const sender = await connectedClient(port, 'sender');
    const inbox = new Inbox();
    const first = newClient(port, 'shared');
    first.onMessage('room', message => inbox.push(message.data));
    await first.connect();
    const other = await RawPeer.open(port, { name: 'shared' });
    await other.subscribe('room');
    await sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1));
    await other.next(FRAME.MESSAGES);
    await inbox.reached(1);
    await first.flush();
    other.write(frames.encodeReject({ delivery: 1, channel: 'room', kind: 'rejected', attempts: 1, reason: 'no' }));
    acknowledges(other);
    await other.flush();
    const letters = server.deadLetters('shared');
    const [letter] = await letters.list();
    await first.close();
    await letters.retry(letter!.id);
    await other.next(FRAME.MESSAGES);
    takesAway(other);
    givesBack(other, 2);
    await other.flush();
    const third = newClient(port, 'shared');
    third.onMessage('room', message => inbox.push(message.data));
    await third.connect();
    expect(await inbox.reached(2)).toEqual([1, 1]);
  });
});

it('what one instance has handled and a lost one had while the store was full counts as delivered', async () => {
  const clock = new TestClock();
  const { engine, store } = fillable();
  const { port, server } = await startServer('memory', { ...PATIENT, clock, engine, instanceGrace: 1000 });
  const sender = await connectedClient(port, 'sender');
  const peers = [await RawPeer.open(port, { name: 'shared' }), await RawPeer.open(port, { name: 'shared' })] as const;
  for (const peer of peers) await peer.subscribe('room');
  const [first, second] = [1, 2].map(n =>
    sender.sendMessage(BroadcastMessage.createChannelMessage('room', n), { until: 'delivered' }),
  );
  for (const peer of peers) await peer.next(FRAME.MESSAGES);
  acknowledges(peers[0]);
  await peers[0].flush();
  const inbox = new Inbox();
  const third = newClient(port, 'shared');
  third.onMessage('room', message => inbox.push(message.data));
  await third.connect();
  const gone = departures(server);
  peers[1].socket.destroy();
  await gone.reached(1);
  clock.tick(1000);
  expect((await first)?.status).toBe('delivered');
  takesAway(peers[0]);
  expect(await inbox.reached(1)).toEqual([2]);
  store.full = false;
  givesBack(peers[0], 2);
  expect((await second)?.status).toBe('delivered');
  expect(inbox.items).toEqual([2]);
});
