/**
 * `BroadcastMessage`: what users create, send and receive. Depends on nothing. How a message is encoded, routed and
 * kept is not known here.
 */

/** What a message may carry besides its data. */
export interface MessageOptions {
  /** A name by which the receiver tells kinds of messages apart. */
  name?: string;
  /** Kept until it is handled. Default true; false means at most once. */
  persistent?: boolean;
  /** Small strings for the application's own use. Default none, at most `limits.headerBytes` (16 KiB). */
  headers?: Record<string, string>;
  /** Time to live in milliseconds from `sendMessage`; after it the message is never delivered. Default none. */
  ttl?: number;
}

/** @internal The parts of an id: a process-wide random prefix and a counter. */
export interface MessageId {
  readonly prefix: string;
  readonly counter: number;
}

/** @internal Everything that a message shows, for the library's own constructors. */
export interface MessageFields<DataType> {
  id: string;
  clients: readonly string[];
  channels: readonly string[];
  name: string | undefined;
  data: DataType;
  persistent: boolean;
  headers: Readonly<Record<string, string>>;
  ttl: number | undefined;
  sender: string | undefined;
  timestamp: number | undefined;
}

const NOTHING: readonly string[] = Object.freeze([]);
const NO_HEADERS: Readonly<Record<string, string>> = Object.freeze({});

/** Length of an id's random prefix: 96 bits in base 64, unique across machines without coordination. */
export const ID_PREFIX_LENGTH = 16;
const ID_ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

function randomPrefix(): string {
  let prefix = '';
  for (const byte of crypto.getRandomValues(new Uint8Array(ID_PREFIX_LENGTH))) {
    prefix += ID_ALPHABET.charAt(byte & 63);
  }
  return prefix;
}

/** @internal The prefix of every id that this process makes. */
export const processIdPrefix: string = randomPrefix();
let idCounter = 0;

/** @internal The text of an id. */
export function formatId(prefix: string, counter: number): string {
  return prefix + counter.toString(36);
}

/** @internal The parts of an id, or undefined for a text that is not one. Every message that is sent passes here. */
export function parseId(id: string): MessageId | undefined {
  const { length } = id;
  let counter = 0;
  for (let i = ID_PREFIX_LENGTH; i < length; i++) {
    const digit = digitOf(id.charCodeAt(i));
    if (digit < 0 || (digit === 0 && i === ID_PREFIX_LENGTH && length > i + 1)) return undefined;
    counter = counter * 36 + digit;
  }
  if (length <= ID_PREFIX_LENGTH || !Number.isSafeInteger(counter)) return undefined;
  return { prefix: id.startsWith(processIdPrefix) ? processIdPrefix : id.slice(0, ID_PREFIX_LENGTH), counter };
}

/** The value of a digit in base 36, as `toString(36)` writes it, or −1. */
function digitOf(code: number): number {
  if (code >= 48 && code <= 57) return code - 48;
  return code >= 97 && code <= 122 ? code - 87 : -1;
}

let construct: <D>(fields: MessageFields<D>) => BroadcastMessage<D>;

/**
 * A message: one id, one body, for any number of clients and channels. Made by the static functions, sent by
 * `sendMessage`, and handed to handlers on the other side with the same `id`, `name`, `data` and `headers`.
 *
 * @example
 * client.sendMessage(BroadcastMessage.createChannelMessage('room_1', { text: 'Hello world' }));
 */
export class BroadcastMessage<DataType = unknown> {
  /** Opaque ASCII, unique across processes and machines. */
  readonly id: string;
  /** The single target client, else null. */
  readonly client: string | null;
  /** The single target channel, else null. */
  readonly channel: string | null;
  /** Every target client. */
  readonly clients: readonly string[];
  /** Every target channel. */
  readonly channels: readonly string[];
  /** The name given by its sender. */
  readonly name: string | undefined;
  /** What was sent: any value that structured clone takes. */
  declare readonly data: DataType;
  /** True (the default): kept until handled. False: at most once. */
  readonly persistent: boolean;
  /** The headers given by its sender. */
  readonly headers: Readonly<Record<string, string>>;
  /** Time to live in milliseconds, or undefined. */
  readonly ttl: number | undefined;
  /** The sending client's name, on received messages; undefined when the server sent it. */
  readonly sender: string | undefined;
  /** When the server took it, in epoch milliseconds, on received messages. */
  readonly timestamp: number | undefined;

  static {
    construct = fields => new BroadcastMessage(fields);
  }

  private constructor(fields: MessageFields<DataType>) {
    const { clients, channels } = fields;
    this.id = fields.id;
    this.client = clients.length === 1 ? (clients[0] as string) : null;
    this.channel = channels.length === 1 ? (channels[0] as string) : null;
    this.clients = clients;
    this.channels = channels;
    this.name = fields.name;
    this.data = fields.data;
    this.persistent = fields.persistent;
    this.headers = fields.headers;
    this.ttl = fields.ttl;
    this.sender = fields.sender;
    this.timestamp = fields.timestamp;
  }

  /**
   * A message for everyone who subscribes to `channel`.
   * @param name the message's name, or {@link MessageOptions}
   * @param persistent default true
   */
  static createChannelMessage<D = unknown>(
    channel: string,
    data: D,
    name?: string | MessageOptions,
    persistent?: boolean,
  ): BroadcastMessage<D> {
    return create(NOTHING, [text(channel, 'channel')], data, name, persistent);
  }

  /** A message for the client of that name, or for one live connection when given its address (`host:port`). */
  static createClientMessage<D = unknown>(
    client: string,
    data: D,
    name?: string | MessageOptions,
    persistent?: boolean,
  ): BroadcastMessage<D> {
    return create([text(client, 'client')], NOTHING, data, name, persistent);
  }

  /** One message for the subscribers of several channels; who subscribes to more than one gets it once. */
  static createMultiChannelMessage<D = unknown>(
    channels: readonly string[],
    data: D,
    name?: string | MessageOptions,
    persistent?: boolean,
  ): BroadcastMessage<D> {
    return create(NOTHING, texts(channels, 'channels'), data, name, persistent);
  }

  /** One message for several clients by name. */
  static createGroupMessage<D = unknown>(
    clients: readonly string[],
    data: D,
    name?: string | MessageOptions,
    persistent?: boolean,
  ): BroadcastMessage<D> {
    return create(texts(clients, 'clients'), NOTHING, data, name, persistent);
  }

  /** A message for a client, or the subscribers of a channel, or both; at least one of the two is given. */
  static create<D = unknown>(
    client: string | null | undefined,
    channel: string | null | undefined,
    data: D,
    name?: string | MessageOptions,
    persistent?: boolean,
  ): BroadcastMessage<D> {
    const clients = client === null || client === undefined ? NOTHING : [text(client, 'client')];
    const channels = channel === null || channel === undefined ? NOTHING : [text(channel, 'channel')];
    if (clients.length + channels.length === 0) {
      throw new TypeError(
        'BroadcastMessage.create needs a client or a channel; for everyone there is createBroadcastMessage(data)',
      );
    }
    return create(clients, channels, data, name, persistent);
  }

  /** A message for every client that is connected when the server routes it. */
  static createBroadcastMessage<D = unknown>(
    data: D,
    name?: string | MessageOptions,
    persistent?: boolean,
  ): BroadcastMessage<D> {
    return create(NOTHING, NOTHING, data, name, persistent);
  }
}

function text(value: unknown, what: string): string {
  if (typeof value !== 'string')
    throw new TypeError(`${what} must be a string, not ${value === null ? 'null' : typeof value}`);
  return value;
}

function texts(values: unknown, what: string): readonly string[] {
  if (!Array.isArray(values) || values.length === 0)
    throw new TypeError(`${what} must be an array with at least one name`);
  return Object.freeze([...new Set(values.map(value => text(value, what)))]);
}

function create<D>(
  clients: readonly string[],
  channels: readonly string[],
  data: D,
  nameOrOptions: string | MessageOptions | undefined,
  persistent: boolean | undefined,
): BroadcastMessage<D> {
  const options = typeof nameOrOptions === 'object' && nameOrOptions !== null ? nameOrOptions : undefined;
  const { headers, ttl } = options ?? {};
  if (ttl !== undefined && !(ttl >= 0 && Number.isFinite(ttl))) {
    throw new TypeError(`ttl must be a number of milliseconds from 0, not ${String(ttl)}`);
  }
  return construct({
    id: formatId(processIdPrefix, ++idCounter),
    clients,
    channels,
    name: options ? options.name : ((nameOrOptions as string | null | undefined) ?? undefined),
    data,
    persistent: persistent ?? options?.persistent ?? true,
    headers: headers === undefined ? NO_HEADERS : Object.freeze({ ...headers }),
    ttl,
    sender: undefined,
    timestamp: undefined,
  });
}

/** @internal A message as its receiver sees it. */
export function receivedMessage<D>(fields: MessageFields<D>): BroadcastMessage<D> {
  return construct(fields);
}

/**
 * @internal A received message whose data is decoded when it is first read; an own property, so that spread and
 * `JSON.stringify` show it.
 */
export function lazyMessage(fields: Omit<MessageFields<unknown>, 'data'>, decode: () => unknown): BroadcastMessage {
  const message = construct({ ...fields, data: undefined });
  Object.defineProperty(message, 'data', {
    enumerable: true,
    configurable: true,
    get() {
      const value = decode();
      Object.defineProperty(message, 'data', { value, enumerable: true, configurable: true, writable: true });
      return value;
    },
  });
  return message;
}
