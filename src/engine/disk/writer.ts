/**
 * Group commit: records gather while a group is being written; then everything that has gathered is one group, one write,
 * one sync, and only then are the commits fulfilled that were asked for before it.
 *
 *   idle ──record, commit──▶ gathering ──▶ writing ──▶ syncing ──▶ idle, or gathering again
 *                                              └──any error──▶ failed (for good: after a failed sync nobody knows what is on the disk)
 */
import type { Segment } from './segment.js';
import { RECORD, RecordWriter, recordSize, sealRecord } from './record.js';

/** A record that waits to be written; told where it came to lie. */
export interface Pending {
  readonly bytes: Buffer;
  readonly placed: ((segment: Segment, offset: number) => void) | undefined;
  /** It and the one before it belong together: they are written in one group. */
  readonly joined: boolean;
}

export interface WriterHost {
  /** The segment for a group of so many bytes; the current one or a new one. */
  segmentFor(bytes: number): Promise<Segment>;
  /** Wall-clock time and engine time for the commit. */
  times(): { wall: number; time: number };
  /** A group is about to be taken: the last chance to add to it. */
  gather(): void;
  committed(): void;
  failed(error: Error): void;
}

/** A group is closed at about this size. */
const MAX_GROUP = 8 * 1024 * 1024;
const COMMIT_PAYLOAD = 1 + 8 * 3 + 16;
/** Room that a COMMIT takes at most. */
export const COMMIT_SPACE: number = recordSize(COMMIT_PAYLOAD);

export class GroupWriter {
  readonly #host: WriterHost;
  #pending: Pending[] = [];
  #pendingBytes = 0;
  #waiters: { resolve: () => void; reject: (error: Error) => void; after: number }[] = [];
  /** Records that were added, and that are durable, since the start. */
  #added = 0;
  #durable = 0;
  #running = false;
  #failure: Error | undefined;
  #lastDurable = { segment: 0, offset: 0 };

  constructor(host: WriterHost) {
    this.#host = host;
  }

  /** What the log holds already is durable up to here. */
  startAfter(segment: number, offset: number): void {
    this.#lastDurable = { segment, offset };
  }

  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  get isIdle(): boolean {
    return !this.#running && this.#pending.length === 0;
  }

  add(pending: Pending): void {
    this.#pending.push(pending);
    this.#pendingBytes += pending.bytes.length;
    this.#added++;
  }

  /** Fulfilled when everything that was added before is durable. */
  commit(): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#durable === this.#added) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject, after: this.#added });
      this.kick();
    });
  }

  /** Starts writing, if it is not running. */
  kick(): void {
    if (this.#running || this.#pending.length === 0 || this.#failure !== undefined) return;
    this.#running = true;
    // What the rest of this turn adds comes along.
    setImmediate(() => void this.#run());
  }

  async #run(): Promise<void> {
    try {
      for (;;) {
        this.#host.gather();
        if (this.#pending.length === 0) break;
        const group = this.#takeGroup();
        await this.#writeGroup(group);
        this.#durable += group.length;
        this.#release();
        this.#host.committed();
        if (this.#waiters.length === 0) break;
      }
    } catch (error) {
      this.fail(error as Error);
    } finally {
      this.#running = false;
    }
    if (this.#pending.length > 0 && this.#waiters.length > 0) this.kick();
  }

  #takeGroup(): Pending[] {
    let bytes = 0;
    let count = 0;
    while (count < this.#pending.length) {
      const next = this.#pending[count] as Pending;
      if (count > 0 && bytes + next.bytes.length > MAX_GROUP && !next.joined) break;
      bytes += next.bytes.length;
      count++;
    }
    this.#pendingBytes -= bytes;
    if (count < this.#pending.length) return this.#pending.splice(0, count);
    const all = this.#pending;
    this.#pending = [];
    return all;
  }

  async #writeGroup(group: readonly Pending[]): Promise<void> {
    let total = COMMIT_SPACE;
    for (const { bytes } of group) total += bytes.length;
    const segment = await this.#host.segmentFor(total);
    const start = segment.end;
    const { wall, time } = this.#host.times();
    const commit = new RecordWriter(RECORD.COMMIT, COMMIT_PAYLOAD)
      .varint(this.#lastDurable.segment)
      .varint(this.#lastDurable.offset)
      .varint(start)
      .f64(wall)
      .f64(time)
      .finish();
    const block = Buffer.concat([...group.map(({ bytes }) => bytes), commit]);
    let at = 0;
    for (const { bytes, placed } of group) {
      sealRecord(block, at, segment.header.salt, start + at);
      placed?.(segment, start + at);
      at += bytes.length;
    }
    sealRecord(block, at, segment.header.salt, start + at);
    segment.end = start + block.length;
    await segment.file.write(block, start);
    await segment.file.sync();
    segment.durable = segment.end;
    this.#lastDurable = { segment: segment.header.number, offset: segment.end };
  }

  #release(): void {
    const done = this.#waiters.filter(waiter => waiter.after <= this.#durable);
    this.#waiters = this.#waiters.filter(waiter => waiter.after > this.#durable);
    for (const { resolve } of done) resolve();
  }

  /** Nothing further is written, and nobody is told otherwise. */
  fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#pending = [];
    this.#pendingBytes = 0;
    for (const { reject } of this.#waiters) reject(error);
    this.#waiters = [];
    this.#host.failed(error);
  }
}
