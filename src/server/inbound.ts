/** Whether what a client sends keeps the server's limits. */
import { ITEM_HEADER, type Batch } from '../batch.js';
import { PeerFault } from '../broker/ports.js';
import { sizeOfHeaders } from '../outgoing.js';

/** The longest delta of an id, which the size of an item counts as well. */
const MAX_DELTA = 8;

/** Throws `too-many-targets`, `message-too-large`, `headers-too-large` as faults of the peer. */
export function checkBatch(
  { envelope, items, count }: Batch,
  limits: { messageBytes: number; headerBytes: number; targets: number },
): void {
  if (envelope.channels.length + envelope.clients.length > limits.targets)
    throw new PeerFault('too-many-targets', `a message has more than ${String(limits.targets)} targets`);
  if (items.length > limits.messageBytes) checkItems(items, count, limits.messageBytes);
  if (envelope.headers !== undefined && sizeOfHeaders(envelope.headers) > limits.headerBytes)
    throw new PeerFault('headers-too-large', `the headers have more than ${String(limits.headerBytes)} bytes`);
}

function checkItems(items: Buffer, count: number, messageBytes: number): void {
  for (let i = 0, at = 0; i < count; i++) {
    const size = items.readUInt32LE(at);
    if (size > messageBytes + MAX_DELTA)
      throw new PeerFault('message-too-large', `a message has more than ${String(messageBytes)} bytes`);
    at += ITEM_HEADER + size;
  }
}
