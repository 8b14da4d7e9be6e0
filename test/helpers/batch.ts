/** A batch as a client gets it, for tests of single parts. */
import type { Batch } from '../../src/batch.js';
import { itemsOf } from '../protocol/frame-table.js';
import { ENVELOPE } from './envelope.js';

/** Persistent messages of one sender for a channel, at consecutive positions. */
export function batchOf(channel: string, bodies: readonly Buffer[], first = 1): Batch {
  return {
    sender: { instance: 'a'.repeat(32), name: 'a' },
    envelope: { ...ENVELOPE, channels: [channel] },
    first,
    count: bodies.length,
    idBase: first,
    floor: 1,
    timestamp: 0,
    items: itemsOf(bodies.map(body => ({ delta: 0, body }))),
  };
}
