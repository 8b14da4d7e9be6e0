/** The file operations of the log, behind an interface so narrow that a simulated disk can take their place. */
import * as fs from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { forGood } from './shortage.js';

/** One open file. Every operation may fail with an errno. */
export interface LogFile {
  /** Writes all of `buffer` at `position`. */
  write(buffer: Buffer, position: number): Promise<void>;
  /** Reads up to `length` bytes; fewer only at the end of the file. */
  read(position: number, length: number): Promise<Buffer>;
  /** Makes everything written durable (fdatasync). */
  sync(): Promise<void>;
  truncate(size: number): Promise<void>;
  size(): Promise<number>;
  close(): Promise<void>;
}

/** A folder and its files. */
export interface FileSystem {
  /** Makes the folder, and those above it, private to its owner; durable when it is fulfilled. Fine if there is one. */
  makeDirectory(path: string): Promise<void>;
  list(path: string): Promise<string[]>;
  /** Opens for reading and writing; `create` makes a new file and fails if there is one. */
  open(path: string, create: boolean): Promise<LogFile>;
  unlink(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Makes creations, renames and deletions in the folder durable. */
  syncDirectory(path: string): Promise<void>;
  /** Bytes that are free for an unprivileged process. */
  free(path: string): Promise<number>;
}

/** An open file as the system gives it: a write, or a read, may end early without an error. */
export interface SystemFile {
  write(buffer: Buffer, offset: number, length: number, position: number): Promise<{ readonly bytesWritten: number }>;
  read(buffer: Buffer, offset: number, length: number, position: number): Promise<{ readonly bytesRead: number }>;
  datasync(): Promise<void>;
  truncate(size: number): Promise<void>;
  stat(): Promise<{ readonly size: number }>;
  close(): Promise<void>;
}

/** A file of which every write and read is made whole. */
export class WholeFile implements LogFile {
  readonly #handle: SystemFile;

  constructor(handle: SystemFile) {
    this.#handle = handle;
  }

  async write(buffer: Buffer, position: number): Promise<void> {
    let written = 0;
    while (written < buffer.length) {
      const { bytesWritten } = await this.#handle.write(buffer, written, buffer.length - written, position + written);
      /* v8 ignore next -- a write of some bytes that writes none and is no error: not seen, but it would not end */
      if (bytesWritten === 0) throw Object.assign(new Error('the system wrote nothing'), { code: 'EIO' });
      written += bytesWritten;
    }
  }

  async read(position: number, length: number): Promise<Buffer> {
    const buffer = Buffer.allocUnsafeSlow(length);
    let got = 0;
    while (got < length) {
      const { bytesRead } = await this.#handle.read(buffer, got, length - got, position + got);
      if (bytesRead === 0) break;
      got += bytesRead;
    }
    return buffer.subarray(0, got);
  }

  sync(): Promise<void> {
    return this.#handle.datasync();
  }

  truncate(size: number): Promise<void> {
    return this.#handle.truncate(size);
  }

  async size(): Promise<number> {
    return (await this.#handle.stat()).size;
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

async function syncDirectory(path: string): Promise<void> {
  const handle = await fs.open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export const nodeFiles: FileSystem = {
  async makeDirectory(path) {
    const target = resolve(path);
    const made = await fs.mkdir(target, { recursive: true, mode: 0o700 });
    if (made === undefined) return;
    // Each new folder is an entry of the one above it.
    const top = dirname(made);
    for (let at = dirname(target); at.length >= top.length; at = dirname(at)) {
      await forGood(syncDirectory(at));
      if (at === top) break;
    }
  },
  list: path => fs.readdir(path),
  async open(path, create) {
    return new WholeFile(await fs.open(path, create ? 'wx+' : 'r+', 0o600));
  },
  unlink: path => fs.unlink(path),
  rename: (from, to) => fs.rename(from, to),
  syncDirectory,
  async free(path) {
    const { bavail, bsize } = await fs.statfs(path);
    return bavail * bsize;
  },
};

export { join };
