/**
 * Scenarios of the oracle on bad disks: a small one that is full of what waits for those who are away, and one whose
 * writes and syncs fail under one process of the server after the other.
 */
import { mkdirSync, mkdtempSync, rmSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { finalOnes, KINDS, SAYS_SO_MS, underStrace, wasHit } from './disk-failing.js';
import { mount, unmount } from './disk-full.js';
import { apartFolder } from './evidence.js';
import { play, type Scenario } from './oracle/scenario.js';
import type { Tally } from './oracle/tally.js';
import { forgetUnsynced } from './unsynced.js';

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
        part: 'full-judged',
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
/** And some more where none of them has stopped one that was running. */
const MOST_FAULTS = 24;
/** A disk that lies may lose what was safe; see disk-failing.ts. */
const HONEST = KINDS.filter(({ how }) => how !== 'lies');
/** A call of the first ones that a process makes, mostly; of folders there are few. */
const MOST_CALLS = 25;
const MOST_FOLDERS = 6;
/** So many messages are handled while a fault is waited for. */
const PATIENCE = 4000;
/** Calls are counted by each thread for itself. */
const ONE_THREAD = { UV_THREADPOOL_SIZE: '1' };

export async function playFailing(seed: number, tally: Tally): Promise<void> {
  const folder = apartFolder('broadcast-strace-');
  const options = { suite: 'disk', part: 'failing-judged', seed, server: { segmentBytes: 64 * KIB, reserveBytes: 0 } };
  try {
    const verdict = await play(options, async scenario => {
      const before = tally.count('fail-stops');
      const isEnough = (faults: number): boolean => faults >= FAULTS && tally.count('fail-stops') > before;
      for (let fault = 0; fault < MOST_FAULTS && !isEnough(fault); fault++)
        await suffer(scenario, join(folder, `strace-${String(fault)}.log`), tally);
    });
    tally.addVerdict(verdict);
    tally.add('scenarios');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A server that cannot start says why, by a code of the store's. */
function refusal(code: unknown): string {
  if (code !== 'store-unreadable' && code !== 'store-failed')
    throw new Error(`the server could not start, and says ${String(code)}`);
  return 'refused starts';
}

/** A process whose disk fails, and one after it whose disk does not. */
async function suffer(scenario: Scenario, trace: string, tally: Tally): Promise<void> {
  const { server, random } = scenario;
  const kind = HONEST[Math.floor(random() * HONEST.length)] as (typeof HONEST)[number];
  const most = kind.call === 'fsync' ? MOST_FOLDERS : MOST_CALLS;
  const fault = { ...kind, at: 1 + Math.floor(random() ** 2 * most), times: 1 };
  await scenario.progress(50);
  await server.kill();
  // -D: the server is the child, and strace its grandchild, which ends with it.
  server.start({}, { wrap: [...underStrace(fault, trace), '-D'], env: ONE_THREAD });
  server.condemn();
  const stops = server.saw('engine-failed').then(() => 'fail-stops');
  const ends = [stops, server.saw('failed').then(said => refusal(said?.['code']))];
  let outcome = await Promise.race([...ends, scenario.progress(PATIENCE).then(() => 'went on')]);
  const [final] = finalOnes(fault, trace);
  if (outcome === 'went on' && final !== undefined) {
    outcome = await Promise.race([stops, delay(SAYS_SO_MS).then(() => 'went on')]);
    if (outcome === 'went on') throw new Error(`this failed, and the server went on: ${final}`);
  }
  if (!server.isRunning) throw new Error('the server has ended without a word');
  tally.add(outcome);
  if (wasHit(trace)) tally.add(`hit ${fault.call} ${fault.how}`);
  const { pid } = server;
  await server.kill();
  // Which was refused a start has ended by itself, and the one after it has no fault.
  if (outcome !== 'refused starts' && pid !== undefined)
    tally.add('unsynced bytes taken away', await forgetUnsynced(trace, pid, random));
  await scenario.startServer();
}
