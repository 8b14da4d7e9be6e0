/**
 * A log of several segments with every kind of record, as bytes, and what each record of it says, so that the state without
 * any of them is known. The records are found by their sizes alone; no checksum is asked.
 */
import assert from 'node:assert/strict';
import { textsOf } from '../../src/engine/conformance/batches.js';
import { decodeBatch, type BatchRecord } from '../../src/engine/disk/batch-record.js';
import { RECORD, RecordReader } from '../../src/engine/disk/record.js';
import { Inode, seededRandom, SimulatedDisk } from '../helpers/simulated-files.js';
import { identify, KEYS, Model, observe, QUEUES, type Part, type Change, type StoredAgain } from './log-model.js';
import { FOLDER, LogBench, LogWork, turn } from './log-work.js';

export const SEGMENT_BYTES = 16 * 1024;
/** Where the records of a segment begin, and what they are aligned to. */
export const RECORDS_FROM = 1024;
const ALIGNED = 8;

const KINDS = ['append', 'ack', 'move', 'drop', 'attempt', 'put', 'floor', 'again', 'sender'] as const;

export interface LogRecord {
  readonly from: number;
  /** End of what its checksum covers. */
  readonly dataEnd: number;
  /** End, with its padding. */
  readonly to: number;
  /** What it says; undefined for a COMMIT. */
  readonly change: Change | undefined;
}

export interface LogSegment {
  readonly path: string;
  readonly name: string;
  readonly bytes: Buffer;
  readonly records: readonly LogRecord[];
  /** End of the last record. */
  readonly end: number;
}

export interface SampleLog {
  readonly segments: readonly LogSegment[];
  /** What it holds, whole. */
  readonly whole: Model;
  readonly nextHandle: number;
}

/**
 * Makes a log with about so many bytes in records and headers, closed in good order. Its last segment was made ahead, or,
 * for even seeds, was written to.
 */
export async function sampleLog(seed: number, bytes: number): Promise<SampleLog> {
  const random = seededRandom(seed);
  const bench = new LogBench(new SimulatedDisk(), SEGMENT_BYTES);
  const state = await bench.open();
  const work = new LogWork(bench, await observe(bench.engine, state), random, { usual: 700, longest: 2500 });
  await giveBackFirst(bench, work);
  while (writtenTo(bench.disk) < bytes || endsAhead(bench.disk) !== (seed % 2 === 1)) {
    const change = work.next();
    // More comes in than leaves, or the log would be small.
    if (change.kind === 'drop' || change.kind === 'ack') if (random() < 0.7) continue;
    work.make(change);
    if (random() < 0.7) await work.commit();
    if (random() < 0.1) await turn();
  }
  await work.commit();
  await bench.engine.close();
  const names = [...bench.disk.names].sort(([a], [b]) => (a < b ? -1 : 1));
  const segments = names.map(([path, { data }]) => parse(path, data));
  assert.equal(endsAhead(bench.disk), seed % 2 === 1, 'the last segment is not as it should be');
  const log = { segments, whole: work.now, nextHandle: 0 };
  assert.equal(stateWithout(log, () => false).describe(), work.now.describe(), 'the records say what was done');
  const appended = work.changes.flatMap(change => (change.kind === 'append' ? change.parts : []));
  const nextHandle = Math.max(...appended.map(({ handle, texts }) => handle + texts.length));
  const kinds = new Set(segments.flatMap(({ records }) => records.map(({ change }) => change?.kind)));
  for (const kind of KINDS) assert.ok(kinds.has(kind), `the log says nothing of the kind ${kind}`);
  return { ...log, nextHandle };
}

/** Fills more than a segment and takes nearly all of it away, so that the log says the rest again. */
async function giveBackFirst(bench: LogBench, work: LogWork): Promise<void> {
  const kept: Part = { handle: 0, texts: ['3.1/9'], first: 1, expiresAt: 0, tracked: true, queues: ['a', 'b'] };
  work.make({ kind: 'append', instance: '3'.repeat(32), parts: [kept] });
  while (writtenTo(bench.disk) < 1.5 * SEGMENT_BYTES) {
    work.make(work.next());
    await work.commit();
  }
  for (const queue of QUEUES) {
    for (const handle of work.now.queue(queue).keys())
      if (handle !== kept.handle) work.make({ kind: 'ack', queue, ranges: [[handle, 1]] });
  }
  for (const key of KEYS) work.make({ kind: 'put', key, value: 'new' });
  for (let i = 0; bench.disk.names.has(`${FOLDER}/segment-0000000001.log`); i++) {
    assert.ok(i < 100, 'the first segment was not given back');
    await work.commit();
    await turn();
  }
  const dropped: Part = { ...kept, texts: ['3.2/30'], first: 2, queues: ['c'] };
  work.make({ kind: 'append', instance: '3'.repeat(32), parts: [dropped] });
  await work.commit();
  work.make({ kind: 'drop', queue: 'c' });
}

/** True when nothing was written to the last segment. */
function endsAhead({ names }: SimulatedDisk): boolean {
  const [last = ''] = [...names.keys()].sort().slice(-1);
  return (names.get(last) as Inode).data.subarray(RECORDS_FROM).every(byte => byte === 0);
}

function writtenTo(disk: SimulatedDisk): number {
  let written = 0;
  for (const { data } of disk.names.values()) {
    let end = data.length;
    while (end > 0 && data[end - 1] === 0) end--;
    written += end;
  }
  return written;
}

/** A disk with the files of a log, of which some are replaced; without it, when they are null. */
export function diskOf(
  { segments }: SampleLog,
  replaced: ReadonlyMap<string, Buffer | null> = new Map(),
): SimulatedDisk {
  const disk = new SimulatedDisk();
  for (const { path, bytes } of segments) {
    const data = replaced.get(path);
    if (data !== null) disk.addFile(path, new Inode(data ?? bytes));
  }
  return disk;
}

/** What a log holds without some of its records. */
export function stateWithout(
  { segments }: SampleLog,
  isGone: (record: LogRecord, segment: LogSegment) => boolean,
): Model {
  const model = new Model();
  for (const segment of segments)
    for (const record of segment.records)
      if (record.change !== undefined && !isGone(record, segment)) model.apply(record.change);
  return model;
}

function parse(path: string, bytes: Buffer): LogSegment {
  const records: LogRecord[] = [];
  let at = RECORDS_FROM;
  for (let size; at + ALIGNED < bytes.length && (size = bytes.readUInt32LE(at)) > 0;) {
    const dataEnd = at + ALIGNED + size;
    const to = Math.ceil(dataEnd / ALIGNED) * ALIGNED;
    records.push({ from: at, dataEnd, to, change: changeOf(new RecordReader(bytes, at, size)) });
    at = to;
  }
  return { path, name: path.slice(FOLDER.length + 1), bytes, records, end: at };
}

function changeOf(reader: RecordReader): Change | undefined {
  const type = reader.u8();
  switch (type) {
    case RECORD.BATCH:
      return appendOf(decodeBatch(reader));
    case RECORD.REBATCH:
      return againOf(decodeBatch(reader));
    case RECORD.ACK: {
      const queue = reader.str();
      return { kind: 'ack', queue, ranges: pairs(reader) };
    }
    case RECORD.MOVE: {
      const [from, to, handle, count] = [reader.str(), reader.str(), reader.varint(), reader.varint()];
      return { kind: 'move', from, to, handle, count, note: reader.u8() === 1 ? reader.str() : undefined };
    }
    case RECORD.ATTEMPT:
      return { kind: 'attempt', queue: reader.str(), handle: reader.varint(), attempts: reader.varint() };
    case RECORD.DROP:
      return { kind: 'drop', queue: reader.str() };
    case RECORD.PUT: {
      const key = reader.str();
      return { kind: 'put', key, value: reader.u8() === 1 ? reader.str() : null };
    }
    case RECORD.FLOOR: {
      const instance = reader.hex16();
      return { kind: 'floor', instance, floor: reader.u8() === 1 ? reader.varint() : null };
    }
    case RECORD.SENDER: {
      const instance = reader.hex16();
      if (reader.u8() === 1) reader.skip();
      const floor = reader.varint();
      const taken = pairs(reader).flatMap(([first, count]) => Array.from({ length: count }, (_, i) => first + i));
      return { kind: 'sender', instance, floor, taken };
    }
    case RECORD.COMMIT:
      return undefined;
    default:
      assert.fail(`a record of type ${String(type)}`);
  }
}

function pairs(reader: RecordReader): [number, number][] {
  return Array.from({ length: reader.varint() }, () => [reader.varint(), reader.varint()]);
}

function appendOf({ handle, expiresAt, batch, placements }: BatchRecord): Change {
  const queues = placements.map(({ queue, offset, count }) => {
    assert.ok(offset === 0 && count === batch.count, 'a batch is stored whole');
    return queue;
  });
  const texts = textsOf(batch).map(identify);
  const { tracked } = batch.envelope;
  const part = { handle, texts, first: batch.first, expiresAt, tracked, queues };
  return { kind: 'append', instance: batch.sender.instance, parts: [part] };
}

function againOf({ handle, expiresAt, batch, placements }: BatchRecord): Change {
  const texts = textsOf(batch).map(identify);
  const messages = placements.flatMap(({ queue, offset, count, attempts, note }) =>
    Array.from({ length: count }, (_, i): StoredAgain => {
      const at = offset + i;
      const position = `${batch.sender.instance} ${String(batch.first + at)}`;
      const tracked = batch.envelope.tracked ? position : undefined;
      return { queue, handle: handle + at, text: texts[at] as string, attempts, note, expiresAt, tracked };
    }),
  );
  return { kind: 'again', messages };
}
