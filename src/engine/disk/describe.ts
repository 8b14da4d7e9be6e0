/** What the host is told of a store that has been opened. */
import type { EngineState, ExpiringRun, QueueState, SenderState, TrackedMessage } from '../engine.js';
import type { DiskStore } from './store.js';

export function describe(storeId: string, store: DiskStore, damage: readonly string[]): EngineState {
  const { state } = store;
  const queues: QueueState[] = [];
  const expiring: ExpiringRun[] = [];
  const tracked = new Map<number, TrackedMessage & { queues: string[] }>();
  for (const [queue, index] of state.queues) {
    queues.push({ queue, messages: index.messages, bytes: index.bytes });
    for (const { handle, count, offset, source } of index.from(0)) {
      if (source.expiresAt !== 0) expiring.push({ queue, handle, count, expiresAt: source.expiresAt });
      if (source.tracked === undefined) continue;
      const { instance, first, ids } = source.tracked;
      for (let i = 0; i < count; i++) {
        const known = tracked.get(handle + i);
        if (known !== undefined) known.queues.push(queue);
        else {
          const position = first + offset + i;
          const id = ids[offset + i] as string;
          tracked.set(handle + i, { instance, position, handle: handle + i, queues: [queue], id });
        }
      }
    }
  }
  const senders = [...state.senders].map(([instance, { name, floor, taken }]): SenderState => ({
    instance,
    name,
    floor,
    taken: [...taken.ranges()],
  }));
  const entries = new Map([...state.entries].map(([key, { value }]) => [key, value]));
  return {
    storeId,
    time: store.time(),
    nextHandle: state.nextHandle,
    entries,
    queues,
    expiring,
    senders,
    tracked: [...tracked.values()],
    damage,
  };
}
