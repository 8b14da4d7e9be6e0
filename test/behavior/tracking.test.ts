/** Final outcomes of messages that their sender follows (`until: 'delivered'`). */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { BroadcastMessage, type DeliveryFailure, type Receipt } from '../../src/index.js';
import { FRAME } from '../../src/protocol/constants.js';
import * as frames from '../../src/protocol/frames.js';
import { TestClock } from '../../src/testing/index.js';
import { RawPeer } from '../helpers/raw-peer.js';
import {
  connectedClient,
  departures,
  gate,
  Inbox,
  newClient,
  queuedFor,
  Role,
  startServer,
  temporaryFolder,
} from '../helpers/scene.js';

describe('until: delivered', () => {
  it('does not take a message for delivered that was sent before there was a connection', async () => {
    const { port } = await startServer('memory');
    const sender = newClient(port, 'sender');
    const outcomes = new Inbox<Receipt>();
    void sender
      .sendMessage(BroadcastMessage.createClientMessage('later', 1), { until: 'delivered' })
      .then(outcomes.push);
    await sender.connect();
    await sender.flush();
    expect(outcomes.items).toEqual([]);
    const inbox = new Inbox();
    const later = newClient(port, 'later');
    later.onMessage(message => inbox.push(message.data));
    await later.connect();
    expect((await outcomes.reached(1))[0]?.status).toBe('delivered');
    expect(inbox.items).toEqual([1]);
  });

  it('does not lose a followed message that waits in the outbox when the server is killed', async () => {
    const dataDir = join(await temporaryFolder(), 'data');
    const first = new Role('server', { port: 0, dataDir });
    const port = (await first.saw('listening'))['port'] as number;
    const reader = newClient(port, 'reader');
    const inbox = new Inbox<number>();
    const { promise, open } = gate();
    reader.onMessage('room', async message => {
      inbox.push(message.data as number);
      if (message.data === 1) await promise;
    });
    await reader.connect();
    const sender = await connectedClient(port, 'sender');
    sender.sendMessage(BroadcastMessage.createChannelMessage('room', 1));
    await inbox.reached(1);
    await first.kill();
    const followed = sender.sendMessage(BroadcastMessage.createChannelMessage('room', 2), { until: 'delivered' });
    await new Role('server', { port, dataDir }).saw('listening');
    open();
    expect((await followed).status).toBe('delivered');
    expect(inbox.items).toEqual([1, 2]);
  });

  it('does not call a message delivered that a server in memory took with it', async () => {
    const first = await startServer('memory');
    const { port } = first;
    const sender = await connectedClient(port, 'sender');
    const followed = sender.sendMessage(BroadcastMessage.createClientMessage('away', 1), { until: 'delivered' });
    expect((await sender.sendMessage(BroadcastMessage.createClientMessage('away', 2))).status).toBe('stored');
    await first.server.stop();
    await startServer('memory', { port });
    await expect(followed).rejects.toMatchObject({ code: 'different-store' });
    expect((await sender.sendMessage(BroadcastMessage.createClientMessage('away', 3))).status).toBe('stored');
  });
});

describe('a followed message that was damaged in the store while the server was down', () => {
  /** A server with a store, and a sender whose final notices are kept. */
  async function scene() {
    const dataDir = join(await temporaryFolder(), 'data');
    const first = await startServer('disk', { dataDir });
    const { port } = first;
    const sender = await connectedClient(port, 'sender');
    const failures = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failure => failure.final && failures.push(failure));
    return { dataDir, first, port, sender, failures };
  }

  it('is undelivered, with a notice, for a sender that still waits; what is whole arrives', async () => {
    const { dataDir, first, port, sender, failures } = await scene();
    const send = async (...bodies: string[]): Promise<{ id: string; outcome: Promise<Receipt> }[]> => {
      const sent = bodies.map(body => {
        const message = BroadcastMessage.createClientMessage('away', body);
        return { id: message.id, outcome: sender.sendMessage(message, { until: 'delivered' }) };
      });
      await sender.flush();
      return sent;
    };
    const lost = await send('torn out', 'with it');
    const [kept] = await send('kept');
    await first.server.stop();
    await flipByteOf(join(dataDir, 'segment-0000000001.log'), 'torn out');
    const { server } = await startServer('disk', { dataDir, port });
    for (const { outcome } of lost) expect(await outcome).toMatchObject({ status: 'undelivered' });
    expect(await failures.reached(1)).toMatchObject([
      { messageId: lost[0]?.id, target: { client: 'away' }, reason: 'dropped', count: 2 },
    ]);
    const inbox = new Inbox();
    const away = newClient(port, 'away');
    away.onMessage(({ data }) => inbox.push(data));
    await away.connect();
    expect(await kept?.outcome).toMatchObject({ status: 'delivered' });
    expect(inbox.items).toEqual(['kept']);
    await sender.flush();
    expect(failures.items).toHaveLength(1);
    await server.stop();
  });

  it('is told alone of what had not had its outcome, and as one that may have arrived', async () => {
    const { dataDir, first, port, sender, failures } = await scene();
    const [had, lost] = ['torn out', 'with it'].map(body => {
      const message = BroadcastMessage.createClientMessage('away', body);
      return { id: message.id, outcome: sender.sendMessage(message, { until: 'delivered' }) };
    });
    await sender.flush();
    const started = new Inbox();
    const away = newClient(port, 'away');
    away.onMessage(({ data }) => {
      started.push(data);
      return data === 'torn out' ? undefined : gate().promise;
    });
    await away.connect();
    expect(await had?.outcome).toMatchObject({ status: 'delivered' });
    await started.reached(2);
    await away.close({ timeout: 0 });
    await first.server.stop();
    await flipByteOf(join(dataDir, 'segment-0000000001.log'), 'torn out');
    await startServer('disk', { dataDir, port });
    expect(await lost?.outcome).toMatchObject({ status: 'undelivered' });
    await failures.reached(1);
    await sender.flush();
    expect(failures.items).toMatchObject([
      { messageId: lost?.id, target: { client: 'away' }, reason: 'dropped', attempts: 1 },
    ]);
    expect(failures.items[0]).not.toHaveProperty('count');
  });

  it('is told alone, though others of a batch have had their outcomes out of order', async () => {
    const dataDir = join(await temporaryFolder(), 'data');
    const clock = new TestClock();
    const first = await startServer('disk', { dataDir, clock });
    const { port } = first;
    const sender = await connectedClient(port, 'sender');
    const failures = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failure => failure.final && failures.push(failure));
    const gone = departures(first.server);
    const peer = await RawPeer.open(port, { name: 'reader' });
    await peer.subscribe('room');
    const MESSAGES = 200;
    const outcomes = new Inbox();
    for (let n = 1; n <= MESSAGES; n++) {
      sender.sendMessage(BroadcastMessage.createChannelMessage('room', n), { until: 'delivered' }).then(
        ({ status }) => outcomes.push(status),
        () => undefined,
      );
    }
    await sender.flush();
    for (let look = 0; look < 2; look++) clock.tick(50);
    expect(await queuedFor(first.server, 'reader')).toBe(MESSAGES);
    await peer.flush();
    // One by one, so that the store is told of each of them.
    for (let n = 2; n <= MESSAGES; n += 2) peer.write(frames.encodeRanges(FRAME.ACK, [{ first: n, count: 1 }]));
    expect(new Set(await outcomes.reached(MESSAGES / 2))).toEqual(new Set(['delivered']));
    const message = BroadcastMessage.createClientMessage('away', 'torn out');
    const lost = sender.sendMessage(message, { until: 'delivered' });
    await sender.flush();
    // Nothing ends its stream for it, and the server would wait for that.
    peer.socket.destroy();
    await gone.reached(1);
    await first.server.stop();
    await flipByteOf(join(dataDir, 'segment-0000000001.log'), 'torn out');
    await startServer('disk', { dataDir, port });
    expect(await lost).toMatchObject({ status: 'undelivered' });
    await failures.reached(1);
    await sender.flush();
    expect(failures.items).toMatchObject([{ messageId: message.id, target: { client: 'away' }, reason: 'dropped' }]);
  });
});

/** Damages the first place in a file where a text stands. */
async function flipByteOf(path: string, text: string): Promise<void> {
  const bytes = await readFile(path);
  const at = bytes.indexOf(text);
  expect(at).toBeGreaterThan(0);
  bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
  await writeFile(path, bytes);
}
