/**
 * The first bytes of a segment: which store it is of, and the salt without which none of its records can be told from
 * noise. They are written twice, a sector apart, so that one bad sector does not cost the segment.
 *
 *   0        8         12     16       24            32        48         56         60    64      512          576      1024
 *   ┌────────┬─────────┬──────┬────────┬─────────────┬─────────┬──────────┬──────────┬─────┬───────┬────────────┬────────┐
 *   │ magic  │ version │ salt │ number │ next handle │ storeId │ capacity │ followed │ crc │ 0     │ the same   │ 0      │ records …
 *   └────────┴─────────┴──────┴────────┴─────────────┴─────────┴──────────┴──────────┴─────┴───────┴────────────┴────────┘
 */
import { crc32 } from 'node:zlib';

/** Where the records begin. */
export const SEGMENT_HEADER = 1024;
const COPY = 512;
const LENGTH = 64;
const MAGIC = 'BCSTLOG\n';
const FORMAT_VERSION = 1;

export interface SegmentHeader {
  readonly number: number;
  readonly storeId: string;
  readonly salt: number;
  /** The next handle when the segment was made: handles go on from here even when older segments are gone. */
  readonly nextHandle: number;
  /** Bytes that the file has at least, if nobody has cut it off; 0 when nobody knows. */
  readonly capacity: number;
  /** There is another one behind it. Said before that one is written to, so that it is known when it is missing. */
  readonly followed: boolean;
}

export function encodeSegmentHeader(header: SegmentHeader): Buffer {
  const bytes = Buffer.alloc(SEGMENT_HEADER);
  bytes.write(MAGIC, 0, 'latin1');
  bytes.writeUInt32LE(FORMAT_VERSION, 8);
  bytes.writeUInt32LE(header.salt, 12);
  bytes.writeDoubleLE(header.number, 16);
  bytes.writeDoubleLE(header.nextHandle, 24);
  bytes.write(header.storeId, 32, 16, 'hex');
  bytes.writeDoubleLE(header.capacity, 48);
  bytes.writeUInt32LE(header.followed ? 1 : 0, 56);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, LENGTH - 4)), LENGTH - 4);
  bytes.copy(bytes, COPY, 0, LENGTH);
  return bytes;
}

/** What a segment's first bytes are; `repaired` when only the copy was whole. */
export function decodeSegmentHeader(
  bytes: Buffer,
): { readonly header: SegmentHeader; readonly repaired: boolean } | 'foreign' | 'newer' | 'damaged' {
  const first = decodeOne(bytes.subarray(0, LENGTH));
  if (typeof first === 'object') return { header: first, repaired: false };
  const second = decodeOne(bytes.subarray(COPY, COPY + LENGTH));
  if (typeof second === 'object') return { header: second, repaired: true };
  if (first === 'newer' || second === 'newer') return 'newer';
  // Without our magic in either place it was never a segment, unless it is too short to say.
  return first === 'foreign' && second === 'foreign' ? 'foreign' : 'damaged';
}

function decodeOne(bytes: Buffer): SegmentHeader | 'foreign' | 'newer' | 'damaged' {
  if (bytes.length < LENGTH) return 'damaged';
  if (bytes.toString('latin1', 0, 8) !== MAGIC) return 'foreign';
  if (bytes.readUInt32LE(LENGTH - 4) !== crc32(bytes.subarray(0, LENGTH - 4))) return 'damaged';
  if (bytes.readUInt32LE(8) > FORMAT_VERSION) return 'newer';
  const number = bytes.readDoubleLE(16);
  const nextHandle = bytes.readDoubleLE(24);
  if (!Number.isSafeInteger(number) || !Number.isSafeInteger(nextHandle) || nextHandle < 0) return 'damaged';
  return {
    salt: bytes.readUInt32LE(12),
    number,
    nextHandle,
    storeId: bytes.toString('hex', 32, 48),
    capacity: bytes.readDoubleLE(48),
    followed: bytes.readUInt32LE(56) !== 0,
  };
}
