/** What a server has said to a client on one connection, by meaning: how its frames were cut and merged does not count. */
import { stringifyTagged } from '../../src/body/tagged.js';
import { Reader } from '../../src/protocol/bytes.js';
import { FRAME, FRAME_HEADER, frameName } from '../../src/protocol/constants.js';
import * as frames from '../../src/protocol/frames.js';
import { decodeMessages } from '../../src/protocol/messages.js';
import { FrameParser } from '../../src/protocol/parser.js';
import { ReceivedBatch } from '../../src/received.js';

/** How much has come, of what a client waits for before it says something further. */
export interface Progress {
  welcomes: number;
  oks: number;
  deliveries: number;
  retries: number;
  /** Positions with a receipt. */
  receipts: number;
  failures: number;
  pongs: number;
}

/** As a fixture has it: without undefined fields. */
const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

/** Data, with what JSON has not. */
export const plainData = (data: unknown): unknown => JSON.parse(stringifyTagged(data));

export class Answers {
  readonly progress: Progress = { welcomes: 0, oks: 0, deliveries: 0, retries: 0, receipts: 0, failures: 0, pongs: 0 };
  readonly #welcome: unknown[] = [];
  readonly #aliases: string[] = [];
  readonly #deliveries: unknown[] = [];
  readonly #receipts = new Map<string, string>();
  readonly #failures: string[] = [];
  readonly #oks: number[] = [];
  readonly #subscriptions = new Set<string>();
  readonly #retries: unknown[] = [];
  readonly #wrong: unknown[] = [];
  #goodbyes = 0;
  /** What DELIVERY says of the messages that follow it. */
  #note: frames.DeliveryFrame | undefined;
  readonly #names = [new Map<number, string>(), new Map<number, string>()] as const;
  readonly #senders = new Map<number, frames.SenderAlias>();
  readonly #parser = new FrameParser(
    { onPreamble: () => undefined, onFrame: (type, frame) => this.#take(type, new Reader(frame, FRAME_HEADER), frame) },
    Infinity,
  );

  push(chunk: Buffer): void {
    this.#parser.push(chunk);
  }

  #take(type: number, reader: Reader, frame: Buffer): void {
    const take = this.#takers[type];
    if (take === undefined) this.#wrong.push(frameName(type));
    else take(reader, frame);
  }

  readonly #takers: Record<number, (reader: Reader, frame: Buffer) => unknown> = {
    [FRAME.WELCOME]: reader => {
      const { known, stored, durability, sender, taken } = frames.decodeWelcome(reader);
      this.#welcome.push({ known, stored, durability, sender, taken });
      this.progress.welcomes++;
    },
    [FRAME.ALIAS]: reader => {
      const { alias, kind, name } = frames.decodeAlias(reader);
      this.#names[kind as 0 | 1].set(alias, name);
      this.#aliases.push(`${kind === 0 ? 'channel' : 'client'} ${alias}: ${name}`);
    },
    [FRAME.SENDER]: reader => {
      const sender = frames.decodeSender(reader);
      this.#senders.set(sender.alias, sender);
    },
    [FRAME.OK]: reader => {
      this.#oks.push(frames.decodeRequest(reader));
      this.progress.oks++;
    },
    [FRAME.FAILED]: reader => void this.#wrong.push(frames.decodeFailed(reader)),
    [FRAME.ERROR]: reader => void this.#wrong.push(frames.decodeError(reader)),
    [FRAME.SUBSCRIPTION]: reader => {
      const { present, channel } = frames.decodeSubscription(reader);
      if (present) this.#subscriptions.add(channel);
      else this.#subscriptions.delete(channel);
    },
    [FRAME.DELIVERY]: reader => {
      this.#note = frames.decodeDelivery(reader);
    },
    [FRAME.MESSAGES]: (_reader, frame) => this.#deliver(frame),
    [FRAME.RETRY]: reader => {
      this.#retries.push(frames.decodeRetry(reader));
      this.progress.retries++;
    },
    [FRAME.RECEIPT]: reader => {
      for (const { first, count, status, durability, final } of frames.decodeReceipts(reader))
        for (let position = first; position < first + count; position++)
          this.#receipts.set(`${position}${final ? ', in the end' : ''}`, `${status}, ${durability}`);
      this.progress.receipts = this.#receipts.size;
    },
    [FRAME.FAILURE]: reader => {
      const { position, failure } = frames.decodeFailure(reader);
      const { reason, queued, final, attempts, target, count = 1 } = failure;
      this.progress.failures += count;
      for (let i = 0; i < count; i++)
        this.#failures.push(`${position + i}: ${JSON.stringify({ reason, queued, final, attempts, target })}`);
    },
    [FRAME.PONG]: () => this.progress.pongs++,
    [FRAME.GOODBYE]: () => this.#goodbyes++,
  };

  #deliver(frame: Buffer): void {
    const lookup = {
      channel: (alias: number) => this.#names[0].get(alias),
      client: (alias: number) => this.#names[1].get(alias),
      sender: (alias: number) => {
        const sender = this.#senders.get(alias);
        if (sender === undefined) return undefined;
        const { instance, name, idPrefix } = sender;
        return { identity: { instance, name: name === '' ? undefined : name }, idPrefix };
      },
    };
    const { batch } = decodeMessages(frame, lookup, undefined, FRAME_HEADER);
    const received = new ReceivedBatch(batch);
    const { redelivered = false, attempt = 1, subscriptions } = this.#note ?? {};
    this.#note = undefined;
    for (let i = 0; i < batch.count; i++) {
      const { channels, clients, name, headers, data, persistent, ttl } = received.message(i);
      const { everyone } = batch.envelope;
      const message = { channels, clients, everyone, name, headers, data: plainData(data), persistent, ttl };
      this.#deliveries.push(plain({ ...message, redelivered, attempt, subscriptions }));
      if (persistent) this.progress.deliveries++;
    }
  }

  /** As a fixture keeps it. Aliases are part of it: the client used those that it was told. */
  meaning(): unknown {
    return plain({
      welcome: this.#welcome,
      aliases: this.#aliases,
      requestsAnswered: this.#oks.slice().sort((a, b) => a - b),
      subscriptions: [...this.#subscriptions].sort(),
      deliveries: this.#deliveries,
      retries: this.#retries,
      receipts: Object.fromEntries([...this.#receipts].sort(([a], [b]) => parseInt(a, 10) - parseInt(b, 10))),
      failures: this.#failures.slice().sort(),
      pongs: this.progress.pongs,
      goodbyes: this.#goodbyes,
      wrong: this.#wrong,
    });
  }
}
