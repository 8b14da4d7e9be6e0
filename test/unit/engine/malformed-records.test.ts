/** Records that say what no record can say, under checksums that are right: damage like any other, named and passed over. */
import { describe, expect, it } from 'vitest';
import { diskEngine, type EngineHost } from '../../../src/engine/index.js';
import { encodeBatch, summarizeBatch } from '../../../src/engine/disk/batch-record.js';
import { MalformedRecord, RECORD, RECORD_HEADER, RecordReader } from '../../../src/engine/disk/record.js';
import { segmentName } from '../../../src/engine/disk/segment.js';
import { TestClock } from '../../../src/testing/test-clock.js';
import { layOut, LOGS, type LogSegment } from '../../faults/fuzz/logs.js';
import { batchOf } from '../../helpers/batch.js';
import { Inode, SimulatedDisk } from '../../helpers/simulated-files.js';

const [SEGMENT] = LOGS[0] as [LogSegment];

const ACK = 4;
const COMMIT = 3;
/** Begins with the state of a sender. */
const SENDERS = LOGS.flat().find(({ payloads: [first] }) => first?.[0] === RECORD.SENDER) as LogSegment;

function hostOf(): EngineHost {
  const nothing = (): void => undefined;
  return {
    clock: new TestClock(),
    storeBytes: undefined,
    failed: nothing,
    roomAgain: nothing,
    arrived: nothing,
    damaged: nothing,
    warn: nothing,
  };
}

/** The log with another record, of the same size, in place of one. */
async function openWith(
  payload: Buffer,
  [segment, index] = [SEGMENT, ACK],
): Promise<{ damage: readonly string[]; queued: number; files: string[] }> {
  const { header, payloads, spare } = segment;
  const disk = new SimulatedDisk();
  const inode = new Inode();
  inode.data = layOut({ header, payloads: payloads.map((kept, i) => (i === index ? payload : kept)), spare });
  disk.addFile(`/d/${segmentName(header.number)}`, inode);
  const engine = diskEngine({ directory: '/d', files: disk, segmentBytes: 4096, reserveBytes: 0 });
  const { damage } = await engine.open(hostOf());
  const queued = engine.usage('q/y\0c').messages;
  await engine.close();
  return { damage, queued, files: [...disk.names.keys()] };
}

describe('a malformed record with the right checksum', () => {
  it.each<[string, number[]]>([
    ['a number without an end', [RECORD.ACK, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]],
    ['a number that is too large to be exact', [RECORD.ACK, 1, 0x71, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]],
    ['a text longer than the record', [RECORD.PUT, 100, 0x61]],
    ['more ranges than it has', [RECORD.ACK, 1, 0x71, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]],
    ['a sender without its id', [RECORD.FLOOR, 1, 2, 3]],
    ['a batch that is cut short', [RECORD.BATCH, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0x71]],
  ])('%s: is put aside and named, and the rest is served', async (_what, bytes) => {
    const { damage, queued, files } = await openWith(
      Buffer.concat([Buffer.from(bytes), Buffer.alloc(Math.max(0, 9 - bytes.length))]),
    );
    expect(damage).toHaveLength(1);
    expect(damage[0]).toMatch(/^segment-0000000001\.log, bytes \d+ to \d+: not readable, put aside/);
    expect(files.filter(name => name.startsWith('/d/damaged/'))).toHaveLength(1);
    expect(queued).toBe(3);
  });

  it('a sender whose positions lie beyond all numbers: is put aside and named', async () => {
    const largest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
    const bytes = [RECORD.SENDER, ...Array.from({ length: 16 }, () => 1), 0, 1, 1, ...largest, 1];
    const { damage } = await openWith(Buffer.from(bytes), [SENDERS, 0]);
    expect(damage).toHaveLength(1);
  });

  it('a commit that says nothing: is put aside and named, and the rest is served', async () => {
    const { damage, queued } = await openWith(Buffer.concat([Buffer.from([RECORD.COMMIT]), Buffer.alloc(22, 0xff)]), [
      SEGMENT,
      COMMIT,
    ]);
    expect(damage).toHaveLength(1);
    expect(queued).toBeGreaterThan(0);
  });

  it.each([
    ['handle', { handle: Number.MAX_SAFE_INTEGER }],
    ['position', { first: Number.MAX_SAFE_INTEGER }],
    ['time', { expiresAt: NaN }],
    ['time before all', { expiresAt: -1 }],
    ['time after all', { expiresAt: Infinity }],
    ['place', { offset: 1 }],
    ['place of nothing', { count: 0 }],
  ])('a batch with a %s out of range: is not read', (_what, change) => {
    const { handle, expiresAt, first, offset, count } = {
      handle: 1,
      expiresAt: 0,
      first: 1,
      offset: 0,
      count: 1,
      ...change,
    };
    const batch = batchOf('x', [Buffer.from([1])], first);
    const placements = [{ queue: 'q', offset, count, attempts: 0, note: undefined }];
    const record = encodeBatch(RECORD.BATCH, { handle, expiresAt, batch: { ...batch, idBase: 1 }, placements });
    const reader = new RecordReader(record, 0, record.readUInt32LE(0));
    reader.u8();
    expect(() => summarizeBatch(reader)).toThrow(MalformedRecord);
  });

  it('more elements than bytes: is not read', () => {
    const bytes = Buffer.concat([Buffer.alloc(RECORD_HEADER), Buffer.from([9, 1, 2])]);
    expect(() => new RecordReader(bytes, 0, 3).count()).toThrow(MalformedRecord);
    expect(new RecordReader(bytes, 0, 10).count()).toBe(9);
  });
});

it('a store whose numbers of messages are used up is refused by name', async () => {
  const disk = new SimulatedDisk();
  const inode = new Inode();
  inode.data = layOut({ ...SEGMENT, header: { ...SEGMENT.header, nextHandle: 2 ** 52 + 1 } });
  disk.addFile(`/d/${segmentName(SEGMENT.header.number)}`, inode);
  const engine = diskEngine({ directory: '/d', files: disk, segmentBytes: 4096, reserveBytes: 0 });
  await expect(engine.open(hostOf())).rejects.toMatchObject({
    code: 'store-unreadable',
    message: expect.stringContaining('used up') as string,
  });
});

it('a segment of another store is refused by name', async () => {
  const disk = new SimulatedDisk();
  const stores = [SEGMENT.header.storeId, 'f'.repeat(SEGMENT.header.storeId.length)];
  for (const [i, storeId] of stores.entries()) {
    const inode = new Inode();
    inode.data = layOut({ ...SEGMENT, header: { ...SEGMENT.header, number: i + 1, storeId } });
    disk.addFile(`/d/${segmentName(i + 1)}`, inode);
  }
  await expect(
    diskEngine({ directory: '/d', files: disk, segmentBytes: 4096, reserveBytes: 0 }).open(hostOf()),
  ).rejects.toMatchObject({ code: 'store-foreign' });
});
