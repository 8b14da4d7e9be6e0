/**
 * The body decoder: single bodies, plain and as tables, whose bytes or nodes are damaged, and batches of them, which are
 * decoded together where that can be. A batch's message says what its body says alone, and what was decoded can be
 * encoded again and is the same.
 */
import { Packr } from 'msgpackr';
import { BroadcastError } from '../../../src/errors.js';
import { decodeBody, encodeBody } from '../../../src/body/index.js';
import { ReceivedBatch } from '../../../src/received.js';
import { batchOf } from '../../helpers/batch.js';
import { difference } from '../../helpers/same.js';
import type { Target } from './fuzz.js';
import type { Mutator } from './mutator.js';

const packr = new Packr({ useRecords: false, variableMapSize: true });
const TABLE_HEAD = 6;
/** Larger values are not compared: that recurses. */
const COMPARED = 1500;

const shared = { a: 1 };
const cyclic: Record<string, unknown> = { shared, again: shared };
cyclic['self'] = cyclic;
const VALUES: readonly unknown[] = [
  null,
  -1.5,
  'hello',
  'ünïcödé 🧱 '.repeat(8),
  [1, 2, 3, [4, [5, [6]]]],
  { id: 7, name: 'block', tags: ['a', 'b'], at: { x: 1, y: -300, z: 70_000 }, none: undefined },
  Array.from({ length: 40 }, (_, i) => ({ i, text: `row ${String(i)}` })),
  JSON.parse('{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}'),
  new Map<unknown, unknown>([
    ['a', 1n],
    [{ b: 2 }, new Set(['x', -0, NaN])],
  ]),
  [1n, -(2n ** 80n), new Date(5), new Date(NaN), /x\p{L}+/giu, Object(5), Object('s'), '\ud800'],
  Object.assign(new RangeError('bad'), { code: 'E', cause: new AggregateError([new Error('in')], 'all') }),
  [new Uint8Array([1, 2, 3]), new Float64Array([1.5]), new BigInt64Array(2), new ArrayBuffer(9), Buffer.from('buf')],
  Object.assign([], { 3: 'x', 70: 'y' }),
  cyclic,
];
const BODIES: readonly Buffer[] = VALUES.map(value => encodeBody(value));
const TABLES = BODIES.filter(body => body[0] === 0xc9).map(body => body.subarray(TABLE_HEAD));

const FIELDS: readonly unknown[] = [
  ...[0, 1, 2, -1, 1.5, NaN, 16, 99, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53],
  ...[
    '',
    'f',
    '-',
    'length',
    '__proto__',
    'constructor',
    'prototype',
    'toString',
    'Error',
    'AggregateError',
    'Float64Array',
  ],
  ...['stack', 'cause', 'errors', 'name', '(', 'gimsuy', '\\p{L}', '0', '4294967295', 'f'.repeat(200)],
  ...[null, true, [], {}, Buffer.alloc(3), Buffer.alloc(0)],
];

function tableOf(content: Buffer): Buffer {
  const head = Buffer.from([0xc9, 0, 0, 0, 0, 1]);
  head.writeUInt32BE(content.length, 1);
  return Buffer.concat([head, content]);
}

/** A body: as it should be, made up, or damaged with the size of its table put right or not. */
function hostileBody(mutator: Mutator): Buffer {
  switch (mutator.below(6)) {
    case 0:
      return mutator.pick(BODIES);
    case 1:
      return mutator.noise(1 + mutator.below(40));
    case 2:
      return tableOf(mutator.bytes(mutator.pick(TABLES), TABLES));
    case 3:
      return tableOf(packr.pack(hostileNodes(mutator)));
    default:
      return mutator.bytes(mutator.pick(BODIES), BODIES);
  }
}

/** Nodes of a table, some with other fields, more of them, or none. */
function hostileNodes(mutator: Mutator): unknown[] {
  const nodes = packr.unpack(mutator.pick(TABLES)) as unknown[];
  for (let edits = 1 + mutator.below(3); edits > 0; edits--) {
    const i = mutator.below(nodes.length + 1);
    const node = nodes[i];
    const value = mutator.onceIn(2) ? mutator.pick(FIELDS) : mutator.below(nodes.length + 2);
    if (!Array.isArray(node) || mutator.onceIn(8)) nodes.splice(i, mutator.below(2), [mutator.below(17), value, 0]);
    else if (mutator.onceIn(3)) node.push(value, mutator.below(nodes.length + 1));
    else node[mutator.below(node.length + 1)] = value;
  }
  return nodes;
}

export interface Bodies {
  /** One alone, or a batch. */
  readonly bodies: readonly Buffer[];
  /** What came of one is sent on and compared, which takes longer than all the rest. */
  readonly compare: boolean;
}

export const bodiesTarget: Target<Bodies> = {
  name: 'bodies',
  codes: ['body-invalid'],
  make: mutator => ({
    bodies: Array.from({ length: mutator.onceIn(12) ? 2 + mutator.below(4) : 1 }, () => hostileBody(mutator)),
    compare: mutator.onceIn(8),
  }),
  run: ({ bodies, compare }) => (bodies.length === 1 ? alone(bodies[0] as Buffer, compare) : together(bodies)),
  sizeOf: ({ bodies }) => bodies.reduce((sum, { length }) => sum + length, 0),
  toText: ({ bodies, compare }) => [String(compare), ...bodies.map(body => body.toString('hex'))].join(' '),
  fromText: text => {
    const [compare, ...bodies] = text.split(' ');
    return { bodies: bodies.map(hex => Buffer.from(hex, 'hex')), compare: compare === 'true' };
  },
};

function alone(body: Buffer, compare: boolean): string {
  // Somewhere in a larger buffer, as bodies come.
  const around = Buffer.concat([Buffer.alloc(3, 0xce), body, Buffer.alloc(3, 0xce)]);
  const value = decodeBody(around, 3, 3 + body.length);
  if (!compare || body.length > COMPARED) return 'value';
  const other = difference(value, decodeBody(encodeBody(value)));
  if (other !== undefined) throw new Error(`what was decoded changes when it is sent on: ${other}`);
  return 'value';
}

function together(bodies: readonly Buffer[]): string {
  const batch = new ReceivedBatch(batchOf('c', bodies));
  let refused = 0;
  bodies.forEach((body, i) => {
    const alone = answerOf(() => decodeBody(body));
    const inBatch = answerOf(() => batch.message(i).data);
    if (alone === undefined) refused++;
    const isSame =
      alone === undefined || inBatch === undefined
        ? alone === inBatch
        : body.length > COMPARED || difference(alone.value, inBatch.value) === undefined;
    if (!isSame) throw new Error(`body ${String(i)} says something else in the batch`);
  });
  return refused === 0 ? 'values' : refused === bodies.length ? 'none of a batch' : 'some of a batch';
}

function answerOf(read: () => unknown): { readonly value: unknown } | undefined {
  try {
    return { value: read() };
  } catch (error) {
    if (error instanceof BroadcastError && error.code === 'body-invalid') return undefined;
    throw error;
  }
}
