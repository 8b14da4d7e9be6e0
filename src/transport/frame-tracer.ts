/** Says which frames come and go, for a logger that has `trace`. Outgoing frames may lie in several buffers. */
import { FRAME_HEADER, frameName, PREAMBLE } from '../protocol/constants.js';
import type { Logger } from '../logger.js';

export class FrameTracer {
  readonly #logger: Logger;
  /** Bytes of an outgoing frame that was named and whose rest is to come. */
  #left = 0;

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  in(frame: Buffer): void {
    this.#name('←', frame, 0, frame.length);
  }

  out(buffers: readonly Buffer[]): void {
    for (const buffer of buffers) if (buffer !== PREAMBLE) this.#walk(buffer);
  }

  /** A frame’s length and type always lie in one buffer. */
  #walk(buffer: Buffer): void {
    let at = Math.min(this.#left, buffer.length);
    this.#left -= at;
    while (buffer.length - at >= FRAME_HEADER) {
      const bytes = 4 + buffer.readUInt32LE(at);
      this.#name('→', buffer, at, bytes);
      const here = Math.min(bytes, buffer.length - at);
      this.#left = bytes - here;
      at += here;
    }
  }

  #name(direction: string, buffer: Buffer, at: number, bytes: number): void {
    this.#logger.trace?.(`${direction} ${frameName(buffer[at + FRAME_HEADER - 1] as number)} ${String(bytes)} bytes`);
  }
}
