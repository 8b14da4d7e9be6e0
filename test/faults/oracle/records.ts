/**
 * What the processes of a scenario have noted: a file for each process, a record a line, in the order in which it happened.
 * Times are of the monotonic clock that all processes of a machine share.
 */
import { closeSync, openSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import type { DeliveryFailure, Receipt } from '../../../src/index.js';

interface Begin {
  readonly k: 'sender' | 'receiver';
  readonly name: string;
  /** One process, which is one instance: `name.number`. */
  readonly process: string;
}

/** Before a message is sent. */
interface Intent {
  readonly k: 'intent';
  /** The number in its process, from 1. */
  readonly n: number;
  /** What the library calls it. */
  readonly id: string;
  /** Everyone who is to get it, as `name/subscription`; the subscription to what is addressed to the name itself is empty. */
  readonly to: readonly string[];
  readonly persistent: boolean;
  readonly until: 'safe' | 'delivered';
  readonly ttl?: number;
  readonly crc: number;
}

interface Got {
  readonly k: 'got';
  /** `process:n` of the sender. */
  readonly key: string;
  readonly sub: string;
  readonly attempt: number;
  readonly redelivered: boolean;
  readonly crc: number;
}

interface Ended {
  readonly k: 'done' | 'threw';
  readonly key: string;
  readonly sub: string;
}

interface ReceiptRecord extends Pick<Receipt, 'status' | 'durability' | 'failures'> {
  readonly k: 'receipt';
  readonly n: number;
}

interface Refused {
  readonly k: 'refused';
  readonly n: number;
  readonly code: string;
}

/** Online: subscriptions are in force. Closed: it has left in order, and has noted everything. */
interface Life {
  readonly k: 'online' | 'closed';
}

export type Entry =
  Begin | Intent | Got | Ended | ReceiptRecord | Refused | ({ readonly k: 'notice' } & DeliveryFailure) | Life;

/** An entry and when it was noted. */
export type HistoryRecord = Entry & { readonly t: number };

/** What one process has noted. */
export type History = readonly HistoryRecord[];

/** Reads histories while they are written. */
export class Histories {
  readonly #folder: string;
  readonly #files = new Map<string, { records: HistoryRecord[]; at: number; rest: Buffer }>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Everything that was read. */
  get all(): readonly History[] {
    return [...this.#files.values()].map(({ records }) => records);
  }

  readAll(): void {
    for (const _ of this.read());
  }

  /** Reads what is new. A line that has no end yet, or never will because its process was killed, is left out. */
  *read(): Generator<{ process: string; record: HistoryRecord }> {
    for (const name of readdirSync(this.#folder).sort()) {
      if (!name.endsWith('.jsonl')) continue;
      const file = this.#files.get(name) ?? { records: [], at: 0, rest: Buffer.alloc(0) };
      this.#files.set(name, file);
      const bytes = readFrom(join(this.#folder, name), file.at);
      file.at += bytes.length;
      const text = Buffer.concat([file.rest, bytes]);
      const end = text.lastIndexOf(10) + 1;
      file.rest = text.subarray(end);
      if (end === 0) continue;
      for (const record of parse(text.toString('utf8', 0, end - 1), name)) {
        file.records.push(record);
        yield { process: name.slice(0, -'.jsonl'.length), record };
      }
    }
  }
}

function parse(lines: string, name: string): HistoryRecord[] {
  return lines.split('\n').map(line => {
    try {
      return JSON.parse(line) as HistoryRecord;
    } catch (error) {
      throw new Error(`${name} holds a line that is no record: ${line}`, { cause: error });
    }
  });
}

function readFrom(path: string, at: number): Buffer {
  const file = openSync(path, 'r');
  try {
    const pieces: Buffer[] = [];
    for (let position = at; ;) {
      const piece = Buffer.allocUnsafe(256 * 1024);
      const length = readSync(file, piece, 0, piece.length, position);
      if (length === 0) return Buffer.concat(pieces);
      pieces.push(piece.subarray(0, length));
      position += length;
    }
  } finally {
    closeSync(file);
  }
}
