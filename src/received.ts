/** The messages of a batch, as their receiver sees them: decoded at once for handlers, when first read for observers. */
import { idCounters, ITEM_HEADER, itemOffsets, type Batch } from './batch.js';
import { decodeBody } from './body/index.js';
import { formatId, lazyMessage, receivedMessage, type BroadcastMessage, type MessageFields } from './message.js';

const NO_HEADERS: Readonly<Record<string, string>> = Object.freeze({});

export class ReceivedBatch {
  readonly #items: Buffer;
  readonly #idPrefix: string;
  readonly #offsets: Uint32Array;
  readonly #ids: number[];
  /** What the messages have in common, and the id and data of the one that is being made. */
  readonly #fields: MessageFields<unknown>;

  constructor(batch: Batch) {
    const { envelope, items, sender, timestamp } = batch;
    this.#items = items;
    this.#idPrefix = envelope.idPrefix;
    this.#offsets = itemOffsets(items, batch.count);
    this.#ids = idCounters(batch);
    this.#fields = {
      id: '',
      clients: envelope.clients,
      channels: envelope.channels,
      name: envelope.name,
      data: undefined,
      persistent: envelope.persistent,
      headers: envelope.headers ?? NO_HEADERS,
      ttl: envelope.ttl,
      sender: sender.name,
      timestamp,
    };
  }

  /** A message with its data. Throws `body-invalid`. */
  message(index: number): BroadcastMessage {
    return receivedMessage(this.#fieldsOf(index, this.#decode(index)));
  }

  /** A message whose data is decoded when it is first read; that throws `body-invalid` when it is damaged. */
  lazyMessage(index: number): BroadcastMessage {
    return lazyMessage(this.#fieldsOf(index, undefined), () => this.#decode(index));
  }

  #decode(index: number): unknown {
    return decodeBody(this.#items, this.#bodyAt(index), this.#offsets[index + 1]);
  }

  #bodyAt(index: number): number {
    const items = this.#items;
    let start = (this.#offsets[index] as number) + ITEM_HEADER;
    while ((items[start++] as number) >= 0x80); // the delta of the id
    return start;
  }

  /** The same object each time: a message copies what it needs. */
  #fieldsOf(index: number, data: unknown): MessageFields<unknown> {
    const fields = this.#fields;
    fields.id = formatId(this.#idPrefix, this.#ids[index] as number);
    fields.data = data;
    return fields;
  }
}
