/**
 * Keys of objects that come again and again. For a list of keys that was seen often enough, a function is compiled that
 * compares the keys' bytes with those it knows and makes the object by a literal; the engine then knows its layout
 * beforehand. The idea is msgpackr's, whose records send a list of keys once; here it is recognised, and nothing is sent.
 */

/** Makes an object from the bytes of its members, which begin at a place. */
export type ShapeReader = (bytes: Buffer, at: number) => object;

/** What a compiled reader needs of the decoder. */
export interface ShapeHost {
  /** The value that begins at a place. */
  readonly valueAt: (at: number) => unknown;
  /** Behind the last value that was read. */
  readonly position: () => number;
  /** Goes on with the members that are left, at a place, of an object that has other keys from there on. */
  readonly otherwise: (object: Record<string, unknown>, count: number, at: number) => object;
}

/** By so many more objects had these keys than others had: a reader is worth its compiling. */
const WORTH = 16;
/** Objects after which no more is tried in a place whose keys are never the same. */
const MAX_WATCHED = 4096;
/** Objects with other keys after which a reader is given up, unless there were more with those that it knows. */
const MAX_MISSED = 4096;
/** Readers that a process compiles at most: whoever chooses keys on purpose must not make it compile for ever. */
const MAX_READERS = 512;
/** Objects with more members, or longer keys, are dictionaries rather than records. */
const MAX_MEMBERS = 32;
const MAX_KEY_BYTES = 31;
/** Places in the table for each number of members; a power of two. */
const PLACES = 64;

/** The key that sets no property in a literal. */
const PROTOTYPE = '__proto__';
/** Head of a text of no bytes; that of one of up to 31 bytes is greater by their number. */
const FIXED_TEXT = 0xa0;

/** What is known of the objects that begin alike and have as many members. */
export class Shape {
  /** There is one while most of them have the same keys. */
  reader: ShapeReader | undefined;
  /** How often the reader was called. */
  uses = 0;
  readonly #table: ShapeTable;
  #keys: readonly string[] = [];
  #seen = 0;
  #watched = 0;
  #missed = 0;

  constructor(table: ShapeTable) {
    this.#table = table;
  }

  /** Where to put the keys of the next object; undefined when nobody wants to know. */
  watch(): string[] | undefined {
    return this.#watched < MAX_WATCHED && this.#table.hasRoom ? [] : undefined;
  }

  /** An object with these keys was read. */
  learn(keys: readonly string[]): void {
    // One in another one may have been the last that was missing.
    if (this.reader !== undefined) return;
    this.#watched++;
    // Not kept: whoever sends chooses them, and nobody would ever let them go.
    if (keys.some(({ length }) => length > MAX_KEY_BYTES)) return;
    // Those that most have: each object speaks for its own keys, and against others (Boyer and Moore's majority vote).
    this.#seen += keys.every((key, i) => key === this.#keys[i]) ? 1 : -1;
    if (this.#seen < 1) {
      this.#keys = keys;
      this.#seen = 1;
    }
    if (this.#seen < WORTH) return;
    this.reader = this.#table.compile(this.#keys, () => this.#miss());
    this.#seen = this.#watched = this.#missed = this.uses = 0;
    if (this.reader === undefined) this.#watched = MAX_WATCHED;
  }

  #miss(): void {
    if (++this.#missed < MAX_MISSED) return;
    if (this.#missed * 2 > this.uses) this.reader = undefined;
    this.#missed = this.uses = 0;
  }
}

export class ShapeTable {
  readonly #host: ShapeHost;
  readonly #shapes = new Array<Shape | undefined>(MAX_MEMBERS * PLACES).fill(undefined);
  #readersLeft = MAX_READERS;

  constructor(host: ShapeHost) {
    this.#host = host;
  }

  /** Another reader can be compiled. */
  get hasRoom(): boolean {
    return this.#readersLeft > 0;
  }

  /** What is known of objects that begin as the one whose `count` members begin at a place. */
  shapeAt(bytes: Buffer, at: number, count: number): Shape | undefined {
    if (count === 0 || count > MAX_MEMBERS) return undefined;
    const head = bytes[at] as number;
    const last = bytes[at + head - FIXED_TEXT] as number;
    const hash = head * 7 + (bytes[at + 1] as number) * 13 + last * 3;
    const place = (count - 1) * PLACES + (hash & (PLACES - 1));
    return (this.#shapes[place] ??= new Shape(this));
  }

  /** Undefined when these keys do not suit, or no code may be made. `missed`: the reader met other keys. */
  compile(keys: readonly string[], missed: () => void): ShapeReader | undefined {
    const names = keys.map(key => Buffer.from(key));
    if (keys.includes(PROTOTYPE) || names.some(({ length }) => length > MAX_KEY_BYTES)) return undefined;
    this.#readersLeft--;
    const { valueAt, position, otherwise } = this.#host;
    const goOn: ShapeHost['otherwise'] = (object, count, at) => {
      missed();
      return otherwise(object, count, at);
    };
    try {
      // The code is made of numbers and of keys that JSON has quoted.
      // eslint-disable-next-line @typescript-eslint/no-implied-eval, @typescript-eslint/no-unsafe-call
      return new Function('valueAt', 'position', 'goOn', sourceOf(keys, names))(valueAt, position, goOn) as ShapeReader;
    } catch {
      // Node was started with --disallow-code-generation-from-strings.
      this.#readersLeft = 0;
      return undefined;
    }
  }
}

/** The text of a function that returns the reader. */
function sourceOf(keys: readonly string[], names: readonly Buffer[]): string {
  const membersTo = (count: number): string =>
    `{ ${keys
      .slice(0, count)
      .map((key, i) => `${JSON.stringify(key)}: v${String(i)}`)
      .join(', ')} }`;
  const lines = names.map((name, i) => {
    const isOther = [FIXED_TEXT + name.length, ...name]
      .map((byte, offset) => `bytes[at + ${String(offset)}] !== ${String(byte)}`)
      .join(' || ');
    const left = String(keys.length - i);
    return `  if (${isOther}) return goOn(${membersTo(i)}, ${left}, at);
  const v${String(i)} = valueAt(at + ${String(name.length + 1)});
  at = position();`;
  });
  return `return (bytes, at) => {\n${lines.join('\n')}\n  return ${membersTo(keys.length)};\n};`;
}
