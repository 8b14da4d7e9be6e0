/**
 * Gives space back. Segments go from the oldest on, because an acknowledgement in a newer segment is what keeps a message
 * of an older one from coming back: the older one must be gone first. Before a segment goes, what only it says is written
 * again: pairs, senders, and, when few of its messages are left, those messages.
 */
import type { IndexRun } from '../queue-index.js';
import type { FileSystem } from './files.js';
import { decodeBatch, encodeBatch, readSize, RECORD, RecordReader, RecordWriter, type Placement } from './record.js';
import type { Segment } from './segment.js';
import type { LogState, Stored } from './state.js';
import type { GroupWriter } from './writer.js';

export interface ReclaimHost {
  readonly state: LogState;
  readonly writer: GroupWriter;
  readonly files: FileSystem;
  readonly directory: string;
  segments(): Segment[];
  current(): Segment | undefined;
  damaged(text: string): void;
  reclaimed(): void;
  failed(error: Error): void;
}

/**
 * The oldest segment's messages are copied when they are less than this share of it, or when all messages that wait are
 * less than this share of the log: an old segment that is full must not hold on to younger ones that are empty.
 */
const SPARSE = 1 / 4;
/** Nothing is copied unless there are more segments than this. */
const FEW_SEGMENTS = 4;

export class Reclaimer {
  readonly #host: ReclaimHost;
  #running: Promise<void> | undefined;

  constructor(host: ReclaimHost) {
    this.#host = host;
  }

  idle(): Promise<void> {
    return this.#running ?? Promise.resolve();
  }

  /** Looks whether the oldest segment can go. */
  look(): void {
    if (this.#running !== undefined) return;
    const oldest = this.#candidate();
    if (oldest === undefined) return;
    this.#running = this.#reclaim(oldest)
      .catch((error: unknown) => this.#host.failed(error as Error))
      .finally(() => {
        this.#running = undefined;
      });
  }

  #candidate(): Segment | undefined {
    const segments = this.#host.segments();
    const [oldest] = segments;
    if (oldest === undefined || oldest === this.#host.current()) return undefined;
    if (oldest.references === 0) return oldest;
    if (segments.length <= FEW_SEGMENTS) return undefined;
    if (oldest.liveBytes < oldest.capacity * SPARSE) return oldest;
    let [live, capacity] = [0, 0];
    for (const segment of segments) {
      live += segment.liveBytes;
      capacity += segment.capacity;
    }
    return live < capacity * SPARSE ? oldest : undefined;
  }

  async #reclaim(segment: Segment): Promise<void> {
    const { state, writer, files, directory } = this.#host;
    const { number } = segment.header;
    if (segment.references > 0) await this.#copyForward(segment);
    for (const [key, { value, segment: at }] of state.entries) {
      if (at <= number)
        this.#write(
          new RecordWriter(RECORD.PUT).str(key).u8(1).str(value),
          where => state.put(key, value, where.header.number),
          () => state.entries.get(key)?.value === value,
        );
    }
    for (const [instance, sender] of state.senders) {
      if (sender.segment > number) continue;
      const record = new RecordWriter(RECORD.SENDER).hex16(instance).u8(sender.name === undefined ? 0 : 1);
      if (sender.name !== undefined) record.str(sender.name);
      record.varint(sender.floor).varint(sender.taken.rangeCount);
      for (const { first, count } of sender.taken.ranges()) record.varint(first).varint(count);
      sender.segment = Infinity;
      this.#write(record, where => {
        sender.segment = Math.min(sender.segment, where.header.number);
      });
    }
    await writer.commit();
    if (segment.references > 0) return; // a message came back into a queue meanwhile; next time
    const segments = this.#host.segments();
    segments.splice(segments.indexOf(segment), 1);
    await segment.file.close();
    await files.unlink(segment.path);
    await files.syncDirectory(directory);
    this.#host.reclaimed();
  }

  #write(record: RecordWriter, placed: (segment: Segment) => void, still: () => boolean = () => true): void {
    this.#host.writer.add({ bytes: record.finish(), joined: false, placed: segment => still() && placed(segment) });
  }

  /** Writes the messages of a segment that are left again, with the places they have in queues now. */
  async #copyForward(segment: Segment): Promise<void> {
    const { state, writer } = this.#host;
    const placements = new Map<Stored, (Placement & { handle: number })[]>();
    for (const [queue, index] of state.queues) {
      for (const run of index.from(0)) {
        if (run.source.segment !== segment) continue;
        const list = placements.get(run.source) ?? [];
        list.push({
          queue,
          offset: run.offset,
          count: run.count,
          attempts: run.attempts,
          note: run.note,
          handle: run.handle,
        });
        placements.set(run.source, list);
      }
    }
    for (const stored of placements.keys()) {
      const bytes = await segment.file.read(stored.offset, stored.size);
      const size = readSize(bytes, 0, segment.header.salt, stored.offset);
      const places = this.#placesNow(stored, segment);
      if (places.length === 0) continue;
      if (size === 0) {
        this.#host.damaged(`a stored message is damaged and lost (${segment.path}, byte ${String(stored.offset)})`);
        for (const { queue, offset, count } of places) state.remove(queue, stored.handle + offset, count);
        continue;
      }
      const reader = new RecordReader(bytes, 0, size);
      reader.u8();
      const { batch } = decodeBatch(reader);
      const record = { handle: stored.handle, expiresAt: stored.expiresAt, batch, placements: places };
      const copy = encodeBatch(RECORD.REBATCH, record);
      writer.add({
        bytes: copy,
        joined: false,
        placed: (where, offset) =>
          void state.moveBatch({ ...record, placements: this.#placesNow(stored, segment) }, where, offset, copy.length),
      });
    }
  }

  /** Where the messages of a stored batch are at this moment. */
  #placesNow(stored: Stored, segment: Segment): Placement[] {
    const places: Placement[] = [];
    if (stored.references === 0 || stored.segment !== segment) return places;
    for (const [queue, index] of this.#host.state.queues) {
      for (const run of index.from(stored.handle)) {
        if (run.handle >= stored.handle + stored.count) break;
        if (run.source === stored) places.push(placementOf(queue, run));
      }
    }
    return places;
  }
}

function placementOf(queue: string, run: IndexRun<Stored>): Placement {
  return { queue, offset: run.offset, count: run.count, attempts: run.attempts, note: run.note };
}
