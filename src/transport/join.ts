/** Joins small buffers, so that a system call has few pieces. */

/** Buffers up to this size are copied together; larger ones are written as they are. */
const COPY_BELOW = 4096;

/** The same bytes in fewer buffers. */
export function joinSmall(buffers: Buffer[]): Buffer[] {
  if (buffers.length === 1) return buffers;
  const pieces: Buffer[] = [];
  let start = 0;
  let bytes = 0;
  for (let i = 0; i <= buffers.length; i++) {
    const buffer = buffers[i];
    if (buffer !== undefined && buffer.length <= COPY_BELOW) {
      bytes += buffer.length;
      continue;
    }
    if (i > start) pieces.push(joinRun(buffers, start, i, bytes));
    if (buffer !== undefined) pieces.push(buffer);
    start = i + 1;
    bytes = 0;
  }
  return pieces;
}

function joinRun(buffers: Buffer[], start: number, end: number, bytes: number): Buffer {
  if (end - start === 1) return buffers[start] as Buffer;
  // Comes from Node's pool when it is small.
  const joined = Buffer.allocUnsafe(bytes);
  let at = 0;
  for (let i = start; i < end; i++) {
    const buffer = buffers[i] as Buffer;
    joined.set(buffer, at);
    at += buffer.length;
  }
  return joined;
}
