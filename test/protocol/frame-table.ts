/**
 * Every frame of the protocol, in one table: how it is written and read, what values it may have, and examples for the
 * golden vectors. The tests of this folder walk it, so that a frame without a row is a failure and not a gap.
 */
import fc from 'fast-check';
import { idCounters, itemOffsets, type Batch, type Envelope } from '../../src/batch.js';
import { checkName } from '../../src/names.js';
import { Reader, Writer, type WireRange } from '../../src/protocol/bytes.js';
import { FRAME, FRAME_HEADER } from '../../src/protocol/constants.js';
import * as frames from '../../src/protocol/frames.js';
import {
  decodeMessages,
  encodeMessagesHeader,
  type AliasLookup,
  type AliasSource,
  type EnvelopeMemo,
} from '../../src/protocol/messages.js';
import { FAILURE_REASONS, type DeliveryFailure } from '../../src/receipts.js';
import { ENVELOPE } from '../helpers/envelope.js';

// ---- what both sides know ------------------------------------------------------------------------------------------------

export const INSTANCE = '000102030405060708090a0b0c0d0e0f';
export const ID_PREFIX = 'AbCdEfGh01234-_z';
export const SENDER_ALIAS = 3;
const CHANNELS = new Map([
  ['orders', 1],
  ['blöcke.🧱', 200],
]);
const CLIENTS = new Map([['audit', 2]]);

export const aliases: AliasSource = { channel: name => CHANNELS.get(name), client: name => CLIENTS.get(name) };
const byAlias = (map: Map<string, number>, alias: number): string | undefined =>
  [...map].find(([, known]) => known === alias)?.[0];
export const lookup: AliasLookup = {
  channel: alias => byAlias(CHANNELS, alias),
  client: alias => byAlias(CLIENTS, alias),
  sender: alias =>
    alias === SENDER_ALIAS ? { identity: { instance: INSTANCE, name: 'billing' }, idPrefix: ID_PREFIX } : undefined,
};

// ---- arbitrary values ----------------------------------------------------------------------------------------------------

const isName = (name: string): boolean => {
  try {
    checkName(name, 'it');
    return true;
  } catch {
    return false;
  }
};
const varint = fc.oneof(fc.nat(300), fc.maxSafeNat());
const positive = varint.map(value => Math.max(1, value));
export const name = fc.oneof(
  fc.constantFrom('orders', 'blöcke.🧱', '__proto__', 'constructor', '../x', 'x'.repeat(255)),
  fc.string({ unit: 'grapheme', minLength: 1, maxLength: 40 }).filter(isName),
);
const nameOrEmpty = fc.oneof(name, fc.constant(''));
const text = fc.string({ unit: 'grapheme', maxLength: 60 });
const id16 = fc.uint8Array({ minLength: 16, maxLength: 16 }).map(bytes => Buffer.from(bytes).toString('hex'));
const idPrefix = fc.stringMatching(/^[A-Za-z0-9_-]{16}$/);
const extensions = fc
  .uniqueArray(fc.tuple(fc.string({ maxLength: 20 }), fc.uint8Array({ maxLength: 20 })), { selector: ([key]) => key })
  .map(entries => new Map(entries.map(([key, value]) => [key, Buffer.from(value)])));

/** Ascending, and not touching. */
const ranges: fc.Arbitrary<WireRange[]> = fc
  .array(fc.tuple(fc.nat(1000), fc.integer({ min: 1, max: 1000 })), { maxLength: 20 })
  .map(pairs => {
    let end = -1;
    return pairs.map(([gap, count]) => {
      const first = end + 1 + gap;
      end = first + count;
      return { first, count };
    });
  });

const receipts = fc.array(
  fc.record({
    first: fc.integer({ min: 1, max: 2 ** 40 }),
    count: fc.integer({ min: 1, max: 2 ** 20 }),
    status: fc.constantFrom('stored', 'delivered', 'routed', 'undelivered'),
    durability: fc.constantFrom('none', 'memory', 'fsync', 'replicated'),
    final: fc.boolean(),
  }),
  { maxLength: 20 },
);

const failure: fc.Arbitrary<frames.FailureFrame> = fc
  .record({
    notice: varint,
    position: varint,
    messageId: fc.stringMatching(/^[A-Za-z0-9_-]{16}[a-z0-9]{1,8}$/),
    target: fc.oneof(
      fc.record({ client: name }),
      fc.record({ channel: name }),
      fc.record({ client: name, channel: name }),
      fc.constant({}),
    ),
    reason: fc.constantFrom(...FAILURE_REASONS),
    queued: fc.boolean(),
    final: fc.boolean(),
    attempts: varint,
    at: fc.integer({ min: 0, max: 2 ** 48 - 1 }),
    count: fc.option(fc.integer({ min: 2 }), { nil: undefined }),
  })
  .map(({ notice, position, count, ...rest }) => {
    const aggregated: DeliveryFailure = count === undefined ? rest : { ...rest, count };
    return { notice, position, failure: aggregated };
  });

// ---- MESSAGES ------------------------------------------------------------------------------------------------------------

/** Bodies with the distance of each id from the one before it, as they are written. */
export function itemsOf(messages: readonly { delta: number; body: Uint8Array }[]): Buffer {
  return Buffer.concat(
    messages.map(({ delta, body }) => {
      const item = new Writer(0).zigzag(delta).raw(body).finish().subarray(FRAME_HEADER);
      const size = Buffer.alloc(4);
      size.writeUInt32LE(item.length);
      return Buffer.concat([size, item]);
    }),
  );
}

const targets = fc
  .tuple(fc.uniqueArray(name, { maxLength: 4 }), fc.uniqueArray(name, { maxLength: 4 }))
  .map(([channels, clients]) => ({ channels, clients, everyone: channels.length + clients.length === 0 }));

const envelope: fc.Arbitrary<Envelope> = fc
  .record({
    targets,
    name: fc.option(nameOrEmpty, { nil: undefined }),
    headers: fc.option(fc.dictionary(text, text, { maxKeys: 4 }), { nil: undefined }),
    persistent: fc.boolean(),
    tracked: fc.boolean(),
    resent: fc.boolean(),
    ttl: fc.option(fc.nat(), { nil: undefined }),
    idPrefix: fc.oneof(fc.constant(ID_PREFIX), idPrefix),
  })
  .map(({ targets: to, ...rest }) => ({ ...to, ...rest }));

export const batch: fc.Arbitrary<Batch> = fc
  .record({
    envelope,
    first: fc.integer({ min: 1, max: 2 ** 50 }),
    back: fc.nat(1000),
    idBase: fc.integer({ min: 5000, max: 2 ** 50 }),
    timestamp: fc.integer({ min: 0, max: 2 ** 48 - 1 }),
    messages: fc.array(
      fc.record({ delta: fc.oneof(fc.constant(0), fc.integer({ min: -100, max: 100_000 })), body: fc.uint8Array() }),
      { minLength: 1, maxLength: 20 },
    ),
  })
  .map(({ messages, back, ...rest }) => ({
    ...rest,
    sender: { instance: INSTANCE, name: 'billing' },
    floor: Math.max(0, rest.first - back),
    count: messages.length,
    items: itemsOf(messages),
  }));

export function encodeMessages(value: Batch): Buffer {
  return Buffer.concat([encodeMessagesHeader(value, SENDER_ALIAS, aliases, ID_PREFIX), value.items]);
}

/** A batch as it can be compared: what its frame says, and no more. */
export function plainBatch({ envelope: { headers, ...rest }, items, wire: _wire, ...numbers }: Batch): unknown {
  return {
    ...numbers,
    envelope: { ...rest, headers: headers === undefined ? undefined : Object.entries(headers) },
    items: items.toString('hex'),
    ids: idCounters({ ...numbers, envelope: { ...rest, headers }, items }),
    offsets: [...itemOffsets(items, numbers.count)],
  };
}

export function readMessages(frame: Buffer, memo?: EnvelopeMemo): Batch {
  return decodeMessages(frame, lookup, memo, FRAME_HEADER).batch;
}

// ---- the table -----------------------------------------------------------------------------------------------------------

export interface Row<T = unknown> {
  readonly type: number;
  /** The clause that describes it. */
  readonly clause: string;
  readonly values: fc.Arbitrary<T>;
  readonly examples: readonly T[];
  encode(value: T): Buffer;
  /** Reads a whole frame. */
  decode(frame: Buffer): T;
  /** What is compared, where the value itself cannot be. */
  plain?(value: T): unknown;
}

function row<T>(
  type: number,
  clause: string,
  values: fc.Arbitrary<T>,
  examples: readonly T[],
  encode: (value: T) => Buffer,
  decode: (reader: Reader) => T,
): Row<T> {
  return { type, clause, values, examples, encode, decode: frame => decode(new Reader(frame, FRAME_HEADER)) };
}

function rangesRow(type: number, clause: string): Row<WireRange[]> {
  const example = [
    { first: 1, count: 3 },
    { first: 5, count: 1 },
    { first: 300, count: 1000 },
  ];
  return row(type, clause, ranges, [[], example], value => frames.encodeRanges(type, value), frames.decodeRanges);
}

const empty = (type: number, clause: string, frame: Buffer): Row<null> =>
  row(
    type,
    clause,
    fc.constant(null),
    [null],
    () => frame,
    reader => {
      reader.done();
      return null;
    },
  );

const hello: frames.Hello = {
  generated: false,
  name: 'billing',
  instance: INSTANCE,
  idPrefix: ID_PREFIX,
  floor: 1,
  next: 1,
  store: '',
  host: '',
  pid: 0,
  pingInterval: 10_000,
  deadAfter: 25_000,
  extensions: new Map(),
};

const welcome: frames.Welcome = {
  known: false,
  stored: false,
  boot: 'f0e0d0c0b0a090807060504030201000',
  store: '7d3c6a9e51b24f08a1c2e3d4f5061728',
  sender: SENDER_ALIAS,
  durability: 'fsync',
  limits: {
    messageBytes: 1_048_576,
    headerBytes: 16_384,
    targets: 1024,
    nameBytes: 255,
    subscriptions: 10_000,
    windowMessages: 16_384,
    windowBytes: 4_194_304,
    sendWindow: 32_768,
    sendWindowBytes: 16_777_216,
  },
  pingInterval: 10_000,
  deadAfter: 25_000,
  address: '127.0.0.1:50123',
  taken: [],
  extensions: new Map(),
};

const exampleBatch: Batch = {
  sender: { instance: INSTANCE, name: 'billing' },
  envelope: { ...ENVELOPE, channels: ['orders'], idPrefix: ID_PREFIX },
  first: 1,
  count: 2,
  idBase: 40,
  floor: 1,
  timestamp: 1_767_225_600_000,
  items: itemsOf([
    { delta: 0, body: Buffer.from('00a568656c6c6f', 'hex') },
    { delta: 5, body: Buffer.from('0001', 'hex') },
  ]),
};

const richBatch: Batch = {
  ...exampleBatch,
  envelope: {
    channels: ['orders', 'blöcke.🧱', 'new.channel'],
    clients: ['audit', '127.0.0.1:50123'],
    everyone: false,
    name: 'invoice',
    headers: { trace: '7', __proto___: 'x' },
    persistent: true,
    tracked: true,
    resent: true,
    ttl: 90_000,
    idPrefix: 'otherProcess_000',
  },
  first: 70_000,
  floor: 69_999,
};

const everyoneBatch: Batch = {
  ...exampleBatch,
  envelope: { ...exampleBatch.envelope, channels: [], everyone: true, persistent: false },
  timestamp: 0,
};

const subscribe = fc.record({
  request: varint,
  channel: nameOrEmpty,
  concurrency: positive,
  window: varint,
  maxAttempts: positive,
});
const channelRequest = fc.record({ request: varint, channel: name });
const failureOf = (reason: DeliveryFailure['reason'], final: boolean): DeliveryFailure => ({
  messageId: `${ID_PREFIX}14`,
  target: { client: 'audit' },
  reason,
  queued: !final,
  final,
  attempts: final ? 5 : 0,
  at: 1_767_225_600_000,
});

export const ROWS: readonly Row[] = [
  row(
    FRAME.HELLO,
    '3.2',
    fc
      .record({
        generated: fc.boolean(),
        name: name.filter(value => !value.includes(':')),
        instance: id16,
        idPrefix,
        floor: varint,
        next: varint,
        store: fc.string({ maxLength: 64 }),
        host: fc.string({ maxLength: 255 }),
        pid: varint,
        pingInterval: positive,
        deadAfter: positive,
        extensions,
      })
      .map(value => ({ ...value, floor: Math.min(value.floor, value.next) })),
    [
      hello,
      {
        ...hello,
        generated: true,
        name: 'anonymous-1',
        floor: 17,
        next: 300,
        store: welcome.store,
        host: 'h',
        pid: 4711,
        extensions: new Map([['zone', Buffer.from('eu')]]),
      },
    ],
    frames.encodeHello,
    frames.decodeHello,
  ),
  row(
    FRAME.WELCOME,
    '3.3',
    fc.record({
      known: fc.boolean(),
      stored: fc.boolean(),
      boot: id16,
      store: fc.string({ maxLength: 64 }),
      sender: varint,
      durability: fc.constantFrom(...frames.DURABILITIES),
      limits: fc.record({
        messageBytes: varint,
        headerBytes: varint,
        targets: varint,
        nameBytes: varint,
        subscriptions: varint,
        windowMessages: varint,
        windowBytes: varint,
        sendWindow: varint,
        sendWindowBytes: varint,
      }),
      pingInterval: positive,
      deadAfter: positive,
      address: text,
      taken: ranges,
      extensions,
    }),
    [welcome, { ...welcome, known: true, stored: true, durability: 'memory', taken: [{ first: 17, count: 4 }] }],
    frames.encodeWelcome,
    frames.decodeWelcome,
  ),
  row(
    FRAME.SUBSCRIBE,
    '4.1',
    subscribe,
    [
      { request: 1, channel: 'orders', concurrency: 1, window: 0, maxAttempts: 5 },
      { request: 2, channel: '', concurrency: 8, window: 100, maxAttempts: 1 },
    ],
    frames.encodeSubscribe,
    frames.decodeSubscribe,
  ),
  row(
    FRAME.UNHANDLE,
    '4.2',
    fc.record({ request: varint, channel: nameOrEmpty }),
    [{ request: 3, channel: 'orders' }],
    frames.encodeUnhandle,
    frames.decodeChannelRequest,
  ),
  row(
    FRAME.UNSUBSCRIBE,
    '4.3',
    channelRequest,
    [{ request: 4, channel: 'orders' }],
    frames.encodeUnsubscribe,
    frames.decodeUnsubscribe,
  ),
  row(
    FRAME.SUBSCRIPTION,
    '4.4',
    fc.record({ present: fc.boolean(), channel: name }),
    [{ present: true, channel: 'orders' }],
    frames.encodeSubscription,
    frames.decodeSubscription,
  ),
  row(FRAME.FLUSH, '4.5', varint, [5], frames.encodeFlush, frames.decodeRequest),
  row(FRAME.OK, '4.6', varint, [1, 300, Number.MAX_SAFE_INTEGER], frames.encodeOk, frames.decodeRequest),
  row(
    FRAME.FAILED,
    '4.6',
    fc.record({ request: varint, code: fc.string({ maxLength: 40 }), retryable: fc.boolean(), text }),
    [{ request: 6, code: 'too-many-subscriptions', retryable: false, text: 'there are 10000 already' }],
    frames.encodeFailed,
    frames.decodeFailed,
  ),
  row(
    FRAME.ALIAS,
    '5.1',
    fc.record({ alias: varint, kind: fc.constantFrom(0, 1), name }),
    [
      { alias: 1, kind: 0, name: 'orders' },
      { alias: 2, kind: 1, name: 'audit' },
    ],
    frames.encodeAlias,
    frames.decodeAlias,
  ),
  row(
    FRAME.SENDER,
    '5.1',
    fc.record({
      alias: varint,
      instance: id16,
      name: nameOrEmpty,
      idPrefix: fc.oneof(idPrefix, fc.constant('')),
    }),
    [
      { alias: SENDER_ALIAS, instance: INSTANCE, name: 'billing', idPrefix: ID_PREFIX },
      { alias: 4, instance: welcome.boot, name: '', idPrefix: '' },
    ],
    frames.encodeSender,
    frames.decodeSender,
  ),
  row(
    FRAME.UNALIAS,
    '5.1',
    fc.record({ alias: varint, kind: fc.constantFrom(0, 1, 2) }),
    [{ alias: SENDER_ALIAS, kind: 2 }],
    frames.encodeUnalias,
    frames.decodeUnalias,
  ),
  {
    type: FRAME.MESSAGES,
    clause: '6.1',
    values: batch,
    examples: [exampleBatch, richBatch, everyoneBatch],
    encode: encodeMessages,
    decode: readMessages,
    plain: plainBatch,
  } satisfies Row<Batch>,
  row(
    FRAME.DELIVERY,
    '6.7',
    fc.record({
      redelivered: fc.boolean(),
      attempt: positive,
      subscriptions: fc.option(fc.array(nameOrEmpty, { maxLength: 5 }), { nil: undefined }),
      revival: fc.option(positive, { nil: undefined }),
    }),
    [
      { redelivered: true, attempt: 2, subscriptions: undefined, revival: undefined },
      { redelivered: false, attempt: 1, subscriptions: ['orders', ''], revival: undefined },
      { redelivered: true, attempt: 1, subscriptions: [''], revival: 1 },
    ],
    frames.encodeDelivery,
    frames.decodeDelivery,
  ),
  rangesRow(FRAME.ACK, '7.1'),
  row(
    FRAME.FAIL,
    '7.2',
    fc.record({ delivery: varint, channel: nameOrEmpty, attempt: positive, reason: text }),
    [{ delivery: 7, channel: 'orders', attempt: 1, reason: 'Error: no stock' }],
    frames.encodeFail,
    frames.decodeFail,
  ),
  row(
    FRAME.RETRY,
    '7.2',
    fc.record({ delivery: varint, channel: nameOrEmpty, attempt: positive }),
    [{ delivery: 7, channel: 'orders', attempt: 2 }],
    frames.encodeRetry,
    frames.decodeRetry,
  ),
  row(
    FRAME.REJECT,
    '7.3',
    fc.record({
      delivery: varint,
      channel: nameOrEmpty,
      kind: fc.constantFrom(...frames.REJECT_KINDS),
      attempts: varint,
      reason: text,
    }),
    frames.REJECT_KINDS.map(kind => ({ delivery: 7, channel: '', kind, attempts: 5, reason: kind })),
    frames.encodeReject,
    frames.decodeReject,
  ),
  rangesRow(FRAME.RELEASE, '7.4'),
  row(
    FRAME.RECEIPT,
    '8.1',
    receipts,
    [
      [
        { first: 1, count: 200, status: 'delivered', durability: 'none', final: false },
        { first: 201, count: 1, status: 'stored', durability: 'fsync', final: false },
        { first: 201, count: 1, status: 'undelivered', durability: 'none', final: true },
        { first: 100, count: 1, status: 'routed', durability: 'none', final: false },
      ],
    ],
    frames.encodeReceipts,
    frames.decodeReceipts,
  ),
  row(
    FRAME.FAILURE,
    '8.2',
    failure,
    [
      { notice: 0, position: 9, failure: failureOf('offline', false) },
      { notice: 12, position: 0, failure: { ...failureOf('rejected', true), target: { channel: 'orders' }, count: 3 } },
      {
        notice: 0,
        position: 9,
        failure: { ...failureOf('expired', true), target: { client: 'audit', channel: 'orders' } },
      },
      { notice: 0, position: 9, failure: { ...failureOf('dropped', true), target: {} } },
    ],
    frames.encodeFailure,
    frames.decodeFailure,
  ),
  rangesRow(FRAME.NOTED, '8.3'),
  row(FRAME.SETTLED, '8.4', varint, [300], frames.encodeSettled, frames.decodeRequest),
  rangesRow(FRAME.TRACK, '8.5'),
  empty(FRAME.PING, '9.1', frames.PING),
  empty(FRAME.PONG, '9.1', frames.PONG),
  row(
    FRAME.GOODBYE,
    '9.2',
    fc.record({ finished: fc.boolean(), text }),
    [
      { finished: true, text: '' },
      { finished: false, text: 'the server is stopping' },
    ],
    frames.encodeGoodbye,
    frames.decodeGoodbye,
  ),
  row(
    FRAME.ADMIN,
    '10.1',
    fc.record({ request: varint, verb: fc.string({ maxLength: 20 }), args: fc.json() }),
    [{ request: 1, verb: 'sessions', args: '{}' }],
    frames.encodeAdmin,
    frames.decodeAdmin,
  ),
  row(
    FRAME.ADMIN_REPLY,
    '10.1',
    fc.record({ request: varint, answer: fc.json() }),
    [{ request: 1, answer: '[]' }],
    frames.encodeAdminReply,
    frames.decodeAdminReply,
  ),
  row(
    FRAME.ERROR,
    '11.1',
    fc.record({ code: fc.string({ maxLength: 40 }), retryable: fc.boolean(), text }),
    [{ code: 'protocol-error', retryable: false, text: 'malformed frame: a field is cut short' }],
    frames.encodeError,
    frames.decodeError,
  ),
];

/** A value as it is compared and printed. */
export function plainOf(row: Row, value: unknown): unknown {
  return row.plain === undefined ? value : row.plain(value);
}
