/** The opening exchange (docs/protocol.md, 3): HELLO and WELCOME. */
import { checkClientName } from '../names.js';
import { malformed, Writer, type Reader, type WireRange } from './bytes.js';
import { FRAME } from './constants.js';
import { readExtensions, readIdPrefix, writeExtensions, type Extensions } from './fields.js';

/** 3.2 */
export interface Hello {
  readonly generated: boolean;
  readonly name: string;
  readonly instance: string;
  readonly idPrefix: string;
  readonly floor: number;
  readonly next: number;
  readonly store: string;
  readonly host: string;
  readonly pid: number;
  readonly pingInterval: number;
  readonly deadAfter: number;
  readonly extensions: Extensions;
}

/** 3.4: the extension of HELLO that counts an instance's connections, in decimal digits. */
const CONNECTION = 'connection';
/** 3.8: the one that names instances of the same name that have left unheard, 16 bytes each. */
const DEPARTED = 'departed';
const ID_BYTES = 16;

/** What a client says of itself beyond the fields of HELLO. */
export function helloExtensions(connection: number, departed: readonly string[] = []): Extensions {
  const extensions = new Map([[CONNECTION, Buffer.from(String(connection))]]);
  if (departed.length > 0) extensions.set(DEPARTED, Buffer.from(departed.join(''), 'hex'));
  return extensions;
}

/** Instances that will not come back. */
export function departedOf(extensions: Extensions): string[] {
  const ids = Buffer.from(extensions.get(DEPARTED) ?? []);
  if (ids.length % ID_BYTES !== 0) throw malformed('the extension "departed" does not hold whole ids');
  return Array.from({ length: ids.length / ID_BYTES }, (_, i) => ids.toString('hex', i * ID_BYTES, (i + 1) * ID_BYTES));
}

/** Which of its instance's connections introduces itself; 0 when it does not say. */
export function connectionOf(extensions: Extensions): number {
  const value = extensions.get(CONNECTION);
  if (value === undefined) return 0;
  const digits = Buffer.from(value).toString('latin1');
  if (!/^[1-9]\d{0,14}$/.test(digits)) throw malformed('the extension "connection" is not a number');
  return Number(digits);
}

export function encodeHello(hello: Hello): Buffer {
  const writer = new Writer(FRAME.HELLO)
    .varint(hello.generated ? 1 : 0)
    .str(hello.name)
    .id16(hello.instance)
    .str(hello.idPrefix)
    .varint(hello.floor)
    .varint(hello.next)
    .str(hello.store)
    .str(hello.host)
    .varint(hello.pid)
    .varint(hello.pingInterval)
    .varint(hello.deadAfter);
  writeExtensions(writer, hello.extensions);
  return writer.finish();
}

/** Flags that are not known are ignored, so that a newer client can set them (2.3). */
export function decodeHello(reader: Reader): Hello {
  const flags = reader.varint();
  const name = reader.str();
  checkClientName(name);
  const instance = reader.id16();
  const idPrefix = readIdPrefix(reader, false);
  const floor = reader.varint();
  const next = reader.varint();
  if (floor > next) throw malformed('the floor lies above the next position');
  const hello: Hello = {
    generated: flags % 2 === 1,
    name,
    instance,
    idPrefix,
    floor,
    next,
    store: reader.str(64),
    host: reader.str(255),
    pid: reader.varint(),
    pingInterval: reader.atLeast(1, 'pingInterval'),
    deadAfter: reader.atLeast(1, 'deadAfter'),
    extensions: readExtensions(reader),
  };
  reader.done();
  return hello;
}

/** In the order of their numbers. */
export const DURABILITIES = ['memory', 'fsync', 'replicated'] as const;

/** What the server accepts from this client. */
export interface WireLimits {
  readonly messageBytes: number;
  readonly headerBytes: number;
  readonly targets: number;
  readonly nameBytes: number;
  readonly subscriptions: number;
  readonly windowMessages: number;
  readonly windowBytes: number;
  readonly sendWindow: number;
  readonly sendWindowBytes: number;
}

/** 3.3 */
export interface Welcome {
  readonly known: boolean;
  readonly stored: boolean;
  readonly boot: string;
  readonly store: string;
  readonly sender: number;
  readonly durability: (typeof DURABILITIES)[number];
  readonly limits: WireLimits;
  readonly pingInterval: number;
  readonly deadAfter: number;
  readonly address: string;
  readonly taken: readonly WireRange[];
  readonly extensions: Extensions;
}

export function encodeWelcome(welcome: Welcome): Buffer {
  const { limits } = welcome;
  const writer = new Writer(FRAME.WELCOME)
    .varint((welcome.known ? 1 : 0) + (welcome.stored ? 2 : 0))
    .id16(welcome.boot)
    .str(welcome.store)
    .varint(welcome.sender)
    .u8(DURABILITIES.indexOf(welcome.durability))
    .varint(limits.messageBytes)
    .varint(limits.headerBytes)
    .varint(limits.targets)
    .varint(limits.nameBytes)
    .varint(limits.subscriptions)
    .varint(limits.windowMessages)
    .varint(limits.windowBytes)
    .varint(limits.sendWindow)
    .varint(limits.sendWindowBytes)
    .varint(welcome.pingInterval)
    .varint(welcome.deadAfter)
    .str(welcome.address)
    .ranges(welcome.taken);
  writeExtensions(writer, welcome.extensions);
  return writer.finish();
}

/** Flags that are not known are ignored, as in HELLO. */
export function decodeWelcome(reader: Reader): Welcome {
  const flags = reader.varint();
  const boot = reader.id16();
  const store = reader.str(64);
  const sender = reader.varint();
  const durability = DURABILITIES[reader.u8()];
  if (durability === undefined) throw malformed('the durability is not known');
  const welcome: Welcome = {
    known: flags % 2 === 1,
    stored: flags % 4 >= 2,
    boot,
    store,
    sender,
    durability,
    limits: {
      messageBytes: reader.varint(),
      headerBytes: reader.varint(),
      targets: reader.varint(),
      nameBytes: reader.varint(),
      subscriptions: reader.varint(),
      windowMessages: reader.varint(),
      windowBytes: reader.varint(),
      sendWindow: reader.varint(),
      sendWindowBytes: reader.varint(),
    },
    pingInterval: reader.atLeast(1, 'pingInterval'),
    deadAfter: reader.atLeast(1, 'deadAfter'),
    address: reader.str(1024),
    taken: reader.ranges(),
    extensions: readExtensions(reader),
  };
  reader.done();
  return welcome;
}
