/** A client that meets a server with smaller limits than those under which it took its messages. */
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { BroadcastMessage, type BroadcastMessage as Message, type DeliveryFailure } from '../../src/index.js';
import { TestClock } from '../../src/testing/index.js';
import { Inbox, newClient, startServer } from '../helpers/scene.js';

const LIMITS = { messageBytes: 1000, headerBytes: 100, targets: 2, nameBytes: 20 };

describe.each<[string, () => Message]>([
  ['data', () => BroadcastMessage.createClientMessage('x', 'a'.repeat(5000))],
  ['headers', () => BroadcastMessage.createClientMessage('x', 1, { headers: { a: 'b'.repeat(500) } })],
  ['targets', () => BroadcastMessage.createGroupMessage(['a', 'b', 'c'], 1)],
  ['a name', () => BroadcastMessage.createChannelMessage('c'.repeat(30), 1)],
])('a message that waited for a server with %s too large for it', (_what, make) => {
  it('ends with a final notice, and the others go on', async () => {
    const { port } = await startServer('memory', { limits: LIMITS });
    const client = newClient(port, 'sender');
    const failures = new Inbox<DeliveryFailure>();
    client.onDeliveryFailure(failures.push);
    let lost = 0;
    client.on('offline', () => lost++);
    const message = make();
    const receipts = [
      client.sendMessage(BroadcastMessage.createClientMessage('x', 1)),
      client.sendMessage(message),
      client.sendMessage(BroadcastMessage.createClientMessage('x', 2)),
    ];
    await client.connect();
    expect((await Promise.all(receipts)).map(({ status }) => status)).toEqual(['stored', 'undelivered', 'stored']);
    expect(failures.items.filter(({ final }) => final)).toMatchObject([
      { messageId: message.id, reason: 'too-large', attempts: 0 },
    ]);
    expect(lost).toBe(0);
  });
});

describe('a server that welcomes and then ends every connection', () => {
  it('is tried at once only once, then at the regular interval', async () => {
    const { port } = await startServer('memory');
    let connections = 0;
    const relay = createServer(near => {
      connections++;
      const far = connect(port, '127.0.0.1');
      near.pipe(far);
      for (const socket of [near, far]) socket.on('error', () => undefined);
      let got = 0;
      far.on('data', bytes => {
        near.write(bytes);
        got += bytes.length;
        if (got > 40) near.end(() => far.destroy()); // the preamble has 8 bytes, and WELCOME follows
      });
    });
    relay.listen(0, '127.0.0.1');
    await once(relay, 'listening');
    onTestFinished(() => void relay.close());
    const clock = new TestClock();
    const address = (relay.address() as { port: number }).port;
    const client = newClient(address, 'client', { clock, reconnectInterval: 1000 });
    const losses = new Inbox<number>();
    client.on('offline', () => losses.push(connections));
    void client.connect();
    expect(await losses.reached(2)).toEqual([1, 2]);
    // Another connection there and back: time enough for a third one of the client, if it made one.
    const probe = newClient(port, 'probe');
    await probe.connect();
    expect(connections).toBe(2);
    clock.tick(1200);
    expect(await losses.reached(3)).toEqual([1, 2, 3]);
    clock.tick(10_000); // the time that close() allows itself
  });
});
