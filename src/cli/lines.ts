/**
 * Lines of a stream of bytes. Only a line feed ends a line: what other readers take for an end (a lone carriage return,
 * U+2028) may stand in the middle of valid JSON. Chunks may cut anything, characters too.
 */
import { constants } from 'node:buffer';

/** Longer lines are refused, so that input without line ends does not fill the memory. */
const MAX_LINE_BYTES = Math.min(256 * 1024 * 1024, constants.MAX_STRING_LENGTH);

export interface Line {
  /** From 1. */
  readonly number: number;
  /** Undefined when it is not valid UTF-8 or too long; then `fault` says so. */
  readonly text: string | undefined;
  readonly fault: string | undefined;
  readonly bytes: number;
}

const LF = 0x0a;

/** The lines, without their ends; the last one may lack its end. */
export async function* linesOf(input: AsyncIterable<Buffer>, maxBytes = MAX_LINE_BYTES): AsyncGenerator<Line> {
  let pieces: Buffer[] = [];
  let size = 0;
  let number = 0;
  const take = (last: Buffer): Line => {
    const bytes = pieces.length === 0 ? last : Buffer.concat([...pieces, last]);
    pieces = [];
    size = 0;
    number++;
    return lineOf(bytes, number);
  };
  for await (const chunk of input) {
    let from = 0;
    for (let at = chunk.indexOf(LF); at >= 0; at = chunk.indexOf(LF, from)) {
      yield take(chunk.subarray(from, at));
      from = at + 1;
    }
    if (from === chunk.length) continue;
    pieces.push(chunk.subarray(from));
    size += chunk.length - from;
    if (size <= maxBytes) continue;
    yield { number: number + 1, text: undefined, fault: `is longer than ${String(maxBytes)} bytes`, bytes: size };
    return;
  }
  if (size > 0) yield take(Buffer.alloc(0));
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function lineOf(bytes: Buffer, number: number): Line {
  const end = bytes[bytes.length - 1] === 0x0d ? bytes.length - 1 : bytes.length;
  const start = number === 1 && bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0;
  try {
    return { number, text: decoder.decode(bytes.subarray(start, end)), fault: undefined, bytes: bytes.length };
  } catch {
    return { number, text: undefined, fault: 'is not valid UTF-8', bytes: bytes.length };
  }
}
