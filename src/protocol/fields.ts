/** Fields that several frames have: names, extensions, texts of bounded length. */
import { checkName } from '../names.js';
import { malformed, type Reader, type Writer } from './bytes.js';

/** 1.4. Throws `invalid-name`. */
export function readName(reader: Reader, what: string): string {
  const name = reader.str();
  checkName(name, what);
  return name;
}

/** A name, or the empty string where that has a meaning of its own: addressed to the client, none. */
export function readNameOrEmpty(reader: Reader, what: string): string {
  const name = reader.str();
  if (name !== '') checkName(name, what);
  return name;
}

/** A target in full (5.3): a name of so many bytes. */
export function readTargetName(reader: Reader, bytes: number, kind: string): string {
  const name = reader.text(bytes);
  checkName(name, `the ${kind}`);
  return name;
}

/** The prefix of message ids (3.2); the empty string where `optional`. */
export function readIdPrefix(reader: Reader, optional: boolean): string {
  const prefix = reader.str(64);
  if (!/^[A-Za-z0-9_-]{16}$/.test(prefix) && !(optional && prefix === '')) {
    throw malformed('the prefix of ids must be 16 characters of A-Z a-z 0-9 - _');
  }
  return prefix;
}

/** 3.2: features and credentials. */
export type Extensions = ReadonlyMap<string, Uint8Array>;

export function writeExtensions(writer: Writer, extensions: Extensions): void {
  writer.varint(extensions.size);
  for (const [key, value] of extensions) writer.str(key).bytes(value);
}

export function readExtensions(reader: Reader): Extensions {
  const extensions = new Map<string, Uint8Array>();
  for (let n = reader.count(2); n > 0; n--) {
    const key = reader.str(255);
    if (extensions.has(key)) throw malformed('an extension is given twice');
    extensions.set(key, reader.bytes());
  }
  return extensions;
}

/** Cuts a text to so many bytes of UTF-8, between characters, and makes lone surrogates harmless. */
export function cutText(text: string, maxBytes: number): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= maxBytes) return bytes.toString();
  let end = maxBytes;
  while (((bytes[end] as number) & 0xc0) === 0x80) end--;
  return bytes.toString('utf8', 0, end);
}
