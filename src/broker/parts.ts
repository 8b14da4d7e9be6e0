/** Which messages of a delivery are still open, by their place in the batch and by handle. */
import type { StoredRun } from '../engine/engine.js';
import type { Delivery, Queue } from './model.js';

/** The messages of a delivery that are not done, as parts of its entry's batch. */
export function openParts(delivery: Delivery): { offset: number; count: number }[] {
  const { offset, count, done, later } = delivery;
  if (later === undefined || later.size === 0) return [{ offset: offset + done, count: count - done }];
  const parts: { offset: number; count: number }[] = [];
  for (let i = done; i < count; i++) {
    if (later.has(i)) continue;
    const last = parts[parts.length - 1];
    if (last !== undefined && last.offset + last.count === offset + i) last.count++;
    else parts.push({ offset: offset + i, count: 1 });
  }
  return parts;
}

/** The open parts of a stored delivery by handle, without what one of its queues has no longer. */
export function openHandles(delivery: Delivery, queue?: Queue): { handle: number; count: number }[] {
  const { refused, handle, offset } = delivery;
  let parts = openParts(delivery);
  if (queue !== undefined && refused !== undefined) {
    for (const [index, refusals] of refused) {
      if (refusals.has(queue)) parts = parts.flatMap(part => subtract(part, offset + index, 1));
    }
  }
  return parts.map(part => ({ handle: handle + part.offset - offset, count: part.count }));
}

/** The parts of a run that are not on their way from this queue already. */
export function notInFlight(queue: Queue, run: StoredRun): { offset: number; count: number }[] {
  let parts = [{ offset: 0, count: run.batch.count }];
  for (const delivery of queue.inflight) {
    const { handle, count } = delivery;
    if (handle === 0 || handle >= run.handle + run.batch.count || handle + count <= run.handle) continue;
    for (const busy of openHandles(delivery, queue)) {
      parts = parts.flatMap(part => subtract(part, busy.handle - run.handle, busy.count));
    }
  }
  return parts;
}

function subtract(
  part: { offset: number; count: number },
  offset: number,
  count: number,
): { offset: number; count: number }[] {
  const end = part.offset + part.count;
  const rest = [
    { offset: part.offset, count: Math.min(end, offset) - part.offset },
    { offset: Math.max(part.offset, offset + count), count: end - Math.max(part.offset, offset + count) },
  ];
  return rest.filter(piece => piece.count > 0);
}
