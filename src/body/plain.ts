/**
 * The plain path of the body codec: values that MessagePack has a form for. They are written by encode-plain.ts and read by
 * msgpackr. What may be handed to the decoder is decided by `checkPlain`, which bounds depth and declared sizes by the bytes
 * that are there, so that hostile input costs no more than its length.
 */
import { Packr } from 'msgpackr';
import { BroadcastError } from '../errors.js';
import { MAX_PLAIN_DEPTH } from './encode-plain.js';

const packr = new Packr({ useRecords: false, copyBuffers: true, variableMapSize: true, int64AsType: 'bigint' });

/** Encodes the table of the other path, which may hold bytes. A view of a buffer that is not written again. */
export function encodeTable(table: readonly unknown[]): Buffer {
  return packr.pack(table);
}

/** The part of a buffer that is decoded; one for all, as decoding never waits. */
const part = { start: 0, end: 0 };

/**
 * Decodes the bytes from `start` to `end`, which `checkPlain` has passed. They are not made a view of their own: msgpackr
 * keeps a DataView with each buffer that it is given, and a batch of messages shares one.
 */
export function decodePlain(bytes: Buffer, start: number, end: number): unknown {
  part.start = start;
  part.end = end;
  try {
    return packr.unpack(bytes, part) as unknown;
  } catch (error) {
    throw invalid('its bytes are not valid', error);
  }
}

export function invalid(text: string, cause?: unknown): BroadcastError {
  return new BroadcastError('body-invalid', `the body of the message cannot be decoded: ${text}`, { cause });
}

const counts = new Float64Array(MAX_PLAIN_DEPTH + 8);

/**
 * Walks MessagePack from `start` to `end` without building anything: depth, every declared length against what is left,
 * no extension but undefined, no trailing bytes. `binary` allows byte strings (the table of the other path has them).
 */
export function checkPlain(bytes: Uint8Array, start: number, end: number, binary: boolean): void {
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
          if (!binary) throw invalid('it has a byte string on the plain path');
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
    if (++depth > MAX_PLAIN_DEPTH + 4) throw invalid('it is nested too deep');
    counts[depth] = children;
  }
}

function readSize(bytes: Uint8Array, at: number, width: number, end: number): number {
  if (at + width > end) throw invalid('it is cut short');
  let size = 0;
  for (let i = 0; i < width; i++) size = size * 256 + (bytes[at + i] as number);
  return size;
}
