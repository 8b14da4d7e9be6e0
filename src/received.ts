/** The messages of a batch, as their receiver sees them: decoded at once for handlers, when first read for observers. */
import { idCounters, ITEM_HEADER, itemOffsets, type Batch } from './batch.js';
import { decodeBodies, decodeBody } from './body/index.js';
import { formatId, lazyMessage, receivedMessage, type BroadcastMessage, type MessageFields } from './message.js';

const NO_HEADERS: Readonly<Record<string, string>> = Object.freeze({});

/** So many messages are decoded with one at most. */
const AHEAD = 64;

export class ReceivedBatch {
  readonly #items: Buffer;
  readonly #idPrefix: string;
  readonly #offsets: Uint32Array;
  readonly #ids: number[];
  /** Data that was decoded ahead of its turn, from the message with index `#aheadFrom` on. */
  #ahead: unknown[] = [];
  #aheadFrom = 0;
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
    return receivedMessage(this.#fieldsOf(index, this.#decodeInTurn(index)));
  }

  /** A message whose data is decoded when it is first read; that throws `body-invalid` when it is damaged. */
  lazyMessage(index: number): BroadcastMessage {
    return lazyMessage(this.#fieldsOf(index, undefined), () => this.#decode(index));
  }

  /** Handlers get messages one after the other, so that the next ones can be decoded along with one. */
  #decodeInTurn(index: number): unknown {
    if (index >= this.#aheadFrom + this.#ahead.length) this.#decodeAhead(index);
    const at = index - this.#aheadFrom;
    const data = this.#ahead[at];
    if (data === undefined) return this.#decode(index);
    // What a handler has had it may have changed: another one, or another attempt, gets its own.
    this.#ahead[at] = undefined;
    return data;
  }

  #decodeAhead(index: number): void {
    const starts: number[] = [];
    const ends: number[] = [];
    const last = Math.min(this.#offsets.length - 1, index + AHEAD);
    for (let i = index; i < last; i++) {
      starts.push(this.#bodyAt(i));
      ends.push(this.#offsets[i + 1] as number);
    }
    this.#aheadFrom = index;
    this.#ahead = decodeBodies(this.#items, starts, ends);
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
