/** Applies what the scan of a segment found: groups in turn, damage put aside, a torn tail left out. */
import { idCounters } from '../../batch.js';
import { formatId } from '../../message.js';
import { RangeSet } from '../../range-set.js';
import { itemSizes } from '../item-sizes.js';
import { summarizeBatch, type BatchSummary } from './batch-record.js';
import { join, type FileSystem } from './files.js';
import { SEGMENT_HEADER } from './header.js';
import { MalformedRecord, RECORD, RECORD_HEADER, RecordReader, recordSize } from './record.js';
import { commitAt, looksTorn, type Gap, type Scanned } from './scan.js';
import { DAMAGED, isCutOff, segmentName, type Segment } from './segment.js';
import { LogState, type NewBatch } from './state.js';

export interface Position {
  readonly segment: number;
  readonly offset: number;
}

export class Replay {
  readonly #files: FileSystem;
  readonly #directory: string;
  readonly state = new LogState();
  readonly damage: string[] = [];
  wall = 0;
  time = 0;
  /** The oldest segment that is needed, by the word of the last commit. */
  neededFrom: number | undefined;
  /** How far the log is known to have been durable. */
  durable: Position = { segment: 0, offset: 0 };

  constructor(files: FileSystem, directory: string) {
    this.#files = files;
    this.#directory = directory;
  }

  /** Where the last groups of segments ended, by the word of the commits behind them. */
  readonly #promised = new Map<number, number>();

  /**
   * Learns from a segment how far the log was durable: a group is written only when the one before it is. True when there
   * is a record in it, so that all segments before it can be judged.
   */
  note({ segment, records, firstCommit, lastCommit, lastCommitAt }: Scanned): boolean {
    const last = records[records.length - 2];
    if (last === undefined) return false;
    const { number } = segment.header;
    let offset = SEGMENT_HEADER;
    if (lastCommit !== undefined) {
      offset = lastCommitAt === last ? lastCommit.start : lastCommitAt + recordSize(sizeAt(records, lastCommitAt));
    }
    this.durable = { segment: number, offset };
    if (firstCommit !== undefined && firstCommit.durable.segment < number) {
      this.#promised.set(firstCommit.durable.segment, firstCommit.durable.offset);
    }
    return true;
  }

  /** Everything before this offset of a segment is known to have been durable. */
  #durableIn(of: Segment): number {
    const { number } = of.header;
    const { segment, offset } = this.durable;
    if (segment > number) return this.#promised.get(number) ?? Infinity;
    // It was whole before it was written to: somebody has cut it off, and what looks like a torn tail is damage.
    if (isCutOff(of)) return Infinity;
    return segment === number ? offset : 0;
  }

  /** Applies the groups of one segment and sets where it ends. */
  async apply(scanned: Scanned): Promise<void> {
    const { segment, bytes, records } = scanned;
    const { nextHandle } = segment.header;
    this.state.nextHandle = Math.max(this.state.nextHandle, nextHandle);
    const durable = this.#durableIn(segment);
    const { torn, kept } = await this.#judge(scanned, durable);
    let end = kept;
    let group: number[] = [];
    const malformed: Gap[] = [];
    const applyGroup = (start: number): void => {
      for (const i of group) {
        const offset = records[i] as number;
        const size = records[i + 1] as number;
        // Records of a group whose own COMMIT was damaged belong to durable data too, and are applied with the next.
        if (offset < start && offset >= durable) continue;
        if (!this.#tryRecord(segment, bytes, offset, size))
          malformed.push({ from: offset, to: offset + recordSize(size) });
        end = Math.max(end, offset + recordSize(size));
      }
      group = [];
    };
    for (let i = 0; i < records.length; i += 2) {
      const offset = records[i] as number;
      const size = records[i + 1] as number;
      if (offset > torn) break;
      if (bytes[offset + RECORD_HEADER] !== RECORD.COMMIT) {
        group.push(i);
        continue;
      }
      const commit = commitAt(bytes, offset, size);
      applyGroup(commit.start);
      this.wall = commit.wall;
      this.time = commit.time;
      this.neededFrom = commit.neededFrom;
      this.state.nextHandle = Math.max(this.state.nextHandle, commit.nextHandle);
      end = Math.max(end, offset + recordSize(size));
    }
    applyGroup(Infinity);
    for (const gap of malformed) await this.#putAside(segment, bytes, gap);
    segment.end = end;
    segment.durable = end;
  }

  /** Names a segment that is not as long as it was. */
  judgeLength(segment: Segment): void {
    const { header, capacity } = segment;
    const promised = this.#promised.get(header.number) ?? 0;
    if (capacity >= promised && !isCutOff(segment)) return;
    const was =
      capacity < promised && promised > SEGMENT_HEADER
        ? `was written up to byte ${String(promised)}`
        : `was made longer`;
    this.damage.push(
      `${segmentName(header.number)} ends at byte ${String(capacity)} and ${was}; what was behind is lost`,
    );
  }

  /** Tells damage, which is put aside, from a torn tail. `torn` is where that begins, `kept` where the last damage ends. */
  async #judge(
    { segment, bytes, gaps, records, lastCommitAt }: Scanned,
    durable: number,
  ): Promise<{ torn: number; kept: number }> {
    const late = gaps.filter(({ to }) => to > durable).map(({ from, to }) => ({ from: Math.max(from, durable), to }));
    // The last group was whole once when its COMMIT is there and nothing before that looks as if it was not written.
    const wasWhole =
      lastCommitAt > 0 &&
      lastCommitAt === records[records.length - 2] &&
      late.every(gap => gap.from < lastCommitAt && !looksTorn(bytes, gap));
    const torn = wasWhole ? Infinity : Math.min(Infinity, ...late.map(({ from }) => from));
    let kept = SEGMENT_HEADER;
    for (const { from, to } of gaps) {
      const until = Math.min(to, torn);
      if (until <= from) continue;
      await this.#putAside(segment, bytes, { from, to: until });
      kept = until;
    }
    return { torn, kept };
  }

  async #putAside(segment: Segment, bytes: Buffer, { from, to }: Gap): Promise<void> {
    const folder = join(this.#directory, DAMAGED);
    const of = segmentName(segment.header.number);
    const name = `${of}.${String(from)}-${String(to)}`;
    await this.#files.makeDirectory(folder);
    const known = (await this.#files.list(folder)).includes(name);
    const file = await this.#files.open(join(folder, name), !known);
    try {
      await file.write(bytes.subarray(from, to), 0);
      await file.sync();
    } finally {
      await file.close();
    }
    await this.#files.syncDirectory(folder);
    this.damage.push(
      `${of}, bytes ${String(from)} to ${String(to)}: not readable, put aside as ${DAMAGED}/${name}; the messages in them are lost`,
    );
  }

  /** False for a record that says what none can say: then it is damage like any other. */
  #tryRecord(segment: Segment, bytes: Buffer, offset: number, size: number): boolean {
    try {
      this.#applyRecord(segment, bytes, offset, size);
      return true;
    } catch (error) {
      /* v8 ignore else -- no reader throws anything else */
      if (error instanceof MalformedRecord) return false;
      throw error;
    }
  }

  #applyRecord(segment: Segment, bytes: Buffer, offset: number, size: number): void {
    const { state } = this;
    const reader = new RecordReader(bytes, offset, size);
    switch (reader.u8()) {
      case RECORD.BATCH: {
        const batch = summarizeBatch(reader);
        state.addBatch(asNew(batch), segment, offset, recordSize(size));
        state.take(batch.instance, batch.name, batch.first, batch.count, segment);
        return;
      }
      case RECORD.REBATCH:
        state.moveBatch(asNew(summarizeBatch(reader)), segment, offset, recordSize(size));
        return;
      case RECORD.ACK: {
        const queue = reader.str();
        for (let n = reader.varint(); n > 0; n--) state.remove(queue, reader.varint(), reader.varint());
        return;
      }
      case RECORD.MOVE: {
        const [from, to, handle, count] = [reader.str(), reader.str(), reader.varint(), reader.varint()];
        state.move(from, to, handle, count, reader.u8() === 1 ? reader.str() : undefined);
        return;
      }
      case RECORD.ATTEMPT:
        state.attempt(reader.str(), reader.varint(), reader.varint());
        return;
      case RECORD.DROP:
        state.remove(reader.str(), 0, Number.MAX_SAFE_INTEGER);
        return;
      case RECORD.PUT: {
        const key = reader.str();
        state.put(key, reader.u8() === 1 ? reader.str() : null, segment);
        return;
      }
      case RECORD.FLOOR: {
        const instance = reader.hex16();
        state.floor(instance, reader.u8() === 1 ? reader.varint() : null);
        return;
      }
      case RECORD.SENDER: {
        const instance = reader.hex16();
        const name = reader.u8() === 1 ? reader.str() : undefined;
        const floor = reader.varint();
        const taken = new RangeSet();
        for (let n = reader.varint(); n > 0; n--) taken.add(...rangeOf(reader));
        state.restoreSender(instance, { name, floor, taken }, segment);
        return;
      }
      /* v8 ignore next -- readSize lets no other type through, and commits are not applied */
      default:
    }
  }
}

function rangeOf(reader: RecordReader): [first: number, count: number] {
  const [first, count] = [reader.varint(), reader.varint()];
  if (first + count > Number.MAX_SAFE_INTEGER) throw new MalformedRecord('a range is out of bounds');
  return [first, count];
}

function sizeAt(records: readonly number[], offset: number): number {
  return records[records.lastIndexOf(offset) + 1] as number;
}

function asNew(summary: BatchSummary): NewBatch {
  const { handle, count, expiresAt, placements, items } = summary;
  const sizes = itemSizes(items, count);
  return { handle, count, expiresAt, placements, sizes, batch: undefined, tracked: trackedOf(summary) };
}

function trackedOf(summary: BatchSummary): NewBatch['tracked'] {
  if (!summary.tracked) return undefined;
  const { instance, first, idPrefix, count, idBase, items } = summary;
  return { instance, first, ids: idCounters({ count, idBase, items }).map(counter => formatId(idPrefix, counter)) };
}
