/** A store without room, until a test gives it some, and recipients of what waits in memory meanwhile. */
import { memoryEngine, type Engine } from '../../src/engine/index.js';
import { BroadcastError, type BroadcastClient } from '../../src/index.js';
import { gate, Inbox, newClient } from './scene.js';

/** An engine in memory that has no room while it is `full`. */
export function fillable(): { engine: Engine; store: { full: boolean; refusals: number } } {
  const engine = memoryEngine();
  const store = { full: true, refusals: 0 };
  const append = engine.append.bind(engine);
  engine.append = batches => {
    if (!store.full) return append(batches);
    store.refusals++;
    throw new BroadcastError('store-full', 'there is no room');
  };
  return { engine, store };
}

/** Nothing is stored for want of progress. */
export const PATIENT = { storeAfter: 10_000 };

/** A client whose handlers start and do not end until they are let go on, or the client leaves without waiting for them. */
export async function stuck(
  port: number,
  channels: readonly string[],
): Promise<{ client: BroadcastClient; started: Inbox; open: () => void; leave: () => Promise<void> }> {
  const client = newClient(port, 'reader');
  const started = new Inbox();
  const { promise, open } = gate();
  for (const channel of channels) {
    client.onMessage(channel, ({ data }, { attempt, redelivered }) => {
      started.push({ channel, data, attempt, redelivered });
      return promise;
    });
  }
  await client.connect();
  const leave = async (): Promise<void> => {
    await client.close({ timeout: 1 });
    open();
  };
  return { client, started, open, leave };
}
