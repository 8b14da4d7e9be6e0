/**
 * The table of the other path, which is MessagePack as well: msgpackr writes and reads it. What may be handed to it is decided
 * by `checkTable`, which bounds depth and declared sizes by the bytes that are there, so that hostile input costs no more
 * than its length.
 */
import { Packr } from 'msgpackr';
import { MAX_DEPTH } from './decode-plain.js';
import { invalid } from './invalid.js';

const packr = new Packr({ useRecords: false, copyBuffers: true, variableMapSize: true, int64AsType: 'bigint' });

/** A view of a buffer that is not written again. */
export function encodeTable(table: readonly unknown[]): Buffer {
  return packr.pack(table);
}

/** Decodes the bytes from `start` to `end`. Throws `body-invalid`. */
export function decodeTable(bytes: Buffer, start: number, end: number): unknown {
  checkTable(bytes, start, end);
  try {
    return packr.unpack(bytes, { start, end }) as unknown;
  } catch (error) {
    throw invalid('its bytes are not valid', error);
  }
}

const counts = new Float64Array(MAX_DEPTH + 4);

/**
 * Walks MessagePack from `start` to `end` without building anything: depth, every declared length against what is left,
 * no extension but undefined, no trailing bytes.
 */
function checkTable(bytes: Uint8Array, start: number, end: number): void {
  let at = start;
  let depth = 0;
  counts[0] = 1;
  for (;;) {
    while ((counts[depth] as number) === 0) {
      if (depth === 0) {
        if (at !== end) throw invalid('bytes are left over');
        return;
      }
      depth--;
    }
    counts[depth] = (counts[depth] as number) - 1;
    if (at >= end) throw invalid('it is cut short');
    const byte = bytes[at++] as number;
    let children = -1;
    if (byte < 0x80 || byte >= 0xe0) continue;
    else if (byte < 0x90) children = (byte & 0x0f) * 2;
    else if (byte < 0xa0) children = byte & 0x0f;
    else if (byte < 0xc0) at += byte & 0x1f;
    else {
      switch (byte) {
        case 0xc0:
        case 0xc2:
        case 0xc3:
          continue;
        case 0xc4:
        case 0xc5:
        case 0xc6: {
          const width = byte === 0xc4 ? 1 : byte === 0xc5 ? 2 : 4;
          const size = readSize(bytes, at, width, end);
          at += width + size;
          break;
        }
        case 0xca:
          at += 4;
          break;
        case 0xcb:
        case 0xcf:
        case 0xd3:
          at += 8;
          break;
        case 0xcc:
        case 0xd0:
          at += 1;
          break;
        case 0xcd:
        case 0xd1:
          at += 2;
          break;
        case 0xce:
        case 0xd2:
          at += 4;
          break;
        case 0xd4:
          if (bytes[at] !== 0 || bytes[at + 1] !== 0) throw invalid('it has an extension that is not known');
          at += 2;
          break;
        case 0xd9:
        case 0xda:
        case 0xdb: {
          const width = byte === 0xd9 ? 1 : byte === 0xda ? 2 : 4;
          const size = readSize(bytes, at, width, end);
          at += width + size;
          break;
        }
        case 0xdc:
          children = readSize(bytes, at, 2, end);
          at += 2;
          break;
        case 0xdd:
          children = readSize(bytes, at, 4, end);
          at += 4;
          break;
        case 0xde:
          children = readSize(bytes, at, 2, end) * 2;
          at += 2;
          break;
        case 0xdf:
          children = readSize(bytes, at, 4, end) * 2;
          at += 4;
          break;
        default:
          throw invalid('it has an extension that is not known');
      }
    }
    if (at > end) throw invalid('it is cut short');
    if (children < 0) continue;
    if (children > end - at) throw invalid('it announces more than it has');
    if (++depth > MAX_DEPTH) throw invalid('it is nested too deep');
    counts[depth] = children;
  }
}

function readSize(bytes: Uint8Array, at: number, width: number, end: number): number {
  if (at + width > end) throw invalid('it is cut short');
  let size = 0;
  for (let i = 0; i < width; i++) size = size * 256 + (bytes[at + i] as number);
  return size;
}
