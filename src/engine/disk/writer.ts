/**
 * Group commit: records gather while a group is being written; then everything that has gathered is one group, one write,
 * one sync, and only then are the commits fulfilled that were asked for before it.
 *
 *   idle ──record, commit──▶ gathering ──▶ writing ──▶ syncing ──▶ idle, or gathering again
 *                                │            │           └──any error──▶ failed, for good: nobody knows what is on the disk
 *                                └─no space───┴──▶ waits for room, then goes on: nothing was promised yet
 */
import { encodeCommit, COMMIT_SPACE, sealRecord } from './record.js';
import type { Segment } from './segment.js';
import { isShortage } from './shortage.js';

/** A record that waits to be written; told where it came to lie. */
export interface Pending {
  readonly bytes: Buffer;
  readonly placed: ((segment: Segment, offset: number) => void) | undefined;
  /** It and the one before it belong together: they are written in one group. */
  readonly joined: boolean;
}

export interface WriterHost {
  /** The segment for a group of so many bytes; the current one or a new one. Waits while there is no space. */
  segmentFor(bytes: number): Promise<Segment>;
  /** Fulfilled when it is worth while to try again what failed for want of space; rejects when the store is closed. */
  waitForRoom(): Promise<void>;
  /** What the commit says of time, handles and segments. */
  now(): { wall: number; time: number; nextHandle: number; neededFrom: number };
  /** A group is about to be taken: the last chance to add to it. */
  gather(): void;
  committed(): void;
  /** Called once; returns what waiting commits are rejected with. */
  failed(error: Error): Error;
}

/** A group is closed at about this size, or at that of a smaller segment: what is left of one when the next begins is no more. */
const MAX_GROUP = 8 * 1024 * 1024;
const LEAST_GROUP = 64 * 1024;
/** A block larger than this is not kept for the next group. */
const MAX_BLOCK = 1024 * 1024;

/** Bytes at which a group is closed; a record that is larger, and records that belong together, are one all the same. */
function groupBytes(segmentBytes: number): number {
  return Math.min(MAX_GROUP, Math.max(LEAST_GROUP, segmentBytes));
}

export class GroupWriter {
  readonly #host: WriterHost;
  readonly #groupBytes: number;
  #pending: Pending[] = [];
  #pendingBytes = 0;
  #waiters: { resolve: () => void; reject: (error: Error) => void; after: number }[] = [];
  /** Records that were added, and that are durable, since the start. */
  #added = 0;
  #durable = 0;
  #running: Promise<void> | undefined;
  #failure: Error | undefined;
  #lastDurable = { segment: 0, offset: 0 };
  /** The log ends with a mark. */
  isMarked = true;
  #markWanted = false;
  /** Somebody wants that to be written which waits. */
  #kicked = false;
  #block = Buffer.allocUnsafeSlow(64 * 1024);

  constructor(segmentBytes: number, host: WriterHost) {
    this.#groupBytes = groupBytes(segmentBytes);
    this.#host = host;
  }

  /** What the log holds already is durable up to here. */
  startAfter(segment: number, offset: number): void {
    this.#lastDurable = { segment, offset };
  }

  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  add(pending: Pending): void {
    if (this.#failure !== undefined) return;
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

  /**
   * Writes a commit without records behind the last group, so that damage in that group can be told from a torn tail, and
   * so that the log knows what time it is.
   */
  mark(): Promise<void> {
    this.#markWanted = true;
    this.kick();
    return this.written();
  }

  /** Fulfilled when nothing is being written any longer. */
  written(): Promise<void> {
    return this.#running ?? Promise.resolve();
  }

  /** Starts writing, if it is not running. */
  kick(): void {
    this.#kicked = true;
    if (this.#running !== undefined || this.#failure !== undefined) return;
    if (this.#pending.length === 0 && !this.#markWanted) return;
    this.#running = new Promise(resolve => {
      // What the rest of this turn adds comes along.
      setImmediate(() => void this.#run().then(resolve));
    });
  }

  async #run(): Promise<void> {
    try {
      do {
        this.#kicked = false;
        this.#host.gather();
        const group = this.#takeGroup();
        this.#markWanted = false;
        this.isMarked = group.length === 0;
        await this.#writeGroup(group);
        this.#durable += group.length;
        this.#release();
        this.#host.committed();
      } while (this.#hasWork());
    } catch (error) {
      this.fail(error as Error);
    } finally {
      this.#running = undefined;
    }
  }

  #hasWork(): boolean {
    return this.#waiters.length > 0 || this.#markWanted || (this.#kicked && this.#pending.length > 0);
  }

  #takeGroup(): Pending[] {
    let bytes = 0;
    let count = 0;
    while (count < this.#pending.length) {
      const next = this.#pending[count] as Pending;
      if (count > 0 && bytes + next.bytes.length > this.#groupBytes && !next.joined) break;
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
    const block = this.#blockOf(total);
    let at = 0;
    for (const { bytes, placed } of group) {
      block.set(bytes, at);
      sealRecord(block, at, segment.header.salt, start + at);
      placed?.(segment, start + at);
      at += bytes.length;
    }
    const commit = encodeCommit({ durable: this.#lastDurable, start, ...this.#host.now() });
    block.set(commit, at);
    sealRecord(block, at, segment.header.salt, start + at);
    const end = at + commit.length;
    segment.end = start + end;
    await this.#write(segment, block.subarray(0, end), start);
    await segment.file.sync();
    segment.durable = segment.end;
    this.#lastDurable = { segment: segment.header.number, offset: segment.end };
  }

  /** A file that was preallocated may still want space to be written to, on a file system that copies on write. */
  async #write(segment: Segment, block: Buffer, position: number): Promise<void> {
    for (;;) {
      try {
        await segment.file.write(block, position);
        return;
      } catch (error) {
        if (!isShortage(error)) throw error;
        await this.#host.waitForRoom();
      }
    }
  }

  /** Room for a group. One is written at a time, so the same is used again. */
  #blockOf(bytes: number): Buffer {
    if (bytes > MAX_BLOCK) return Buffer.allocUnsafeSlow(bytes);
    if (bytes > this.#block.length) {
      this.#block = Buffer.allocUnsafeSlow(Math.min(MAX_BLOCK, Math.max(bytes, this.#block.length * 2)));
    }
    return this.#block;
  }

  #release(): void {
    const done = this.#waiters.filter(waiter => waiter.after <= this.#durable);
    this.#waiters = this.#waiters.filter(waiter => waiter.after > this.#durable);
    for (const { resolve } of done) resolve();
  }

  /** Nothing further is written, and nobody is told otherwise. */
  fail(error: Error): void {
    if (this.#failure !== undefined) return;
    const failure = this.#host.failed(error);
    this.#failure = failure;
    this.#pending = [];
    this.#pendingBytes = 0;
    for (const { reject } of this.#waiters) reject(failure);
    this.#waiters = [];
  }
}
