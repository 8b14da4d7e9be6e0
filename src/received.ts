/** The messages of a batch, as their receiver sees them: decoded at once for handlers, when first read for observers. */
import { idCounters, ITEM_HEADER, itemOffsets, type Batch } from './batch.js';
import { decodeBody } from './body/index.js';
import { formatId, lazyMessage, receivedMessage, type BroadcastMessage, type MessageFields } from './message.js';

const NO_HEADERS: Readonly<Record<string, string>> = Object.freeze({});

export class ReceivedBatch {
  readonly #batch: Batch;
  readonly #offsets: Uint32Array;
  readonly #ids: number[];

  constructor(batch: Batch) {
    this.#batch = batch;
    this.#offsets = itemOffsets(batch.items, batch.count);
    this.#ids = idCounters(batch);
  }

  /** A message with its data. Throws `body-invalid`. */
  message(index: number): BroadcastMessage {
    return receivedMessage(this.#fields(index, this.#decode(index)));
  }

  /** A message whose data is decoded when it is first read; that throws `body-invalid` when it is damaged. */
  lazyMessage(index: number): BroadcastMessage {
    return lazyMessage(this.#fields(index, undefined), () => this.#decode(index));
  }

  #decode(index: number): unknown {
    const { items } = this.#batch;
    let start = (this.#offsets[index] as number) + ITEM_HEADER;
    while ((items[start++] as number) >= 0x80); // the delta of the id
    return decodeBody(items, start, this.#offsets[index + 1]);
  }

  #fields(index: number, data: unknown): MessageFields<unknown> {
    const { envelope, sender, timestamp } = this.#batch;
    return {
      id: formatId(envelope.idPrefix, this.#ids[index] as number),
      clients: envelope.clients,
      channels: envelope.channels,
      name: envelope.name,
      data,
      persistent: envelope.persistent,
      headers: envelope.headers ?? NO_HEADERS,
      ttl: envelope.ttl,
      sender: sender.name,
      timestamp,
    };
  }
}
