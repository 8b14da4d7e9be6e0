/** MESSAGES: the items, the ids, the aliases, and the memo of envelopes (docs/protocol.md, 5 and 6). */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { idCounters, sliceBatch, type Batch } from '../../src/batch.js';
import { Writer } from '../../src/protocol/bytes.js';
import { FRAME, FRAME_HEADER } from '../../src/protocol/constants.js';
import {
  decodeMessages,
  encodeMessagesHeader,
  encodeSlice,
  EnvelopeMemo,
  patchTimestamp,
  TIMESTAMP_OFFSET,
  type AliasLookup,
} from '../../src/protocol/messages.js';
import {
  aliases,
  batch,
  encodeMessages,
  ID_PREFIX,
  itemsOf,
  lookup,
  plainBatch,
  readMessages,
  SENDER_ALIAS,
} from './frame-table.js';

interface Parts {
  flags: number;
  sender: number;
  first: number;
  floor: number;
  idBase: number;
  count: number;
  channels: (writer: Writer) => Writer;
  clients: (writer: Writer) => Writer;
  rest: (writer: Writer) => Writer;
  items: Buffer;
}

const one = Buffer.from('02000000002a', 'hex');

/** A frame that is made by hand, right but for what a test changes. */
function frame(change: Partial<Parts> = {}): Buffer {
  const parts: Parts = {
    flags: 1,
    sender: SENDER_ALIAS,
    first: 1,
    floor: 1,
    idBase: 1,
    count: 1,
    channels: writer => writer.varint(1).varint(2),
    clients: writer => writer.varint(0),
    rest: writer => writer,
    items: one,
    ...change,
  };
  const writer = new Writer(FRAME.MESSAGES)
    .u8(parts.flags)
    .u48(0)
    .varint(parts.sender)
    .varint(parts.first)
    .varint(parts.floor)
    .varint(parts.idBase)
    .varint(parts.count);
  parts.channels(writer);
  parts.clients(writer);
  return parts.rest(writer).raw(parts.items).finish();
}

const empty = (writer: Writer): Writer => writer.varint(0);
const longDelta = Buffer.concat([Buffer.from('09000000', 'hex'), Buffer.alloc(9, 0x80)]);

describe('MESSAGES', () => {
  it('made by hand is read', () => {
    expect(readMessages(frame())).toMatchObject({ first: 1, count: 1, envelope: { channels: ['orders'] } });
  });

  it.each<[string, Partial<Parts>, string]>([
    ['a sender that was not announced', { sender: 9 }, 'protocol-error'],
    ['position 0', { first: 0, floor: 0 }, 'protocol-error'],
    ['a floor above the first position', { floor: 2 }, 'protocol-error'],
    ['no messages', { count: 0, items: Buffer.alloc(0) }, 'protocol-error'],
    ['positions beyond 2^53 − 1', { first: Number.MAX_SAFE_INTEGER }, 'protocol-error'],
    ['neither targets nor everyone', { channels: empty }, 'protocol-error'],
    ['targets and everyone', { flags: 3 }, 'protocol-error'],
    ['a channel that was not announced', { channels: w => w.varint(1).varint(4) }, 'protocol-error'],
    ['a channel’s number for a client', { channels: empty, clients: w => w.varint(1).varint(2) }, 'protocol-error'],
    ['more targets than there are bytes', { channels: w => w.varint(2 ** 45) }, 'protocol-error'],
    ['a name longer than the frame', { channels: w => w.varint(1).varint(2 ** 40 + 1) }, 'protocol-error'],
    ['an empty name in full', { channels: w => w.varint(1).varint(1) }, 'invalid-name'],
    ['a name with a line break', { channels: w => w.varint(1).varint(5).raw(Buffer.from('a\n')) }, 'invalid-name'],
    ['a header twice', { flags: 9, rest: w => w.varint(2).str('a').str('1').str('a').str('2') }, 'protocol-error'],
    ['a foreign prefix that is none', { flags: 65, rest: w => w.str('short') }, 'protocol-error'],
    ['fewer items than announced', { count: 2 }, 'protocol-error'],
    ['more items than announced', { items: Buffer.concat([one, one]) }, 'protocol-error'],
    ['an item that is cut short', { items: one.subarray(0, 5) }, 'protocol-error'],
    ['half the size of an item', { items: Buffer.concat([one, one.subarray(0, 3)]), count: 2 }, 'protocol-error'],
    ['an item of nothing', { items: Buffer.from('000000002a', 'hex') }, 'protocol-error'],
    ['an item of 4 GiB', { items: Buffer.from('ffffffff00', 'hex') }, 'protocol-error'],
    ['an id below 0', { idBase: 0, items: Buffer.from('0100000001', 'hex') }, 'protocol-error'],
    ['an id beyond 2^53 − 1', { idBase: Number.MAX_SAFE_INTEGER }, 'protocol-error'],
    ['a delta that never ends', { items: longDelta }, 'protocol-error'],
    ['a delta beyond its item', { items: Buffer.from('0100000080', 'hex') }, 'protocol-error'],
  ])('with %s is refused', (_what, change, code) => {
    expect(() => readMessages(frame(change))).toThrow(
      expect.objectContaining({ name: 'BroadcastError', code }) as unknown,
    );
  });

  it('with an id that leaves its range in the middle is refused', () => {
    const up = new Writer(0)
      .zigzag(2 ** 52 - 1)
      .finish()
      .subarray(FRAME_HEADER);
    const item = Buffer.concat([Buffer.from([up.length, 0, 0, 0]), up]);
    const items = Buffer.concat([item, item, item]);
    expect(() => readMessages(frame({ count: 3, items }))).toThrow('the counter of an id is out of range');
  });

  it('keeps a header named __proto__ as a header', () => {
    const { envelope } = readMessages(frame({ flags: 9, rest: w => w.varint(1).str('__proto__').str('x') }));
    expect(Object.entries(envelope.headers ?? {})).toEqual([['__proto__', 'x']]);
    expect(({} as Record<string, unknown>)['x']).toBeUndefined();
  });

  it('cut in parts says of each message what the whole says', () => {
    fc.assert(
      fc.property(batch, fc.nat(), fc.nat(), (whole, a, b) => {
        const offset = a % whole.count;
        const count = 1 + (b % (whole.count - offset));
        const pieces = encodeSlice(whole, offset, count, SENDER_ALIAS, aliases, ID_PREFIX);
        const part = readMessages(Buffer.concat(pieces));
        expect(part).toMatchObject({ first: whole.first + offset, count, floor: whole.floor });
        expect(idCounters(part)).toEqual(idCounters(whole).slice(offset, offset + count));
        expect(plainBatch(part)).toEqual(plainBatch(sliceBatch(whole, offset, count)));
      }),
    );
  });

  it('has its time written into it in place', () => {
    const bytes = frame();
    patchTimestamp(bytes, 1_767_225_600_000.7, FRAME_HEADER);
    expect(bytes.readUIntLE(TIMESTAMP_OFFSET, 6)).toBe(1_767_225_600_000);
    expect(readMessages(bytes).timestamp).toBe(1_767_225_600_000);
  });

  it('copies no body', () => {
    const bytes = frame();
    expect(readMessages(bytes).items.buffer).toBe(bytes.buffer);
  });

  it('says whether every target was a number', () => {
    const read = (change?: Partial<Parts>): boolean => decodeMessages(frame(change), lookup, undefined, 5).aliased;
    expect(read()).toBe(true);
    expect(read({ channels: w => w.varint(1).target(undefined, 'orders') })).toBe(false);
  });

  it('rounds what is left of a time to live up, and writes none that is over', () => {
    const value = readMessages(frame());
    const withTtl = (ttl: number): Batch => ({ ...value, envelope: { ...value.envelope, ttl } });
    expect(readMessages(encodeMessages(withTtl(0.2))).envelope.ttl).toBe(1);
    expect(readMessages(encodeMessages(withTtl(-5))).envelope.ttl).toBe(0);
  });
});

describe('the memo of envelopes', () => {
  it('reads every frame as it is read without it, whatever came before', () => {
    fc.assert(
      fc.property(fc.array(batch, { minLength: 1, maxLength: 8 }), batches => {
        const memo = new EnvelopeMemo();
        for (const value of [...batches, ...batches, ...batches.slice().reverse()]) {
          const bytes = encodeMessages(value);
          expect(plainBatch(readMessages(bytes, memo))).toEqual(plainBatch(readMessages(bytes)));
        }
      }),
    );
  });

  it('makes one envelope for a run of frames', () => {
    const memo = new EnvelopeMemo();
    const first = readMessages(frame(), memo);
    const second = readMessages(frame({ first: 2, floor: 2 }), memo);
    expect(second.envelope).toBe(first.envelope);
    expect(second.first).toBe(2);
    // Another flag, another sender, another target: another envelope.
    expect(readMessages(frame({ flags: 0 }), memo).envelope).toMatchObject({ persistent: false });
    expect(readMessages(frame(), memo).envelope).toMatchObject({ persistent: true });
  });

  it('does not take one section for a longer one, and reads a frame that ends early as cut short', () => {
    const memo = new EnvelopeMemo();
    readMessages(frame(), memo);
    const bytes = frame();
    for (let end = FRAME_HEADER; end < bytes.length; end++) {
      expect(() => readMessages(bytes.subarray(0, end), memo)).toThrow('malformed');
    }
  });

  it('keeps senders apart that differ in their prefix of ids', () => {
    const memo = new EnvelopeMemo();
    const two: AliasLookup = {
      ...lookup,
      channel: alias => lookup.channel(alias),
      client: alias => lookup.client(alias),
      sender: alias => ({
        identity: { instance: String(alias), name: undefined },
        idPrefix: `${'x'.repeat(15)}${String(alias)}`,
      }),
    };
    for (const sender of [1, 2, 1]) {
      const { batch: read } = decodeMessages(frame({ sender }), two, memo, FRAME_HEADER);
      expect(read.envelope.idPrefix).toBe(`${'x'.repeat(15)}${String(sender)}`);
      expect(read.sender.instance).toBe(String(sender));
    }
  });

  it('does not keep long sections', () => {
    const memo = new EnvelopeMemo();
    const long = frame({ flags: 5, rest: w => w.str('n'.repeat(255)) });
    expect(readMessages(long, memo).envelope).not.toBe(readMessages(long, memo).envelope);
  });

  it('is not fooled by what a view of a larger buffer has behind it', () => {
    const memo = new EnvelopeMemo();
    const larger = Buffer.concat([frame(), frame({ channels: w => w.varint(1).varint(400) })]);
    const length = frame().length;
    readMessages(larger.subarray(0, length), memo);
    expect(readMessages(larger.subarray(length), memo).envelope.channels).toEqual(['blöcke.🧱']);
  });
});

describe('the header of a frame', () => {
  it('uses numbers for names that have one, and names in full for others', () => {
    const value: Batch = {
      ...readMessages(frame()),
      items: itemsOf([{ delta: 0, body: Buffer.from([1]) }]),
    };
    const header = encodeMessagesHeader(value, SENDER_ALIAS, aliases, ID_PREFIX);
    const none = { channel: () => undefined, client: () => undefined };
    const full = encodeMessagesHeader(value, SENDER_ALIAS, none, ID_PREFIX);
    expect(full.length - header.length).toBe('orders'.length);
    expect(readMessages(Buffer.concat([full, value.items])).envelope.channels).toEqual(['orders']);
  });
});
