/** Which messages of a delivery are still open, by their place in the batch and by handle. */
import type { Delivery, Queue } from './model.js';

/** Messages of a batch: from an offset on, so many. */
export interface Part {
  readonly offset: number;
  readonly count: number;
}

/** The messages of a delivery that are not done, as parts of its entry's batch; without what one of its queues has no longer. */
export function openParts(delivery: Delivery, queue?: Queue): Part[] {
  const { offset, count, done, later, refused } = delivery;
  const isWhole = (later?.size ?? 0) === 0 && (queue === undefined || refused === undefined);
  if (isWhole) return done === count ? [] : [{ offset: offset + done, count: count - done }];
  const parts: { offset: number; count: number }[] = [];
  for (let i = done; i < count; i++) {
    if (later?.has(i) === true || (queue !== undefined && refused?.get(i)?.has(queue) === true)) continue;
    const last = parts[parts.length - 1];
    if (last !== undefined && last.offset + last.count === offset + i) last.count++;
    else parts.push({ offset: offset + i, count: 1 });
  }
  return parts;
}

/** The same by handle, of a stored delivery. */
export function openHandles(delivery: Delivery, queue?: Queue): { handle: number; count: number }[] {
  const { handle, offset } = delivery;
  return openParts(delivery, queue).map(part => ({ handle: handle + part.offset - offset, count: part.count }));
}

/** How often a message of a delivery has been attempted before, for one of its queues. */
export function attemptsOf({ charged, attempts }: Delivery, index: number, { subscription }: Queue): number {
  return charged?.get(index)?.get(subscription) ?? attempts;
}

/** The parts of a run that are not on their way from this queue already. */
export function notInFlight(
  queue: Queue,
  run: { readonly handle: number; readonly batch: { readonly count: number } },
): Part[] {
  let parts: Part[] = [{ offset: 0, count: run.batch.count }];
  for (const delivery of queue.inflight) {
    const { handle, count } = delivery;
    if (handle === 0 || handle >= run.handle + run.batch.count || handle + count <= run.handle) continue;
    for (const busy of openHandles(delivery, queue)) {
      parts = parts.flatMap(part => subtract(part, busy.handle - run.handle, busy.count));
    }
  }
  return parts;
}

function subtract(part: Part, offset: number, count: number): Part[] {
  const end = part.offset + part.count;
  const rest = [
    { offset: part.offset, count: Math.min(end, offset) - part.offset },
    { offset: Math.max(part.offset, offset + count), count: end - Math.max(part.offset, offset + count) },
  ];
  return rest.filter(piece => piece.count > 0);
}
