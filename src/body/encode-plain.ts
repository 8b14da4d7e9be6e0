/**
 * The plain path's encoder: MessagePack in its shortest forms, written while the value is looked at for what this path
 * cannot carry. Our own because a check before a library's encoder walks every value twice (docs/decisions/0005-body-codec.md).
 */

/** Nesting up to this depth takes the plain path; deeper values take the other one, which does not recurse. */
const MAX_PLAIN_DEPTH = 64;
/** Objects in one value above which a set finds repeats faster than a look along the list. */
const MAX_LISTED = 12;
/** Texts up to this length are written by a loop, which is faster than a call into the runtime. */
const SHORT_TEXT = 32;
/** Texts up to this length get room for the longest UTF-8 that they can have. */
const ROOMY_TEXT = 1024;
/** Bytes of the longest head. */
const MAX_HEAD = 5;
/** Bytes that a number, a short text or a head takes at most. */
const SMALL = 3 * SHORT_TEXT + 8;

const NOTHING = Buffer.alloc(0);
const float = new Float64Array(1);
const floatBytes = new Uint8Array(float.buffer);

/** Thrown for a value of the other path; nobody but `PlainEncoder` sees it, and its stack is of no interest. */
const NOT_PLAIN = new Error('not plain');

export class PlainEncoder {
  /** Where the value was written: the buffer that was given, or a larger one with what was before it. */
  buffer: Buffer = NOTHING;
  #at = 0;
  readonly #listed: (object | undefined)[] = [];
  #listedSize = 0;
  #many: Set<object> | undefined;
  isBusy = false;

  /** Behind the last byte that was written. */
  get end(): number {
    return this.#at;
  }

  /**
   * Writes a value into `buffer` from `at` on. False when it is no tree of plain objects, dense arrays, strings, numbers,
   * booleans, null and undefined in which nothing occurs twice, or when reading it throws.
   */
  encode(value: unknown, buffer: Buffer, at: number): boolean {
    this.buffer = buffer;
    this.#at = at;
    this.isBusy = true;
    try {
      this.#value(value, 0);
      return true;
    } catch {
      // A getter or proxy that throws is for the other path, which says where it is.
      return false;
    } finally {
      this.isBusy = false;
      if (this.#listedSize > 0) this.#forgetListed();
    }
  }

  #forgetListed(): void {
    for (let i = 0; i < this.#listedSize; i++) this.#listed[i] = undefined;
    this.#listedSize = 0;
    this.#many = undefined;
  }

  #reserve(bytes: number): void {
    if (this.#at + bytes <= this.buffer.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(this.buffer.length * 2, this.#at + bytes));
    this.buffer.copy(larger, 0, 0, this.#at);
    this.buffer = larger;
  }

  #value(value: unknown, depth: number): void {
    switch (typeof value) {
      case 'string':
        this.#text(value);
        return;
      case 'number':
        this.#number(value);
        return;
      case 'boolean':
        this.#byte(value ? 0xc3 : 0xc2);
        return;
      case 'undefined':
        this.#reserve(3);
        this.buffer[this.#at++] = 0xd4;
        this.buffer[this.#at++] = 0;
        this.buffer[this.#at++] = 0;
        return;
      case 'object':
        if (value === null) this.#byte(0xc0);
        else this.#object(value, depth);
        return;
      default:
        throw NOT_PLAIN;
    }
  }

  #byte(byte: number): void {
    this.#reserve(1);
    this.buffer[this.#at++] = byte;
  }

  #object(value: object, depth: number): void {
    if (depth >= MAX_PLAIN_DEPTH || this.#isRepeated(value)) throw NOT_PLAIN;
    const prototype: unknown = Object.getPrototypeOf(value);
    if (prototype === Object.prototype) this.#map(value as Record<string, unknown>, depth);
    else if (prototype === Array.prototype) this.#array(value as unknown[], depth);
    else throw NOT_PLAIN;
  }

  #isRepeated(value: object): boolean {
    const many = this.#many;
    if (many !== undefined) {
      if (many.has(value)) return true;
      many.add(value);
      return false;
    }
    const listed = this.#listed;
    const size = this.#listedSize;
    for (let i = 0; i < size; i++) if (listed[i] === value) return true;
    listed[size] = value;
    this.#listedSize = size + 1;
    if (size === MAX_LISTED) this.#many = new Set(listed as object[]);
    return false;
  }

  #map(value: Record<string, unknown>, depth: number): void {
    this.#reserve(1);
    const head = this.#at++;
    let count = 0;
    for (const key in value) {
      if (key === '__proto__') throw NOT_PLAIN;
      this.#text(key);
      this.#value(value[key], depth + 1);
      count++;
    }
    if (count < 16) this.buffer[head] = 0x80 + count;
    else this.#longHead(head, 0xde, count);
  }

  /** A head that turned out to need more than the byte that was left for it: what is behind it moves. */
  #longHead(head: number, type: number, count: number): void {
    const extra = count <= 0xffff ? 2 : 4;
    this.#reserve(extra);
    const buffer = this.buffer;
    buffer.copyWithin(head + 1 + extra, head + 1, this.#at);
    this.#at += extra;
    buffer[head] = extra === 2 ? type : type + 1;
    if (extra === 2) buffer.writeUInt16BE(count, head + 1);
    else buffer.writeUInt32BE(count, head + 1);
  }

  #array(array: unknown[], depth: number): void {
    const { length } = array;
    // Named properties (rows of a table with their `columns`) and holes show in the number of keys.
    if (Object.keys(array).length !== length) throw NOT_PLAIN;
    this.#head(length, 0x90, 16, 0xdc);
    for (let i = 0; i < length; i++) {
      const member = array[i];
      if (member === undefined && !(i in array)) throw NOT_PLAIN;
      this.#value(member, depth + 1);
    }
  }

  #head(count: number, fix: number, fixed: number, type: number): void {
    this.#reserve(5);
    if (count < fixed) this.buffer[this.#at++] = fix + count;
    else if (count <= 0xffff) {
      this.buffer[this.#at] = type;
      this.#at = this.buffer.writeUInt16BE(count, this.#at + 1);
    } else {
      this.buffer[this.#at] = type + 1;
      this.#at = this.buffer.writeUInt32BE(count, this.#at + 1);
    }
  }

  #number(value: number): void {
    this.#reserve(SMALL);
    const buffer = this.buffer;
    if ((value | 0) === value) {
      if (value === 0 && 1 / value < 0) throw NOT_PLAIN;
      if (value >= 0) this.#natural(value);
      else this.#negative(value);
    } else if (value >>> 0 === value) this.#natural(value);
    else {
      float[0] = value;
      let at = this.#at;
      buffer[at++] = 0xcb;
      for (let i = 7; i >= 0; i--) buffer[at++] = floatBytes[i] as number;
      this.#at = at;
    }
  }

  #natural(value: number): void {
    const buffer = this.buffer;
    let at = this.#at;
    if (value < 0x80) buffer[at++] = value;
    else if (value <= 0xff) {
      buffer[at++] = 0xcc;
      buffer[at++] = value;
    } else if (value <= 0xffff) {
      buffer[at++] = 0xcd;
      buffer[at++] = value >> 8;
      buffer[at++] = value & 0xff;
    } else {
      buffer[at++] = 0xce;
      buffer[at++] = value >>> 24;
      buffer[at++] = (value >>> 16) & 0xff;
      buffer[at++] = (value >>> 8) & 0xff;
      buffer[at++] = value & 0xff;
    }
    this.#at = at;
  }

  #negative(value: number): void {
    const buffer = this.buffer;
    let at = this.#at;
    if (value >= -0x20) buffer[at++] = value & 0xff;
    else if (value >= -0x80) {
      buffer[at++] = 0xd0;
      buffer[at++] = value & 0xff;
    } else if (value >= -0x8000) {
      buffer[at++] = 0xd1;
      buffer[at++] = (value >> 8) & 0xff;
      buffer[at++] = value & 0xff;
    } else {
      buffer[at++] = 0xd2;
      buffer[at++] = (value >> 24) & 0xff;
      buffer[at++] = (value >> 16) & 0xff;
      buffer[at++] = (value >> 8) & 0xff;
      buffer[at++] = value & 0xff;
    }
    this.#at = at;
  }

  #text(text: string): void {
    const { length } = text;
    if (length > SHORT_TEXT) {
      this.#longText(text);
      return;
    }
    this.#reserve(SMALL);
    const buffer = this.buffer;
    const start = this.#at;
    let at = start + (length < 32 ? 1 : 2);
    for (let i = 0; i < length; i++) {
      const code = text.charCodeAt(i);
      if (code >= 0x80) {
        this.#longText(text);
        return;
      }
      buffer[at++] = code;
    }
    if (length < 32) buffer[start] = 0xa0 + length;
    else {
      buffer[start] = 0xd9;
      buffer[start + 1] = length;
    }
    this.#at = at;
  }

  #longText(text: string): void {
    const { length } = text;
    // To count the bytes before is a call more, worth it only where there would be much room for nothing.
    const most = length <= ROOMY_TEXT ? 3 * length : Buffer.byteLength(text);
    this.#reserve(most + MAX_HEAD);
    const buffer = this.buffer;
    const head = textHead(length);
    const start = this.#at + head;
    const bytes = buffer.write(text, start);
    // Only what is not ASCII can have half a character, for which there is no UTF-8.
    if (bytes !== length && !(text as string & { isWellFormed(): boolean }).isWellFormed()) throw NOT_PLAIN;
    if (textHead(bytes) !== head) buffer.copyWithin(this.#at + textHead(bytes), start, start + bytes);
    if (bytes > 31 && bytes <= 0xff) {
      buffer[this.#at++] = 0xd9;
      buffer[this.#at++] = bytes;
    } else this.#head(bytes, 0xa0, 32, 0xda);
    this.#at += bytes;
  }
}

/** Bytes before a text of so many. */
function textHead(bytes: number): number {
  if (bytes < 32) return 1;
  if (bytes <= 0xff) return 2;
  return bytes <= 0xffff ? 3 : MAX_HEAD;
}
