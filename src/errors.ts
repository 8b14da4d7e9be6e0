/**
 * The one table of error codes: what each means, whether it ends the connection it occurs on, and whether trying the
 * same thing again can help. The codes are stable and the same on the wire; texts may change.
 * docs/errors.md shows this table; a test keeps the two equal.
 */

interface ErrorRow {
  /** What the code means, for the documentation. */
  readonly meaning: string;
  /** True when the connection on which it occurs ends. */
  readonly fatal: boolean;
  /** True when the same call or connection attempt may succeed later without a change by the user. */
  readonly retryable: boolean;
}

function row(meaning: string, kind: '' | 'fatal' | 'retryable' | 'fatal retryable' = ''): ErrorRow {
  return { meaning, fatal: kind.startsWith('fatal'), retryable: kind.endsWith('retryable') };
}

/**
 * Every code that a {@link BroadcastError} can have, with its meaning, whether it ends the connection, and whether trying
 * again helps.
 * @example
 * console.log(ERRORS['outbox-full'].meaning);
 */
export const ERRORS = {
  // What the caller gave us
  'invalid-option': row('An option is unknown, of the wrong type, out of range, or contradicts another one.'),
  'invalid-argument': row('An argument of a call is missing or of the wrong type.'),
  'invalid-name': row(
    'A client, channel or message name is empty, too long, reserved, or has control characters or lone surrogates.',
  ),
  'data-not-cloneable': row(
    'The data holds something that cannot be sent, such as a function; the text names its path.',
  ),
  'body-invalid': row('The bytes of a message body are damaged or hostile and were not decoded.'),
  // Sending
  'message-too-large': row('The encoded data exceeds `limits.messageBytes`.'),
  'headers-too-large': row('The headers exceed `limits.headerBytes`.'),
  'too-many-targets': row('The message has more targets than `limits.targets`.'),
  'outbox-full': row(
    'The outbox holds `limits.outboxMessages` messages or `limits.outboxBytes` bytes; wait for `ready()`.',
    'retryable',
  ),
  aborted: row('The signal of the call was aborted.'),
  timeout: row('The time allowed for the call is over; what it asked for may still happen.', 'retryable'),
  'handler-timeout': row(
    'A handler did not end within its `handlerTimeout`; the message is attempted again, up to `maxAttempts`.',
    'retryable',
  ),
  closed: row('The client or server is closed; the outcome of what was not settled is unknown.'),
  // Connections
  'not-broadcast': row('The peer does not speak this protocol.', 'fatal'),
  'protocol-version': row('The peer speaks another version of the protocol.', 'fatal'),
  'protocol-error': row('A frame is malformed: truncated, with trailing bytes, or with a field out of range.', 'fatal'),
  'unknown-frame': row('The type of a frame is not known in this version.', 'fatal'),
  'unexpected-frame': row('A frame came in a state in which it is not allowed.', 'fatal'),
  'frame-too-large': row('The announced length of a frame exceeds what the receiver accepts.', 'fatal'),
  'handshake-timeout': row('The peer did not introduce itself within `limits.handshakeMs`.', 'fatal retryable'),
  'handshake-too-large': row('The introduction exceeds `limits.handshakeBytes`.', 'fatal'),
  'unsupported-feature': row('The peer insists on a feature that this version does not have.', 'fatal'),
  'invalid-ack': row('An acknowledgement names a delivery that is not outstanding on this connection.', 'fatal'),
  'position-conflict': row('One position of a sender came with two different contents.', 'fatal'),
  'dead-peer': row('Nothing was heard from the peer for `deadAfter`.', 'fatal retryable'),
  'taken-over': row(
    'The same instance connected a second time; the older connection ends, or the newcomer, if it was on its way for longer than a later one.',
    'fatal',
  ),
  'different-store': row('The server keeps another store than the one this client was connected to before.', 'fatal'),
  unauthorized: row('The credentials were refused.', 'fatal'),
  'shutting-down': row('The server is stopping.', 'fatal retryable'),
  'connection-lost': row('The connection ended without a word from the peer.', 'fatal retryable'),
  'too-many-connections': row('The server has `limits.connections` connections.', 'fatal retryable'),
  'too-many-sessions': row('The server keeps `limits.sessions` sessions.', 'fatal retryable'),
  'too-many-subscriptions': row('The client has `limits.subscriptions` subscriptions.'),
  'server-busy': row('The server is out of a resource, such as file descriptors or memory.', 'fatal retryable'),
  'internal-error': row(
    'A fault in the library itself; the log of the side that says it has the details.',
    'fatal retryable',
  ),
  // Servers and stores
  'address-in-use': row('Another process listens on the address.'),
  'address-unavailable': row('The address does not exist on this machine or may not be used.'),
  'already-started': row('The server is running or was stopped; a stopped server is not started again.'),
  'store-locked': row('Another process owns the data directory.'),
  'store-foreign': row('The data directory holds files that are not of this store.'),
  'store-incomplete': row('Files of the data directory are missing or empty.'),
  'store-newer': row('The data directory was written by a newer version.'),
  'store-unreadable': row('The data directory cannot be read or written.'),
  'store-failed': row(
    'The store failed, for example a sync; nothing further is accepted until the server is restarted.',
    'fatal retryable',
  ),
  'store-full': row('The store has reached `limits.storeBytes` or the disk its reserve.', 'retryable'),
  'engine-invalid': row('The object given as `engine` does not have the shape of one.'),
  'not-found': row('There is no such session, dead letter or message.'),
  'not-local': row('Administration is allowed from this machine only.'),
} as const satisfies Record<string, ErrorRow>;

/** A stable code of the error table. */
export type ErrorCode = keyof typeof ERRORS;

const BRAND = Symbol.for('@alien-worlds/aw-broadcast.error');

/**
 * Every error of the library. Test `code`, not the text, and not `instanceof` where two copies of the package may meet.
 *
 * @example
 * client.sendMessage(message).catch(error => error.code === 'outbox-full' && client.ready());
 */
export class BroadcastError extends Error {
  /**
   * A code of the table in docs/errors.md; stable across releases and the same on the wire.
   * @example
   * if (error.code === 'outbox-full') await client.ready();
   */
  readonly code: string;
  /**
   * True when trying the same again later may help.
   * @example
   * if (!error.retryable) throw error;
   */
  readonly retryable: boolean;

  /**
   * For the library and for engines.
   * @param code of the table
   * @param message what, with which value, what to do
   * @example
   * throw new BroadcastError('store-failed', 'the disk of the queue is gone', { cause });
   */
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'BroadcastError';
    this.code = code;
    this.retryable = ERRORS[code].retryable;
    Object.defineProperty(this, BRAND, { value: true });
  }

  /** True for an error of another copy of the package as well. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === 'object' && value !== null && BRAND in value;
  }
}

/** True for a code of the table: one that arrives from a peer is checked before it is trusted. */
export function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(ERRORS, code);
}

/** @internal The text of whatever was thrown; people throw anything. */
export function textOf(thrown: unknown): string {
  try {
    return thrown instanceof Error ? thrown.message : String(thrown);
  } catch {
    return 'something that cannot be shown as text';
  }
}

const REJECT = Symbol.for('@alien-worlds/aw-broadcast.reject');

/**
 * Thrown by a handler to send the message to the dead letters at once, without further attempts.
 *
 * @example
 * client.onMessage('orders', message => {
 *   if (!isOrder(message.data)) throw new BroadcastReject('not an order');
 * });
 */
export class BroadcastReject extends Error {
  /**
   * An error that sends the message to the dead letters.
   * @param reason what the sender and the dead letter say; default `rejected by the handler`
   * @example
   * throw new BroadcastReject('not an order');
   */
  constructor(reason?: string) {
    super(reason ?? 'rejected by the handler');
    this.name = 'BroadcastReject';
    Object.defineProperty(this, REJECT, { value: true });
  }

  /** True for one of another copy of the package as well. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === 'object' && value !== null && REJECT in value;
  }
}
