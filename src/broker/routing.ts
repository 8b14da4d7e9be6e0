/**
 * Routing: what a client sends, recognised when it comes again, observed, and handed on to its recipients. What becomes of
 * it then is in persistent.ts and transient.ts.
 */
import { itemOffsets, sliceBatch, type Batch } from '../batch.js';
import type { Context } from './context.js';
import type { Instance, Sender } from './model.js';
import { routePersistent } from './persistent.js';
import { PeerFault, SEND_WINDOW } from './ports.js';
import { raiseFloor } from './senders.js';
import { isCongested } from './store.js';
import { routeTransient } from './transient.js';

/** Takes what an instance sends. Throws `position-conflict`, `protocol-error`. */
export function publish(ctx: Context, instance: Instance, batch: Batch): void {
  const { sender } = instance;
  // It stays with its sender, who sends it again to the next server.
  if (ctx.stopped) return;
  if (sender.unsettledBytes > SEND_WINDOW.bytes) {
    throw new PeerFault('protocol-error', 'more came than the window of unsettled bytes allows');
  }
  ctx.counters.messagesIn += batch.count;
  raiseFloor(ctx, sender, batch.floor);
  if (batch.first > sender.last) {
    sender.taken.add(batch.first, batch.count);
    sender.last = batch.first + batch.count - 1;
    route(ctx, instance, batch);
  } else {
    publishAgain(ctx, instance, batch);
  }
  if (isCongested(ctx) && !ctx.paused.has(instance)) {
    ctx.paused.add(instance);
    instance.outlet?.pauseReading(true);
  }
}

/** Some of it may have come before: on an earlier connection, or before the server was killed. */
function publishAgain(ctx: Context, instance: Instance, batch: Batch): void {
  const { sender } = instance;
  checkSame(sender, batch);
  const skip = Math.min(batch.count, Math.max(0, sender.floor - batch.first));
  if (skip === batch.count) return;
  const fresh = sender.taken.addNew(batch.first + skip, batch.count - skip);
  sender.last = Math.max(sender.last, batch.first + batch.count - 1);
  for (const { first, count } of fresh) route(ctx, instance, sliceBatch(batch, first - batch.first, count));
}

/** A position that comes again must bring the same body (docs/protocol.md, 6.4). */
function checkSame(sender: Sender, batch: Batch): void {
  let offsets: Uint32Array | undefined;
  for (const { batch: held } of sender.unsettled) {
    const from = Math.max(held.first, batch.first);
    const to = Math.min(held.first + held.count, batch.first + batch.count);
    if (from >= to) continue;
    offsets ??= itemOffsets(batch.items, batch.count);
    const heldOffsets = itemOffsets(held.items, held.count);
    for (let position = from; position < to; position++) {
      const i = position - batch.first;
      const j = position - held.first;
      const now = batch.items.subarray((offsets[i] as number) + 5, offsets[i + 1]);
      const before = held.items.subarray((heldOffsets[j] as number) + 5, heldOffsets[j + 1]);
      if (!now.equals(before))
        throw new PeerFault('position-conflict', `position ${String(position)} came with two contents`);
    }
  }
}

function route(ctx: Context, instance: Instance, batch: Batch): void {
  // What the server itself sends is not observed.
  if (instance.sender.name !== undefined) ctx.events.published?.(batch, instance);
  if (batch.envelope.persistent) routePersistent(ctx, instance, batch);
  else routeTransient(ctx, instance, batch);
}
