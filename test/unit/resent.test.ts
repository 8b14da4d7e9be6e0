/** What a run of the server that has ended may have delivered is sent again with a mark, however many connections that takes. */
import { expect, it } from 'vitest';
import { Sending } from '../../src/client/sending.js';
import { DEFAULT_LIMITS } from '../../src/config/table.js';
import { BroadcastMessage } from '../../src/index.js';
import { defaultLogger } from '../../src/logger.js';
import { FRAME_HEADER } from '../../src/protocol/constants.js';
import { decodeMessages } from '../../src/protocol/messages.js';
import { TestClock } from '../../src/testing/test-clock.js';

const IDENTITY = { instance: 'a'.repeat(32), name: 'a' };
const none = (): undefined => undefined;
const LOOKUP = { sender: () => ({ identity: IDENTITY, idPrefix: 'prefix0123456789' }), channel: none, client: none };

it('keeps the mark on later connections to a run that knows the sender, and does not send again what is not persistent', () => {
  const pieces: Buffer[] = [];
  const sending = new Sending({
    clock: new TestClock(),
    logger: defaultLogger,
    limits: DEFAULT_LIMITS,
    identity: IDENTITY,
    aliases: { channel: none, client: none },
    send: piece => pieces.push(piece),
    wake: none,
    failed: none,
    drained: none,
    emptied: none,
  });
  const { outbox } = sending;
  /** What is written when a connection opens: persistent or not, marked or not. */
  const connect = (known: boolean, sendWindow = 10): string[] => {
    outbox.offline();
    pieces.length = 0;
    outbox.online({ sender: 1, sendWindow, sendWindowBytes: 10_000, taken: [], known, sameRun: known });
    outbox.pump();
    return pieces.flatMap((header, i) => {
      if (i % 2 === 1) return [];
      const frame = Buffer.concat([header, pieces[i + 1] as Buffer]);
      const { persistent, resent } = decodeMessages(frame.subarray(FRAME_HEADER), LOOKUP).batch.envelope;
      return [`${persistent ? 'kept' : 'once'}${resent ? ', marked' : ''}`];
    });
  };
  for (const persistent of [true, false]) {
    const message = BroadcastMessage.createChannelMessage('x', 1, { persistent });
    void sending.send(message, undefined);
  }
  expect(connect(false)).toEqual(['kept', 'once']);
  expect(connect(true)).toEqual(['kept', 'once']);
  // Another run, whose window has room for the first only; then the same one again, which knows the sender.
  expect(connect(false, 1)).toEqual(['kept, marked']);
  expect(connect(true)).toEqual(['kept, marked']);
});
