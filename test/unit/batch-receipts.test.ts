/** Receipts that nobody has looked at: what they are told, whenever somebody does. */
import { expect, it } from 'vitest';
import { BatchReceipts } from '../../src/client/batch-receipts.js';
import { BroadcastError } from '../../src/errors.js';
import { LazyReceipt, WatchedReceipt } from '../../src/lazy-receipt.js';
import { formatId } from '../../src/message.js';
import type { DeliveryFailure } from '../../src/receipts.js';

const PREFIX = 'prefix'.padEnd(16, '0');
const STORED = { status: 'stored', durability: 'memory' } as const;
const DELIVERED = { status: 'delivered', durability: 'none' } as const;

/** The receipts of a batch of so many. */
function batchOf(count: number): { receipts: BatchReceipts; all: LazyReceipt[] } {
  const receipts = new BatchReceipts();
  const all = Array.from({ length: count }, (_, counter) => new LazyReceipt({ prefix: PREFIX, counter }));
  for (const [index, receipt] of all.entries()) receipt.learnFrom(receipts, index);
  return { receipts, all };
}

const at = (all: LazyReceipt[], index: number): LazyReceipt => all[index] as LazyReceipt;

function offline(position: number, count: number): { position: number; failure: DeliveryFailure } {
  const target = { client: 'away' };
  const failure: DeliveryFailure = {
    messageId: formatId(PREFIX, position),
    target,
    reason: 'offline',
    queued: true,
    final: false,
    attempts: 0,
    at: 1,
    count,
  };
  return { position, failure };
}

it('tells who looks later what became of each, and who looked before', async () => {
  const { receipts, all } = batchOf(4);
  const early = at(all, 1).then(({ status }) => status);
  receipts.settle(0, 2, STORED);
  receipts.settle(2, 3, STORED);
  receipts.settle(3, 4, DELIVERED);
  expect(await early).toBe('stored');
  expect(await Promise.all(all)).toMatchObject([STORED, STORED, STORED, DELIVERED]);
  expect((await at(all, 3)).id).toBe(formatId(PREFIX, 3));
});

it('lists the failures of each message, whether somebody waits already or not', async () => {
  const { receipts, all } = batchOf(4);
  void at(all, 1).then(() => undefined);
  receipts.addFailure(1, 3, offline(1, 2));
  receipts.settle(0, 4, STORED);
  const failures = await Promise.all(all.map(async receipt => (await receipt).failures.map(one => one.messageId)));
  expect(failures).toEqual([[], [formatId(PREFIX, 1)], [formatId(PREFIX, 2)], []]);
});

it('forgets the failures of those about which another run of the server decides', async () => {
  const { receipts, all } = batchOf(4);
  void at(all, 1).then(() => undefined);
  receipts.addFailure(0, 4, offline(0, 4));
  receipts.forgetFailures(index => index === 1 || index === 2);
  receipts.settle(0, 4, STORED);
  expect(await Promise.all(all.map(async receipt => (await receipt).failures.length))).toEqual([1, 0, 0, 1]);
});

it('rejects those that have no verdict when nothing will be sent any more', async () => {
  const { receipts, all } = batchOf(3);
  const waiting = expect(at(all, 1)).rejects.toMatchObject({ code: 'closed' });
  receipts.settle(0, 1, STORED);
  receipts.fail(new BroadcastError('closed', 'the client is closed'));
  await waiting;
  await expect(at(all, 2)).rejects.toMatchObject({ code: 'closed' });
  expect(await at(all, 0)).toMatchObject(STORED);
});

it('tells a watched receipt without being asked', () => {
  const { receipts } = batchOf(1);
  const watched = new WatchedReceipt({ prefix: PREFIX, counter: 1 });
  let told = 0;
  watched.onSettled = () => told++;
  watched.learnFrom(receipts, 1);
  receipts.settle(0, 1, STORED);
  expect(told).toBe(0);
  receipts.settle(1, 2, STORED);
  expect(told).toBe(1);
});
