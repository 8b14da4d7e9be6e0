/** Windows of recipients, and what is looked at when they open: what has expired meanwhile, and an instance's own messages. */
import { describe, expect, it } from 'vitest';
import { BroadcastMessage, type DeliveryFailure } from '../../src/index.js';
import { TestClock } from '../../src/testing/index.js';
import { FRAME } from '../../src/protocol/constants.js';
import { encodeRanges } from '../../src/protocol/frames.js';
import { RawPeer } from '../helpers/raw-peer.js';
import { connectedClient, gate, heldReader, Inbox, newClient, startServer } from '../helpers/scene.js';

/** Nothing is stored for want of progress. */
const PATIENT = { storeAfter: 10_000 };
const text = 'x'.repeat(100);
const inRoom = (n: number, ttl?: number) =>
  BroadcastMessage.createChannelMessage('room', { n, text }, ttl === undefined ? {} : { ttl });

/** A clock whose timers are late, as those of a busy process are. */
class LateClock extends TestClock {
  late = 0;

  override monotonic(): number {
    return super.monotonic() + this.late;
  }
}

describe('a window that is full by its bytes', () => {
  // One subscription has the whole window; of several, one that is stuck leaves room to the others.
  it.each([
    { subscriptions: ['room'], fit: [1, 2] },
    { subscriptions: ['room', 'other'], fit: [1] },
  ])('holds back what comes for $subscriptions', async ({ subscriptions, fit }) => {
    const { port } = await startServer('memory', { ...PATIENT, limits: { windowBytes: 150 } });
    const sender = await connectedClient(port, 'sender');
    const started = new Inbox();
    const blocked = gate();
    const reader = newClient(port, 'reader');
    const handler = ({ data }: BroadcastMessage): Promise<void> => {
      started.push((data as { n: number }).n);
      return blocked.promise;
    };
    for (const channel of subscriptions) reader.onMessage(channel, handler, { concurrency: 10 });
    await reader.connect();
    for (let n = 1; n <= 4; n++) await send(sender, n);
    await started.reached(fit.length);
    // What comes without a window comes after what it would have let through.
    await sender.sendMessage(BroadcastMessage.createChannelMessage('room', { n: 0 }, { persistent: false }));
    expect(await started.reached(fit.length + 1)).toEqual([...fit, 0]);
    blocked.open();
    expect(await started.reached(5)).toEqual([...fit, 0, ...[1, 2, 3, 4].slice(fit.length)]);
  });
});

describe('what an online recipient holds in memory', () => {
  // Fifty times storeAfter is a second.
  const STEP = 15;
  it.each([
    { what: 'is not stored while it moves on, however long it is never empty', waiting: 3, stored: false },
    { what: 'is stored once the oldest of it has waited for long, though it moves on', waiting: 100, stored: true },
  ])('$what', async ({ waiting, stored }) => {
    const clock = new TestClock();
    const { server, port } = await startServer('memory', { clock, limits: { windowMessages: 1 } });
    const sender = await connectedClient(port, 'sender');
    const { started, running } = await heldReader(port, 'room');
    for (let n = 0; n < waiting; n++) await send(sender, n);
    for (let n = 0; n < 80; n++) {
      await started.reached(n + 1);
      await send(sender, waiting + n);
      clock.tick(STEP);
      running[n]?.();
    }
    await started.reached(81);
    expect(server.stats().stored > 0).toBe(stored);
    for (let n = 80; n < waiting + 80; n++) {
      await started.reached(n + 1);
      running[n]?.();
    }
    expect(started.items).toEqual(Array.from({ length: waiting + 80 }, (_, n) => ({ n, text })));
  });
});

describe('what waits for a handler that has its turn after others', () => {
  const OTHERS = 8;
  it.each([
    { what: 'is not stored while those before it are acknowledged', at: OTHERS, stored: false },
    { what: 'is stored when those behind it are acknowledged and it is not', at: 0, stored: true },
  ])('$what', async ({ at, stored }) => {
    const clock = new TestClock();
    const { server, port } = await startServer('memory', { clock });
    const sender = await connectedClient(port, 'sender');
    const reader = await RawPeer.open(port, { name: 'reader' });
    await reader.subscribe('room');
    await reader.subscribe('other');
    for (let n = 0; n <= OTHERS; n++) {
      sender.sendMessage(BroadcastMessage.createChannelMessage(n === at ? 'other' : 'room', n));
      await sender.flush();
    }
    for (let n = 0; n <= OTHERS; n++) {
      if (n === at) continue;
      reader.write(encodeRanges(FRAME.ACK, [{ first: n + 1, count: 1 }]));
      await reader.flush();
      clock.tick(10);
    }
    expect(server.stats().stored > 0).toBe(stored);
    // Its turn has come, and nothing moves.
    clock.tick(40);
    expect(server.stats().stored).toBe(1);
  });
});

/** Each in a batch of its own, and taken by the server. */
async function send(sender: Awaited<ReturnType<typeof connectedClient>>, n: number): Promise<void> {
  sender.sendMessage(inRoom(n));
  await sender.flush();
}

describe('what has expired, though no timer has said so yet', () => {
  it('is not sent when the window opens', async () => {
    const clock = new LateClock();
    const { port } = await startServer('memory', { ...PATIENT, clock });
    const sender = await connectedClient(port, 'sender');
    const failures = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failure => (failure.final ? failures.push(failure) : undefined));
    const started = new Inbox();
    const blocked = gate();
    const reader = newClient(port, 'reader');
    reader.onMessage(
      'room',
      ({ data }) => {
        started.push((data as { n: number }).n);
        return blocked.promise;
      },
      { window: 1 },
    );
    await reader.connect();
    sender.sendMessage(inRoom(1));
    sender.sendMessage(inRoom(2, 60_000));
    sender.sendMessage(inRoom(3));
    await started.reached(1);
    await sender.flush();
    clock.late = 60_001;
    blocked.open();
    expect(await started.reached(2)).toEqual([1, 3]);
    expect(await failures.reached(1)).toMatchObject([{ reason: 'expired', attempts: 0 }]);
  });

  it('is not sent when it is read for who comes back', async () => {
    const clock = new LateClock();
    const { port } = await startServer('memory', { clock });
    const sender = await connectedClient(port, 'sender');
    const failures = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failure => (failure.final ? failures.push(failure) : undefined));
    for (const ttl of [60_000, undefined]) {
      const options = ttl === undefined ? {} : { ttl };
      await sender.sendMessage(BroadcastMessage.createClientMessage('away', ttl ?? 'for ever', options));
    }
    clock.late = 60_001;
    const inbox = new Inbox();
    const away = newClient(port, 'away');
    away.onMessage(({ data }) => inbox.push(data));
    await away.connect();
    expect(await inbox.reached(1)).toEqual(['for ever']);
    expect(await failures.reached(1)).toMatchObject([{ target: { client: 'away' }, reason: 'expired' }]);
  });
});

describe('an instance of a shared name', () => {
  it('never gets its own channel message, also when the one that has it leaves and the next has no room', async () => {
    const { port } = await startServer('memory');
    const own = new Inbox();
    const sender = newClient(port, 'pool');
    sender.onMessage('room', ({ data }) => own.push(data));
    await sender.connect();
    const first = newClient(port, 'pool');
    const started = new Inbox();
    first.onMessage('room', ({ data }) => {
      started.push(data);
      return new Promise(() => undefined);
    });
    await first.connect();
    for (const n of [1, 2]) await sender.sendMessage(BroadcastMessage.createChannelMessage('room', n));
    await started.reached(1);
    const other = newClient(port, 'pool'); // here, and with no handler for the channel
    await other.connect();
    await first.close({ timeout: 1 });
    await sender.flush();
    const blocked = gate();
    const inbox = new Inbox();
    const next = newClient(port, 'pool');
    next.onMessage(
      'room',
      ({ data }) => {
        inbox.push(data);
        return blocked.promise;
      },
      { window: 1 },
    );
    await next.connect();
    expect(await inbox.reached(1)).toEqual([1]);
    await sender.flush();
    blocked.open();
    expect(await inbox.reached(2)).toEqual([1, 2]);
    expect(own.items).toEqual([]);
  });
});
