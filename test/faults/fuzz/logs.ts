/**
 * Logs as the disk engine writes them, but with every byte decided here: records, groups with their commits, segments. The
 * fuzzer changes them as bytes, or record by record with the checksums made right again.
 */
import { encodeBatch, type Placement } from '../../../src/engine/disk/batch-record.js';
import { sampleBatch, type SampleOptions } from '../../../src/engine/conformance/batches.js';
import { encodeSegmentHeader, SEGMENT_HEADER, type SegmentHeader } from '../../../src/engine/disk/header.js';
import {
  encodeCommit,
  RECORD,
  RECORD_HEADER,
  RecordWriter,
  recordSize,
  sealRecord,
  type CommitRecord,
} from '../../../src/engine/disk/record.js';

const INSTANCE = 'f0e0d0c0b0a090807060504030201000';
const OTHER = '0123456789abcdef0123456789abcdef';
const STORE = '7d3c6a9e51b24f08a1c2e3d4f5061728';
const WALL = 1_767_225_600_000;

/** A segment before it is laid out: records as payloads that begin with their type, and zeros behind. */
export interface LogSegment {
  readonly header: SegmentHeader;
  readonly payloads: readonly Buffer[];
  readonly spare: number;
}

export type Log = readonly LogSegment[];

const payloadOf = (record: Buffer): Buffer =>
  Buffer.from(record.subarray(RECORD_HEADER, RECORD_HEADER + record.readUInt32LE(0)));

/** The bytes of a segment, with the checksums that belong there. */
export function layOut({ header, payloads, spare }: LogSegment): Buffer {
  const size = payloads.reduce((sum, payload) => sum + recordSize(payload.length), SEGMENT_HEADER);
  const bytes = Buffer.alloc(size + spare);
  encodeSegmentHeader(header).copy(bytes);
  let at = SEGMENT_HEADER;
  for (const payload of payloads) {
    bytes.writeUInt32LE(payload.length, at);
    payload.copy(bytes, at + RECORD_HEADER);
    sealRecord(bytes, at, header.salt, at);
    at += recordSize(payload.length);
  }
  return bytes;
}

class Builder {
  readonly #segments: LogSegment[] = [];
  #payloads: Buffer[] = [];
  #at = SEGMENT_HEADER;
  #start = SEGMENT_HEADER;
  #durable: CommitRecord['durable'] = { segment: 0, offset: 0 };
  #handle = 1;
  #position = 1;

  #add(record: Buffer): this {
    this.#payloads.push(payloadOf(record));
    this.#at += record.length;
    return this;
  }

  batch(
    queues: readonly (string | Partial<Placement>)[],
    texts: readonly string[],
    options: SampleOptions = {},
    again?: number,
  ): this {
    const batch = sampleBatch(texts, { instance: INSTANCE, first: this.#position, ...options });
    const placements = queues.map((queue): Placement => ({
      ...{ queue: 'q/x\0', offset: 0, count: texts.length, attempts: 0, note: undefined },
      ...(typeof queue === 'string' ? { queue } : queue),
    }));
    const type = again === undefined ? RECORD.BATCH : RECORD.REBATCH;
    const handle = again ?? this.#handle;
    if (again === undefined) {
      this.#handle += texts.length;
      this.#position += texts.length;
    }
    return this.#add(encodeBatch(type, { handle, expiresAt: options.expiresAt ?? 0, batch, placements }));
  }

  record(type: number, write: (writer: RecordWriter) => RecordWriter): this {
    return this.#add(write(new RecordWriter(type)).finish());
  }

  put(key: string, value: string | null): this {
    return this.record(RECORD.PUT, writer => {
      writer.str(key).u8(value === null ? 0 : 1);
      return value === null ? writer : writer.str(value);
    });
  }

  commit(): this {
    const number = this.#segments.length + 1;
    this.#add(
      encodeCommit({
        durable: this.#durable,
        start: this.#start,
        nextHandle: this.#handle,
        wall: WALL,
        time: this.#handle,
      }),
    );
    this.#durable = { segment: number, offset: this.#at };
    this.#start = this.#at;
    return this;
  }

  end(spare = 256): this {
    const number = this.#segments.length + 1;
    const header = {
      number,
      storeId: STORE,
      salt: 0x5a17 * number,
      nextHandle: this.#payloads.length > 0 ? 1 : this.#handle,
      capacity: 0,
      followed: false,
    };
    this.#segments.push({ header, payloads: this.#payloads, spare });
    this.#payloads = [];
    this.#at = SEGMENT_HEADER;
    this.#start = SEGMENT_HEADER;
    return this;
  }

  get log(): Log {
    return this.#segments;
  }
}

const NOTE = JSON.stringify({ reason: 'rejected', attempts: 5, at: 7, revival: 0 });
const SESSION = JSON.stringify({
  ...{ generated: false, lastSeen: 5, occupied: true, doubtBelow: 3, backlogs: [['c', 2]] },
  processes: [[INSTANCE, 'machine#17']],
});

/** Queues and pairs have the names that a server gives them, so that a server can be started on the log. */
export const LOGS: readonly Log[] = [
  new Builder()
    .put('s/x', SESSION)
    .put('u/x\0c', '5')
    .batch(['q/x\0', 'q/y\0c'], ['one', 'two', 'three'])
    .commit()
    .record(RECORD.ACK, writer => writer.str('q/x\0').varint(2).varint(1).varint(1).varint(3).varint(1))
    .batch(['b/nobody'], ['four'], { expiresAt: 90_000, envelope: { ttl: 90_000, headers: { trace: '7' }, name: 'n' } })
    .record(RECORD.ATTEMPT, writer => writer.str('q/x\0').varint(2).varint(3))
    .commit()
    .commit()
    .end().log,
  new Builder()
    .put('s/x', SESSION)
    .put(`h/${INSTANCE}\0x\0c`, '')
    .put(`h/${OTHER}\0x\0c`, '')
    .put(`t/${INSTANCE}/4`, '')
    .put('w/c', '9')
    .batch(
      [
        { queue: 'q/x\0c', count: 1 },
        { queue: `i/${OTHER}\0x\0c`, offset: 1, count: 2 },
      ],
      ['a', 'bb', 'ccc'],
      {
        envelope: { tracked: true, channels: ['c', 'd'] },
      },
    )
    .commit()
    .record(RECORD.MOVE, writer => writer.str('q/x\0c').str('d/x\0c').varint(1).varint(1).u8(1).str(NOTE))
    .record(RECORD.FLOOR, writer => writer.hex16(INSTANCE).u8(1).varint(2))
    .commit()
    .end()
    .batch(['n/x'], ['notice'], { instance: OTHER, name: undefined, first: 1 })
    .put('u/x\0c', null)
    .record(RECORD.DROP, writer => writer.str('n/x'))
    .commit()
    .commit()
    .end()
    .end(1024).log,
  new Builder()
    .batch(
      ['q/x\0', 'q/y\0'],
      Array.from({ length: 20 }, (_, i) => 'v'.repeat(i)),
    )
    .commit()
    .end(0)
    .record(RECORD.SENDER, writer =>
      writer.hex16(OTHER).u8(1).str('sender').varint(3).varint(2).varint(4).varint(2).varint(9).varint(1),
    )
    .batch(
      [{ queue: 'q/y\0', offset: 2, count: 5, attempts: 1, note: 'again' }],
      Array.from({ length: 20 }, () => 'r'),
      { first: 1 },
      1,
    )
    .record(RECORD.FLOOR, writer => writer.hex16(OTHER).u8(0))
    .commit()
    .commit()
    .end().log,
];
