/**
 * Scenarios of the oracle on bad disks: a small one that is full of what waits for those who are away, and one whose
 * writes and syncs fail under one process of the server after the other.
 */
import { mkdirSync, mkdtempSync, rmSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { seeded } from '../helpers/proxy.js';
import { KINDS, underStrace } from './disk-failing.js';
import { mount, unmount } from './disk-full.js';
import { play, type Scenario } from './oracle/scenario.js';
import type { Tally } from './oracle/tally.js';

const KIB = 1024;
const MIB = 1024 * KIB;

// ---- full ------------------------------------------------------------------------------------------------------------------

const DISK_BYTES = 8 * MIB;
const SMALL = { segmentBytes: 256 * KIB, reserveBytes: MIB };
/** Messages for those who are here, that are handled while the disk is full, and again after a kill. */
const MEANWHILE = 200;

/** Fills it, goes on, and is killed; then those who were away come. */
export async function playFull(seed: number, tally: Tally): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'broadcast-full-'));
  const disk = join(folder, 'disk');
  mkdirSync(disk);
  mount(disk, DISK_BYTES);
  try {
    const verdict = await play(
      {
        suite: 'disk',
        seed,
        dataDir: join(disk, 'data'),
        server: SMALL,
        load: { body: 8000, largeBody: 60_000 },
        reasons: ['expired', 'queue-full'],
      },
      async scenario => {
        while (freeOn(disk) > SMALL.reserveBytes + SMALL.segmentBytes) await scenario.progress(50);
        await scenario.progress(MEANWHILE);
        await scenario.server.kill();
        await scenario.startServer();
        await scenario.progress(MEANWHILE);
        tally.add('fillings');
      },
    );
    tally.addVerdict(verdict);
    tally.add('scenarios');
  } finally {
    unmount(disk);
    rmSync(folder, { recursive: true, force: true });
  }
}

function freeOn(disk: string): number {
  const { bavail, bsize } = statfsSync(disk);
  return bavail * bsize;
}

// ---- failing ---------------------------------------------------------------------------------------------------------------

/** Processes of the server, each with a fault of its own, in one scenario. */
const FAULTS = 6;
/** A disk that lies may lose what was safe; see disk-failing.ts. */
const HONEST = KINDS.filter(({ how }) => how !== 'lies');
/** A call of the first ones that a process makes, mostly. */
const MOST_CALLS = 60;

export async function playFailing(seed: number, tally: Tally): Promise<void> {
  const options = { suite: 'disk', seed, server: { segmentBytes: 64 * KIB, reserveBytes: 0 } };
  const verdict = await play(options, async scenario => {
    const random = seeded(seed);
    for (let fault = 0; fault < FAULTS; fault++) await suffer(scenario, random, tally);
  });
  tally.addVerdict(verdict);
  tally.add('scenarios');
}

/** A process whose disk fails, and one after it whose disk does not. */
async function suffer(scenario: Scenario, random: () => number, tally: Tally): Promise<void> {
  const { server } = scenario;
  const kind = HONEST[Math.floor(random() * HONEST.length)] as (typeof HONEST)[number];
  const fault = { ...kind, at: 1 + Math.floor(random() ** 2 * MOST_CALLS), times: 1 };
  await scenario.progress(50);
  await server.kill();
  // -D: the server is the child, and strace its grandchild, which ends with it.
  server.start({}, [...underStrace(fault, '/dev/null'), '-D']);
  server.condemn();
  const outcome = await Promise.race([
    server.saw('engine-failed').then(() => 'fail-stops'),
    server.saw('failed').then(() => 'refused starts'),
    scenario.progress(400).then(() => 'not reached or borne'),
  ]);
  tally.add(outcome);
  tally.add(`faults ${fault.call} ${fault.how}`);
  await server.kill();
  await scenario.startServer();
}
