/**
 * A disk of which the tests know everything: what was synced, what was only written, and in what order. A crash keeps what
 * was synced and any choice of the sectors that were not; any operation can be made to fail. Folders are flat prefixes.
 */
import type { FileSystem, LogFile } from '../../src/engine/disk/files.js';

const SECTOR = 512;

/** A generator of numbers from 0 to before 1 that repeats for the same seed. */
export function seededRandom(seed: number): () => number {
  let state = (seed + 0x9e3779b9) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** One file's bytes: now, and as they were last synced. */
export class Inode {
  data: Buffer = Buffer.alloc(0);
  synced: Buffer = Buffer.alloc(0);
  /** Sectors that differ, or may, from what was synced. */
  readonly dirty = new Set<number>();
}

export type Operation =
  'write' | 'read' | 'sync' | 'truncate' | 'open' | 'unlink' | 'rename' | 'syncDirectory' | 'free' | 'list';

export interface Fault {
  /** What to throw. */
  readonly code: string;
  /** For a write: how much of it reaches the file before it fails. */
  readonly written?: number;
}

function errno(code: string): Error {
  return Object.assign(new Error(`${code}: simulated`), { code });
}

/** Thrown by every operation after the power has gone. */
export class PowerCut extends Error {}

export class SimulatedDisk implements FileSystem {
  /** Names as they are now, and as the folder was last synced. */
  names = new Map<string, Inode>();
  syncedNames = new Map<string, Inode>();
  capacity = Infinity;
  /** Operations that were made, so that one of them can be chosen. */
  operations = 0;
  readonly log: Operation[] = [];
  /** Asked before each operation: what goes wrong with it. */
  fault: (operation: Operation, index: number, path: string) => Fault | 'power-cut' | undefined = () => undefined;
  #dead = false;
  #open = 0;

  get openFiles(): number {
    return this.#open;
  }

  get used(): number {
    let used = 0;
    for (const inode of this.names.values()) used += inode.data.length;
    return used;
  }

  /** Counts an operation; what it returns is to be done before its error is thrown. */
  async step(operation: Operation, path: string): Promise<Fault | undefined> {
    if (this.#dead) throw new PowerCut();
    const index = this.operations++;
    this.log.push(operation);
    const fault = this.fault(operation, index, path);
    // As with a real disk, nothing has ended when the call returns.
    await Promise.resolve();
    if (fault === 'power-cut') {
      this.#dead = true;
      return { code: 'POWER' };
    }
    return fault;
  }

  fail(fault: Fault): never {
    throw fault.code === 'POWER' ? new PowerCut() : errno(fault.code);
  }

  /** The disk as the next start finds it: `random` chooses what of the unsynced sectors and names has reached it. */
  afterPowerCut(random: () => number): SimulatedDisk {
    const next = new SimulatedDisk();
    const survives = random();
    for (const [path, inode] of new Map([...this.syncedNames, ...this.names])) {
      const wasNamed = this.syncedNames.get(path) === inode;
      const isNamed = this.names.get(path) === inode;
      if (wasNamed !== isNamed && random() >= 0.5) {
        if (!wasNamed) continue;
      } else if (!isNamed) continue;
      const copy = new Inode();
      const length = Math.max(inode.synced.length, random() < survives ? inode.data.length : 0);
      copy.data = Buffer.alloc(length);
      inode.synced.copy(copy.data);
      for (const sector of inode.dirty) {
        if (random() >= survives) continue;
        const from = sector * SECTOR;
        if (from < length) inode.data.copy(copy.data, from, from, Math.min(from + SECTOR, length));
      }
      next.addFile(path, copy);
    }
    return next;
  }

  /** The disk as it is found when only the process was killed. */
  afterKill(): SimulatedDisk {
    const next = new SimulatedDisk();
    for (const [path, inode] of this.names) {
      const copy = new Inode();
      copy.data = Buffer.from(inode.data);
      next.addFile(path, copy);
    }
    return next;
  }

  addFile(path: string, inode: Inode): void {
    inode.synced = Buffer.from(inode.data);
    this.names.set(path, inode);
    this.syncedNames.set(path, inode);
  }

  // ---- FileSystem ------------------------------------------------------------------------------------------------------------

  makeDirectory(): Promise<void> {
    return Promise.resolve();
  }

  async list(path: string): Promise<string[]> {
    const fault = await this.step('list', path);
    if (fault !== undefined) this.fail(fault);
    const inside = [...this.names.keys()].filter(name => name.startsWith(`${path}/`));
    return [...new Set(inside.map(name => name.slice(path.length + 1).split('/')[0] as string))];
  }

  async open(path: string, create: boolean): Promise<LogFile> {
    const fault = await this.step('open', path);
    if (fault !== undefined) this.fail(fault);
    let inode = this.names.get(path);
    if (create && inode !== undefined) throw errno('EEXIST');
    if (!create && inode === undefined) throw errno('ENOENT');
    if (inode === undefined) {
      inode = new Inode();
      this.names.set(path, inode);
    }
    this.#open++;
    return new SimulatedFile(this, inode, path, () => this.#open--);
  }

  async unlink(path: string): Promise<void> {
    const fault = await this.step('unlink', path);
    if (fault !== undefined) this.fail(fault);
    if (!this.names.delete(path)) throw errno('ENOENT');
  }

  async rename(from: string, to: string): Promise<void> {
    const fault = await this.step('rename', from);
    if (fault !== undefined) this.fail(fault);
    const inode = this.names.get(from);
    if (inode === undefined) throw errno('ENOENT');
    this.names.delete(from);
    this.names.set(to, inode);
  }

  async syncDirectory(path: string): Promise<void> {
    const fault = await this.step('syncDirectory', path);
    if (fault !== undefined) this.fail(fault);
    this.syncedNames = new Map(this.names);
  }

  async free(path: string): Promise<number> {
    const fault = await this.step('free', path);
    if (fault !== undefined) this.fail(fault);
    return this.capacity === Infinity ? 1e15 : Math.max(0, this.capacity - this.used);
  }
}

class SimulatedFile implements LogFile {
  readonly #disk: SimulatedDisk;
  readonly #inode: Inode;
  readonly #path: string;
  readonly #onClose: () => unknown;
  #closed = false;

  constructor(disk: SimulatedDisk, inode: Inode, path: string, onClose: () => unknown) {
    this.#disk = disk;
    this.#inode = inode;
    this.#path = path;
    this.#onClose = onClose;
  }

  async #step(operation: Operation): Promise<Fault | undefined> {
    if (this.#closed) throw errno('EBADF');
    return this.#disk.step(operation, this.#path);
  }

  async write(buffer: Buffer, position: number): Promise<void> {
    const bytes = Buffer.from(buffer);
    const fault = await this.#step('write');
    const end = position + bytes.length;
    const grown = Math.max(0, end - this.#inode.data.length);
    if (fault === undefined && this.#disk.used + grown > this.#disk.capacity) throw errno('ENOSPC');
    const written = fault === undefined ? bytes.length : (fault.written ?? (fault.code === 'POWER' ? bytes.length : 0));
    this.#put(bytes.subarray(0, written), position);
    if (fault !== undefined) this.#disk.fail(fault);
  }

  #put(bytes: Buffer, position: number): void {
    if (bytes.length === 0) return;
    const end = position + bytes.length;
    const inode = this.#inode;
    if (end > inode.data.length) inode.data = Buffer.concat([inode.data, Buffer.alloc(end - inode.data.length)]);
    bytes.copy(inode.data, position);
    for (let sector = Math.floor(position / SECTOR); sector * SECTOR < end; sector++) inode.dirty.add(sector);
  }

  async read(position: number, length: number): Promise<Buffer> {
    const fault = await this.#step('read');
    if (fault !== undefined) this.#disk.fail(fault);
    return Buffer.from(this.#inode.data.subarray(position, position + length));
  }

  async sync(): Promise<void> {
    const fault = await this.#step('sync');
    if (fault !== undefined) this.#disk.fail(fault);
    const { data, dirty } = this.#inode;
    if (this.#inode.synced.length !== data.length) {
      this.#inode.synced = Buffer.from(data);
    } else {
      for (const sector of dirty) {
        const from = sector * SECTOR;
        data.copy(this.#inode.synced, from, from, Math.min(from + SECTOR, data.length));
      }
    }
    dirty.clear();
  }

  async truncate(size: number): Promise<void> {
    const fault = await this.#step('truncate');
    if (fault !== undefined) this.#disk.fail(fault);
    this.#inode.data = Buffer.from(this.#inode.data.subarray(0, size));
  }

  size(): Promise<number> {
    return Promise.resolve(this.#inode.data.length);
  }

  close(): Promise<void> {
    if (!this.#closed) this.#onClose();
    this.#closed = true;
    return Promise.resolve();
  }
}
