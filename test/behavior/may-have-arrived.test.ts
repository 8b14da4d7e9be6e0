/** A final notice says with `attempts` whether the message may have reached a handler (docs/failures.md); 0 is a promise. */
import { describe, expect, it } from 'vitest';
import { BroadcastMessage, type DeliveryFailure } from '../../src/index.js';
import { FRAME, FRAME_HEADER } from '../../src/protocol/constants.js';
import { Reader } from '../../src/protocol/bytes.js';
import { decodeFailure } from '../../src/protocol/deliveries.js';
import { TestClock } from '../../src/testing/index.js';
import { RawPeer } from '../helpers/raw-peer.js';
import { connectedClient, gate, Inbox, newClient, startServer } from '../helpers/scene.js';

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
