/** Changes valid inputs into hostile ones, as a seed decides: flips, cuts, splices, repeats, numbers at the edges, lengths that lie. */
import { seeded } from '../../helpers/seeded.cjs';

const BYTES = [0, 1, 2, 0x7f, 0x80, 0x81, 0xfe, 0xff];
const NUMBERS = [0, 1, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff];
const TEXTS = [
  '',
  ' ',
  '\0',
  '\n',
  ',',
  '=',
  ':',
  '/',
  '[',
  ']',
  '.',
  '*',
  '%',
  '__proto__',
  '\ud800',
  '🧱',
  '-',
  '1e9',
  'NaN',
];

export class Mutator {
  readonly #random: () => number;

  constructor(seed: number) {
    this.#random = seeded(seed);
  }

  /** A whole number from 0 to before `limit`. */
  below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  /** True once in so many times. */
  onceIn(times: number): boolean {
    return this.below(times) === 0;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)] as T;
  }

  noise(size: number): Buffer {
    const bytes = Buffer.allocUnsafe(size);
    for (let i = 0; i < size; i++) bytes[i] = this.below(256);
    return bytes;
  }

  /** A changed copy; what is spliced in comes from `others`. */
  bytes(bytes: Buffer, others: readonly Buffer[], times: number = 1 + this.below(4)): Buffer {
    let changed: Buffer = Buffer.from(bytes);
    for (let i = 0; i < times; i++) changed = this.#change(changed, others);
    return changed;
  }

  #change(bytes: Buffer, others: readonly Buffer[]): Buffer {
    const at = this.below(bytes.length + 1);
    const size = 1 + this.below(this.onceIn(4) ? 64 : 8);
    switch (this.below(12)) {
      case 0:
        return bytes.subarray(0, at);
      case 1:
        return Buffer.concat([bytes.subarray(0, at), this.#part(this.pick(others))]);
      case 2:
        return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at, at + size), bytes.subarray(at)]);
      case 3:
        return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + size)]);
      case 4:
        return Buffer.concat([bytes.subarray(0, at), this.noise(size), bytes.subarray(at)]);
      case 5:
      case 6:
        this.#number(bytes, at, this.onceIn(2) ? this.pick(NUMBERS) : bytes.length - at + this.below(9) - 4);
        return bytes;
      case 7:
        // The longest number that the protocol's notation has.
        bytes.fill(0xff, at, Math.min(bytes.length, at + 1 + this.below(8)));
        return bytes;
      case 8:
        if (at < bytes.length) bytes[at] = this.pick(BYTES);
        return bytes;
      default:
        if (at < bytes.length) bytes[at] = (bytes[at] as number) ^ (1 << this.below(8));
        return bytes;
    }
  }

  /** Overwrites a number of one, two or four bytes, in either order. */
  #number(bytes: Buffer, at: number, value: number): void {
    const width = this.pick([1, 2, 4]);
    if (at + width > bytes.length) return;
    const fitting = Math.abs(value) % 2 ** (8 * width);
    if (this.onceIn(2)) bytes.writeUIntLE(fitting, at, width);
    else bytes.writeUIntBE(fitting, at, width);
  }

  #part(bytes: Buffer): Buffer {
    const from = this.below(bytes.length + 1);
    return bytes.subarray(from, from + this.below(bytes.length - from + 1));
  }

  /** A changed text. */
  text(text: string, others: readonly string[], times: number = 1 + this.below(3)): string {
    let changed = text;
    for (let i = 0; i < times; i++) {
      const at = this.below(changed.length + 1);
      const size = this.below(4);
      const before = changed.slice(0, at);
      switch (this.below(6)) {
        case 0:
          changed = before;
          break;
        case 1:
          changed = before + changed.slice(at + size);
          break;
        case 2:
          changed = before + this.pick(others).slice(this.below(8)) + changed.slice(at);
          break;
        case 3:
          changed = before + changed.slice(at, at + size).repeat(1 + this.below(40)) + changed.slice(at);
          break;
        case 4:
          changed = before + String.fromCharCode(this.below(this.onceIn(3) ? 0x10000 : 0x80)) + changed.slice(at + 1);
          break;
        default:
          changed = before + this.pick(TEXTS) + changed.slice(at);
      }
    }
    return changed;
  }
}
