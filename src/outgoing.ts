/** What is asked of a message before it is sent, by a client and by the server itself, and its encoded form. */
import type { Envelope } from './batch.js';
import { writeBody, type WrittenBody } from './body/index.js';
import { BroadcastError, textOf } from './errors.js';
import { BroadcastMessage, idOf, type MessageId } from './message.js';
import { checkName, show } from './names.js';
import type { SendOptions } from './receipts.js';
import { checkOptions, checkSignal } from './waiters.js';

/** The limits that a message must keep. */
export interface MessageLimits {
  readonly messageBytes: number;
  readonly headerBytes: number;
  readonly targets: number;
  readonly nameBytes: number;
}

/** Writes the data of a message into a buffer, or into a larger one that it makes. */
export type BodyWriter = (message: BroadcastMessage, buffer: Buffer, at: number) => WrittenBody;

/** Bytes of headers, as the limit counts them. */
export function sizeOfHeaders(headers: Readonly<Record<string, string>>): number {
  let size = 0;
  for (const [key, value] of Object.entries(headers)) size += Buffer.byteLength(key) + Buffer.byteLength(value);
  return size;
}

/** Throws `invalid-argument`, `aborted`. */
export function checkSendOptions(options: SendOptions): void {
  checkOptions(options, 'sendMessage', ['until', 'signal']);
  const until: unknown = options.until;
  if (until !== undefined && until !== 'safe' && until !== 'delivered')
    throw new BroadcastError('invalid-argument', `until must be "safe" or "delivered", not ${show(until)}`);
  checkSignal(options.signal);
}

/** Checks messages against limits; not again what is as in the message before. */
export class Outgoing {
  #limits: MessageLimits;
  #known: Pick<BroadcastMessage, 'channels' | 'clients' | 'channel' | 'client' | 'name' | 'headers'> | undefined;

  constructor(limits: MessageLimits) {
    this.#limits = limits;
  }

  get limits(): MessageLimits {
    return this.#limits;
  }

  set limits(limits: MessageLimits) {
    this.#limits = limits;
    this.#known = undefined;
  }

  /** Throws `invalid-argument`, `invalid-name`, `too-many-targets`, `headers-too-large`. */
  check(message: unknown): asserts message is BroadcastMessage {
    if (!(message instanceof BroadcastMessage))
      throw new BroadcastError(
        'invalid-argument',
        'sendMessage takes a BroadcastMessage; make one with BroadcastMessage.createChannelMessage and its like',
      );
    if (!this.#isKnown(message)) this.#checkEnvelope(message);
  }

  #isKnown({ channels, clients, channel, client, name, headers }: BroadcastMessage): boolean {
    const known = this.#known;
    return (
      known !== undefined &&
      (clients === known.clients || (client !== null && client === known.client)) &&
      (channels === known.channels || (channel !== null && channel === known.channel)) &&
      name === known.name &&
      headers === known.headers
    );
  }

  #checkEnvelope({ channels, clients, channel, client, name, headers }: BroadcastMessage): void {
    const { nameBytes, headerBytes, targets } = this.#limits;
    const count = channels.length + clients.length;
    if (count > targets)
      throw new BroadcastError(
        'too-many-targets',
        `the message has ${String(count)} targets, limits.targets is ${String(targets)}; send it in parts`,
      );
    for (const each of channels) checkName(each, 'the channel', nameBytes);
    for (const each of clients) checkName(each, 'the client', nameBytes);
    if (name !== undefined && name !== '') checkName(name, 'the message name', nameBytes);
    const size = sizeOfHeaders(headers);
    if (size > headerBytes)
      throw new BroadcastError(
        'headers-too-large',
        `the headers have ${String(size)} bytes, limits.headerBytes is ${String(headerBytes)}; put what is large into the data`,
      );
    this.#known = { channels, clients, channel, client, name, headers };
  }

  /** The parts of its id. Throws `invalid-argument`. */
  id(message: BroadcastMessage): MessageId {
    const id = idOf(message);
    if (id === undefined)
      throw new BroadcastError('invalid-argument', `${JSON.stringify(message.id)} is not the id of a message`);
    return id;
  }

  /**
   * Writes its data in encoded form into `buffer` from `at` on, or into a larger one that it makes. What is returned is good
   * until the next call. Throws `data-not-cloneable`, `message-too-large`.
   */
  write(message: BroadcastMessage, buffer: Buffer, at: number): WrittenBody {
    const body = write(message.data, buffer, at);
    const bytes = body.end - at;
    if (bytes > this.#limits.messageBytes)
      throw new BroadcastError(
        'message-too-large',
        `the data has ${String(bytes)} bytes, limits.messageBytes is ${String(this.#limits.messageBytes)}; send less, or raise the limit on both sides`,
      );
    return body;
  }
}

/** A getter or a proxy within the data may throw anything. */
function write(data: unknown, buffer: Buffer, at: number): WrittenBody {
  try {
    return writeBody(data, buffer, at);
  } catch (error) {
    if (error instanceof BroadcastError) throw error;
    throw new BroadcastError('data-not-cloneable', `the data cannot be read: ${textOf(error)}`, { cause: error });
  }
}

/** What stands before the bodies of messages like this one. */
export function envelopeOf(
  { channels, clients, name, persistent, headers, ttl }: BroadcastMessage,
  idPrefix: string,
  tracked: boolean,
): Envelope {
  return {
    channels,
    clients,
    everyone: channels.length + clients.length === 0,
    name,
    headers: Object.keys(headers).length > 0 ? headers : undefined,
    persistent,
    tracked,
    resent: false,
    ttl,
    idPrefix,
  };
}
