/**
 * Buffers of batches that are gone from the outbox, for those that come. Memory outside of the JavaScript heap that lives
 * for some milliseconds costs more than its allocation: the collector is started by how much of it there is.
 */

/** Buffers from here on are kept, in sizes that are multiples of it; smaller ones are cheap. */
const STEP = 8 * 1024;
/** Bytes that are kept at most while much is sent: an outbox that was full is filled again when it is half empty. */
const MAX_KEPT = 16 * 1024 * 1024;
/** And when everything has been sent. */
const MAX_IDLE = 1024 * 1024;

export class SpareBuffers {
  #bySteps: Buffer[][] = [];
  #kept = 0;

  /** A buffer of at least so many bytes, with whatever was in it. */
  take(bytes: number): Buffer {
    if (bytes < STEP) return Buffer.allocUnsafe(bytes);
    const steps = Math.ceil(bytes / STEP);
    const spare = this.#bySteps[steps]?.pop();
    if (spare === undefined) return Buffer.allocUnsafeSlow(steps * STEP);
    this.#kept -= spare.length;
    return spare;
  }

  /** Nobody reads or writes this buffer any more. */
  give(buffer: Buffer): void {
    const steps = buffer.length / STEP;
    if (!Number.isInteger(steps) || steps === 0 || this.#kept + buffer.length > MAX_KEPT) return;
    (this.#bySteps[steps] ??= []).push(buffer);
    this.#kept += buffer.length;
  }

  /** Nothing is on its way: most of what is kept is not needed soon. */
  trim(): void {
    if (this.#kept <= MAX_IDLE) return;
    this.#bySteps = [];
    this.#kept = 0;
  }
}
