/** What is held of failures, when some of the messages that they are about are safe and others are decided anew. */
import { expect, it } from 'vitest';
import { HeldFailures } from '../../src/client/held-failures.js';
import { LazyReceipt, type FailureRun } from '../../src/lazy-receipt.js';
import { formatId } from '../../src/message.js';
import type { DeliveryFailure } from '../../src/receipts.js';

const PREFIX = 'prefix'.padEnd(8, '0');
const idAt = (counter: number): string => formatId(PREFIX, counter);

/** Five messages from position 11 on, refused together. */
function refused(): { held: HeldFailures; run: FailureRun; receipts: LazyReceipt[] } {
  const receipts = [0, 1, 2, 3, 4].map(counter => new LazyReceipt({ prefix: PREFIX, counter }));
  const failure: DeliveryFailure = {
    messageId: idAt(0),
    target: { client: 'away' },
    reason: 'queue-full',
    queued: false,
    final: true,
    attempts: 0,
    at: 1,
    count: 5,
  };
  const run = { position: 11, failure };
  for (const receipt of receipts) receipt.addFailure(run);
  const held = new HeldFailures();
  expect(held.hold(run, receipts)).toBe(true);
  return { held, run, receipts };
}

it('holds a failure until every message of it is safe, and tells it once', () => {
  const { held, run, receipts } = refused();
  expect(held.hold({ ...run }, receipts)).toBe(false);
  expect(held.release(position => position < 15)).toEqual([]);
  expect(held.release(() => true)).toEqual([run.failure]);
  expect(held.release(() => true)).toEqual([]);
});

it('forgets it of those that are decided anew, and divides it among the others', async () => {
  const { held, run, receipts } = refused();
  held.forget(position => position !== 13);
  expect(held.release(() => true)).toEqual([
    { ...run.failure, count: 2 },
    { ...run.failure, messageId: idAt(3), count: 2 },
  ]);
  for (const receipt of receipts) receipt.settle('undelivered', 'none');
  const failures = await Promise.all(receipts.map(async receipt => (await receipt).failures.length));
  expect(failures).toEqual([1, 1, 0, 1, 1]);
});

it('forgets all of it where nothing is kept, and gives one message its own id and no count', () => {
  const { held, run } = refused();
  held.forget(position => position === 12);
  const { count: _, ...one } = run.failure;
  expect(held.release(() => true)).toEqual([{ ...one, messageId: idAt(1) }]);
  held.forget(() => false);
  expect(held.release(() => true)).toEqual([]);
});
