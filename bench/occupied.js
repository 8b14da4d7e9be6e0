// What a process and a folder occupy.
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

const BLOCK = 512;
/** Milliseconds between two looks at a folder, and how many of them have to see the same. */
const LOOK = 100;
const SAME = 10;

let collect;

/** This process's memory, with everything collected that can be. */
export function collected() {
  if (collect === undefined) {
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc');
  }
  collect();
  const { rss, heapUsed, external } = process.memoryUsage();
  return { rss, heap: heapUsed, external };
}

/** Bytes that a folder's files have on the disk, which may be more than their length; some may go away meanwhile. */
export function diskOf(folder) {
  let bytes = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true })) {
    const stat = statSync(join(entry.parentPath, entry.name), { throwIfNoEntry: false });
    if (stat?.isFile()) bytes += stat.blocks * BLOCK;
  }
  return bytes;
}

/** The same when it has not changed for a second, or after so many milliseconds. */
export async function restingDiskOf(folder, most = 20_000) {
  let bytes = diskOf(folder);
  for (let waited = 0, same = 0; same < SAME && waited < most; waited += LOOK) {
    await pause(LOOK);
    const seen = diskOf(folder);
    same = seen === bytes ? same + 1 : 0;
    bytes = seen;
  }
  return bytes;
}

export const mebibytes = n => `${(n / 2 ** 20).toFixed(1)} MiB`;
