/** What the conformance cases store: small batches whose items say who they are. */
import { randomBytes } from 'node:crypto';
import { itemOffsets, ITEM_HEADER, type Batch, type Envelope } from '../../batch.js';
import type { AppendBatch, StoredRun } from '../engine.js';

export interface SampleOptions {
  readonly instance?: string;
  readonly name?: string | undefined;
  readonly first?: number;
  readonly envelope?: Partial<Envelope>;
  /** Bytes of each body; by default those of the text only. */
  readonly bodyBytes?: number;
  readonly expiresAt?: number;
}

export const INSTANCE = '0123456789abcdef0123456789abcdef';

/** A new sender's id. */
export function newInstance(): string {
  return randomBytes(16).toString('hex');
}

/** A batch with a message for each text. */
export function sampleBatch(texts: readonly string[], options: SampleOptions = {}): Batch {
  const items = texts.map(text => {
    const body = Buffer.from(text.padEnd(options.bodyBytes ?? 0));
    const item = Buffer.alloc(ITEM_HEADER + 1 + body.length);
    item.writeUInt32LE(1 + body.length, 0);
    body.copy(item, ITEM_HEADER + 1);
    return item;
  });
  return {
    sender: { instance: options.instance ?? INSTANCE, name: 'name' in options ? options.name : 'sender' },
    envelope: {
      idPrefix: 'AAAAAAAAAAAA',
      channels: ['channel'],
      clients: [],
      everyone: false,
      persistent: true,
      tracked: false,
      resent: false,
      name: undefined,
      headers: undefined,
      ttl: undefined,
      ...options.envelope,
    },
    first: options.first ?? 1,
    count: texts.length,
    idBase: (options.first ?? 1) - 1,
    floor: 1,
    timestamp: 1_767_225_600_000,
    items: Buffer.concat(items),
  };
}

/** A batch, whole, for queues. */
export function appendTo(
  queues: readonly string[],
  texts: readonly string[],
  options: SampleOptions = {},
): AppendBatch {
  return {
    batch: sampleBatch(texts, options),
    expiresAt: options.expiresAt ?? 0,
    queues: queues.map(queue => ({ queue, offset: 0, count: texts.length })),
  };
}

/** The texts of a batch's messages. */
export function textsOf({ items, count }: Batch): string[] {
  const offsets = itemOffsets(items, count);
  return Array.from({ length: count }, (_, i) =>
    items.toString('utf8', (offsets[i] as number) + ITEM_HEADER + 1, offsets[i + 1]).trimEnd(),
  );
}

/** The messages of runs, each with its handle. */
export function messagesOf(runs: readonly StoredRun[]): { handle: number; text: string }[] {
  return runs.flatMap(({ handle, batch }) => textsOf(batch).map((text, i) => ({ handle: handle + i, text })));
}
