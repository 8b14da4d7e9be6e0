/** The frame parser and every decoder: conversations that are damaged, joined, made up, and cut anywhere. */
import { FRAME, FRAME_HEADER, PREAMBLE } from '../../../src/protocol/constants.js';
import { EnvelopeMemo } from '../../../src/protocol/messages.js';
import { FrameParser } from '../../../src/protocol/parser.js';
import { seeded } from '../../helpers/seeded.cjs';
import { readMessages, ROWS } from '../../protocol/frame-table.js';
import type { Target } from './fuzz.js';
import type { Mutator } from './mutator.js';

export interface Conversation {
  readonly bytes: Buffer;
  /** Decides where they are cut. */
  readonly cuts: number;
}

const byType = new Map(ROWS.map(row => [row.type, row]));
export const FRAMES: readonly Buffer[] = ROWS.flatMap(row => row.examples.map(example => row.encode(example as never)));
const OPENING = 4096;
const MAX_FRAME = 64 * 1024;

/** A frame: damaged with its length put right, so that the decoder sees it, or damaged anywhere, or made up. */
export function hostileFrame(mutator: Mutator, corpus: readonly Buffer[] = FRAMES): Buffer {
  const kind = mutator.below(10);
  if (kind === 0) return mutator.noise(mutator.below(64));
  if (kind === 1) return mutator.pick(corpus);
  if (kind === 2) return mutator.bytes(mutator.pick(corpus), corpus);
  const payload = mutator.bytes(mutator.pick(corpus).subarray(FRAME_HEADER - 1), corpus);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(payload.length);
  return Buffer.concat([length, payload]);
}

/** `also` sees every frame that was read; a test breaks something with it. */
export function framesTarget(also: (type: number, frame: Buffer) => void = () => undefined): Target<Conversation> {
  return {
    name: 'frames',
    codes: [
      'not-broadcast',
      'protocol-version',
      'protocol-error',
      'frame-too-large',
      'handshake-too-large',
      'invalid-name',
    ],
    make: mutator => {
      const frames = Array.from({ length: 1 + mutator.below(4) }, () => hostileFrame(mutator));
      const start = mutator.onceIn(10) ? mutator.bytes(PREAMBLE, FRAMES, 1) : PREAMBLE;
      return { bytes: Buffer.concat([start, ...frames]), cuts: mutator.below(2 ** 31) };
    },
    run: input => feed(input, also),
    sizeOf: ({ bytes }) => bytes.length,
    toText: ({ bytes, cuts }) => `${String(cuts)} ${bytes.toString('hex')}`,
    fromText: text => {
      const [cuts, hex] = text.split(' ') as [string, string];
      return { bytes: Buffer.from(hex, 'hex'), cuts: Number(cuts) };
    },
  };
}

function feed({ bytes, cuts }: Conversation, also: (type: number, frame: Buffer) => void): string {
  const random = seeded(cuts);
  const memo = new EnvelopeMemo();
  let frames = 0;
  const parser: FrameParser = new FrameParser(
    {
      onPreamble: () => parser.setMaxFrame(MAX_FRAME),
      onFrame: (type, frame) => {
        frames++;
        const row = byType.get(type);
        if (row === undefined) return;
        const value = row.decode(frame);
        if (type === FRAME.MESSAGES) readMessages(frame, memo);
        // What was read can be written again, and is read again.
        row.decode(row.encode(value));
        also(type, frame);
      },
    },
    OPENING,
  );
  for (let at = 0; at < bytes.length;) {
    const size = random() < 0.3 ? bytes.length : 1 + Math.floor(random() * 16);
    parser.push(bytes.subarray(at, at + size));
    at += size;
    if (parser.allocated > 2 * bytes.length + 512) throw new Error('more memory than bytes');
  }
  return frames > 0 ? 'frames' : 'nothing yet';
}
