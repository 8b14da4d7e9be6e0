/**
 * The disk engine: the seam on top of a segmented, append-only log. This file ties the parts together; records are in
 * record.ts, what they mean in state.ts, group commit in writer.ts, reading back in reader.ts, opening in recovery.ts,
 * giving space back in reclaim.ts.
 */
import { randomBytes } from 'node:crypto';
import type { Timer } from '../../clock.js';
import { Deque } from '../../deque.js';
import { BroadcastError } from '../../errors.js';
import { RangeSet } from '../../range-set.js';
import type {
  AppendBatch,
  Engine,
  EngineHost,
  EngineState,
  ExpiringRun,
  QueueUsage,
  SenderState,
  StoredRun,
  TrackedMessage,
} from '../engine.js';
import { nodeFiles, type FileSystem } from './files.js';
import { DirectoryLock, LOCK_FILE } from './lock.js';
import { fromDisk, fromMemory, select } from './reader.js';
import { encodeBatch, RECORD, RecordWriter, SEGMENT_HEADER } from './record.js';
import { Reclaimer } from './reclaim.js';
import { recover } from './recovery.js';
import { createSegment, segmentNumber, type Segment } from './segment.js';
import { LogState, type Stored } from './state.js';
import { COMMIT_SPACE, GroupWriter } from './writer.js';

export interface DiskEngineOptions {
  /** The data directory; made when it does not exist. */
  readonly directory: string;
  /** Bytes of a segment. Default 32 MiB; the first one of each run is an eighth. */
  readonly segmentBytes?: number;
  /** Bytes of the disk that are left free. Default 64 MiB. */
  readonly reserveBytes?: number;
  /** @internal The file operations, for tests. */
  readonly files?: FileSystem;
}

const SEGMENT_BYTES = 32 * 1024 * 1024;
const RESERVE_BYTES = 64 * 1024 * 1024;
/** Room in a segment that is kept for acknowledgements when there is no further segment. */
const ACK_ROOM = 1024 * 1024;
/** Acknowledgements without a commit of others are written after this many milliseconds. */
const ACK_DELAY = 50;
/** Bytes of committed messages that stay in memory, because they are often read at once. */
const CACHE_BYTES = 8 * 1024 * 1024;
const DAY = 24 * 60 * 60 * 1000;
const RETRY_SPACE = 500;

class DiskEngine implements Engine {
  readonly kind = 'disk';
  readonly durability = 'fsync';
  readonly #options: DiskEngineOptions;
  readonly #files: FileSystem;
  readonly #segmentBytes: number;
  readonly #writer: GroupWriter;
  /** Holds what has no place in the log yet. */
  readonly #nowhere: Segment = {
    header: { number: Infinity, storeId: '', salt: 0, nextHandle: 0 },
    path: '',
    file: undefined as never,
    capacity: 0,
    end: 0,
    durable: 0,
    references: 0,
    liveBytes: 0,
  };
  readonly #cache = new Deque<Stored>();
  readonly #acks = new Map<string, RangeSet>();
  readonly #floors = new Map<string, number | null>();
  #host: EngineHost | undefined;
  #lock: DirectoryLock | undefined;
  #state = new LogState();
  #segments: Segment[] = [];
  #reclaimer: Reclaimer | undefined;
  #current: Segment | undefined;
  #next: Segment | undefined;
  #preparing: Promise<void> | undefined;
  #spaceTimer: Timer | undefined;
  #noSpace = false;
  #limited = false;
  #storeId = '';
  #nextSegment = 1;
  #cached = 0;
  #ackTimer: Timer | undefined;
  #base = 0;
  #openedAt = 0;
  #failure: BroadcastError | undefined;
  #closed = false;

  constructor(options: DiskEngineOptions) {
    this.#options = options;
    this.#files = options.files ?? nodeFiles;
    this.#segmentBytes = options.segmentBytes ?? SEGMENT_BYTES;
    this.#writer = new GroupWriter({
      segmentFor: bytes => this.#segmentFor(bytes),
      times: () => ({ wall: this.#open.clock.now(), time: this.time() }),
      gather: () => this.#flushAcks(),
      committed: () => this.#committed(),
      failed: error => this.#fail(error),
    });
  }

  get #open(): EngineHost {
    if (this.#host === undefined) throw new BroadcastError('store-failed', 'the store is not open');
    return this.#host;
  }

  // ---- opening and closing ---------------------------------------------------------------------------------------------------

  async open(host: EngineHost): Promise<EngineState> {
    const { directory } = this.#options;
    try {
      await this.#files.makeDirectory(directory);
      if (this.#files === nodeFiles) this.#lock = await DirectoryLock.take(directory);
      const found = await recover(this.#files, directory, isForeign);
      this.#host = host;
      this.#state = found.state;
      this.#segments = found.segments;
      this.#nextSegment = found.nextSegment;
      this.#storeId = found.storeId ?? randomBytes(16).toString('hex');
      for (const { header } of found.segments)
        this.#state.nextHandle = Math.max(this.#state.nextHandle, header.nextHandle);
      this.#openedAt = host.clock.monotonic();
      this.#base = found.time + (found.wall === 0 ? 0 : Math.min(DAY, Math.max(0, host.clock.now() - found.wall)));
      this.#current = await this.#newSegment(Math.max(64 * 1024, this.#segmentBytes / 8));
      this.#segments.push(this.#current);
      const last = found.segments[found.segments.length - 2];
      if (last !== undefined) this.#writer.startAfter(last.header.number, last.end);
      this.#reclaimer = new Reclaimer({
        state: this.#state,
        writer: this.#writer,
        files: this.#files,
        directory,
        segments: () => this.#segments,
        current: () => this.#current,
        damaged: text => host.warn(text),
        reclaimed: () => this.#spaceFreed(),
        failed: error => this.#fail(error),
      });
      return this.#describe(found.damage);
    } catch (error) {
      await this.#lock?.release();
      this.#lock = undefined;
      throw openError(error, directory);
    }
  }

  #describe(damage: string[]): EngineState {
    const expiring: ExpiringRun[] = [];
    const tracked = new Map<
      number,
      { instance: string; position: number; handle: number; waiting: number; id: string }
    >();
    const queues = [];
    for (const [queue, index] of this.#state.queues) {
      queues.push({ queue, messages: index.messages, bytes: index.bytes });
      for (const { handle, count, offset, source } of index.from(0)) {
        if (source.expiresAt !== 0) expiring.push({ queue, handle, count, expiresAt: source.expiresAt });
        if (source.tracked === undefined || queue.startsWith('d/')) continue;
        for (let i = 0; i < count; i++) {
          const known = tracked.get(handle + i);
          if (known !== undefined) known.waiting++;
          else
            tracked.set(handle + i, {
              instance: source.tracked.instance,
              position: source.tracked.first + offset + i,
              handle: handle + i,
              waiting: 1,
              id: source.tracked.ids[offset + i] as string,
            });
        }
      }
    }
    const senders: SenderState[] = [...this.#state.senders].map(([instance, { name, floor, taken }]) => ({
      instance,
      name,
      floor,
      taken: [...taken.ranges()],
    }));
    const entries = new Map([...this.#state.entries].map(([key, { value }]) => [key, value]));
    return {
      storeId: this.#storeId,
      time: this.time(),
      entries,
      queues,
      expiring,
      senders,
      tracked: [...tracked.values()] satisfies TrackedMessage[],
      damage,
    };
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#ackTimer?.cancel();
    this.#spaceTimer?.cancel();
    if (this.#host !== undefined && this.#failure === undefined) {
      this.#flushAcks();
      await this.#writer.commit().catch(() => undefined);
    }
    await this.#preparing?.catch(() => undefined);
    await this.#reclaimer?.idle();
    for (const segment of [...this.#segments, ...(this.#next === undefined ? [] : [this.#next])])
      await segment.file.close().catch(() => undefined);
    await this.#lock?.release();
  }

  /** Fail-stop: what the disk holds is no longer known, so nothing is acknowledged from here on. */
  #fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = new BroadcastError(
      'store-failed',
      `the store in ${this.#options.directory} failed (${error.message}); nothing further is accepted. Look at the disk, then start the server again`,
      { cause: error },
    );
    this.#writer.fail(this.#failure);
    this.#host?.failed(this.#failure);
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
      const placements = queues.map(share => ({ ...share, attempts: 0, note: undefined }));
      const record = { handle, expiresAt, batch, placements };
      const bytes = encodeBatch(RECORD.BATCH, record);
      size += bytes.length;
      return { record, bytes };
    });
    this.#reserve(size);
    return encoded.map(({ record, bytes }, i) => {
      const stored = this.#state.addBatch(
        { ...record, batch: lean(record.batch, bytes) },
        this.#nowhere,
        0,
        bytes.length,
        Infinity,
      );
      this.#writer.add({
        bytes,
        joined: i > 0,
        placed: (segment, offset) => {
          this.#state.settle(stored, segment, offset);
          const sender = this.#state.senders.get(record.batch.sender.instance);
          if (sender !== undefined) sender.segment = Math.min(sender.segment, segment.header.number);
          this.#keep(stored);
        },
      });
      return record.handle;
    });
  }

  /** Throws `store-full` unless there is room for so many more bytes. */
  #reserve(bytes: number): void {
    const limit = this.#open.storeBytes;
    if (limit !== undefined && this.#state.bytes + bytes > limit) {
      this.#limited = true;
      throw new BroadcastError(
        'store-full',
        `the store holds ${String(this.#state.bytes)} bytes, limits.storeBytes is ${String(limit)}`,
      );
    }
    if (!this.#noSpace) return;
    const current = this.#current as Segment;
    const left = current.capacity - current.end - this.#writer.pendingBytes - COMMIT_SPACE;
    const next = this.#next === undefined ? 0 : this.#next.capacity - SEGMENT_HEADER;
    if (bytes > left + next - ACK_ROOM)
      throw new BroadcastError('store-full', `the disk of ${this.#options.directory} is full`);
  }

  /** Keeps the latest batches in memory for a while. */
  #keep(stored: Stored): void {
    this.#cache.push(stored);
    this.#cached += stored.itemBytes;
    while (this.#cached > CACHE_BYTES && this.#cache.size > 1) {
      const oldest = this.#cache.shift() as Stored;
      this.#cached -= oldest.itemBytes;
      // What is not durable yet can only be read from memory.
      if (oldest.offset + oldest.size <= oldest.segment.durable) oldest.batch = undefined;
      else {
        this.#cache.unshift(oldest);
        this.#cached += oldest.itemBytes;
        return;
      }
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
    acks.add(handle, Math.min(count, Number.MAX_SAFE_INTEGER - handle));
    this.#armAcks();
    this.#lookForRoom();
  }

  floor(instance: string, floor: number | null): void {
    this.#check();
    this.#state.floor(instance, floor);
    this.#floors.set(instance, floor);
    this.#armAcks();
  }

  #armAcks(): void {
    this.#ackTimer ??= this.#open.clock.setTimeout(() => {
      this.#ackTimer = undefined;
      if (this.#failure !== undefined || this.#closed) return;
      this.#flushAcks();
      this.#writer.kick();
    }, ACK_DELAY);
  }

  /** Acknowledgements and floors become records: before anything that depends on their order, and with each commit. */
  #flushAcks(): void {
    for (const [queue, ranges] of this.#acks) {
      const writer = new RecordWriter(RECORD.ACK).str(queue).varint(ranges.rangeCount);
      for (const { first, count } of ranges.ranges()) writer.varint(first).varint(count);
      this.#add(writer);
    }
    this.#acks.clear();
    for (const [instance, floor] of this.#floors) {
      const writer = new RecordWriter(RECORD.FLOOR).hex16(instance).u8(floor === null ? 0 : 1);
      if (floor !== null) writer.varint(floor);
      this.#add(writer);
    }
    this.#floors.clear();
  }

  #add(writer: RecordWriter, placed?: (segment: Segment) => void): void {
    this.#writer.add({ bytes: writer.finish(), joined: false, placed });
  }

  move(from: string, to: string, handle = 0, count: number = Number.MAX_SAFE_INTEGER, note?: string): void {
    this.#check();
    if (from === to || !this.#state.queues.has(from)) return;
    this.#flushAcks();
    this.#state.move(from, to, handle, count, note);
    const writer = new RecordWriter(RECORD.MOVE)
      .str(from)
      .str(to)
      .varint(handle)
      .varint(count)
      .u8(note === undefined ? 0 : 1);
    if (note !== undefined) writer.str(note);
    this.#add(writer);
    this.#armAcks();
  }

  attempt(queue: string, handle: number, attempts: number): void {
    this.#check();
    this.#state.attempt(queue, handle, attempts);
    this.#add(new RecordWriter(RECORD.ATTEMPT).str(queue).varint(handle).varint(attempts));
    this.#armAcks();
  }

  drop(queue: string): void {
    this.#check();
    if (!this.#state.queues.has(queue)) return;
    this.#flushAcks();
    this.#state.remove(queue, 0, Number.MAX_SAFE_INTEGER);
    this.#add(new RecordWriter(RECORD.DROP).str(queue));
    this.#armAcks();
  }

  put(key: string, value: string | null): void {
    this.#check();
    if (value === null && !this.#state.entries.has(key)) return;
    this.#state.put(key, value, Infinity);
    const writer = new RecordWriter(RECORD.PUT).str(key).u8(value === null ? 0 : 1);
    if (value !== null) writer.str(value);
    this.#add(writer, segment => {
      if (value !== null && this.#state.entries.get(key)?.value === value)
        this.#state.put(key, value, segment.header.number);
    });
    this.#armAcks();
  }

  commit(): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return this.#writer.commit();
  }

  // ---- segments --------------------------------------------------------------------------------------------------------------

  #newSegment(capacity: number): Promise<Segment> {
    const header = { number: this.#nextSegment++, storeId: this.#storeId, nextHandle: this.#state.nextHandle };
    return createSegment(this.#files, this.#options.directory, header, Math.ceil(capacity));
  }

  async #segmentFor(bytes: number): Promise<Segment> {
    const current = this.#current as Segment;
    if (current.end + bytes <= current.capacity) return current;
    const wanted = SEGMENT_HEADER + bytes;
    if (wanted > this.#segmentBytes) return this.#use(await this.#newSegment(wanted));
    if (this.#next === undefined) await (this.#preparing ?? this.#prepare());
    const next = this.#next ?? (await this.#newSegment(this.#segmentBytes));
    this.#next = undefined;
    return this.#use(next);
  }

  #use(segment: Segment): Segment {
    this.#segments.push(segment);
    this.#current = segment;
    return segment;
  }

  #committed(): void {
    const current = this.#current as Segment;
    if (this.#next === undefined && current.end > current.capacity / 4 && !this.#noSpace) void this.#prepare();
    this.#reclaimer?.look();
  }

  /** Makes the next segment ahead of its need; without space for it, appends are refused in time. */
  #prepare(): Promise<void> {
    this.#preparing ??= this.#prepareNext().finally(() => {
      this.#preparing = undefined;
    });
    return this.#preparing;
  }

  async #prepareNext(): Promise<void> {
    const { directory, reserveBytes = RESERVE_BYTES } = this.#options;
    try {
      if ((await this.#files.free(directory)) < this.#segmentBytes + reserveBytes)
        throw Object.assign(new Error('no space left'), { code: 'ENOSPC' });
      this.#next = await this.#newSegment(this.#segmentBytes);
      if (this.#noSpace) {
        this.#noSpace = false;
        this.#host?.roomAgain();
      }
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENOSPC' && code !== 'EDQUOT') {
        this.#fail(error as Error);
        return;
      }
      if (!this.#noSpace)
        this.#host?.warn(
          `the disk of ${directory} is nearly full; messages that must be stored are refused until there is room`,
        );
      this.#noSpace = true;
      this.#retryLater();
    }
  }

  #retryLater(): void {
    this.#spaceTimer ??= this.#open.clock.setTimeout(() => {
      this.#spaceTimer = undefined;
      if (this.#noSpace && !this.#closed && this.#failure === undefined) void this.#prepare();
    }, RETRY_SPACE);
  }

  #spaceFreed(): void {
    if (this.#noSpace && !this.#closed) void this.#prepare();
  }

  #lookForRoom(): void {
    const limit = this.#host?.storeBytes;
    if (!this.#limited || limit === undefined || this.#state.bytes > limit * 0.9) return;
    this.#limited = false;
    this.#host?.roomAgain();
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
    return fromMemory(runs) ?? this.#readDisk(queue, from, runs, maxMessages, maxBytes);
  }

  async #readDisk(
    queue: string,
    from: number,
    runs: Parameters<typeof fromDisk>[0],
    maxMessages: number,
    maxBytes: number,
  ): Promise<readonly StoredRun[]> {
    let answer: StoredRun[];
    try {
      answer = await fromDisk(runs, run => {
        this.#host?.warn(
          `a stored message of ${JSON.stringify(queue)} is damaged and lost (${run.source.segment.path}, byte ${String(run.source.offset)})`,
        );
        this.ack(queue, run.handle, run.count);
      });
    } catch (error) {
      // The segment may have been given back while it was read: then its messages have moved, and are read again there.
      if (this.#closed || this.#failure !== undefined) throw this.#failure ?? error;
      if ((error as NodeJS.ErrnoException).code === 'EBADF' || /closed/.test((error as Error).message))
        return this.read(queue, from, maxMessages, maxBytes);
      this.#fail(error as Error);
      throw this.#failure ?? error;
    }
    // Nothing but damage: what comes behind it.
    return answer.length === 0 && runs.length > 0 ? this.read(queue, from, maxMessages, maxBytes) : answer;
  }

  usage(queue: string): QueueUsage {
    const { messages, bytes } = this.#state.queues.get(queue) ?? { messages: 0, bytes: 0 };
    return { messages, bytes };
  }

  *queues(prefix: string): Iterable<string> {
    for (const id of this.#state.queues.keys()) if (id.startsWith(prefix)) yield id;
  }

  totals(): { messages: number; bytes: number; limit: number } {
    return { messages: this.#state.messages, bytes: this.#state.bytes, limit: this.#host?.storeBytes ?? 0 };
  }

  time(): number {
    return this.#host === undefined ? 0 : this.#base + this.#host.clock.monotonic() - this.#openedAt;
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

function isForeign(name: string): boolean {
  return segmentNumber(name) === undefined && name !== LOCK_FILE && name !== 'damaged' && name !== 'lost+found';
}

function openError(error: unknown, directory: string): Error {
  if (error instanceof BroadcastError) return error;
  const { message } = error as Error;
  return new BroadcastError('store-unreadable', `the data directory ${directory} cannot be used: ${message}`, {
    cause: error,
  });
}

/**
 * The embedded durable engine: what it has committed survives crashes and power cuts.
 *
 * @example
 * const server = new BroadcastTcpServer({ engine: diskEngine({ directory: './data' }) }); // or simply dataDir: './data'
 */
export function diskEngine(options: DiskEngineOptions): Engine {
  return new DiskEngine(options);
}
