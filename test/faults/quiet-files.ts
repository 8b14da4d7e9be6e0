/** Real files of a store, for a test that copies the folder: a copy that is made when they are quiet is what a kill leaves. */
import { nodeFiles, type FileSystem, type LogFile } from '../../src/engine/disk/files.js';

/** Knows when none of its files is being written or read. */
export class QuietFiles {
  #running = 0;
  readonly files: FileSystem;

  constructor() {
    const files = this.#watched(nodeFiles);
    this.files = {
      ...files,
      open: async (path, create) => this.#watched(await files.open(path, create), LOG_FILE_METHODS),
    };
  }

  #watched<T extends object>(target: T, methods = Object.keys(target)): T {
    const watched: Record<string, unknown> = {};
    for (const method of methods) {
      const call = target[method as keyof T] as (...args: unknown[]) => Promise<unknown>;
      watched[method] = (...args: unknown[]) => {
        this.#running++;
        return call.apply(target, args).finally(() => this.#running--);
      };
    }
    return watched as T;
  }

  async quiet(): Promise<void> {
    for (let turns = 0; turns < 5; turns++) {
      await new Promise(setImmediate);
      if (this.#running > 0) turns = 0;
    }
  }
}

const LOG_FILE_METHODS: (keyof LogFile)[] = ['write', 'read', 'sync', 'truncate', 'size', 'close'];
