// node bench/micro/run.js [--smoke] [CASE …]: the pieces that every message passes through, without sockets and processes.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { build, isStale } from '../../scripts/build.js';
import { payload } from '../payload.js';
import { measure } from './measure.js';

const DIST = new URL('../../dist/cjs/', import.meta.url);
if (!existsSync(fileURLToPath(DIST)) || isStale()) build();
const require = createRequire(DIST);

const { encodeBody, decodeBody, writeBody } = require('./body/index.js');
const { BroadcastMessage, idOf, processIdPrefix } = require('./message.js');
const { Outbox } = require('./client/outbox.js');
const { LazyReceipt } = require('./lazy-receipt.js');
const { decodeMessages, encodeMessagesHeader } = require('./protocol/messages.js');
const { FrameParser } = require('./protocol/parser.js');
const { FRAME_HEADER, PREAMBLE } = require('./protocol/constants.js');
const { encodeBatch } = require('./engine/disk/batch-record.js');
const { RECORD, sealRecord } = require('./engine/disk/record.js');
const { systemClock } = require('./clock.js');

const COUNT = 256;
const identity = { instance: '0123456789abcdef'.repeat(2), name: 'publisher' };
const aliases = { channel: () => 7, client: () => undefined };
const lookup = {
  channel: () => 'bench',
  client: () => undefined,
  sender: () => ({ identity, idPrefix: processIdPrefix }),
};

const CONNECTION = { sender: 3, sendWindow: 1e9, sendWindowBytes: 1e12, taken: [], known: true };

/** An outbox whose output is kept; everything in it is settled by `settle`. */
function newOutbox() {
  const pieces = [];
  const outbox = new Outbox({
    clock: systemClock,
    identity,
    aliases,
    limits: { outboxMessages: 1e9, outboxBytes: 1e12, messageBytes: 1e6 },
    write: ({ data }, buffer, at) => writeBody(data, buffer, at),
    send: piece => pieces.push(piece),
    wake: () => undefined,
    failed: () => undefined,
    drained: () => undefined,
    emptied: () => undefined,
  });
  outbox.online(CONNECTION);
  return { outbox, pieces };
}

/** A batch and its frame, as a publisher makes them from these objects. */
function batchOf(objects) {
  const { outbox, pieces } = newOutbox();
  for (const data of objects) {
    const message = BroadcastMessage.createChannelMessage('bench', data);
    const id = idOf(message);
    outbox.add(message, id, new LazyReceipt(id), false);
  }
  outbox.pump();
  const frame = Buffer.concat(pieces);
  return { frame, batch: decodeMessages(frame.subarray(FRAME_HEADER), lookup).batch };
}

function bodyCases(size) {
  const { make } = payload(size);
  const objects = Array.from({ length: COUNT }, (_, n) => make(n));
  const bodies = objects.map(data => Buffer.from(encodeBody(data)));
  const texts = objects.map(data => JSON.stringify(data));
  const each = (values, work) => () => {
    for (const value of values) work(value);
  };
  return {
    encode: each(objects, encodeBody),
    decode: each(bodies, body => decodeBody(body)),
    'JSON encode': each(objects, JSON.stringify),
    'JSON decode': each(texts, JSON.parse),
  };
}

function pathCases(size) {
  const { make } = payload(size);
  const objects = Array.from({ length: COUNT }, (_, n) => make(n));
  const { frame, batch } = batchOf(objects.slice(0, Math.max(1, Math.min(COUNT, Math.floor(30_000 / size)))));
  const perFrame = COUNT / batch.count;
  const { outbox, pieces } = newOutbox();
  let position = 1;
  const parser = new FrameParser({ onPreamble: () => undefined, onFrame: () => undefined }, 2 ** 30);
  parser.push(PREAMBLE);
  parser.setMaxFrame(2 ** 30);
  const record = {
    handle: 1,
    expiresAt: Infinity,
    batch,
    placements: [{ queue: 'q', offset: 0, count: batch.count, attempts: 0 }],
  };
  const repeated = work => () => {
    for (let i = 0; i < perFrame; i++) work();
  };
  return {
    'message created': () => {
      for (const data of objects) BroadcastMessage.createChannelMessage('bench', data);
    },
    'encoded into the outbox, and settled': () => {
      for (const data of objects) {
        const message = BroadcastMessage.createChannelMessage('bench', data);
        const id = idOf(message);
        outbox.add(message, id, new LazyReceipt(id), false);
      }
      outbox.pump();
      outbox.settle([{ first: position, count: COUNT, status: 'delivered', durability: 'none', final: false }]);
      position += COUNT;
      pieces.length = 0;
    },
    'MESSAGES header encoded': repeated(() => encodeMessagesHeader(batch, 3, aliases, processIdPrefix)),
    'MESSAGES decoded': repeated(() => decodeMessages(frame.subarray(FRAME_HEADER), lookup)),
    'frames parsed': repeated(() => parser.push(frame)),
    'log record encoded and sealed': repeated(() => sealRecord(encodeBatch(RECORD.BATCH, record), 0, 1, 64)),
  };
}

const wanted = process.argv.slice(2).filter(word => word !== '--smoke');
const effort = process.argv.includes('--smoke') ? { rounds: 1, roundMs: 0 } : {};
for (const size of [16, 128, 1024, 16384]) {
  const all = { ...bodyCases(size), ...pathCases(size) };
  const cases = Object.fromEntries(
    Object.entries(all).filter(([name]) => wanted.length === 0 || wanted.some(word => name.includes(word))),
  );
  console.log(`\n${size} bytes, ns for one message: median (best)`);
  for (const [name, { median, low }] of Object.entries(measure(cases, { per: COUNT, ...effort })))
    console.log(`  ${name.padEnd(32)}${median.toFixed(1).padStart(10)} (${low.toFixed(1)})`);
}
