/**
 * An open store: the obligations of the seam on top of the log. Changes are applied to the state at once and become
 * records, which the writer makes durable.
 */
import { sliceBatch } from '../../batch.js';
import type { Timer } from '../../clock.js';
import { Deque } from '../../deque.js';
import { BroadcastError } from '../../errors.js';
import { RangeSet } from '../../range-set.js';
import type { AppendBatch, EngineHost, HandleRange, QueueUsage, StoredRun } from '../engine.js';
import { itemSizes } from '../item-sizes.js';
import { encodeBatch } from './batch-record.js';
import type { FileSystem } from './files.js';
import { fromDisk, fromMemory, SegmentGone, select } from './reader.js';
import { Reclaimer } from './reclaim.js';
import { RECORD, RecordWriter } from './record.js';
import type { Recovered } from './recovery.js';
import { nowhere, type Segment } from './segment.js';
import { Space } from './space.js';
import { sizeOfBatch, type LogState, type Stored } from './state.js';
import { GroupWriter } from './writer.js';

export interface StoreOptions {
  readonly directory: string;
  readonly files: FileSystem;
  readonly segmentBytes: number;
  readonly reserveBytes: number;
  readonly storeId: string;
}

/** Acknowledgements without a commit of others are written after this many milliseconds. */
const ACK_DELAY = 50;
/** Acknowledgements of one queue that are noted as more ranges than this become a record. */
const MAX_ACK_RANGES = 1024;
/** Bytes of messages that stay in memory when they are durable, because they are often read at once. */
const CACHE_BYTES = 8 * 1024 * 1024;
const DAY = 24 * 60 * 60 * 1000;
/** After so many milliseconds without a commit the log gets a mark, and then, so that it knows the time, every ten minutes. */
const MARK_DELAY = 250;
const MARK_INTERVAL = 10 * 60 * 1000;
/** The clocks are compared so often; when they have moved apart by more than the other, somebody has set the wall clock. */
const CLOCK_LOOK = 5000;
const CLOCK_DRIFT = 100;
/**
 * After a crash handles go on so far behind those that a commit covered: others may have been told to clients meanwhile, as
 * numbers of notices. About 8 MiB gather while as much is being written, and a message takes 6 bytes at least: three millions.
 */
const HANDLES_AHEAD = 2 ** 22;
/** After `store-full` by the limit there is room again when this share of it is free. */
const ROOM_MARGIN = 1 / 16;

export class DiskStore {
  readonly #options: StoreOptions;
  readonly #host: EngineHost;
  readonly #state: LogState;
  readonly #writer: GroupWriter;
  readonly #space: Space;
  readonly #reclaimer: Reclaimer;
  /** Where the state comes from that has no place in the log yet. */
  readonly #nowhere = nowhere();
  readonly #cache = new Deque<Stored>();
  readonly #acks = new Map<string, RangeSet>();
  readonly #floors = new Map<string, number>();
  readonly #base: number;
  readonly #openedAt: number;
  #cached = 0;
  #ackTimer: Timer | undefined;
  #markTimer: Timer | undefined;
  /** The mark timer runs for the last group, not for the time. */
  #markSoon = false;
  #committedAt = 0;
  /** How far the wall clock is ahead of engine time, as the log has it. */
  #wallAhead: number;
  #clockTimer: Timer | undefined;
  /** An append was refused by the limit. */
  #limited = false;
  #failure: BroadcastError | undefined;
  #closing = false;

  private constructor(options: StoreOptions, host: EngineHost, found: Recovered) {
    this.#options = options;
    this.#host = host;
    this.#state = found.state;
    const { clock } = host;
    const { files, directory, segmentBytes } = options;
    this.#openedAt = clock.monotonic();
    this.#base = found.time + (found.wall === 0 ? 0 : Math.min(DAY, Math.max(0, clock.now() - found.wall)));
    this.#wallAhead = found.wall === 0 ? clock.now() - this.#base : found.wall - found.time;
    const failed = (error: Error): void => this.#writer.fail(error);
    const warn = (text: string): void => host.warn(text);
    this.#space = new Space(
      { ...options, clock },
      {
        nextHandle: () => this.#state.nextHandle,
        pendingBytes: () => this.#writer.pendingBytes,
        warn,
        roomAgain: () => host.roomAgain(),
        room: () => this.#reclaimer.lookAgain(),
        failed,
      },
      found.segments,
      found.spare,
      found.nextSegment,
    );
    this.#writer = new GroupWriter(segmentBytes, {
      segmentFor: bytes => this.#space.segmentFor(bytes),
      waitForRoom: () => this.#space.waitForRoom(),
      now: () => this.#now(),
      gather: () => this.#flush(),
      committed: () => this.#committed(),
      failed: error => this.#fail(error),
    });
    if (found.durable !== undefined) this.#writer.startAfter(found.durable.segment, found.durable.offset);
    this.#reclaimer = new Reclaimer({
      state: this.#state,
      writer: this.#writer,
      files,
      directory,
      segmentBytes,
      segments: this.#space.segments,
      isTight: () => this.#space.isTight,
      canWrite: (bytes, piece) => this.#space.canWrite(bytes, piece),
      keep: (stored, batch, record) => {
        if (stored.references === 0 || stored.batch !== undefined) return;
        stored.batch = lean(batch, record);
        this.#keep(stored);
      },
      damaged: stored => this.#reportDamage(stored),
      lost: (queue, handle, count, bytes) => host.damaged(queue, handle, count, bytes),
      warn,
      reclaimed: () => this.#space.tryNow(),
      failed,
    });
  }

  /** Makes a store of what recovery found, and makes it ready to be written to. */
  static async begin(options: StoreOptions, host: EngineHost, found: Recovered): Promise<DiskStore> {
    const store = new DiskStore(options, host, found);
    await store.#space.begin(!found.isLastFresh);
    store.#markAfter(MARK_INTERVAL);
    store.#clockTimer = host.clock.setInterval(() => store.#lookAtClocks(), CLOCK_LOOK);
    return store;
  }

  get state(): LogState {
    return this.#state;
  }

  /** Fail-stop: what the disk holds is no longer known, so nothing is acknowledged from here on. */
  #fail(error: Error): Error {
    const { directory } = this.#options;
    this.#failure ??= new BroadcastError(
      'store-failed',
      `the store in ${directory} failed (${error.message}); nothing further is accepted. Look at the disk, then start the server again`,
      { cause: error },
    );
    // A store that is being closed has nobody to tell but those who wait for a commit.
    if (!this.#closing) this.#host.failed(this.#failure);
    return this.#failure;
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  // ---- changes ---------------------------------------------------------------------------------------------------------------

  append(batches: readonly AppendBatch[]): number[] {
    this.#check();
    let size = 0;
    let { nextHandle } = this.#state;
    const encoded = batches.map(({ batch, expiresAt, queues }) => {
      const handle = nextHandle;
      nextHandle += batch.count;
      const placements = queues.map(({ queue, offset, count }) => ({
        queue,
        offset,
        count,
        attempts: 0,
        note: undefined,
      }));
      const bytes = encodeBatch(RECORD.BATCH, { handle, expiresAt, batch, placements });
      size += bytes.length;
      return { handle, count: batch.count, expiresAt, placements, batch, bytes };
    });
    this.#reserve(size);
    return encoded.map(({ bytes, ...record }, i) => {
      const { batch } = record;
      const sizes = itemSizes(batch.items, batch.count);
      const stored = this.#state.addBatch(
        { ...record, batch: lean(batch, bytes), sizes, tracked: undefined },
        this.#nowhere,
        0,
        bytes.length,
      );
      const { instance, name } = batch.sender;
      this.#state.take(instance, name, batch.first, batch.count, this.#nowhere);
      this.#writer.add({
        bytes,
        joined: i > 0,
        placed: (segment, offset) => {
          this.#state.settle(stored, segment, offset, bytes.length);
          const sender = this.#state.senders.get(instance);
          if (sender?.segment === this.#nowhere) this.#state.settleSender(sender, segment);
          this.#keep(stored);
        },
      });
      return record.handle;
    });
  }

  /** Throws `store-full` unless there is room for so many more bytes. */
  #reserve(bytes: number): void {
    const { storeBytes } = this.#host;
    if (storeBytes !== undefined && this.#state.bytes + bytes > storeBytes) {
      this.#limited = true;
      throw new BroadcastError(
        'store-full',
        `the store holds ${String(this.#state.bytes)} bytes, limits.storeBytes is ${String(storeBytes)}`,
      );
    }
    if (!this.#space.hasRoom(bytes)) {
      throw new BroadcastError('store-full', `the disk of ${this.#options.directory} is full`);
    }
  }

  #lookForRoom(): void {
    const { storeBytes } = this.#host;
    if (!this.#limited || storeBytes === undefined || this.#state.bytes > storeBytes * (1 - ROOM_MARGIN)) return;
    this.#limited = false;
    this.#host.roomAgain();
  }

  /** Keeps the latest batches in memory for a while; what is not durable can only be read from there. */
  #keep(stored: Stored): void {
    this.#cache.push(stored);
    this.#cached += sizeOfBatch(stored);
    for (
      let oldest = this.#cache.peek();
      oldest !== undefined && this.#cached > CACHE_BYTES;
      oldest = this.#cache.peek()
    ) {
      if (oldest.offset + oldest.size > oldest.segment.durable) return;
      oldest.batch = undefined;
      this.#cache.shift();
      this.#cached -= sizeOfBatch(oldest);
    }
  }

  ack(queue: string, handle: number, count: number): void {
    this.#check();
    if (this.#state.remove(queue, handle, count) === 0) return;
    let acks = this.#acks.get(queue);
    if (acks === undefined) {
      acks = new RangeSet();
      this.#acks.set(queue, acks);
    }
    // The record is written later: what is appended meanwhile must not be in it.
    acks.add(handle, Math.min(count, this.#state.nextHandle - handle));
    if (acks.rangeCount >= MAX_ACK_RANGES) this.#flush();
    this.#arm();
    this.#lookForRoom();
  }

  floor(instance: string, floor: number | null): void {
    this.#check();
    if (!this.#state.floor(instance, floor)) return;
    if (floor === null) {
      this.#floors.delete(instance);
      this.#add(new RecordWriter(RECORD.FLOOR).hex16(instance).u8(0));
    } else {
      this.#floors.set(instance, Math.max(floor, this.#floors.get(instance) ?? 0));
    }
    this.#arm();
  }

  /** What has been changed is written at the latest after a while, also when nobody asks for a commit. */
  #arm(): void {
    this.#ackTimer ??= this.#host.clock.setTimeout(() => {
      this.#ackTimer = undefined;
      if (this.#failure !== undefined || this.#closing) return;
      this.#flush();
      this.#writer.kick();
    }, ACK_DELAY);
  }

  /** Acknowledgements and floors become records: before anything that depends on their order, and with each commit. */
  #flush(): void {
    for (const [queue, ranges] of this.#acks) {
      const writer = new RecordWriter(RECORD.ACK).str(queue).varint(ranges.rangeCount);
      for (const { first, count } of ranges.ranges()) writer.varint(first).varint(count);
      this.#add(writer);
    }
    this.#acks.clear();
    for (const [instance, floor] of this.#floors) {
      this.#add(new RecordWriter(RECORD.FLOOR).hex16(instance).u8(1).varint(floor));
    }
    this.#floors.clear();
  }

  #add(writer: RecordWriter, placed?: (segment: Segment) => void): void {
    this.#writer.add({ bytes: writer.finish(), joined: false, placed });
  }

  move(from: string, to: string, handle: number, count: number, note: string | undefined): readonly HandleRange[] {
    this.#check();
    if (from === to || !this.#state.queues.has(from)) return [];
    this.#flush();
    const known = this.#state.move(from, to, handle, count, note);
    const writer = new RecordWriter(RECORD.MOVE).str(from).str(to).varint(handle).varint(count);
    writer.u8(note === undefined ? 0 : 1);
    if (note !== undefined) writer.str(note);
    this.#add(writer);
    this.#arm();
    this.#lookForRoom();
    return known;
  }

  attempt(queue: string, handle: number, attempts: number): void {
    this.#check();
    if (!this.#state.attempt(queue, handle, attempts)) return;
    this.#add(new RecordWriter(RECORD.ATTEMPT).str(queue).varint(handle).varint(attempts));
    this.#arm();
  }

  drop(queue: string): void {
    this.#check();
    if (!this.#state.queues.has(queue)) return;
    this.#flush();
    this.#state.remove(queue, 0, Number.MAX_SAFE_INTEGER);
    this.#add(new RecordWriter(RECORD.DROP).str(queue));
    this.#arm();
    this.#lookForRoom();
  }

  put(key: string, value: string | null): void {
    this.#check();
    if (value === null && !this.#state.entries.has(key)) return;
    this.#state.put(key, value, this.#nowhere);
    const writer = new RecordWriter(RECORD.PUT).str(key).u8(value === null ? 0 : 1);
    if (value !== null) writer.str(value);
    const entry = this.#state.entries.get(key);
    this.#add(writer, segment => {
      if (entry !== undefined && this.#state.entries.get(key) === entry) this.#state.put(key, entry.value, segment);
    });
    this.#arm();
  }

  commit(): Promise<void> {
    if (this.#failure === undefined) this.#flush();
    return this.#writer.commit();
  }

  #committed(): void {
    this.#committedAt = this.#host.clock.monotonic();
    if (!this.#writer.isMarked && !this.#markSoon) {
      this.#markSoon = true;
      this.#markAfter(MARK_DELAY);
    }
    this.#space.committed();
    this.#reclaimer.committed();
  }

  #markAfter(delay: number): void {
    this.#markTimer?.cancel();
    this.#markTimer = this.#host.clock.setTimeout(() => {
      if (this.#failure !== undefined || this.#closing) return;
      const quiet = this.#host.clock.monotonic() - this.#committedAt;
      if (this.#markSoon && quiet < MARK_DELAY) {
        this.#markAfter(MARK_DELAY - quiet);
        return;
      }
      this.#markSoon = false;
      this.#markAfter(MARK_INTERVAL);
      void this.#writer.mark();
    }, delay);
  }

  /** What a commit says of time and handles. */
  #now(): { wall: number; time: number; nextHandle: number; neededFrom: number } {
    const [wall, time] = [this.#host.clock.now(), this.time()];
    this.#wallAhead = wall - time;
    const nextHandle = this.#state.nextHandle + (this.#closing ? 0 : HANDLES_AHEAD);
    return { wall, time, nextHandle, neededFrom: this.#reclaimer.sayNeeded() };
  }

  /** True when the log does not know what the wall clock shows: the next start would take the difference for downtime. */
  get #isClockSet(): boolean {
    return Math.abs(this.#host.clock.now() - this.time() - this.#wallAhead) > CLOCK_DRIFT;
  }

  #lookAtClocks(): void {
    if (this.#failure === undefined && !this.#closing && this.#isClockSet) void this.#writer.mark();
  }

  // ---- reading ---------------------------------------------------------------------------------------------------------------

  read(
    queue: string,
    from: number,
    maxMessages: number,
    maxBytes: number,
  ): readonly StoredRun[] | Promise<readonly StoredRun[]> {
    this.#check();
    const index = this.#state.queues.get(queue);
    if (index === undefined) return [];
    const runs = select(index.from(from), maxMessages, maxBytes);
    return fromMemory(runs) ?? this.#readDisk(queue, from, maxMessages, maxBytes, runs);
  }

  async #readDisk(
    queue: string,
    from: number,
    maxMessages: number,
    maxBytes: number,
    runs: Parameters<typeof fromDisk>[0],
  ): Promise<readonly StoredRun[]> {
    let answer: StoredRun[];
    try {
      answer = await fromDisk(runs, ({ source, handle, count }) => {
        if (this.#failure !== undefined || this.#closing) return;
        source.segment.damaged = true;
        this.#reportDamage(source);
        this.#forgetDamaged(queue, handle, count);
      });
    } catch (error) {
      if (error instanceof SegmentGone) return this.read(queue, from, maxMessages, maxBytes);
      throw this.#failure ?? error;
    }
    if (this.#closing) return answer;
    const current = this.#stillThere(queue, answer);
    // Nothing but damage, or all of it has left meanwhile: what comes behind it.
    return current.length > 0 ? current : this.read(queue, from, maxMessages, maxBytes);
  }

  /** What was read, without what has left the queue while it was, and with the attempts recorded by now. */
  #stillThere(queue: string, answer: readonly StoredRun[]): StoredRun[] {
    const index = this.#state.queues.get(queue);
    const current: StoredRun[] = [];
    for (const run of answer) {
      const end = run.handle + run.batch.count;
      for (const { handle, count, attempts, note } of index?.from(run.handle) ?? []) {
        if (handle >= end) break;
        const batch = sliceBatch(run.batch, handle - run.handle, Math.min(count, end - handle));
        current.push({ handle, batch, expiresAt: run.expiresAt, attempts, note });
      }
    }
    return current;
  }

  /** Damaged messages leave a queue, but for those that have left it while they were read. */
  #forgetDamaged(queue: string, handle: number, count: number): void {
    for (const part of [...(this.#state.queues.get(queue)?.from(handle) ?? [])]) {
      const end = Math.min(part.handle + part.count, handle + count);
      if (part.handle >= end) break;
      const before = this.usage(queue).bytes;
      this.ack(queue, part.handle, end - part.handle);
      this.#host.damaged(queue, part.handle, end - part.handle, before - this.usage(queue).bytes);
    }
  }

  readonly #reported = new WeakSet<Stored>();

  #reportDamage(stored: Stored): void {
    if (this.#reported.has(stored)) return;
    this.#reported.add(stored);
    const { segment, offset, count } = stored;
    const what = count === 1 ? 'a stored message' : `${String(count)} stored messages`;
    this.#host.warn(`${what} cannot be read and left their queues (${segment.path}, byte ${String(offset)})`);
  }

  usage(queue: string): QueueUsage {
    const { messages, bytes } = this.#state.queues.get(queue) ?? { messages: 0, bytes: 0 };
    return { messages, bytes };
  }

  totals(): { messages: number; bytes: number; limit: number } {
    return { messages: this.#state.messages, bytes: this.#state.bytes, limit: this.#host.storeBytes ?? 0 };
  }

  time(): number {
    return this.#base + this.#host.clock.monotonic() - this.#openedAt;
  }

  // ---- closing ---------------------------------------------------------------------------------------------------------------

  async close(): Promise<void> {
    this.#closing = true;
    this.#ackTimer?.cancel();
    this.#markTimer?.cancel();
    this.#clockTimer?.cancel();
    this.#space.stop();
    await this.commit().catch(() => undefined);
    await this.#reclaimer.stop();
    if (!this.#writer.isMarked || this.#isClockSet) await this.#writer.mark();
    // A mark that was begun before is still being written.
    await this.#writer.written();
    await this.#space.close();
  }
}

/** A batch whose items are a view of a much larger buffer lies in its record instead. */
function lean<B extends AppendBatch['batch']>(batch: B, record: Buffer): B {
  const { items } = batch;
  if (items.buffer.byteLength <= 4 * items.length) return batch;
  const { wire: _, ...rest } = batch;
  const size = record.readUInt32LE(0);
  return { ...rest, items: record.subarray(8 + size - items.length, 8 + size) } as B;
}
