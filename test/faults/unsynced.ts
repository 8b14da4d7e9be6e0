/**
 * What a killed server had written and not synced, by the word of strace: the page cache keeps it, a disk that has lost its
 * power or said that a sync has failed need not. It is taken away, in pieces, before the next server starts: whatever was
 * acknowledged then without a sync is lost, and missed.
 */
import { closeSync, existsSync, openSync, readFileSync, writeSync } from 'node:fs';
import { within } from './suite.js';

/** A disk writes so much at once. */
const SECTOR = 512;

interface Written {
  readonly offset: number;
  readonly length: number;
}

/** `7 pwrite64(21</data/segment>, "\1\2"..., 40, 8192) = 40`, or `… <unfinished ...>` where the process was killed in it. */
const WRITE = /^\d+ +pwrite64\(\d+<([^>]*)>, "(?:[^"\\]|\\.)*"(?:\.\.\.)?, (\d+), (\d+)/;
/** `7 fdatasync(21</data/segment>) = -1 EIO …`: what was for it a later one does not sync, whatever that says. */
const FAILED_SYNC = /^\d+ +(?:fdatasync|fsync)\(\d+<([^>]*)>\) += -1/;
/** `7 fdatasync(21</data/segment>) = 0` */
const SYNC = /^\d+ +(?:fdatasync|fsync)\(\d+<([^>]*)>\) += 0/;
/** `7 rename("/data/segment.new", "/data/segment") = 0` */
const RENAME = /^\d+ +rename\("([^"]*)", "([^"]*)"\) += 0/;
/** `7 unlink("/data/segment.new") = 0` */
const UNLINK = /^\d+ +unlink\("([^"]*)"\) += 0/;

/** The calls that must be traced for this, beside the one that is made to fail. One thread makes them, so that none is cut in two. */
export const TRACED = ['pwrite64', 'fdatasync', 'fsync', 'rename', 'unlink'];

function unsyncedIn(log: string): Map<string, Written[]> {
  const unsynced = new Map<string, Written[]>();
  const abandoned = new Map<string, Written[]>();
  for (const line of log.split('\n')) {
    const [, path, length, offset] = WRITE.exec(line) ?? [];
    if (path !== undefined) {
      const written = unsynced.get(path) ?? [];
      written.push({ offset: Number(offset), length: Number(length) });
      unsynced.set(path, written);
    }
    const [, synced] = SYNC.exec(line) ?? [];
    if (synced !== undefined) unsynced.delete(synced);
    const [, failed] = FAILED_SYNC.exec(line) ?? [];
    const waiting = unsynced.get(failed ?? '');
    if (failed !== undefined && waiting !== undefined) abandoned.set(failed, [...waiting]);
    const [, removed] = UNLINK.exec(line) ?? [];
    if (removed !== undefined) for (const written of [unsynced, abandoned]) written.delete(removed);
    const [, from, to] = RENAME.exec(line) ?? [];
    const moved = unsynced.get(from ?? '');
    if (from === undefined || to === undefined || moved === undefined) continue;
    unsynced.delete(from);
    unsynced.set(to, moved);
  }
  for (const [path, written] of abandoned) unsynced.set(path, [...written, ...(unsynced.get(path) ?? [])]);
  return unsynced;
}

/** Takes away some of it, or all: sectors, at random. How many bytes were taken. `pid`: who was killed. */
export async function forgetUnsynced(log: string, pid: number, random: () => number): Promise<number> {
  const end = new RegExp(`^${String(pid)} +\\+\\+\\+ `, 'm');
  const isWhole = (): boolean => existsSync(log) && end.test(readFileSync(log, 'utf8'));
  await within(20, until(isWhole), () => `strace has not said of the end of ${String(pid)} in ${log}`);
  let forgotten = 0;
  for (const [path, all] of unsyncedIn(readFileSync(log, 'utf8'))) {
    if (!existsSync(path)) continue;
    const kept = random() < 0.5 ? 0 : random();
    const file = openSync(path, 'r+');
    for (const { offset, length } of all) {
      // A header that is written anew: its sector is the old one or the new one, and the old one is not known here.
      if (offset === 0) continue;
      for (let at = offset; at < offset + length;) {
        const next = Math.min(offset + length, at - (at % SECTOR) + SECTOR);
        if (random() >= kept) forgotten += writeSync(file, Buffer.alloc(next - at), 0, next - at, at);
        at = next;
      }
    }
    closeSync(file);
  }
  return forgotten;
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise(resolve => setTimeout(resolve, 10));
}
