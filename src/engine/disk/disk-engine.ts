/**
 * The disk engine: the seam on top of a segmented, append-only log. This file opens and closes it; an open store is in
 * store.ts, records in record.ts and batch-record.ts, what they mean in state.ts, group commit in writer.ts, space on the
 * disk in space.ts, reading back in reader.ts, recovery in recovery.ts, giving space back in reclaim.ts.
 */
import { randomBytes } from 'node:crypto';
import { BroadcastError } from '../../errors.js';
import type { AppendBatch, Engine, EngineHost, EngineState, HandleRange, QueueUsage, StoredRun } from '../engine.js';
import { describe } from './describe.js';
import { nodeFiles, type FileSystem } from './files.js';
import { DirectoryLock, LOCK_FILE } from './lock.js';
import { recover, type Recovered } from './recovery.js';
import { DAMAGED, isUnfinished, lostNumber, segmentNumber } from './segment.js';
import { DiskStore } from './store.js';

/** Where and how the disk engine keeps its log. */
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

class DiskEngine implements Engine {
  readonly kind = 'disk';
  readonly durability = 'fsync';
  readonly #options: DiskEngineOptions;
  #lock: DirectoryLock | undefined;
  #store: DiskStore | undefined;
  #closed: Promise<void> | undefined;

  constructor(options: DiskEngineOptions) {
    this.#options = options;
  }

  async open(host: EngineHost): Promise<EngineState> {
    const { directory, files = nodeFiles, segmentBytes = SEGMENT_BYTES, reserveBytes = RESERVE_BYTES } = this.#options;
    if (this.#store !== undefined) throw new BroadcastError('store-locked', `${directory} is open already`);
    let found: Recovered | undefined;
    try {
      await files.makeDirectory(directory);
      if (files === nodeFiles) this.#lock = await DirectoryLock.take(directory);
      found = await recover(files, directory, isForeign);
      const storeId = found.storeId ?? randomBytes(16).toString('hex');
      const store = await DiskStore.begin({ directory, files, segmentBytes, reserveBytes, storeId }, host, found);
      this.#store = store;
      this.#closed = undefined;
      return describe(storeId, store, found.damage);
    } catch (error) {
      for (const segment of [...(found?.segments ?? []), found?.spare])
        await segment?.file.close().catch(() => undefined);
      await this.#lock?.release();
      this.#lock = undefined;
      throw openError(error, directory);
    }
  }

  get #opened(): DiskStore {
    if (this.#store === undefined) throw notOpen();
    return this.#store;
  }

  append(batches: readonly AppendBatch[]): number[] {
    return this.#opened.append(batches);
  }

  read(
    queue: string,
    from: number,
    maxMessages: number,
    maxBytes: number,
  ): readonly StoredRun[] | Promise<readonly StoredRun[]> {
    return this.#store?.read(queue, from, maxMessages, maxBytes) ?? [];
  }

  ack(queue: string, handle: number, count: number): void {
    this.#store?.ack(queue, handle, count);
  }

  move(
    from: string,
    to: string,
    handle = 0,
    count: number = Number.MAX_SAFE_INTEGER,
    note?: string,
  ): readonly HandleRange[] {
    return this.#store?.move(from, to, handle, count, note) ?? [];
  }

  attempt(queue: string, handle: number, attempts: number): void {
    this.#store?.attempt(queue, handle, attempts);
  }

  drop(queue: string): void {
    this.#store?.drop(queue);
  }

  put(key: string, value: string | null): void {
    this.#store?.put(key, value);
  }

  floor(instance: string, floor: number | null): void {
    this.#store?.floor(instance, floor);
  }

  commit(): Promise<void> {
    return this.#store === undefined ? Promise.reject(notOpen()) : this.#store.commit();
  }

  usage(queue: string): QueueUsage {
    return this.#store?.usage(queue) ?? { messages: 0, bytes: 0 };
  }

  *queues(prefix: string): Iterable<string> {
    for (const id of this.#store?.state.queues.keys() ?? []) if (id.startsWith(prefix)) yield id;
  }

  totals(): { messages: number; bytes: number; limit: number } {
    return this.#store?.totals() ?? { messages: 0, bytes: 0, limit: 0 };
  }

  time(): number {
    return this.#store?.time() ?? 0;
  }

  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  async #close(): Promise<void> {
    const store = this.#store;
    this.#store = undefined;
    await store?.close();
    await this.#lock?.release();
    this.#lock = undefined;
  }
}

function notOpen(): BroadcastError {
  return new BroadcastError('store-failed', 'the store is not open');
}

function isForeign(name: string): boolean {
  if (segmentNumber(name) !== undefined || lostNumber(name) !== undefined || isUnfinished(name)) return false;
  return name !== LOCK_FILE && name !== DAMAGED && name !== 'lost+found';
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
