/** Every frame: what is written is read again, and nothing else is (docs/protocol.md, 2.3). */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BroadcastError, isErrorCode } from '../../src/errors.js';
import { Reader, Writer } from '../../src/protocol/bytes.js';
import { FIRST_OPTIONAL, FRAME, FRAME_HEADER, frameName, maxFrameBytes } from '../../src/protocol/constants.js';
import * as frames from '../../src/protocol/frames.js';
import { plainOf, ROWS, type Row } from './frame-table.js';

/** A frame with other bytes behind its header, its length put right. */
function withPayload(type: number, payload: Uint8Array): Buffer {
  return new Writer(type).raw(payload).finish();
}

function codeOf(read: () => unknown): string | undefined {
  try {
    read();
    return undefined;
  } catch (error) {
    expect(error).toBeInstanceOf(BroadcastError);
    const { code } = error as BroadcastError;
    expect(isErrorCode(code)).toBe(true);
    return code;
  }
}

/** The payload of a frame that is made by hand. */
function payload(write: (writer: Writer) => Writer): Buffer {
  return write(new Writer(0)).finish();
}

const rows = ROWS.map(row => [frameName(row.type), row] as const);

describe('every frame', () => {
  it('has a row in the table, and a number of its own below the optional ones', () => {
    expect(ROWS.map(row => row.type).sort((a, b) => a - b)).toEqual(Object.values(FRAME).sort((a, b) => a - b));
    expect(new Set(Object.values(FRAME)).size).toBe(Object.values(FRAME).length);
    expect(Object.values(FRAME).every(type => type < FIRST_OPTIONAL)).toBe(true);
  });

  it.each(rows)('%s is read as it was written', (_name, row) => {
    fc.assert(
      fc.property(row.values, value => {
        const frame = row.encode(value);
        expect(frame.readUInt32LE(0)).toBe(frame.length - 4);
        expect(frame[4]).toBe(row.type);
        expect(plainOf(row, row.decode(frame))).toEqual(plainOf(row, value));
      }),
    );
  });

  it.each(rows)('%s is refused when it is cut short anywhere, or has a byte too many', (_name, row) => {
    fc.assert(
      fc.property(row.values, value => {
        const whole = row.encode(value).subarray(FRAME_HEADER);
        for (let end = 0; end < whole.length; end++) {
          expect(codeOf(() => row.decode(withPayload(row.type, whole.subarray(0, end))))).toBe('protocol-error');
        }
        const longer = Buffer.concat([whole, Buffer.from([0])]);
        expect(codeOf(() => row.decode(withPayload(row.type, longer)))).toBe('protocol-error');
      }),
      { numRuns: 25 },
    );
  });

  it.each(rows)('%s with any byte changed is read or refused with a code of the table', (_name, row) => {
    for (const example of row.examples) {
      const frame = row.encode(example);
      for (let at = FRAME_HEADER; at < frame.length; at++) {
        for (const byte of [0, 1, 0x7f, 0x80, 0xff, (frame[at] as number) ^ 0x20]) {
          const damaged = Buffer.from(frame);
          damaged[at] = byte;
          const code = codeOf(() => row.decode(damaged));
          if (code !== undefined) expect(['protocol-error', 'invalid-name']).toContain(code);
        }
      }
    }
  });
});

describe('fields out of their range', () => {
  const rowOf = (type: number): Row => ROWS.find(row => row.type === type)!;
  const read = (type: number, write: (writer: Writer) => Writer): string | undefined =>
    codeOf(() => rowOf(type).decode(withPayload(type, payload(write).subarray(FRAME_HEADER))));
  const nothing = (writer: Writer): Writer => writer.varint(0);

  const table: [what: string, type: number, write: (writer: Writer) => Writer, code: string][] = [
    ['a number in more bytes than it needs', FRAME.OK, w => w.u8(0x80).u8(0), 'protocol-error'],
    ['a number of nine bytes', FRAME.OK, w => w.raw(Buffer.alloc(8, 0xff)).u8(1), 'protocol-error'],
    ['a number above 2^53 − 1', FRAME.OK, w => w.raw(Buffer.from('ffffffffffffff7f', 'hex')), 'protocol-error'],
    ['a flag of 2', FRAME.SUBSCRIPTION, w => w.u8(2).str('x'), 'protocol-error'],
    ['a text that is not UTF-8', FRAME.ADMIN_REPLY, w => w.varint(1).bytes(Buffer.from([0xff])), 'protocol-error'],
    ['a lone surrogate', FRAME.ALIAS, w => w.varint(1).u8(0).bytes(Buffer.from('eda080', 'hex')), 'protocol-error'],
    [
      'a long text that is not UTF-8',
      FRAME.ADMIN_REPLY,
      w => w.varint(1).bytes(Buffer.alloc(100, 0xc3)),
      'protocol-error',
    ],
    ['an empty name', FRAME.ALIAS, w => w.varint(1).u8(0).str(''), 'invalid-name'],
    ['a name of 256 bytes', FRAME.ALIAS, w => w.varint(1).u8(0).str('x'.repeat(256)), 'invalid-name'],
    ['a name with NUL', FRAME.ALIAS, w => w.varint(1).u8(0).str('a\0b'), 'invalid-name'],
    ['a name with CR and LF', FRAME.ALIAS, w => w.varint(1).u8(0).str('a\r\nb'), 'invalid-name'],
    ['a name with an escape', FRAME.ALIAS, w => w.varint(1).u8(0).str('\x1b[31mred'), 'invalid-name'],
    ['a name with a C1 control', FRAME.ALIAS, w => w.varint(1).u8(0).str('a\u009bb'), 'invalid-name'],
    ['a name that is a pattern', FRAME.ALIAS, w => w.varint(1).u8(0).str('a.*'), 'invalid-name'],
    ['the alias of an unknown kind', FRAME.ALIAS, w => w.varint(1).u8(2).str('x'), 'protocol-error'],
    ['the end of an unknown kind of alias', FRAME.UNALIAS, w => w.varint(1).u8(3), 'protocol-error'],
    ['no concurrency', FRAME.SUBSCRIBE, w => w.varint(1).str('x').varint(0).varint(0).varint(1), 'protocol-error'],
    ['no attempts', FRAME.SUBSCRIBE, w => w.varint(1).str('x').varint(1).varint(0).varint(0), 'protocol-error'],
    ['a delivery’s attempt 0', FRAME.DELIVERY, w => w.u8(0).varint(0), 'protocol-error'],
    ['a revival 0', FRAME.DELIVERY, w => w.u8(4).varint(1).varint(0), 'protocol-error'],
    ['a delivery’s unknown flag', FRAME.DELIVERY, w => w.u8(8).varint(1), 'protocol-error'],
    [
      'more subscriptions than there are bytes',
      FRAME.DELIVERY,
      w =>
        w
          .u8(2)
          .varint(1)
          .varint(2 ** 40),
      'protocol-error',
    ],
    ['more ranges than there are bytes', FRAME.ACK, w => w.varint(2 ** 50), 'protocol-error'],
    [
      'a range beyond 2^53 − 1',
      FRAME.ACK,
      w => w.varint(1).varint(Number.MAX_SAFE_INTEGER).varint(1),
      'protocol-error',
    ],
    ['a failed attempt 0', FRAME.FAIL, w => w.varint(1).str('').varint(0).str(''), 'protocol-error'],
    ['a reason of 1,025 bytes', FRAME.FAIL, w => w.varint(1).str('').varint(1).str('x'.repeat(1025)), 'protocol-error'],
    ['a retry’s attempt 0', FRAME.RETRY, w => w.varint(1).str('').varint(0), 'protocol-error'],
    ['an unknown kind of rejection', FRAME.REJECT, w => w.varint(1).str('').u8(4).varint(1).str(''), 'protocol-error'],
    ['more receipts than there are bytes', FRAME.RECEIPT, w => w.varint(2 ** 40).varint(0), 'protocol-error'],
    ['a receipt for position 0', FRAME.RECEIPT, w => w.varint(1).zigzag(0).varint(0).u8(0), 'protocol-error'],
    ['a receipt for a negative position', FRAME.RECEIPT, w => w.varint(1).zigzag(-1).varint(0).u8(0), 'protocol-error'],
    [
      'a receipt beyond 2^53 − 1',
      FRAME.RECEIPT,
      w =>
        w
          .varint(1)
          .zigzag(2 ** 51)
          .varint(2 ** 53 - 2)
          .u8(0),
      'protocol-error',
    ],
    ['an unknown status', FRAME.RECEIPT, w => w.varint(1).zigzag(1).varint(0).u8(4), 'protocol-error'],
    ['an unknown durability', FRAME.RECEIPT, w => w.varint(1).zigzag(1).varint(0).u8(0x40), 'protocol-error'],
    [
      'an unknown kind of target',
      FRAME.FAILURE,
      w => w.varint(0).str('id').varint(1).u8(4).str('x').u8(0).u8(1).varint(0).u48(0).varint(1),
      'protocol-error',
    ],
    [
      'an unknown reason',
      FRAME.FAILURE,
      w => w.varint(0).str('id').varint(1).u8(2).u8(12).u8(1).varint(0).u48(0).varint(1),
      'protocol-error',
    ],
    [
      'a failure of no message',
      FRAME.FAILURE,
      w => w.varint(0).str('id').varint(1).u8(2).u8(0).u8(1).varint(0).u48(0).varint(0),
      'protocol-error',
    ],
    ['an id that is too long', FRAME.FAILURE, w => w.varint(0).str('x'.repeat(256)), 'protocol-error'],
    ['an error’s text of 257 bytes', FRAME.ERROR, w => w.str('closed').u8(0).str('x'.repeat(257)), 'protocol-error'],
    [
      'a prefix of 15 characters',
      FRAME.SENDER,
      w => w.varint(1).id16('0'.repeat(32)).str('').str('x'.repeat(15)),
      'protocol-error',
    ],
    ['bytes behind a PING', FRAME.PING, nothing, 'protocol-error'],
  ];

  it.each(table)('%s', (_what, type, write, code) => {
    expect(read(type, write)).toBe(code);
  });

  const helloWith = (change: Partial<Record<'flags' | 'name' | 'prefix' | 'ping' | 'floor' | 'extensions', unknown>>) =>
    payload(w => {
      w.varint((change.flags as number | undefined) ?? 0)
        .str((change.name as string | undefined) ?? 'x')
        .id16('0'.repeat(32))
        .str((change.prefix as string | undefined) ?? 'x'.repeat(16))
        .varint((change.floor as number | undefined) ?? 1)
        .varint(1)
        .str('')
        .str('')
        .varint(0)
        .varint((change.ping as number | undefined) ?? 1)
        .varint(1);
      const keys = (change.extensions as string[] | undefined) ?? [];
      w.varint(keys.length);
      for (const key of keys) w.str(key).bytes(Buffer.alloc(0));
      return w;
    });
  const readHello = (frame: Buffer): string | undefined =>
    codeOf(() => frames.decodeHello(new Reader(frame, FRAME_HEADER)));

  it.each([
    ['a floor above the next position', { floor: 2 }, 'protocol-error'],
    ['a prefix with a blank', { prefix: 'x'.repeat(15) + ' ' }, 'protocol-error'],
    ['no prefix', { prefix: '' }, 'protocol-error'],
    ['an interval of 0', { ping: 0 }, 'protocol-error'],
    ['an extension twice', { extensions: ['a', 'a'] }, 'protocol-error'],
    ['a name like an address', { name: 'host:9000' }, 'invalid-name'],
    ['an empty name', { name: '' }, 'invalid-name'],
  ] as const)('HELLO with %s', (_what, change, code) => {
    expect(readHello(helloWith(change))).toBe(code);
  });

  it('ignores flags of HELLO and WELCOME that it does not know', () => {
    expect(frames.decodeHello(new Reader(helloWith({ flags: 2 ** 40 + 1 }), FRAME_HEADER)).generated).toBe(true);
    expect(readHello(helloWith({ flags: 2 }))).toBeUndefined();
  });

  it('knows the durabilities and no other', () => {
    const frame = Buffer.from(rowOf(FRAME.WELCOME).encode(rowOf(FRAME.WELCOME).examples[0] as never));
    const at = frame.indexOf(Buffer.from([3, 1, 0x80, 0x80, 0x40])) + 1; // sender, durability, messageBytes
    frame[at] = 3;
    expect(codeOf(() => frames.decodeWelcome(new Reader(frame, FRAME_HEADER)))).toBe('protocol-error');
  });
});

describe('the writer', () => {
  it('refuses what the notation cannot carry', () => {
    const writer = new Writer(1);
    expect(() => writer.u8(256)).toThrow(RangeError);
    expect(() => writer.u8(-1)).toThrow(RangeError);
    expect(() => writer.u8(NaN)).toThrow(RangeError);
    expect(() => writer.u48(2 ** 48)).toThrow(RangeError);
    expect(() => writer.varint(-1)).toThrow(RangeError);
    expect(() => writer.varint(0.5)).toThrow(RangeError);
    expect(() => writer.varint(2 ** 53)).toThrow(RangeError);
    expect(() => writer.id16('00')).toThrow(RangeError);
    expect(() => writer.id16('x'.repeat(32))).toThrow(RangeError);
    expect(() => writer.id16('0'.repeat(34))).toThrow(RangeError);
    expect(() => writer.str('a\ud800b')).toThrow(expect.objectContaining({ code: 'invalid-name' }));
    expect(() =>
      writer.ranges([
        { first: 5, count: 1 },
        { first: 6, count: 1 },
      ]),
    ).toThrow(RangeError);
  });

  it('writes numbers in the shortest form, and reads them again', () => {
    fc.assert(
      fc.property(fc.maxSafeInteger(), value => {
        const frame = payload(w => w.zigzag(value % 2 ** 52));
        const reader = new Reader(frame, FRAME_HEADER);
        expect(reader.zigzag()).toBe(value % 2 ** 52);
        reader.done();
      }),
    );
  });
});

describe('texts for people', () => {
  it('are cut between characters, and lone surrogates are made harmless', () => {
    expect(frames.cutText('aä🧱', 2)).toBe('a');
    expect(frames.cutText('aä🧱', 6)).toBe('aä');
    expect(frames.cutText('aä🧱', 7)).toBe('aä🧱');
    expect(frames.cutText('a\ud800', 10)).toBe('a\ufffd');
  });

  it('are at most 256 bytes in ERROR, and 1,024 elsewhere', () => {
    const long = '🧱'.repeat(1000);
    const error = frames.encodeError({ code: 'closed', retryable: false, text: long });
    expect(frames.decodeError(new Reader(error, FRAME_HEADER)).text).toBe('🧱'.repeat(64));
    const failed = frames.encodeFailed({ request: 1, code: 'closed', retryable: false, text: long });
    expect(frames.decodeFailed(new Reader(failed, FRAME_HEADER)).text).toBe('🧱'.repeat(256));
  });

  it('from a peer cannot move a cursor, and codes that are not known are kept in the text', () => {
    const known = frames.errorFromPeer({ code: 'closed', retryable: true, text: 'a\x1b[2Jb\u009b' });
    expect(known).toMatchObject({ code: 'closed', message: 'a [2Jb ', retryable: false });
    const unknown = frames.errorFromPeer({ code: 'from-the-future', retryable: true, text: 'later' });
    expect(unknown).toMatchObject({ code: 'protocol-error', retryable: true });
    expect(unknown.message).toContain('from-the-future');
  });
});

describe('numbers of the protocol', () => {
  it('names types for logs', () => {
    expect(frameName(FRAME.HELLO)).toBe('HELLO');
    expect(frameName(0x7f)).toBe('0x7f');
  });

  it('leave room in the longest frame for everything that the limits allow', () => {
    expect(maxFrameBytes({ messageBytes: 1, headerBytes: 0, targets: 1 })).toBe(256 * 1024 + 260 + 1024);
    expect(maxFrameBytes({ messageBytes: 1_048_576, headerBytes: 16_384, targets: 1024 })).toBe(1_364_992);
  });
});
