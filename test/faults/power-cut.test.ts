/**
 * Power cuts: the file system of the store is shut down in the middle of the load, without what was not synced, its server
 * is killed, the file system is mounted again and recovers, and the server is started on what is left. A run of the long
 * form is one cut; the oracle judges ten of them together.
 */
import { expect, it } from 'vitest';
import { join } from 'node:path';
import { LoopDisk, noLoopDisk } from './loop-disk.js';
import { play, type Scenario } from './oracle/scenario.js';
import { Tally } from './oracle/tally.js';
import { extentOf, report, seedsOf, timeoutOf } from './suite.js';

const MIB = 1024 * 1024;
/** Cuts that one scenario sees. */
const CUTS = 10;

const extent = extentOf({ runs: 3 });
const missing = noLoopDisk();
if (missing !== undefined) console.log(`power-cut is skipped: ${missing}`);

it.skipIf(missing !== undefined)(
  'a power cut loses nothing that was safe',
  async () => {
    const tally = new Tally();
    for (const seed of seedsOf({ ...extent, runs: Math.ceil(extent.runs / CUTS) })) {
      const left = extent.runs - tally.count('cuts');
      const disk = new LoopDisk(128 * MIB);
      try {
        const verdict = await play(
          {
            suite: 'power-cut',
            seed,
            dataDir: join(disk.path, 'data'),
            server: { segmentBytes: 64 * 1024, reserveBytes: MIB },
            mend: () => disk.repair(),
          },
          scenario => cutAgainAndAgain(scenario, disk, Math.min(CUTS, left), tally),
        );
        tally.addVerdict(verdict);
        tally.add('scenarios');
      } finally {
        disk.remove();
      }
    }
    report('power-cut', extent, tally.figures);
    expect(tally.count('cuts')).toBeGreaterThan(0);
  },
  timeoutOf(extent),
);

async function cutAgainAndAgain(scenario: Scenario, disk: LoopDisk, cuts: number, tally: Tally): Promise<void> {
  const { random, server } = scenario;
  for (let cut = 0; cut < cuts; cut++) {
    // A quarter of the cuts hit the recovery from the one before.
    const isEarly = cut > 0 && random() < 0.25;
    if (isEarly) {
      server.start();
      await server.saw('opening');
      await pause(random() * 50);
    } else {
      if (cut > 0) await scenario.startServer();
      await scenario.progress(50 + Math.floor(random() * 250));
      await pause(random() * 20);
    }
    const isRecovering = isEarly && !server.hasSaid('listening');
    const how = random() < 0.5 ? 'nothing flushed' : 'log flushed';
    server.condemn();
    disk.cut(how);
    tally.add('cuts');
    tally.add(isRecovering ? 'cuts while it recovers' : isEarly ? 'cuts just after its start' : 'cuts under load');
    scenario.note(`cut, ${how}`);
    tally.add(`cuts, ${how}`);
    // Whether it is killed at once, or sees first that its disk is gone: then it must not say that anything is safe.
    if (random() < 0.3) await pause(random() * 100);
    if (random() < 0.3) await killSome(scenario, tally);
    await server.kill();
    disk.repair();
  }
  await scenario.startServer();
}

/** The machine has clients too. */
async function killSome({ present, senders, random }: Scenario, tally: Tally): Promise<void> {
  for (const part of [...present, ...senders]) {
    if (part.label === 'steady' || part.label === 'first' || random() < 0.5) continue;
    await part.kill();
    part.start();
    tally.add('clients killed');
  }
}

function pause(ms: number): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, ms));
}
