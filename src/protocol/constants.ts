/** The numbers of the protocol (docs/protocol.md). */

/** 3.1 */
export const MAGIC = [0x89, 0x42, 0x43, 0x53] as const;
export const VERSION = 1;
export const PREAMBLE_BYTES = 8;
export const PREAMBLE: Buffer = Buffer.from([...MAGIC, VERSION, VERSION, 0, 0]);

/** 2.1: bytes in front of a frame's payload. */
export const FRAME_HEADER = 5;

export const FRAME = {
  HELLO: 0x01,
  WELCOME: 0x02,
  SUBSCRIBE: 0x03,
  UNHANDLE: 0x04,
  UNSUBSCRIBE: 0x05,
  SUBSCRIPTION: 0x06,
  FLUSH: 0x07,
  OK: 0x08,
  FAILED: 0x09,
  ALIAS: 0x0a,
  SENDER: 0x0b,
  UNALIAS: 0x0c,
  MESSAGES: 0x10,
  DELIVERY: 0x11,
  ACK: 0x12,
  FAIL: 0x13,
  RETRY: 0x14,
  REJECT: 0x15,
  RELEASE: 0x16,
  RECEIPT: 0x18,
  FAILURE: 0x19,
  NOTED: 0x1a,
  SETTLED: 0x1b,
  TRACK: 0x1c,
  PING: 0x20,
  PONG: 0x21,
  GOODBYE: 0x22,
  ADMIN: 0x28,
  ADMIN_REPLY: 0x29,
  ERROR: 0x30,
} as const;

const NAMES = new Map<number, string>(Object.entries(FRAME).map(([name, type]) => [type, name]));

/** The name of a frame's type, for logs. */
export function frameName(type: number): string {
  return NAMES.get(type) ?? `0x${type.toString(16)}`;
}

/** 2.3: types from here up are ignored when they are not known. */
export const FIRST_OPTIONAL = 0x80;

/** 6.1: flags of MESSAGES. */
export const MESSAGE_FLAG = {
  PERSISTENT: 1,
  EVERYONE: 2,
  NAME: 4,
  HEADERS: 8,
  TTL: 16,
  TRACKED: 32,
  FOREIGN_ID: 64,
  RESENT: 128,
} as const;
export const MESSAGE_FLAGS = 255;

/** 2.2: small messages share a frame up to here, whatever the limits; receipts and acknowledgements have room too. */
const MIN_BODIES = 256 * 1024;

/** 2.2: the largest frame once the opening is done. A name takes up to 260 bytes, a header up to thrice its own. */
export function maxFrameBytes(limits: { messageBytes: number; headerBytes: number; targets: number }): number {
  return Math.max(MIN_BODIES, limits.messageBytes) + limits.headerBytes * 3 + limits.targets * 260 + 1024;
}
