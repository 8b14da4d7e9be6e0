/** Space of acknowledged messages is given back, whatever else waits in the log. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { systemClock } from '../../src/clock.js';
import { diskEngine } from '../../src/engine/index.js';
import { temporaryFolder } from '../helpers/scene.js';
import { ENVELOPE } from '../helpers/envelope.js';

const KIB = 1024;

it('a name that is away does not hold on to what was stored and acknowledged after its messages', async () => {
  const directory = join(await temporaryFolder(), 'data');
  const engine = diskEngine({ directory, segmentBytes: 64 * KIB });
  await engine.open({
    clock: systemClock,
    storeBytes: undefined,
    failed: error => {
      throw error;
    },
    roomAgain: () => undefined,
    arrived: () => undefined,
    damaged: () => undefined,
    warn: () => undefined,
  });
  onTestFinished(() => engine.close());
  let position = 1;
  const append = (queue: string, bytes: number): number => {
    const items = Buffer.alloc(bytes);
    items.writeUInt32LE(bytes - 4, 0);
    const batch = {
      sender: { instance: 'ab'.repeat(16), name: 'sender' },
      envelope: { ...ENVELOPE, clients: [queue], idPrefix: 'A'.repeat(16) },
      first: position,
      count: 1,
      idBase: position,
      floor: position,
      timestamp: 0,
      items,
    };
    position++;
    return engine.append([{ batch, expiresAt: 0, queues: [{ queue, offset: 0, count: 1 }] }])[0]!;
  };
  append('away', 40 * KIB); // more than a quarter of its segment
  let most = 0;
  for (let i = 0; i < 200; i++) {
    const handle = append('busy', 20 * KIB);
    await engine.commit();
    engine.ack('busy', handle, 1);
    await engine.commit();
    most = Math.max(most, (await readdir(directory)).filter(name => name.endsWith('.log')).length);
  }
  // 4 MB went through, 40 KiB wait; each segment has 64 KiB.
  expect(most).toBeLessThan(12);
  const runs = await engine.read('away', 0, 10, 1024 * KIB);
  expect(runs.map(run => run.batch.count)).toEqual([1]);
});
