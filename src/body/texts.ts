/** Short texts that were read before: to compare some bytes takes a fraction of the time of making a string. */

/** Longer ones are seldom the same again. */
const MAX_LENGTH = 24;
/** Places in a table; a power of two. */
const PLACES = 2048;

export class TextTable {
  readonly #texts = new Array<string | undefined>(PLACES).fill(undefined);
  readonly #isForKeys: boolean;

  /** Keys are kept as the engine keeps the names of properties, which makes setting one faster. */
  constructor(use: 'keys' | 'values') {
    this.#isForKeys = use === 'keys';
  }

  /** The text from `start` to `end`; undefined when it is too long, or not ASCII. */
  at(bytes: Buffer, start: number, end: number): string | undefined {
    const length = end - start;
    if (length > MAX_LENGTH) return undefined;
    if (length === 0) return '';
    const middle = bytes[start + (length >> 1)] as number;
    const place =
      (length * 37 + (bytes[start] as number) * 5 + (bytes[end - 1] as number) * 131 + middle * 17) & (PLACES - 1);
    const known = this.#texts[place];
    if (known?.length === length && isSame(known, bytes, start)) return known;
    for (let i = start; i < end; i++) if ((bytes[i] as number) >= 0x80) return undefined;
    const text = bytes.toString('latin1', start, end);
    return (this.#texts[place] = this.#isForKeys ? asPropertyName(text) : text);
  }
}

function isSame(text: string, bytes: Buffer, start: number): boolean {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) !== bytes[start + i]) return false;
  return true;
}

function asPropertyName(text: string): string {
  return Object.keys({ [text]: 0 })[0] as string;
}
