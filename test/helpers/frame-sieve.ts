/** Follows the frames in a stream of the protocol, as it comes in pieces, and leaves out those of some types. */
import { FRAME_HEADER, PREAMBLE_BYTES } from '../../src/protocol/constants.js';

const LENGTH_BYTES = 4;

export class FrameSieve {
  /** The frame that has begun, as far as its length and type; undefined in the preamble. */
  #head: Buffer = Buffer.alloc(0);
  /** How much of `#head` has been handed on. */
  #passed = 0;
  /** Bytes that belong to what has begun: the preamble, or a frame whose type is known. */
  #left = PREAMBLE_BYTES;
  #isLost = false;
  /** Frames that were left out. */
  lost = 0;

  /** What is left of a piece. While frames of some types are lost, the beginning of one waits until its type is known. */
  pass(chunk: Buffer, types: ReadonlySet<number>): Buffer {
    const kept: Buffer[] = [];
    let at = 0;
    while (at < chunk.length) {
      if (this.#left > 0) {
        const end = Math.min(chunk.length, at + this.#left);
        if (!this.#isLost) kept.push(chunk.subarray(at, end));
        this.#left -= end - at;
        at = end;
        continue;
      }
      const end = Math.min(chunk.length, at + FRAME_HEADER - this.#head.length);
      this.#head = Buffer.concat([this.#head, chunk.subarray(at, end)]);
      at = end;
      if (this.#head.length === FRAME_HEADER) kept.push(this.#begin(types));
    }
    if (types.size === 0) kept.push(this.#takeHead());
    return Buffer.concat(kept);
  }

  #begin(types: ReadonlySet<number>): Buffer {
    // Once a part of it has gone on, the rest must follow.
    this.#isLost = this.#passed === 0 && types.has(this.#head[LENGTH_BYTES] as number);
    if (this.#isLost) this.lost++;
    this.#left = this.#head.readUInt32LE(0) + LENGTH_BYTES - FRAME_HEADER;
    const head = this.#isLost ? Buffer.alloc(0) : this.#takeHead();
    this.#head = Buffer.alloc(0);
    this.#passed = 0;
    return head;
  }

  /** What of the beginning has not been handed on. */
  #takeHead(): Buffer {
    const rest = this.#head.subarray(this.#passed);
    this.#passed = this.#head.length;
    return rest;
  }
}
