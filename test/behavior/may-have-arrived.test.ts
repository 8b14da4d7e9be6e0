/** A final notice says with `attempts` whether the message may have reached a handler (docs/failures.md); 0 is a promise. */
import { describe, expect, it } from 'vitest';
import { BroadcastMessage, type DeliveryFailure, type Receipt, type ServerConfig } from '../../src/index.js';
import { FRAME, FRAME_HEADER } from '../../src/protocol/constants.js';
import { Reader } from '../../src/protocol/bytes.js';
import { decodeFailure } from '../../src/protocol/deliveries.js';
import { TestClock } from '../../src/testing/index.js';
import { fillable, stuck } from '../helpers/full-store.js';
import { startProxy } from '../helpers/proxy.js';
import { RawPeer } from '../helpers/raw-peer.js';
import { connectedClient, departures, gate, Inbox, newClient, startServer } from '../helpers/scene.js';

const DAY = 24 * 60 * 60 * 1000;

describe('the attempts of a final notice', () => {
  it.each([
    [true, 1],
    [false, 0],
  ])('sent to an earlier run of the server: %s; refused for want of room: %i', async (resent, attempts) => {
    const { port } = await startServer('memory', { limits: { storeBytes: 1000 } });
    const peer = await RawPeer.open(port);
    peer.write(peer.message(1, { clients: ['away'], resent }, Buffer.alloc(2000)));
    const notice = decodeFailure(new Reader(await peer.next(FRAME.FAILURE), FRAME_HEADER));
    expect(notice.failure).toMatchObject({ reason: 'queue-full', final: true, attempts });
  });

  it.each(['memory', 'disk'] as const)(
    'counts those before a message expired that waited, on the %s engine',
    async kind => {
      const clock = new TestClock();
      const { port } = await startServer(kind, { clock, deadAfter: 20 * DAY });
      const sender = await connectedClient(port, 'sender');
      const failures = new Inbox<DeliveryFailure>();
      sender.onDeliveryFailure(failure => failure.final && failures.push(failure));
      const worker = newClient(port, 'worker');
      const failed = gate();
      worker.onMessage(() => {
        failed.open();
        throw new Error('once');
      });
      await worker.connect();
      const receipt = sender.sendMessage(BroadcastMessage.createClientMessage('worker', 1, { ttl: 60_000 }));
      await failed.promise;
      await worker.flush();
      await worker.close();
      await receipt;
      clock.tick(62_000);
      expect(await failures.reached(1)).toMatchObject([{ reason: 'expired', attempts: 1 }]);
    },
  );
});

it('says of one process of a shared name that another one may have had the message', async () => {
  const { engine, store } = fillable();
  store.full = false;
  const { port } = await startServer('memory', { engine, storeAfter: 5, limits: { windowMessages: 1 } });
  const handled = new Inbox();
  const quick = newClient(port, 'reader');
  quick.onMessage('room', message => handled.push(message.data));
  await quick.connect();
  // The other process falls behind: what is further for it must be stored.
  const slow = await stuck(port, ['room']);
  const sender = await connectedClient(port, 'sender');
  const send = (n: number): PromiseLike<Receipt> =>
    sender.sendMessage(BroadcastMessage.createChannelMessage('room', n));
  for (const receipt of [send(1), send(2)]) expect(await receipt).toMatchObject({ status: 'stored' });
  store.full = true;
  expect(await send(3)).toMatchObject({
    failures: [{ target: { client: 'reader', channel: 'room' }, reason: 'queue-full', final: true, attempts: 1 }],
  });
  expect(await handled.reached(3)).toEqual([1, 2, 3]);
  slow.open();
});

/** A sender whose message one recipient handles for as long as the test wants, while there is no room for the other one. */
async function halfRefused(until: 'safe' | 'delivered' = 'safe', more: ServerConfig = {}) {
  const options = { storeAfter: 60_000, limits: { queueMessages: 1 }, ...more };
  const { server, port } = await startServer('memory', options);
  const reader = newClient(port, 'reader');
  const [started, handled] = [new Inbox(), gate()];
  reader.onMessage(message => {
    started.push(message.data);
    return handled.promise;
  });
  await reader.connect();
  const network = await startProxy(port);
  const sender = await connectedClient(network.port, 'sender');
  await sender.sendMessage(BroadcastMessage.createClientMessage('away', 'fills its queue'));
  const notices: DeliveryFailure[] = [];
  sender.onDeliveryFailure(failure => failure.final && notices.push(failure));
  const refused = new Inbox<DeliveryFailure>();
  server.on('failure', failure => failure.final && refused.push(failure));
  const receipt = sender.sendMessage(BroadcastMessage.createGroupMessage(['reader', 'away'], 'for both'), { until });
  await Promise.all([refused.reached(1), started.reached(1)]);
  // What the server had to say has come before its answer to this.
  await sender.flush();
  return { server, port, network, sender, options, handled, notices, receipt };
}

describe('a final notice about a message that is not safe yet', () => {
  const QUEUE_FULL = { reason: 'queue-full', final: true, attempts: 0, target: { client: 'away' } };

  it('is told when the message is safe, and stands in its receipt', async () => {
    const { handled, notices, receipt } = await halfRefused();
    expect(notices).toEqual([]);
    handled.open();
    expect(await receipt).toMatchObject({ status: 'delivered', failures: [QUEUE_FULL] });
    expect(notices).toMatchObject([QUEUE_FULL]);
  });

  it('is told once, when the connection has broken meanwhile', async () => {
    const { network, sender, handled, notices, receipt } = await halfRefused();
    const back = new Promise<void>(resolve => sender.once('online', () => resolve()));
    network.cut();
    await back;
    await sender.flush();
    handled.open();
    expect(await receipt).toMatchObject({ failures: [QUEUE_FULL] });
    expect(notices).toMatchObject([QUEUE_FULL]);
  });

  it('is told once, when the connection breaks later, while an earlier message keeps the floor', async () => {
    const { port, network, sender, handled, notices, receipt } = await halfRefused();
    const other = newClient(port, 'other');
    other.onMessage(() => undefined);
    await other.connect();
    // The first one is in hand still.
    const later = sender.sendMessage(BroadcastMessage.createGroupMessage(['other', 'away'], 'for both'));
    expect(await later).toMatchObject({ failures: [QUEUE_FULL] });
    for (let i = 0; i < 2; i++) {
      const back = new Promise<void>(resolve => sender.once('online', () => resolve()));
      network.cut();
      await back;
      await sender.flush();
    }
    handled.open();
    await receipt;
    expect(notices).toMatchObject([QUEUE_FULL, QUEUE_FULL]);
  });

  it('is told once, when the server has given the sender up meanwhile', async () => {
    const clock = new TestClock();
    const { server, network, sender, handled, notices, receipt } = await halfRefused('safe', {
      clock,
      instanceGrace: 1000,
    });
    const gone = departures(server);
    const back = new Promise<void>(resolve => sender.once('online', () => resolve()));
    network.isRefusing = true;
    network.cut();
    await gone.reached(1);
    clock.tick(2000);
    network.isRefusing = false;
    await back;
    await sender.flush();
    handled.open();
    expect(await receipt).toMatchObject({ failures: [QUEUE_FULL] });
    expect((await receipt).failures).toHaveLength(1);
    expect(notices).toMatchObject([QUEUE_FULL]);
  });

  it('is told once of a message that was safe, when the notice could not be kept', async () => {
    const { engine, store } = fillable();
    store.full = false;
    const { server, port } = await startServer('memory', { engine });
    const network = await startProxy(port);
    const sender = await connectedClient(network.port, 'sender');
    const notices: DeliveryFailure[] = [];
    sender.onDeliveryFailure(failure => failure.final && notices.push(failure));
    await sender.sendMessage(BroadcastMessage.createClientMessage('away', 1));
    await sender.flush();
    store.full = true;
    await server.forget('away');
    for (let i = 0; i < 2; i++) {
      await sender.flush();
      const back = new Promise<void>(resolve => sender.once('online', () => resolve()));
      network.cut();
      await back;
    }
    await sender.flush();
    expect(notices).toMatchObject([{ reason: 'dropped' }]);
  });

  it('is told when nothing is sent again because the sender is closed', async () => {
    const { sender, notices, receipt } = await halfRefused();
    const rejected = expect(receipt).rejects.toMatchObject({ code: 'closed' });
    await sender.close({ timeout: 1 });
    await rejected;
    expect(notices).toMatchObject([QUEUE_FULL]);
  });

  it('is void when the server ends before, and the next one has room', async () => {
    const { server, port, network, options, handled, notices, receipt } = await halfRefused('delivered');
    // The sender hears nothing of what the server still does.
    network.isRefusing = true;
    network.cut();
    await server.stop({ timeout: 0 });
    await startServer('memory', { ...options, port });
    network.isRefusing = false;
    const away = newClient(port, 'away');
    const arrived = new Inbox();
    away.onMessage(message => arrived.push(message.data));
    await away.connect();
    handled.open();
    expect(await receipt).toMatchObject({ status: 'delivered', failures: [] });
    expect(arrived.items).toEqual(['for both']);
    expect(notices).toEqual([]);
  });
});
