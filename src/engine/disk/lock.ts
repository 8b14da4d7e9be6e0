/**
 * One process owns a data directory. On Linux the kernel holds the lock: an abstract socket named after the folder, which
 * dies with its process and leaves nothing behind. A file beside it names the owner, for people, and for other
 * namespaces and systems, where the owner's process is looked for. Limit: two machines on one network folder are not kept
 * apart.
 */
import { createHash } from 'node:crypto';
import { readFile, realpath, stat, unlink, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { BroadcastError } from '../../errors.js';
import { isAlive, machineIdentity } from '../../process-identity.js';
import { join } from './files.js';

export const LOCK_FILE = 'owner.lock';

/** Folders that are owned by this process. */
const owned = new Set<string>();

interface Owner {
  readonly pid: number;
  readonly machine: string;
}

export class DirectoryLock {
  readonly #path: string;
  readonly #key: string;
  readonly #server: Server | undefined;

  private constructor(path: string, key: string, server: Server | undefined) {
    this.#path = path;
    this.#key = key;
    this.#server = server;
  }

  /** Takes the folder. Rejects with `store-locked`. */
  static async take(directory: string): Promise<DirectoryLock> {
    const { dev, ino } = await stat(directory);
    const key = `${String(dev)}:${String(ino)}`;
    const path = join(await realpath(directory), LOCK_FILE);
    if (owned.has(key)) throw locked(directory, process.pid);
    owned.add(key);
    let server: Server | undefined;
    try {
      server = process.platform === 'linux' ? await bind(key, directory, path) : undefined;
      const owner = await readOwner(path);
      if (
        owner !== undefined &&
        server === undefined &&
        owner.pid !== process.pid &&
        owner.machine === machineIdentity() &&
        isAlive({ pid: owner.pid, start: '' })
      ) {
        throw locked(directory, owner.pid);
      }
      await writeFile(path, JSON.stringify({ pid: process.pid, machine: machineIdentity() } satisfies Owner), {
        mode: 0o600,
      });
    } catch (error) {
      owned.delete(key);
      server?.close();
      throw error;
    }
    return new DirectoryLock(path, key, server);
  }

  async release(): Promise<void> {
    await unlink(this.#path).catch(() => undefined);
    owned.delete(this.#key);
    await new Promise<void>(resolve => {
      if (this.#server === undefined) resolve();
      else this.#server.close(() => resolve());
    });
  }
}

function locked(directory: string, pid: number | undefined): BroadcastError {
  const who =
    pid === undefined
      ? 'another process'
      : pid === process.pid
        ? 'another server in this process'
        : `process ${String(pid)}`;
  return new BroadcastError(
    'store-locked',
    `${directory} belongs to ${who}; stop it, or choose another data directory`,
  );
}

async function readOwner(path: string): Promise<Owner | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Owner;
  } catch {
    return undefined; // none, or one that was being written when its process died
  }
}

function bind(key: string, directory: string, path: string): Promise<Server> {
  const name = createHash('sha256').update(key).digest('hex').slice(0, 40);
  return new Promise((resolve, reject) => {
    const server = createServer(socket => socket.destroy());
    server.unref();
    server.once('error', (error: NodeJS.ErrnoException) => {
      /* v8 ignore next -- out of descriptors or memory */
      if (error.code !== 'EADDRINUSE')
        reject(
          new BroadcastError('store-unreadable', `${directory} cannot be locked: ${error.message}`, { cause: error }),
        );
      else void readOwner(path).then(owner => reject(locked(directory, owner?.pid)));
    });
    server.listen({ path: `\0aw-broadcast-${name}` }, () => resolve(server));
  });
}
