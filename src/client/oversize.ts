/**
 * What was put into the outbox before a server was known, or under another one's limits, and is too large for this one:
 * sending it would end the connection, again and again.
 */
import { ITEM_HEADER, itemOffsets, type Envelope } from '../batch.js';
import { sizeOfHeaders, type MessageLimits } from '../outgoing.js';

/** What a server lets pass beyond `messageBytes`: the id delta that stands before a body. */
const DELTA = 8;

function envelopeExceeds(
  { channels, clients, headers, name }: Envelope,
  { headerBytes, targets, nameBytes }: MessageLimits,
): boolean {
  if (channels.length + clients.length > targets) return true;
  if (headers !== undefined && sizeOfHeaders(headers) > headerBytes) return true;
  return [...channels, ...clients, name ?? ''].some(text => Buffer.byteLength(text) > nameBytes);
}

/** The indexes of the messages of a batch that exceed the limits. */
export function oversize(envelope: Envelope, items: Buffer, count: number, limits: MessageLimits): number[] {
  const all = envelopeExceeds(envelope, limits);
  if (!all && items.length <= limits.messageBytes) return [];
  const offsets = itemOffsets(items, count);
  const indexes: number[] = [];
  for (let i = 0; i < count; i++) {
    const size = (offsets[i + 1] as number) - (offsets[i] as number) - ITEM_HEADER;
    if (all || size > limits.messageBytes + DELTA) indexes.push(i);
  }
  return indexes;
}
