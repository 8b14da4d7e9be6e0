/**
 * Throws bytes at the parser and every decoder: frames that are damaged, joined, cut and made up. Whatever comes, the
 * answer is a frame or a BroadcastError of the table, in bounded memory; anything else ends the run with its input.
 */
import { BroadcastError, isErrorCode } from '../../src/errors.js';
import { FRAME_HEADER, PREAMBLE } from '../../src/protocol/constants.js';
import { EnvelopeMemo } from '../../src/protocol/messages.js';
import { FrameParser } from '../../src/protocol/parser.js';
import { seeded } from '../helpers/proxy.js';
import { readMessages, ROWS } from './frame-table.js';

export interface FuzzResult {
  executions: number;
  frames: number;
  refused: Record<string, number>;
}

const rows = ROWS;
const byType = new Map(rows.map(row => [row.type, row]));
const corpus = rows.flatMap(row => row.examples.map(example => row.encode(example as never)));
const OPENING = 4096;
const INTERESTING = [0, 1, 2, 0x7f, 0x80, 0x81, 0xfe, 0xff];

export class Fuzzer {
  readonly seed: number;
  readonly #random: () => number;
  readonly result: FuzzResult = { executions: 0, frames: 0, refused: {} };

  readonly #also: (type: number, frame: Buffer) => void;

  /** `also` looks at every frame that was read; a test breaks something with it. */
  constructor(seed: number, also: (type: number, frame: Buffer) => void = () => undefined) {
    this.seed = seed;
    this.#also = also;
    this.#random = seeded(seed);
  }

  /** Runs one input. Throws, with the input in the text, when the answer is not one of the protocol's. */
  once(): void {
    this.result.executions++;
    const input = this.#input();
    try {
      this.#feed(input);
    } catch (error) {
      const { code } = error as { code?: unknown };
      if (!(error instanceof BroadcastError) || typeof code !== 'string' || !isErrorCode(code)) {
        throw new Error(
          `seed ${String(this.seed)}, execution ${String(this.result.executions)}: ${input.toString('hex')}`,
          {
            cause: error,
          },
        );
      }
      this.result.refused[code] = (this.result.refused[code] ?? 0) + 1;
    }
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  #pick<T>(from: readonly T[]): T {
    return from[this.#below(from.length)] as T;
  }

  #input(): Buffer {
    const frames = Array.from({ length: 1 + this.#below(4) }, () => this.#frame());
    const start = this.#below(10) === 0 ? this.#damage(PREAMBLE, 1) : PREAMBLE;
    return Buffer.concat([start, ...frames]);
  }

  /** A frame: damaged with its length put right, so that the decoder sees it, or damaged anywhere, or made up. */
  #frame(): Buffer {
    const kind = this.#below(10);
    if (kind === 0) return this.#noise(this.#below(64));
    if (kind === 1) return this.#pick(corpus);
    if (kind === 2) return this.#damage(this.#pick(corpus), 1 + this.#below(3));
    let payload = this.#damage(this.#pick(corpus).subarray(FRAME_HEADER - 1), 1 + this.#below(4));
    if (this.#below(4) === 0) payload = payload.subarray(0, this.#below(payload.length + 1));
    if (this.#below(4) === 0) payload = Buffer.concat([payload, this.#noise(this.#below(16))]);
    if (this.#below(8) === 0) payload = Buffer.concat([payload, this.#pick(corpus)]);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(payload.length);
    return Buffer.concat([length, payload]);
  }

  #noise(size: number): Buffer {
    return Buffer.from(Array.from({ length: size }, () => this.#below(256)));
  }

  #damage(bytes: Buffer, times: number): Buffer {
    const damaged = Buffer.from(bytes);
    for (let i = 0; i < times && damaged.length > 0; i++) {
      const at = this.#below(damaged.length);
      damaged[at] = this.#below(2) === 0 ? this.#pick(INTERESTING) : (damaged[at] as number) ^ (1 << this.#below(8));
    }
    return damaged;
  }

  #feed(input: Buffer): void {
    const memo = new EnvelopeMemo();
    const parser: FrameParser = new FrameParser(
      {
        onPreamble: () => parser.setMaxFrame(64 * 1024),
        onFrame: (type, frame) => {
          this.result.frames++;
          const row = byType.get(type);
          if (row === undefined) return;
          const value = row.decode(frame);
          if (type === 0x10) readMessages(frame, memo);
          // What was read can be written again, and then says the same.
          const again = row.encode(value);
          row.decode(again);
          this.#also(type, frame);
        },
      },
      OPENING,
    );
    let at = 0;
    while (at < input.length) {
      const size = this.#below(3) === 0 ? input.length : 1 + this.#below(16);
      parser.push(input.subarray(at, at + size));
      at += size;
      if (parser.allocated > 2 * input.length + 512) throw new Error('more memory than bytes');
    }
  }
}
