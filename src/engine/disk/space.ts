/**
 * Where the next group goes: the current segment, the one that was prepared behind it, and how much the disk still gives.
 * Segments are numbered in the order in which they are used. When the disk is full, appends are refused in time, and what
 * is left (the rest of the segments, and the reserve) takes the acknowledgements that make room again.
 */
import type { Clock, Timer } from '../../clock.js';
import type { FileSystem } from './files.js';
import { SEGMENT_HEADER } from './header.js';
import { COMMIT_SPACE } from './record.js';
import { createSegment, growSegment, writeHeader, type Segment } from './segment.js';
import { forGood, isShortage } from './shortage.js';

export interface SpaceOptions {
  readonly files: FileSystem;
  readonly directory: string;
  readonly clock: Clock;
  readonly storeId: string;
  readonly segmentBytes: number;
  readonly reserveBytes: number;
}

export interface SpaceHost {
  nextHandle(): number;
  /** Bytes of records that wait to be written. */
  pendingBytes(): number;
  warn(text: string): void;
  roomAgain(): void;
  /** There may be room for what `canWrite` has refused. */
  room(): void;
  failed(error: Error): void;
}

/** Room that is kept for acknowledgements. */
const ACK_ROOM = 1024 * 1024;
const RETRY = 500;
const SMALLEST = 64 * 1024;

export class Space {
  readonly #options: SpaceOptions;
  readonly #host: SpaceHost;
  readonly #ackRoom: number;
  readonly #smallest: number;
  /** In the order of their numbers; the last one is the current one. */
  readonly segments: Segment[];
  #next: Segment | undefined;
  #nextNumber: number;
  #preparing: Promise<void> | undefined;
  /** The last that was to be made. */
  #making: Promise<unknown> = Promise.resolve();
  /** Bytes that the disk had free when it was last looked at, less what was made of them. */
  #free = 0;
  /** The disk had no space for a segment that was to be prepared. */
  isTight = false;
  /** An append was refused. */
  #refused = false;
  /** Somebody wants to write, and looks again when there may be room. */
  #awaited = false;
  #timer: Timer | undefined;
  #wake: (() => void)[] = [];
  #closed = false;

  constructor(options: SpaceOptions, host: SpaceHost, segments: Segment[], spare: Segment | undefined, number: number) {
    this.#options = options;
    this.#host = host;
    this.segments = segments;
    this.#next = spare;
    this.#nextNumber = number;
    this.#ackRoom = Math.min(ACK_ROOM, options.segmentBytes / 8);
    this.#smallest = Math.min(SMALLEST, options.segmentBytes);
  }

  get current(): Segment {
    return this.segments[this.segments.length - 1] as Segment;
  }

  /** Makes the first segment of an empty store, or of one whose last segment is not to be written on. */
  async begin(needsSegment: boolean): Promise<void> {
    const { segmentBytes, files, directory } = this.#options;
    if (needsSegment) this.segments.push(await this.#create(Math.ceil(Math.max(this.#smallest, segmentBytes / 8))));
    const before = this.segments[this.segments.length - 2];
    if (before?.header.followed === false) await this.#follow(before);
    this.#free = await files.free(directory);
  }

  async #create(capacity: number): Promise<Segment> {
    const { files, directory, storeId } = this.#options;
    const header = { number: this.#nextNumber, storeId, nextHandle: this.#host.nextHandle() };
    const segment = await createSegment(files, directory, header, capacity);
    this.#nextNumber++;
    this.#free -= capacity;
    return segment;
  }

  // ---- for the writer ------------------------------------------------------------------------------------------------------

  async segmentFor(bytes: number): Promise<Segment> {
    if (this.current.end + bytes <= this.current.capacity) return this.current;
    const wanted = SEGMENT_HEADER + bytes;
    for (;;) {
      await this.#preparing;
      try {
        const next = await this.#oneAtATime(async () => (this.#next ??= await this.#createSomehow(wanted)));
        await this.#enlarge(next, wanted);
        await this.#follow(this.current);
        this.#next = undefined;
        this.segments.push(next);
        return next;
      } catch (error) {
        if (!isShortage(error)) throw error;
        await this.waitForRoom();
      }
    }
  }

  /** What is made for the writer, and what is made ahead, would have the same number. */
  #oneAtATime<T>(make: () => Promise<T>): Promise<T> {
    const made = this.#making.then(make);
    this.#making = made.catch(() => undefined);
    return made;
  }

  /** Says durably in a segment that there is one behind it, which may be written to then. */
  async #follow(segment: Segment): Promise<void> {
    segment.header = { ...segment.header, followed: true };
    await writeHeader(segment);
    await forGood(segment.file.sync());
  }

  /** A segment that was prepared has the usual size. */
  async #enlarge(segment: Segment, wanted: number): Promise<void> {
    const { capacity } = segment;
    if (capacity >= wanted) return;
    await growSegment(segment, wanted);
    this.#free -= wanted - capacity;
  }

  /** A segment that is needed now may use up the reserve, and be a small one if need be. */
  async #createSomehow(wanted: number): Promise<Segment> {
    const { segmentBytes } = this.#options;
    try {
      return await this.#create(Math.max(wanted, segmentBytes));
    } catch (error) {
      if (!isShortage(error)) throw error;
      return await this.#create(Math.max(wanted, this.#smallest));
    }
  }

  /** Fulfilled when it is worth while to try again; rejects when the store is closed. */
  waitForRoom(): Promise<void> {
    if (this.#closed) return Promise.reject(noSpace());
    this.#becomeTight();
    return new Promise<void>(resolve => this.#wake.push(resolve)).then(() => {
      if (this.#closed) throw noSpace();
    });
  }

  // ---- ahead of need ---------------------------------------------------------------------------------------------------------

  /** A group has been written: prepares the next segment when the current one begins to fill. */
  committed(): void {
    const { end, capacity } = this.current;
    if (this.#next === undefined && !this.isTight && end > capacity / 4) void this.#prepare();
  }

  #prepare(): Promise<void> {
    this.#preparing ??= this.#oneAtATime(() => this.#prepareNext())
      .catch((error: unknown) => {
        if (isShortage(error)) this.#becomeTight();
        else this.#host.failed(error as Error);
      })
      .finally(() => {
        this.#preparing = undefined;
        this.#look();
      });
    return this.#preparing;
  }

  async #prepareNext(): Promise<void> {
    const { files, directory, segmentBytes, reserveBytes } = this.#options;
    this.#free = await files.free(directory);
    if (this.#closed) return;
    if (this.#next === undefined) {
      if (this.#free < segmentBytes + reserveBytes) throw noSpace();
      this.#next = await this.#create(segmentBytes);
    }
    this.isTight = false;
  }

  #becomeTight(): void {
    if (!this.isTight) {
      this.#host.warn(
        `the disk of ${this.#options.directory} is nearly full; messages that must be stored are refused until there is room`,
      );
    }
    this.isTight = true;
    this.#tryLater();
  }

  #tryLater(): void {
    if (this.#closed) return;
    this.#timer ??= this.#options.clock.setTimeout(() => {
      this.#timer = undefined;
      this.tryNow();
    }, RETRY);
  }

  /** Space may have come back. */
  tryNow(): void {
    if (this.#closed) return;
    if (this.#awaited) {
      this.#awaited = false;
      this.#host.room();
    }
    if (!this.isTight && !this.#refused && this.#wake.length === 0) return;
    const wake = this.#wake;
    this.#wake = [];
    for (const resolve of wake) resolve();
    void this.#prepare();
  }

  // ---- for appends -----------------------------------------------------------------------------------------------------------

  /** Bytes of records that appends may still add. */
  get #room(): number {
    const { end, capacity } = this.current;
    const next = this.#next === undefined ? 0 : this.#next.capacity - SEGMENT_HEADER;
    const rest = Math.max(0, capacity - end - COMMIT_SPACE);
    return rest + next + this.#free - this.#options.reserveBytes - this.#host.pendingBytes() - this.#ackRoom;
  }

  /** False when there is no room for so many more bytes: then `roomAgain` follows. */
  hasRoom(bytes: number): boolean {
    if (bytes <= this.#room) return true;
    this.#refused = true;
    this.#tryLater();
    return false;
  }

  /**
   * True when records of so many bytes fit, written in groups of up to `piece` bytes, with acknowledgements behind them. They
   * may use up the reserve. Where they do not, `room` of the host follows, to look again.
   */
  async canWrite(bytes: number, piece: number): Promise<boolean> {
    const { files, directory, segmentBytes } = this.#options;
    // Others fill disks too: what was free when it was last looked at may be gone.
    const free = await files.free(directory);
    const { end, capacity } = this.current;
    const rest = capacity - end;
    const all = bytes + this.#host.pendingBytes() + COMMIT_SPACE + this.#ackRoom;
    // A group that does not fit into what is left of a segment leaves that unused.
    const ends = all <= rest ? 0 : 1 + Math.floor((all - rest) / segmentBytes);
    if (all + ends * piece <= rest + (this.#next?.capacity ?? 0) + free) return true;
    this.#awaited = true;
    this.#tryLater();
    return false;
  }

  #look(): void {
    if (this.#refused && this.#room > this.#ackRoom) {
      this.#refused = false;
      this.#host.roomAgain();
    }
    if (this.#refused || this.isTight) this.#tryLater();
  }

  // ---- closing ---------------------------------------------------------------------------------------------------------------

  /** Nobody waits for room any longer. */
  stop(): void {
    this.#closed = true;
    this.#timer?.cancel();
    for (const resolve of this.#wake) resolve();
    this.#wake = [];
  }

  async close(): Promise<void> {
    await this.#preparing;
    for (const { file } of this.segments) await file.close().catch(() => undefined);
    await this.#next?.file.close().catch(() => undefined);
  }
}

function noSpace(): Error {
  return Object.assign(new Error('no space left on the disk'), { code: 'ENOSPC' });
}
