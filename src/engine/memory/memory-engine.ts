/** The memory engine: the seam's obligations in their most readable form. What it keeps ends with the process. */
import { randomBytes } from 'node:crypto';
import { sliceBatch, type Batch } from '../../batch.js';
import { BroadcastError } from '../../errors.js';
import type { AppendBatch, Engine, EngineHost, EngineState, HandleRange, QueueUsage, StoredRun } from '../engine.js';
import { itemSizes, sizeOfItems, type ItemSizes } from '../item-sizes.js';
import { QueueIndex, type IndexRun } from '../queue-index.js';

const DEFAULT_STORE_BYTES = 1024 * 1024 * 1024;
/** What a stored batch costs beside its items. */
const OVERHEAD = 256;
/** After `store-full` there is room again when this share of the limit is free. */
const ROOM_MARGIN = 1 / 16;

interface StoredBatch {
  readonly batch: Batch;
  readonly handle: number;
  readonly expiresAt: number;
  readonly sizes: ItemSizes;
  /** Messages that are in some queue, counted once for each queue. */
  references: number;
}

class MemoryEngine implements Engine {
  readonly kind = 'memory';
  readonly durability = 'memory';
  readonly #queues = new Map<string, QueueIndex<StoredBatch>>();
  #host: EngineHost | undefined;
  #nextHandle = 1;
  #bytes = 0;
  #messages = 0;
  #limit = DEFAULT_STORE_BYTES;
  #full = false;
  #start = 0;

  open(host: EngineHost): Promise<EngineState> {
    if (this.#host !== undefined) {
      return Promise.reject(new BroadcastError('store-locked', 'this store in memory is open already'));
    }
    this.#host = host;
    this.#limit = host.storeBytes ?? DEFAULT_STORE_BYTES;
    this.#start = host.clock.monotonic();
    return Promise.resolve({
      storeId: randomBytes(16).toString('hex'),
      time: this.time(),
      nextHandle: this.#nextHandle,
      entries: new Map(),
      queues: [],
      expiring: [],
      senders: [],
      tracked: [],
      damage: [],
    });
  }

  append(batches: readonly AppendBatch[]): number[] {
    if (this.#host === undefined) throw notOpen();
    let size = 0;
    for (const { batch } of batches) size += batch.items.length + OVERHEAD;
    if (this.#bytes + size > this.#limit) {
      this.#full = true;
      throw new BroadcastError(
        'store-full',
        `the store in memory is full: ${String(this.#limit)} bytes (limits.storeBytes)`,
      );
    }
    return batches.map(append => this.#appendOne(append));
  }

  #appendOne({ batch, expiresAt, queues }: AppendBatch): number {
    const handle = this.#nextHandle;
    this.#nextHandle += batch.count;
    const sizes = itemSizes(batch.items, batch.count);
    const stored: StoredBatch = { batch: unpinned(batch), handle, expiresAt, sizes, references: 0 };
    for (const { queue, offset, count } of queues) {
      const run = { handle: handle + offset, count, offset, source: stored, attempts: 0, note: undefined };
      stored.references += this.#queue(queue).insert(run);
    }
    if (stored.references > 0) {
      this.#bytes += batch.items.length + OVERHEAD;
      this.#messages += batch.count;
    }
    return handle;
  }

  #queue(id: string): QueueIndex<StoredBatch> {
    let queue = this.#queues.get(id);
    if (queue === undefined) {
      queue = new QueueIndex(({ source, offset, count }) => sizeOfItems(source.sizes, offset, count));
      this.#queues.set(id, queue);
    }
    return queue;
  }

  read(queue: string, from: number, maxMessages: number, maxBytes: number): readonly StoredRun[] {
    const runs: StoredRun[] = [];
    let messages = 0;
    let bytes = 0;
    for (const run of this.#queues.get(queue)?.from(from) ?? []) {
      if (messages >= maxMessages || (messages > 0 && bytes >= maxBytes)) break;
      const count = Math.min(run.count, maxMessages - messages);
      const batch = sliceBatch(run.source.batch, run.offset, count);
      runs.push({ handle: run.handle, batch, expiresAt: run.source.expiresAt, attempts: run.attempts, note: run.note });
      messages += count;
      bytes += batch.items.length;
    }
    return runs;
  }

  ack(queue: string, handle: number, count: number): void {
    for (const part of this.#remove(queue, handle, count)) this.#release(part);
  }

  #remove(id: string, handle: number, count: number): IndexRun<StoredBatch>[] {
    const queue = this.#queues.get(id);
    if (queue === undefined) return [];
    const removed = queue.remove(handle, count);
    if (queue.isEmpty) this.#queues.delete(id);
    return removed;
  }

  #release({ source, count }: IndexRun<StoredBatch>): void {
    source.references -= count;
    if (source.references > 0) return;
    this.#bytes -= source.batch.items.length + OVERHEAD;
    this.#messages -= source.batch.count;
    if (this.#full && this.#bytes <= this.#limit * (1 - ROOM_MARGIN)) {
      this.#full = false;
      this.#host?.roomAgain();
    }
  }

  move(from: string, to: string, handle = 0, count = Number.MAX_SAFE_INTEGER, note?: string): readonly HandleRange[] {
    const known: HandleRange[] = [];
    if (from === to) return known;
    for (const part of this.#remove(from, handle, count)) {
      const run = note === undefined ? part : { ...part, note };
      const moved = this.#queue(to).insert(run, known);
      if (moved < part.count) this.#release({ ...part, count: part.count - moved });
    }
    return known;
  }

  attempt(queue: string, handle: number, attempts: number): void {
    this.#queues.get(queue)?.setAttempts(handle, attempts);
  }

  drop(queue: string): void {
    this.ack(queue, 0, Number.MAX_SAFE_INTEGER);
  }

  put(): void {
    // Nothing is found again after a restart, so nothing need be kept for it.
  }

  floor(): void {
    // As above: the broker itself knows the positions of this run.
  }

  commit(): Promise<void> {
    return this.#host === undefined ? Promise.reject(notOpen()) : Promise.resolve();
  }

  usage(queue: string): QueueUsage {
    const { messages, bytes } = this.#queues.get(queue) ?? { messages: 0, bytes: 0 };
    return { messages, bytes };
  }

  *queues(prefix: string): Iterable<string> {
    for (const id of this.#queues.keys()) if (id.startsWith(prefix)) yield id;
  }

  totals(): { messages: number; bytes: number; limit: number } {
    return { messages: this.#messages, bytes: this.#bytes, limit: this.#limit };
  }

  time(): number {
    return this.#host === undefined ? 0 : this.#host.clock.monotonic() - this.#start;
  }

  close(): Promise<void> {
    this.#host = undefined;
    this.#queues.clear();
    this.#bytes = 0;
    this.#messages = 0;
    this.#full = false;
    return Promise.resolve();
  }
}

function notOpen(): BroadcastError {
  return new BroadcastError('store-failed', 'the store is not open');
}

/** A batch whose items keep no much larger buffer alive. */
function unpinned(batch: Batch): Batch {
  const { items } = batch;
  const { wire: _, ...rest } = batch;
  return items.buffer.byteLength > 2 * items.length + 1024 ? { ...rest, items: Buffer.from(items) } : rest;
}

/**
 * An engine that keeps everything in memory: the default of a server without `dataDir`.
 *
 * @example
 * const server = new BroadcastTcpServer({ engine: memoryEngine() });
 */
export function memoryEngine(): Engine {
  return new MemoryEngine();
}
