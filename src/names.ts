/** Which names are allowed for clients, channels and messages (docs/protocol.md, 1.4). */
import { BroadcastError } from './errors.js';
import { LONE_SURROGATE } from './message.js';

/** Default of `limits.nameBytes`. */
const MAX_NAME_BYTES = 255;

const CONTROL = /[\u0000-\u001f\u007f-\u009f]/;
const PATTERN_PART = /(?:^|\.)[*>](?:\.|$)/;
const ADDRESS = /^(?:[^:\s]+|\[[^\]]*\]):\d{1,5}$/;

/** True for `host:port`: the address of a connection. */
export function isAddress(name: string): boolean {
  return ADDRESS.test(name);
}

/** Throws `invalid-name` unless `name` can be a channel or the target of a message. */
export function checkName(name: unknown, what: string, maxBytes: number = MAX_NAME_BYTES): asserts name is string {
  const fault = faultOf(name, maxBytes);
  if (fault !== undefined) throw new BroadcastError('invalid-name', `${what} ${show(name)} ${fault}`);
}

/** Throws `invalid-name` unless `name` can be a client's own name. */
export function checkClientName(name: unknown, maxBytes: number = MAX_NAME_BYTES): asserts name is string {
  checkName(name, 'the client name', maxBytes);
  if (isAddress(name)) {
    throw new BroadcastError(
      'invalid-name',
      `the client name ${show(name)} looks like the address of a connection; leave out the ":" or the port`,
    );
  }
}

function faultOf(name: unknown, maxBytes: number): string | undefined {
  if (typeof name !== 'string') return `must be a string, not ${name === null ? 'null' : typeof name}`;
  if (name === '') return 'is empty';
  if (name.length > maxBytes || (name.length * 3 > maxBytes && Buffer.byteLength(name) > maxBytes)) {
    return `is longer than ${String(maxBytes)} bytes of UTF-8`;
  }
  if (CONTROL.test(name)) return 'has a control character';
  if (LONE_SURROGATE.test(name)) return 'has a lone surrogate';
  if (PATTERN_PART.test(name)) return 'has a part that is "*" or ">" alone, which is reserved for patterns';
  return undefined;
}

/** A value as it may stand in an error's text: short and without anything that could move a terminal's cursor. */
export function show(value: unknown): string {
  const text = typeof value === 'string' ? JSON.stringify(value) : String(value);

  const safe = text.replace(/[\u007f-\u009f]/g, c => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
  return safe.length > 80 ? `${safe.slice(0, 77)}…` : safe;
}
