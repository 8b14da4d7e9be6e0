/** What the random sequences of test/faults/model.test.ts have found, each in the fewest steps. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { diskEngine, memoryEngine } from '../../src/engine/index.js';
import { BroadcastMessage, BroadcastReject, type DeadLetter, type BroadcastClient } from '../../src/index.js';
import { FRAME } from '../../src/protocol/constants.js';
import * as frames from '../../src/protocol/frames.js';
import { TestClock } from '../../src/testing/index.js';
import { fillable, PATIENT } from '../helpers/full-store.js';
import { RawPeer } from '../helpers/raw-peer.js';
import {
  connectedClient,
  departures,
  gate,
  Inbox,
  newClient,
  queuedFor,
  startServer,
  temporaryFolder,
} from '../helpers/scene.js';

/** Sends a message; what it says in the end, when it does. */
function follow(sender: BroadcastClient, message: BroadcastMessage): Inbox {
  const ended = new Inbox();
  void sender.sendMessage(message, { until: 'delivered' }).then(({ status }) => ended.push(status));
  return ended;
}

/** It has not ended yet for its sender, and does when "absent" has it. */
async function endsWithAbsent(port: number, sender: BroadcastClient, ended: Inbox): Promise<void> {
  await sender.flush();
  expect(ended.items).toEqual([]);
  const absent = newClient(port, 'absent');
  absent.onMessage(() => undefined);
  await absent.connect();
  expect(await ended.reached(1)).toEqual(['delivered']);
}

/** What the peer has sent has been read, and what was answered at once has come. */
async function heard(peer: RawPeer): Promise<void> {
  peer.write(frames.PING);
  await peer.next(FRAME.PONG);
}

describe('a handler that is taken away', () => {
  it('is gone for the client only when that is durable: a server that is killed would send to it for ever', async () => {
    const engine = memoryEngine();
    const { port } = await startServer('memory', { engine });
    const peer = await RawPeer.open(port, { name: 'reader' });
    await peer.subscribe('room');
    const { promise: durable, open } = gate();
    const { commit } = engine;
    engine.commit = () => durable.then(() => commit.call(engine));
    peer.write(frames.encodeUnhandle({ request: 7, channel: 'room' }));
    await heard(peer);
    expect(peer.frames.map(({ type }) => type)).not.toContain(FRAME.OK);
    open();
    await peer.next(FRAME.OK);
  });
});

describe('a message that was dropped with its subscription while its handler ran', () => {
  it.each(['fails', 'rejects'])('may fail as any other: its handler %s', async how => {
    const { port, server } = await startServer('memory');
    const reader = await connectedClient(port, 'reader');
    const lost = new Inbox();
    server.on('disconnect', (_, reason) => lost.push(reason));
    const { promise, open } = gate();
    const started = new Inbox();
    reader.onMessage('room', async message => {
      started.push(message.data);
      await promise;
      throw how === 'fails' ? new Error('failed') : new BroadcastReject('never');
    });
    await reader.flush();
    const sender = await connectedClient(port, 'sender');
    const failures = new Inbox();
    sender.onDeliveryFailure(({ reason, final }) => final && failures.push(reason));
    await sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1));
    await started.reached(1);
    reader.unsubscribe('room');
    await failures.reached(1);
    open();
    const got = new Inbox();
    reader.onMessage(message => got.push(message.data));
    await sender.sendMessage(BroadcastMessage.createClientMessage('reader', 2), { until: 'delivered' });
    await reader.flush();
    expect(lost.items).toEqual([]);
    expect(failures.items).toEqual(['dropped']);
    expect(got.items).toEqual([2]);
  });
});

describe('a dead letter that is sent again', () => {
  it('does not end a message for those who still wait for it', async () => {
    const { port, server } = await startServer('memory');
    const picky = newClient(port, 'picky');
    const got = new Inbox();
    picky.onMessage(({ data }) => {
      got.push(data);
      if (got.items.length === 1) throw new BroadcastReject('never');
    });
    await picky.connect();
    const sender = await connectedClient(port, 'sender');
    const message = BroadcastMessage.createGroupMessage(['picky', 'absent'], 1);
    const ended = follow(sender, message);
    await got.reached(1);
    await picky.flush();
    const letters = server.deadLetters('picky');
    await letters.retry(((await letters.list())[0] as DeadLetter).id);
    await got.reached(2);
    await picky.flush();
    await endsWithAbsent(port, sender, ended);
  });
});

describe('a message that comes while the server closes its store', () => {
  it('stays with its sender, who is told nothing of it', async () => {
    const engine = diskEngine({ directory: join(await temporaryFolder(), 'data') });
    const { port, server } = await startServer('memory', { engine });
    const peer = await RawPeer.open(port, { name: 'sender' });
    const { promise: goesOn, open } = gate();
    const closing = gate();
    const { close } = engine;
    engine.close = async () => {
      await close.call(engine);
      closing.open();
      await goesOn;
    };
    const stopped = server.stop();
    await closing.promise;
    peer.write(peer.message(1, { clients: ['nobody'] }, Buffer.from([1])));
    await heard(peer);
    open();
    await peer.until(() => peer.hasEnded);
    peer.socket.end();
    await stopped;
    const types = peer.frames.map(({ type }) => type);
    expect(types).not.toContain(FRAME.FAILURE);
    expect(types).not.toContain(FRAME.RECEIPT);
  });
});

describe('a message for two subscriptions of a process that dies', () => {
  it('is charged one attempt for each of them', async () => {
    const clock = new TestClock();
    const { port, server } = await startServer('memory', { clock, instanceGrace: 1000 });
    const doomed = await RawPeer.open(port, { name: 'workers', host: 'elsewhere', pid: 1 });
    for (const channel of ['x', 'y']) await doomed.subscribe(channel, 5);
    const sender = await connectedClient(port, 'sender');
    const receipt = sender.sendMessage(BroadcastMessage.createMultiChannelMessage(['x', 'y'], 1));
    await doomed.next(FRAME.MESSAGES);
    const gone = departures(server);
    doomed.socket.destroy();
    await gone.reached(1);
    await receipt;
    clock.tick(1000);
    const inbox = new Inbox();
    const other = newClient(port, 'workers');
    for (const channel of ['x', 'y']) other.onMessage(channel, (_, { attempt }) => inbox.push(attempt));
    await other.connect();
    expect(await inbox.reached(2)).toEqual([2, 2]);
  });
});

describe('a message that was on its way to an instance when its connection was lost', () => {
  it('is not sent again after its time was over', async () => {
    const clock = new TestClock();
    const { port, server } = await startServer('memory', { clock });
    const hello = { name: 'reader', instance: 'ab'.repeat(16) };
    const first = await RawPeer.open(port, hello);
    await first.subscribe('');
    const sender = await connectedClient(port, 'sender');
    const failures = new Inbox();
    sender.onDeliveryFailure(({ reason, final }) => final && failures.push(reason));
    const receipt = sender.sendMessage(BroadcastMessage.createClientMessage('reader', 1, { ttl: 1000 }));
    await first.next(FRAME.MESSAGES);
    const gone = departures(server);
    first.socket.destroy();
    await gone.reached(1);
    await receipt;
    clock.tick(1000);
    const again = await RawPeer.open(port, hello);
    await again.subscribe('');
    expect(await failures.reached(1)).toEqual(['expired']);
    expect(again.frames.map(({ type }) => type)).not.toContain(FRAME.MESSAGES);
  });
});

describe('what another instance has handled', () => {
  /** When the messages are sent, and, of those before the loss, which are handled before they are stored. */
  type Course =
    'after the loss' | 'before it, stored by it' | 'before it, stored between' | 'before it, stored when handled';

  /** Of two instances one is lost, the other handles what is sent; both go, and a third one comes. */
  async function third(course: Course, inWindow: number): Promise<unknown[]> {
    const clock = new TestClock();
    const { port, server } = await startServer('memory', { clock, instanceGrace: 1000 });
    const lost = await RawPeer.open(port, { name: 'shared' });
    lost.write(
      frames.encodeSubscribe({ request: 1, channel: 'room', concurrency: 1, window: inWindow, maxAttempts: 5 }),
    );
    await lost.next(FRAME.OK);
    const second = gate();
    const handled = new Inbox();
    const other = newClient(port, 'shared');
    other.onMessage('room', async ({ data }) => {
      if (data === 2) await second.promise;
      handled.push(data);
    });
    await other.connect();
    const sender = await connectedClient(port, 'sender');
    const gone = departures(server);
    const lose = async (): Promise<void> => {
      lost.socket.destroy();
      await gone.reached(1);
    };
    if (course === 'after the loss') await lose();
    const receipts = [1, 2].map(n => sender.sendMessage(BroadcastMessage.createChannelMessage('room', n)));
    const store = async (): Promise<void> => {
      for (let look = 0; look < 2; look++) clock.tick(50);
      for (const receipt of receipts) expect(await receipt).toMatchObject({ status: 'stored' });
    };
    if (course === 'before it, stored between') {
      await handled.reached(1);
      await other.flush();
      await store();
    }
    second.open();
    expect(await handled.reached(2)).toEqual([1, 2]);
    await other.flush();
    if (course === 'before it, stored when handled') await store();
    if (course !== 'after the loss') await lose();
    await Promise.all(receipts);
    await other.close();
    clock.tick(1000);
    const inbox = new Inbox();
    const next = newClient(port, 'shared');
    next.onMessage('room', message => inbox.push(message.data));
    await next.connect();
    await sender.sendMessage(BroadcastMessage.createChannelMessage('room', 3), { until: 'delivered' });
    return inbox.items;
  }

  it('does not count twice when the other one ends it on leaving', async () => {
    const { port } = await startServer('memory');
    const [quick, slow] = [newClient(port, 'shared'), newClient(port, 'shared')];
    const handled = new Inbox();
    quick.onMessage('room', message => handled.push(message.data));
    const { promise, open } = gate();
    const started = new Inbox();
    slow.onMessage('room', async message => {
      started.push(message.data);
      await promise;
    });
    for (const client of [quick, slow]) await client.connect();
    const sender = await connectedClient(port, 'sender');
    const message = BroadcastMessage.create('absent', 'room', 1);
    const ended = follow(sender, message);
    await started.reached(1);
    await handled.reached(1);
    await quick.flush();
    const closed = slow.close();
    await quick.flush();
    open();
    await closed;
    await endsWithAbsent(port, sender, ended);
  });

  it('counts for a lost one when it has left, too', async () => {
    expect(await third('after the loss', 0)).toEqual([3]);
  });

  it('counts for a lost one that had no room for it', async () => {
    expect(await third('before it, stored by it', 1)).toEqual([3]);
  });

  it('counts for a lost one that had no room for it when it had been stored before the loss', async () => {
    expect(await third('before it, stored when handled', 1)).toEqual([3]);
  });

  it('counts for a lost one when some of a batch was handled before it was stored, and some after', async () => {
    expect(await third('before it, stored between', 0)).toEqual([3]);
  });
});

describe('a message that was refused for a subscription whose handler is then taken away', () => {
  it('is counted once', async () => {
    const clock = new TestClock();
    const { port, server } = await startServer('memory', { clock });
    const sender = await connectedClient(port, 'sender');
    const peer = await RawPeer.open(port, { name: 'reader' });
    for (const channel of ['x', 'y', 'z']) await peer.subscribe(channel, 5);
    peer.write(frames.encodeUnhandle({ request: 5, channel: 'z' }));
    await peer.next(FRAME.OK);
    await sender.sendMessage(BroadcastMessage.createChannelMessage('z', 1));
    const receipt = sender.sendMessage(BroadcastMessage.createMultiChannelMessage(['x', 'y'], 2));
    await peer.next(FRAME.MESSAGES);
    // Stored for want of progress.
    for (let look = 0; look < 2; look++) clock.tick(50);
    await receipt;
    expect(await queuedFor(server, 'reader')).toBe(3);
    peer.write(frames.encodeReject({ delivery: 1, channel: 'x', kind: 'rejected', attempts: 1, reason: 'no' }));
    await peer.flush();
    expect(await queuedFor(server, 'reader')).toBe(2);
    peer.write(frames.encodeUnhandle({ request: 6, channel: 'x' }));
    await peer.next(FRAME.OK);
    expect(await queuedFor(server, 'reader')).toBe(2);
    peer.write(frames.encodeRanges(FRAME.ACK, [{ first: 1, count: 1 }]));
    await peer.flush();
    expect(await queuedFor(server, 'reader')).toBe(1);
  });

  it('does not come back when it was dropped with its session', async () => {
    const { engine } = fillable();
    const { port, server } = await startServer('memory', { ...PATIENT, engine });
    const gone = departures(server);
    const sender = await connectedClient(port, 'sender');
    const failures = new Inbox();
    sender.onDeliveryFailure(({ reason, final }) => final && failures.push(reason));
    const peer = await RawPeer.open(port, { name: 'reader' });
    await peer.subscribe('', 5);
    const receipt = sender.sendMessage(BroadcastMessage.createBroadcastMessage(1));
    await peer.next(FRAME.MESSAGES);
    await server.forget('reader');
    expect(await failures.reached(1)).toEqual(['dropped']);
    peer.write(frames.encodeUnhandle({ request: 5, channel: '' }));
    await peer.next(FRAME.OK);
    peer.socket.destroy();
    await gone.reached(1);
    const inbox = new Inbox();
    const next = newClient(port, 'reader');
    next.onMessage(({ data }) => inbox.push(data));
    await next.connect();
    await sender.sendMessage(BroadcastMessage.createClientMessage('reader', 2), { until: 'delivered' });
    expect(inbox.items).toEqual([2]);
    expect(await receipt).toMatchObject({ status: 'undelivered' });
    expect(failures.items).toEqual(['dropped']);
  });
});
