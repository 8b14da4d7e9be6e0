/**
 * `BroadcastMessage`: what users create, send and receive. Depends on nothing. How a message is encoded, routed and
 * kept is not known here.
 */

/**
 * What a message may carry besides its data.
 * @example
 * BroadcastMessage.createChannelMessage('orders', order, { name: 'order.paid', ttl: 60_000 });
 */
export interface MessageOptions {
  /** A name by which the receiver tells kinds of messages apart. Default none. */
  name?: string;
  /** Kept until it is handled. Default true; false means at most once. */
  persistent?: boolean;
  /** Small strings for the application's own use. Default none, at most `limits.headerBytes` (16 KiB) in all. */
  headers?: Record<string, string>;
  /** Time to live in milliseconds from `sendMessage`; after it the message is never delivered. Default none. */
  ttl?: number;
}

const OPTION_NAMES = ['name', 'persistent', 'headers', 'ttl'];

/** @internal Half of a character: there is no UTF-8 for it, so that it cannot be sent. */
export const LONE_SURROGATE = /\p{Surrogate}/u;

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

/** Two digits in base 36, for each number that they can say. */
const TWO_DIGITS = Array.from({ length: 36 * 36 }, (_, n) => Math.floor(n / 36).toString(36) + (n % 36).toString(36));

/** What the last id began with, which the next one usually does too: all but its last two digits. */
const recent = { prefix: '', high: 0, text: '' };

/** @internal The text of an id: the prefix, and the counter in base 36. */
export function formatId(prefix: string, counter: number): string {
  const high = Math.floor(counter / TWO_DIGITS.length);
  if (high === 0) return prefix + counter.toString(36);
  if (high !== recent.high || prefix !== recent.prefix) {
    recent.prefix = prefix;
    recent.high = high;
    recent.text = prefix + high.toString(36);
  }
  return recent.text + (TWO_DIGITS[counter % TWO_DIGITS.length] as string);
}

/** @internal The parts of a message's id. */
export function idOf(message: BroadcastMessage): MessageId | undefined {
  const counter = counterOf(message);
  return counter > 0 ? { prefix: processIdPrefix, counter } : parseId(message.id);
}

/** @internal The parts of an id, or undefined for a text that is not one. */
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

function decoded(this: BroadcastMessage): BroadcastMessage {
  try {
    Reflect.get(this, 'data');
  } catch {
    // A damaged body is shown as what it is: not decoded.
  }
  return this;
}

let construct: <D>(fields: MessageFields<D>, counter?: number) => BroadcastMessage<D>;
let counterOf: (message: BroadcastMessage) => number;

/**
 * A message: one id, one body, for any number of clients and channels. Made by the static functions, sent by
 * `sendMessage`, and handed to handlers on the other side with the same `id`, `name`, `data` and `headers`.
 *
 * @example
 * client.sendMessage(BroadcastMessage.createChannelMessage('room_1', { text: 'Hello world' }));
 */
export class BroadcastMessage<DataType = unknown> {
  /**
   * Opaque ASCII, unique across processes and machines.
   * @example
   * if (seen.has(message.id)) return; // a redelivery
   */
  readonly id: string;
  /**
   * The single target client, else null.
   * @example
   * BroadcastMessage.createClientMessage('user1', 'Hello').client; // 'user1'
   */
  readonly client: string | null;
  /**
   * The single target channel, else null.
   * @example
   * BroadcastMessage.createChannelMessage('room_1', 'Hello').channel; // 'room_1'
   */
  readonly channel: string | null;
  /**
   * Every target client.
   * @example
   * BroadcastMessage.createGroupMessage(['user1', 'user2'], 'Hello').clients; // ['user1', 'user2']
   */
  readonly clients: readonly string[];
  /**
   * Every target channel.
   * @example
   * BroadcastMessage.createMultiChannelMessage(['room_1', 'room_2'], 'Hello').channels; // ['room_1', 'room_2']
   */
  readonly channels: readonly string[];
  /**
   * The name given by its sender.
   * @example
   * if (message.name === 'order.paid') await ship(message.data);
   */
  readonly name: string | undefined;
  /**
   * What was sent: any value that structured clone takes. Its encoded form is taken when `sendMessage` is called.
   * @example
   * client.onMessage<Order>('orders', message => ship(message.data));
   */
  declare readonly data: DataType;
  /**
   * True (the default): kept until handled. False: at most once.
   * @example
   * BroadcastMessage.createChannelMessage('ticks', tick, { persistent: false }).persistent; // false
   */
  readonly persistent: boolean;
  /**
   * The headers given by its sender.
   * @example
   * const trace = message.headers['trace-id'];
   */
  readonly headers: Readonly<Record<string, string>>;
  /**
   * Time to live in milliseconds, or undefined; on received messages what was left of it when they were sent on.
   * @example
   * BroadcastMessage.createChannelMessage('ticks', tick, { ttl: 5_000 }).ttl; // 5000
   */
  readonly ttl: number | undefined;
  /**
   * The sending client's name, on received messages; undefined when the server sent it.
   * @example
   * if (message.sender) client.sendMessage(BroadcastMessage.createClientMessage(message.sender, 'thanks'));
   */
  readonly sender: string | undefined;
  /**
   * When the server took it, in epoch milliseconds, on received messages.
   * @example
   * console.log('taken at', new Date(message.timestamp ?? 0).toISOString());
   */
  readonly timestamp: number | undefined;

  /** The counter of an id that this process has made, or 0: to take the text apart for each message would cost too much. */
  readonly #counter: number;

  static {
    construct = (fields, counter = 0) => new BroadcastMessage(fields, counter);
    counterOf = message => message.#counter;
    // For console.log: data that was not decoded yet is shown like any other.
    Object.defineProperty(this.prototype, Symbol.for('nodejs.util.inspect.custom'), { value: decoded });
  }

  private constructor(fields: MessageFields<DataType>, counter: number) {
    const { clients, channels } = fields;
    this.#counter = counter;
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
   * A message for everyone who subscribes to `channel`. Throws `invalid-argument`, as all of these do.
   * @param name the message's name, or {@link MessageOptions}
   * @param persistent default true; stands before the option of that name
   * @example
   * BroadcastMessage.createChannelMessage('room_1', 'Hello world');
   */
  static createChannelMessage<D = unknown>(
    channel: string,
    data: D,
    name?: string | MessageOptions,
    persistent?: boolean,
  ): BroadcastMessage<D> {
    return create(NOTHING, single(channel, 'channel'), data, name, persistent);
  }

  /**
   * A message for the client of that name, or for one live connection when given its address (`host:port`).
   * @example
   * BroadcastMessage.createClientMessage('user1', 'Hello world');
   */
  static createClientMessage<D = unknown>(
    client: string,
    data: D,
    name?: string | MessageOptions,
    persistent?: boolean,
  ): BroadcastMessage<D> {
    return create(single(client, 'client'), NOTHING, data, name, persistent);
  }

  /**
   * One message for the subscribers of several channels; it reaches who subscribes to more than one once.
   * @example
   * BroadcastMessage.createMultiChannelMessage(['room_1', 'room_2'], 'Hello world');
   */
  static createMultiChannelMessage<D = unknown>(
    channels: readonly string[],
    data: D,
    name?: string | MessageOptions,
    persistent?: boolean,
  ): BroadcastMessage<D> {
    return create(NOTHING, texts(channels, 'channels'), data, name, persistent);
  }

  /**
   * One message for several clients by name.
   * @example
   * BroadcastMessage.createGroupMessage(['user1', 'user2'], 'Hello world');
   */
  static createGroupMessage<D = unknown>(
    clients: readonly string[],
    data: D,
    name?: string | MessageOptions,
    persistent?: boolean,
  ): BroadcastMessage<D> {
    return create(texts(clients, 'clients'), NOTHING, data, name, persistent);
  }

  /**
   * A message for a client, or the subscribers of a channel, or both; at least one of the two is given.
   * @example
   * BroadcastMessage.create('user1', 'room_1', 'Hello world');
   */
  static create<D = unknown>(
    client: string | null | undefined,
    channel: string | null | undefined,
    data: D,
    name?: string | MessageOptions,
    persistent?: boolean,
  ): BroadcastMessage<D> {
    const clients = client === null || client === undefined ? NOTHING : single(client, 'client');
    const channels = channel === null || channel === undefined ? NOTHING : single(channel, 'channel');
    if (clients.length + channels.length === 0) {
      throw invalid(
        'BroadcastMessage.create needs a client or a channel; for everyone there is createBroadcastMessage(data)',
      );
    }
    return create(clients, channels, data, name, persistent);
  }

  /**
   * A message for every client that is connected when the server routes it, but for the one that sends it.
   * @example
   * BroadcastMessage.createBroadcastMessage('the shop closes in ten minutes');
   */
  static createBroadcastMessage<D = unknown>(
    data: D,
    name?: string | MessageOptions,
    persistent?: boolean,
  ): BroadcastMessage<D> {
    return create(NOTHING, NOTHING, data, name, persistent);
  }
}

const ERROR_BRAND = Symbol.for('@alien-worlds/aw-broadcast.error');

/** A BroadcastError by its brand and its fields, which is what users test: this module depends on nothing. */
function invalid(text: string): TypeError {
  const error = Object.assign(new TypeError(text), { code: 'invalid-argument', retryable: false });
  Object.defineProperty(error, 'name', { value: 'BroadcastError', configurable: true, writable: true });
  return Object.defineProperty(error, ERROR_BRAND, { value: true });
}

function kindOf(value: unknown): string {
  return value === null ? 'null' : typeof value;
}

function text(value: unknown, what: string): string {
  if (typeof value !== 'string') throw invalid(`${what} must be a string, not ${kindOf(value)}`);
  return value;
}

let last: readonly string[] = NOTHING;

/** A list of one name; the same list again for the same name, as is usual for messages in a row. */
function single(value: unknown, what: string): readonly string[] {
  if (last[0] !== value || value === undefined) last = Object.freeze([text(value, what)]);
  return last;
}

function texts(values: unknown, what: string): readonly string[] {
  if (!Array.isArray(values) || values.length === 0) throw invalid(`${what} must be an array with at least one name`);
  return Object.freeze([...new Set(values.map(value => text(value, `each of ${what}`)))]);
}

function create<D>(
  clients: readonly string[],
  channels: readonly string[],
  data: D,
  nameOrOptions: string | MessageOptions | null | undefined,
  persistent: boolean | undefined,
): BroadcastMessage<D> {
  const options =
    typeof nameOrOptions === 'object' && nameOrOptions !== null ? checkOptions(nameOrOptions) : NO_OPTIONS;
  const name = typeof nameOrOptions === 'object' ? options.name : nameOrOptions;
  const kept = persistent ?? options.persistent ?? true;
  if (name !== undefined) text(name, 'name');
  if (typeof kept !== 'boolean') throw invalid(`persistent must be true or false, not ${kindOf(kept)}`);
  const counter = ++idCounter;
  const fields = {
    id: formatId(processIdPrefix, counter),
    clients,
    channels,
    name,
    data,
    persistent: kept,
    headers: options.headers === undefined ? NO_HEADERS : copyHeaders(options.headers),
    ttl: options.ttl,
    sender: undefined,
    timestamp: undefined,
  };
  return construct(fields, counter);
}

const NO_OPTIONS: MessageOptions = Object.freeze({});

function checkOptions(options: MessageOptions): MessageOptions {
  for (const key of Object.keys(options))
    if (!OPTION_NAMES.includes(key))
      throw invalid(`there is no message option ${key}; there are ${OPTION_NAMES.join(', ')}`);
  const { ttl } = options;
  if (ttl !== undefined && !(typeof ttl === 'number' && ttl >= 0 && ttl <= Number.MAX_SAFE_INTEGER))
    throw invalid(
      `ttl must be a number of milliseconds from 0 to ${String(Number.MAX_SAFE_INTEGER)}, not ${typeof ttl === 'number' ? String(ttl) : kindOf(ttl)}`,
    );
  return options;
}

function copyHeaders(headers: unknown): Readonly<Record<string, string>> {
  if (typeof headers !== 'object' || headers === null || Array.isArray(headers))
    throw invalid(`headers must be an object of strings, not ${Array.isArray(headers) ? 'an array' : kindOf(headers)}`);
  const copy = { ...headers } as Record<string, string>;
  for (const [key, value] of Object.entries(copy)) {
    const what = `the header ${JSON.stringify(key)}`;
    if (LONE_SURROGATE.test(key) || LONE_SURROGATE.test(text(value, what)))
      throw invalid(`${what} has a lone surrogate`);
  }
  return Object.freeze(copy);
}

/** @internal A message as its receiver sees it. */
export function receivedMessage<D>(fields: MessageFields<D>): BroadcastMessage<D> {
  return construct(fields);
}

/**
 * @internal A received message whose data is decoded when it is first read; an own property, so that spread and
 * `JSON.stringify` show it.
 */
export function lazyMessage(fields: MessageFields<unknown>, decode: () => unknown): BroadcastMessage {
  const message = construct(fields);
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
