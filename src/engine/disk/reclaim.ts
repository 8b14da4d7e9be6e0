/**
 * Gives space back. Segments go from the oldest on, because an acknowledgement in a newer segment is what keeps a message
 * of an older one from coming back: the older one must be gone first. Before a segment goes, what only it says is written
 * again: pairs, senders, and the messages that are left in it.
 *
 * The oldest goes when little is left in it, or when more than half of the log is dead and the log is not small. So the
 * log never takes much more than twice what lives in it, and writing again costs no more than writing did.
 */
import type { Batch } from '../../batch.js';
import { join, type FileSystem } from './files.js';
import { encodeBatch, type Placement } from './batch-record.js';
import { sizeOfItems } from '../item-sizes.js';
import { readBatches } from './reader.js';
import { RECORD, RecordWriter } from './record.js';
import { DAMAGED, segmentName, type Segment } from './segment.js';
import { forGood, SyncFailed } from './shortage.js';
import type { LogState, Stored } from './state.js';
import type { GroupWriter } from './writer.js';

export interface ReclaimHost {
  readonly state: LogState;
  readonly writer: GroupWriter;
  readonly files: FileSystem;
  readonly directory: string;
  readonly segmentBytes: number;
  readonly segments: Segment[];
  /** Space is short: give back what can be given back. */
  isTight(): boolean;
  /** There is room for so many more bytes of records in groups of so many at most. Otherwise `lookAgain` is called some time. */
  canWrite(bytes: number, piece: number): Promise<boolean>;
  /** A batch is being written again: until that is durable it can be read only from memory. */
  keep(stored: Stored, batch: Batch, record: Buffer): void;
  /** A stored batch cannot be read. */
  damaged(stored: Stored): void;
  /** Damaged messages have left a queue. */
  lost(queue: string, handle: number, count: number, bytes: number): void;
  warn(text: string): void;
  reclaimed(): void;
  failed(error: Error): void;
}

/** A segment with this share of its size left in it, or less, is cheap to give back. */
const CHEAP = 1 / 32;
/** A log of no more than so many segments is left as it is otherwise. */
const FEW_SEGMENTS = 4;
/** What is written again goes into the log in pieces of about this size, so that it holds nobody up. */
const PIECE = 1024 * 1024;
const LEAST_PIECE = 64 * 1024;
/** What a record has beside its texts and numbers that can be many. */
const RECORD_BYTES = 64;

/** Bytes in all, and of the largest record. */
interface Need {
  readonly bytes: number;
  readonly largest: number;
}

export class Reclaimer {
  readonly #host: ReclaimHost;
  /** Bytes that are written again before others may commit. */
  readonly #piece: number;
  #running: Promise<void> | undefined;
  #stopped = false;
  #warned = false;
  /** The oldest segment is not looked at again before there may be room for what is left of it. */
  #isBlocked = false;
  /** The last one whose file was removed, and the folders that must say so durably. */
  #removed: { readonly segment: Segment; readonly folders: readonly string[] } | undefined;
  /** The oldest segment that is needed, as the last commit says it, and the last one that is durable. */
  #said = 0;
  #saidDurably = 0;

  constructor(host: ReclaimHost) {
    this.#host = host;
    this.#piece = Math.min(PIECE, Math.max(LEAST_PIECE, host.segmentBytes / 32));
  }

  /** For a commit: the oldest segment of which something is needed. Those before it may go when the commit is durable. */
  sayNeeded(): number {
    const { segments } = this.#host;
    const needed = segments.find(({ liveBytes }) => liveBytes > 0) ?? segments[segments.length - 1];
    this.#said = (needed as Segment).header.number;
    return this.#said;
  }

  /** A commit is durable: looks whether the oldest segment can go. */
  committed(): void {
    this.#saidDurably = this.#said;
    this.#look();
  }

  /** There may be room for what there was none for. */
  lookAgain(): void {
    this.#isBlocked = false;
    this.#look();
  }

  /** Fulfilled when nothing is being given back any longer; nothing further is begun. */
  stop(): Promise<void> {
    this.#stopped = true;
    return this.#running ?? Promise.resolve();
  }

  #look(): void {
    if (this.#running !== undefined || this.#stopped || this.#isBlocked) return;
    const oldest = this.#candidate();
    if (oldest === undefined) return;
    this.#running = this.#reclaim(oldest).then(
      given => {
        this.#running = undefined;
        if (given) this.#look();
      },
      (error: unknown) => {
        this.#running = undefined;
        // When the store has been closed or has failed, the segment simply stays.
        if (!this.#stopped) this.#host.failed(error as Error);
      },
    );
  }

  #candidate(): Segment | undefined {
    const { segments, segmentBytes } = this.#host;
    const [oldest] = segments;
    if (oldest === undefined || segments.length === 1) return undefined;
    if (oldest.liveBytes <= segmentBytes * CHEAP) return oldest;
    let size = 0;
    let live = 0;
    for (const segment of segments) {
      // A small one counts for more than its size: each costs an open file too.
      size += Math.max(segment.end, segmentBytes / 8);
      live += segment.liveBytes;
    }
    if (this.#host.isTight()) return size > 1.25 * live + segmentBytes ? oldest : undefined;
    return size > 2 * live + FEW_SEGMENTS * segmentBytes ? oldest : undefined;
  }

  /** True when the segment is gone. */
  async #reclaim(segment: Segment): Promise<boolean> {
    const { writer, segments } = this.#host;
    const need = this.#needOf(segment);
    if (!(await this.#findRoom(need)) || !(await this.#copyMessages(segment, need))) return false;
    await this.#copyEntries(segment);
    await this.#copySenders(segment);
    await writer.commit();
    if (this.#stopped) return false;
    /* v8 ignore if -- only when nothing at all has been written since: a message that is lost brings a sender's record or a mark */
    if (this.#saidDurably <= segment.header.number) {
      // The log must say that the segment is not needed before it goes, or it would be missed. An acknowledgement of nothing
      // makes it say so; a commit with what was written again, or with the last acknowledgement, has said it already.
      this.#write(new RecordWriter(RECORD.ACK).str('').varint(0));
      await writer.commit();
    }
    if (!(await this.#giveBack(segment))) return false;
    segment.gone = true;
    segments.splice(segments.indexOf(segment), 1);
    await segment.file.close();
    this.#host.reclaimed();
    return true;
  }

  /** True when its file is gone durably. Those behind it must not go before it does. */
  async #giveBack(segment: Segment): Promise<boolean> {
    const { files } = this.#host;
    try {
      if (this.#removed?.segment !== segment) this.#removed = { segment, folders: await this.#remove(segment) };
      for (const folder of this.#removed.folders) await forGood(files.syncDirectory(folder));
    } catch (error) {
      if (error instanceof SyncFailed) throw error;
      if (!this.#warned) this.#host.warn(`${segment.path} cannot be given back: ${(error as Error).message}`);
      this.#warned = true;
      return false;
    }
    this.#warned = false;
    return true;
  }

  /** Nothing is deleted that could not be read. Returns the folders that have changed. */
  async #remove({ damaged, path, header }: Segment): Promise<string[]> {
    const { files, directory } = this.#host;
    if (!damaged) {
      await files.unlink(path);
      return [directory];
    }
    const folder = join(directory, DAMAGED);
    await files.makeDirectory(folder);
    await files.rename(path, join(folder, segmentName(header.number)));
    return [folder, directory];
  }

  // ---- what is written again -------------------------------------------------------------------------------------------------

  async #copyEntries(segment: Segment): Promise<void> {
    const { state } = this.#host;
    const keys = [...state.entries].filter(([, entry]) => entry.segment === segment).map(([key]) => key);
    await this.#inPieces(keys, key => {
      const entry = state.entries.get(key);
      if (entry?.segment !== segment) return 0;
      const record = new RecordWriter(RECORD.PUT).str(key).u8(1).str(entry.value);
      return this.#write(record, where => {
        if (state.entries.get(key) === entry) state.put(key, entry.value, where);
      });
    });
  }

  async #copySenders(segment: Segment): Promise<void> {
    const { state } = this.#host;
    const senders = [...state.senders].filter(([, sender]) => sender.segment === segment);
    await this.#inPieces(senders, ([instance, sender]) => {
      if (state.senders.get(instance) !== sender) return 0;
      const { name, floor, taken } = sender;
      const record = new RecordWriter(RECORD.SENDER).hex16(instance).u8(name === undefined ? 0 : 1);
      if (name !== undefined) record.str(name);
      record.varint(floor).varint(taken.rangeCount);
      for (const { first, count } of taken.ranges()) record.varint(first).varint(count);
      return this.#write(record, where => {
        if (state.senders.get(instance) === sender) state.settleSender(sender, where);
      });
    });
  }

  /**
   * What is written again needs room before it gives room back. Records that wait for room would be before all others: the
   * acknowledgements too, after which less is left to be written again. Without room it is looked at again later.
   */
  async #findRoom({ bytes, largest }: Need): Promise<boolean> {
    this.#isBlocked = bytes > 0 && !(await this.#host.canWrite(bytes, Math.max(this.#piece, largest)));
    return !this.#isBlocked;
  }

  /** What a segment's records take when they are written again, at most. */
  #needOf(segment: Segment): Need {
    const { state } = this.#host;
    const need = { bytes: 0, largest: 0 };
    const add = (bytes: number): void => {
      need.bytes += bytes;
      need.largest = Math.max(need.largest, bytes);
    };
    if (segment.liveBytes === 0) return need;
    for (const [stored, placements] of placesOf(state, segment, segment.lowHandle, segment.highHandle))
      add(bytesAgain(stored, placements));
    for (const [key, { value, segment: where }] of state.entries)
      if (where === segment) add(RECORD_BYTES + 3 * (key.length + value.length));
    for (const { name = '', taken, segment: where } of state.senders.values())
      if (where === segment) add(RECORD_BYTES + 3 * name.length + 16 * taken.rangeCount);
    return need;
  }

  /** Writes the messages of a segment that are left again, with the places that they have in queues. False without room. */
  async #copyMessages(segment: Segment, { bytes: needed, largest }: Need): Promise<boolean> {
    const { state, writer } = this.#host;
    const left = [...placesOf(state, segment, segment.lowHandle, segment.highHandle).keys()].sort(
      (a, b) => a.offset - b.offset,
    );
    let written = 0;
    for (let at = 0; at < left.length && !this.#stopped;) {
      if (!(await this.#findRoom({ bytes: needed - written, largest }))) return false;
      const piece: Stored[] = [];
      for (let bytes = 0; at < left.length && bytes < this.#piece; at++) {
        const stored = left[at] as Stored;
        if (stored.references === 0) continue;
        piece.push(stored);
        bytes += stored.size;
      }
      const batches = await readBatches(piece);
      // From here on nothing waits: what is written is where the messages are now.
      const low = Math.min(...piece.map(({ handle }) => handle));
      const high = Math.max(...piece.map(({ handle, count }) => handle + count - 1));
      const places = placesOf(state, segment, low, high);
      for (const [i, stored] of piece.entries()) {
        const placements = places.get(stored);
        if (placements === undefined) continue;
        const batch = batches[i];
        if (batch === undefined) {
          segment.damaged = true;
          this.#host.damaged(stored);
          for (const { queue, offset, count } of placements) {
            state.remove(queue, stored.handle + offset, count);
            this.#host.lost(queue, stored.handle + offset, count, sizeOfItems(stored.sizes, offset, count));
          }
          continue;
        }
        const { handle, expiresAt } = stored;
        const bytes = encodeBatch(RECORD.REBATCH, { handle, expiresAt, batch, placements });
        written += bytes.length;
        writer.add({
          bytes,
          joined: false,
          placed: (where, offset) => {
            state.settle(stored, where, offset, bytes.length);
            this.#host.keep(stored, batch, bytes);
          },
        });
      }
      await writer.commit();
    }
    return true;
  }

  async #inPieces<T>(items: readonly T[], write: (item: T) => number): Promise<void> {
    let bytes = 0;
    for (const item of items) {
      if (this.#stopped) return;
      bytes += write(item);
      if (bytes < this.#piece) continue;
      bytes = 0;
      await this.#host.writer.commit();
    }
  }

  #write(record: RecordWriter, placed?: (segment: Segment) => void): number {
    const bytes = record.finish();
    this.#host.writer.add({ bytes, joined: false, placed });
    return bytes.length;
  }
}

/** Bytes of the record of a batch with the places of now, at most. */
function bytesAgain({ size }: Stored, placements: readonly Placement[]): number {
  const texts = placements.reduce((sum, { queue, note = '' }) => sum + 16 + 3 * (queue.length + note.length), 0);
  return size + texts;
}

/** Where the messages of a segment's batches between two handles are at this moment. */
function placesOf(state: LogState, segment: Segment, low: number, high: number): Map<Stored, Placement[]> {
  const places = new Map<Stored, Placement[]>();
  for (const [queue, index] of state.queues) {
    for (const { handle, source, offset, count, attempts, note } of index.from(low)) {
      if (handle > high) break;
      if (source.segment !== segment) continue;
      const list = places.get(source);
      const place = { queue, offset, count, attempts, note };
      if (list === undefined) places.set(source, [place]);
      else list.push(place);
    }
  }
  return places;
}
