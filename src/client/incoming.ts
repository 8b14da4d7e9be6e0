/** What comes from the server: a table of frames, and the numbers that the server has announced on this connection. */
import { BroadcastError } from '../errors.js';
import { Reader } from '../protocol/bytes.js';
import { FIRST_OPTIONAL, FRAME, FRAME_HEADER, frameName } from '../protocol/constants.js';
import * as frames from '../protocol/frames.js';
import {
  decodeMessages,
  EnvelopeMemo,
  type AliasLookup,
  type AliasSource,
  type KnownSender,
} from '../protocol/messages.js';
import type { Deliveries } from './deliveries.js';
import type { Outbox } from './outbox.js';
import type { Requests } from './requests.js';
import type { Subscriptions } from './subscriptions.js';

/** The parts of the client that frames are for. */
export interface IncomingHost {
  readonly deliveries: Deliveries;
  readonly outbox: Outbox;
  readonly requests: Requests;
  readonly subscriptions: Subscriptions;
  failure(frame: frames.FailureFrame): void;
  /** `text`: why the server leaves; empty when it answers. */
  goodbye(text: string): void;
  /** Something is to be sent at the end of the turn. */
  wake(): void;
}

/** Names and sending instances by the server's numbers, and the other way round. */
class Aliases implements AliasLookup, AliasSource {
  readonly #channels = new Map<number, string>();
  readonly #clients = new Map<number, string>();
  readonly #senders = new Map<number, KnownSender>();
  readonly #channelNumbers = new Map<string, number>();
  readonly #clientNumbers = new Map<string, number>();

  channel(alias: number): string | undefined;
  channel(name: string): number | undefined;
  channel(value: number | string): string | number | undefined {
    return typeof value === 'number' ? this.#channels.get(value) : this.#channelNumbers.get(value);
  }

  client(alias: number): string | undefined;
  client(name: string): number | undefined;
  client(value: number | string): string | number | undefined {
    return typeof value === 'number' ? this.#clients.get(value) : this.#clientNumbers.get(value);
  }

  sender(alias: number): KnownSender | undefined {
    return this.#senders.get(alias);
  }

  // An alias never changes its meaning: envelopes are remembered by it (docs/protocol.md, 5.1).

  add({ alias, kind, name }: frames.Alias): void {
    const isChannel = kind === frames.ALIAS_KIND.CHANNEL;
    const names = isChannel ? this.#channels : this.#clients;
    if ((names.get(alias) ?? name) !== name) throw changed();
    names.set(alias, name);
    (isChannel ? this.#channelNumbers : this.#clientNumbers).set(name, alias);
  }

  addSender({ alias, instance, name, idPrefix }: frames.SenderAlias): void {
    const identity = { instance, name: name === '' ? undefined : name };
    const known = this.#senders.get(alias) ?? { identity, idPrefix };
    if (known.identity.instance !== instance || known.idPrefix !== idPrefix) throw changed();
    this.#senders.set(alias, known);
  }

  /** A sending instance is gone for good. */
  removeSender(alias: number): KnownSender | undefined {
    const known = this.#senders.get(alias);
    this.#senders.delete(alias);
    return known;
  }
}

function changed(): BroadcastError {
  return new BroadcastError('protocol-error', 'an alias changed its meaning');
}

type Handler = (this: Incoming, reader: Reader, frame: Buffer) => void;

export class Incoming {
  readonly #host: IncomingHost;
  #aliases = new Aliases();
  #memo = new EnvelopeMemo();
  /** What DELIVERY says of the MESSAGES that follow it. */
  #note: frames.DeliveryFrame | undefined;

  constructor(host: IncomingHost) {
    this.#host = host;
  }

  /** The numbers that may be used in writing; those of the connection that is up. */
  get aliases(): AliasSource {
    return this.#aliases;
  }

  /** A new connection: nothing was announced on it. */
  renew(): void {
    this.#aliases = new Aliases();
    this.#memo = new EnvelopeMemo();
    this.#note = undefined;
  }

  /** Throws a BroadcastError for what the server should not have sent. */
  take(type: number, frame: Buffer): void {
    const handler = HANDLERS.get(type);
    if (handler !== undefined) handler.call(this, new Reader(frame, FRAME_HEADER), frame);
    else if (type < FIRST_OPTIONAL)
      throw new BroadcastError('unknown-frame', `${frameName(type)} is not expected from a server here`);
  }

  onMessages(_reader: Reader, frame: Buffer): void {
    const note = this.#note;
    this.#note = undefined;
    this.#host.deliveries.receive(decodeMessages(frame, this.#aliases, this.#memo, FRAME_HEADER).batch, note);
  }

  onDelivery(reader: Reader): void {
    this.#note = frames.decodeDelivery(reader);
  }

  onRetry(reader: Reader): void {
    const { delivery, channel, attempt } = frames.decodeRetry(reader);
    this.#host.deliveries.retry(delivery, channel, attempt);
  }

  onReceipt(reader: Reader): void {
    this.#host.outbox.settle(frames.decodeReceipts(reader));
    this.#host.wake(); // the floor may have risen
  }

  onFailure(reader: Reader): void {
    this.#host.failure(frames.decodeFailure(reader));
  }

  onAlias(reader: Reader): void {
    this.#aliases.add(frames.decodeAlias(reader));
  }

  onSender(reader: Reader): void {
    this.#aliases.addSender(frames.decodeSender(reader));
  }

  onUnalias(reader: Reader): void {
    const { alias, kind } = frames.decodeUnalias(reader);
    if (kind !== frames.ALIAS_KIND.SENDER) return; // names keep their numbers in this version
    const sender = this.#aliases.removeSender(alias);
    if (sender !== undefined) this.#host.deliveries.forget(sender.identity.instance);
  }

  onSubscription(reader: Reader): void {
    const { channel, present } = frames.decodeSubscription(reader);
    this.#host.subscriptions.changed(channel, present);
  }

  onOk(reader: Reader): void {
    this.#host.requests.answered(frames.decodeRequest(reader), undefined);
  }

  onFailed(reader: Reader): void {
    const failed = frames.decodeFailed(reader);
    this.#host.requests.answered(failed.request, frames.errorFromPeer(failed));
  }

  onGoodbye(reader: Reader): void {
    this.#host.goodbye(frames.decodeGoodbye(reader).text);
  }
}

const HANDLERS = new Map<number, Handler>([
  [FRAME.MESSAGES, Incoming.prototype.onMessages],
  [FRAME.DELIVERY, Incoming.prototype.onDelivery],
  [FRAME.RETRY, Incoming.prototype.onRetry],
  [FRAME.RECEIPT, Incoming.prototype.onReceipt],
  [FRAME.FAILURE, Incoming.prototype.onFailure],
  [FRAME.ALIAS, Incoming.prototype.onAlias],
  [FRAME.SENDER, Incoming.prototype.onSender],
  [FRAME.UNALIAS, Incoming.prototype.onUnalias],
  [FRAME.SUBSCRIPTION, Incoming.prototype.onSubscription],
  [FRAME.OK, Incoming.prototype.onOk],
  [FRAME.FAILED, Incoming.prototype.onFailed],
  [FRAME.GOODBYE, Incoming.prototype.onGoodbye],
]);
