/** What a server says of messages that are not safe: held, told once, and decided anew by another run of it. */
import { expect, it } from 'vitest';
import { FinalFailures } from '../../src/client/final-failures.js';
import type { FailureRun } from '../../src/lazy-receipt.js';
import { formatId } from '../../src/message.js';
import type { DeliveryFailure } from '../../src/receipts.js';

const PREFIX = 'prefix'.padEnd(8, '0');
const idAt = (counter: number): string => formatId(PREFIX, counter);
const POSITIONS = [11, 12, 13, 14, 15];

/** Five messages from position 11 on, refused together. */
function refused(unsafe = POSITIONS): { final: FinalFailures; run: FailureRun } {
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
  const final = new FinalFailures();
  expect(final.note(run)).toBe(true);
  final.hold(run, position => idAt(position - 11), unsafe);
  return { final, run };
}

it('holds a failure until every message of it is safe', () => {
  const { final, run } = refused([12, 14]);
  expect(final.settled(11)).toEqual([]);
  expect(final.settled(12)).toEqual([]);
  expect(final.settled(12)).toEqual([]);
  expect(final.settled(14)).toEqual([run.failure]);
  expect(final.takeAll()).toEqual([]);
});

it('knows what was said before, of whom and why, until the floor has passed it', () => {
  const { final, run } = refused();
  const other = { ...run, failure: { ...run.failure, target: { client: 'other' } } };
  const expired = { ...run, failure: { ...run.failure, reason: 'expired' as const } };
  // Of another process of the same name.
  const fewer = { ...run, failure: { ...run.failure, count: 2 } };
  const all = [run, other, expired, fewer];
  expect(all.map(one => final.note(one))).toEqual([false, true, true, true]);
  expect(all.map(one => final.note(one))).toEqual([false, false, false, false]);
  final.passed(15);
  expect(final.note(run)).toBe(false);
  final.passed(16);
  expect(final.note(run)).toBe(true);
});

it('forgets what is decided anew, tells of what is safe, and holds what the next run has', () => {
  const { final, run } = refused();
  const told = final.forget(
    position => position !== 13,
    position => position < 13,
  );
  expect(told).toEqual([{ ...run.failure, count: 2 }]);
  expect(final.settled(14)).toEqual([]);
  expect(final.settled(15)).toEqual([{ ...run.failure, messageId: idAt(3), count: 2 }]);
  expect(final.note(run)).toBe(true);
});

it('gives one message its own id and no count, and tells everything when nobody decides anew', () => {
  const { final, run } = refused();
  const two = refused().final;
  expect(two.takeAll()).toEqual([run.failure]);
  final.forget(
    position => position === 12,
    () => false,
  );
  const { count: _, ...one } = run.failure;
  expect(final.takeAll()).toEqual([{ ...one, messageId: idAt(1) }]);
});
