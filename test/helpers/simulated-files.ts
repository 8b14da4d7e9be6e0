/**
 * A disk of which the tests know everything: what was synced, what was only written, and in what order. A power cut keeps
 * what was synced and any choice of the sectors and names that were not; any operation can be made to fail or to end early.
 * Files are simulated as the system gives them, below the loop that makes a write whole. Folders are flat prefixes.
 */
import { dirname } from 'node:path';
import { WholeFile, type FileSystem, type LogFile, type SystemFile } from '../../src/engine/disk/files.js';
import { seeded } from './seeded.cjs';

const SECTOR = 512;

/** Another row of numbers from 0 to below 1 than `seeded` gives, for what follows from the same seed. */
export function seededRandom(seed: number): () => number {
  return seeded(seed + 0x9e3779b9);
}

/** One file's bytes: now, and as they were last synced (the same buffer until they differ). */
export class Inode {
  data: Buffer;
  synced: Buffer;
  /** Sectors that may differ from what was synced. */
  readonly dirty = new Set<number>();
  /** Sectors that a failed sync gave up: the system takes them for clean, and no later sync writes them. */
  readonly abandoned = new Set<number>();
  /** What stood in a sector between what was synced and what stands there now: the system may have written that, and no more. */
  readonly between = new Map<number, Buffer[]>();
  /** The buffer that is known to be nobody else's. */
  #own: Buffer | undefined;

  constructor(data: Buffer = Buffer.alloc(0)) {
    this.data = data;
    this.synced = data;
  }

  /** What was synced, so long, and nobody else's: it may be changed. */
  ownSynced(length: number): Buffer {
    if (this.#own === this.synced && this.synced.length === length) return this.synced;
    const before = this.synced;
    this.synced = Buffer.alloc(length);
    before.copy(this.synced);
    this.#own = this.synced;
    return this.synced;
  }
}

export type Operation =
  | 'write'
  | 'read'
  | 'sync'
  | 'truncate'
  | 'stat'
  | 'close'
  | 'open'
  | 'unlink'
  | 'rename'
  | 'makeDirectory'
  | 'syncDirectory'
  | 'free'
  | 'list';

export interface Fault {
  /** What to throw; without, a write or read ends early and is no error. */
  readonly code?: string;
  /** For a write or read: how much of it is done before it ends. */
  readonly written?: number;
}

/** A change of a folder that has not been synced: each is there after a power cut as a whole, or not at all. */
interface NameChange {
  readonly folder: string;
  readonly path: string;
  readonly inode: Inode;
  readonly kind: 'create' | 'unlink' | 'rename';
  /** The name before a rename. */
  readonly from?: string;
}

function errno(code: string): Error {
  return Object.assign(new Error(`${code}: simulated`), { code });
}

/** Thrown by every operation after the power has gone. */
export class PowerCut extends Error {}

const POWER: Fault = { code: 'POWER' };

function redo(names: Map<string, Inode>, { kind, path, from, inode }: NameChange): void {
  if (kind === 'create') {
    names.set(path, inode);
    return;
  }
  // What never came to be cannot be removed or renamed.
  const source = from ?? path;
  if (names.get(source) !== inode) return;
  names.delete(source);
  if (kind === 'rename') names.set(path, inode);
}

export class SimulatedDisk implements FileSystem {
  /** Names as they are now, and as the folders were last synced. */
  names = new Map<string, Inode>();
  syncedNames = new Map<string, Inode>();
  #unsynced: NameChange[] = [];
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
      return POWER;
    }
    return fault;
  }

  fail({ code }: Fault): void {
    if (code === 'POWER') throw new PowerCut();
    if (code !== undefined) throw errno(code);
  }

  /** The disk as the next start finds it: `random` chooses what of the unsynced sectors and names has reached it. */
  afterPowerCut(random: () => number): SimulatedDisk {
    const next = new SimulatedDisk();
    const names = new Map(this.syncedNames);
    const named = share(random);
    for (const change of this.#unsynced) if (random() < named) redo(names, change);
    const survives = share(random);
    for (const [path, inode] of names) next.addFile(path, new Inode(survivor(inode, survives, random)));
    return next;
  }

  /** The disk as it is found when only the process was killed. */
  afterKill(): SimulatedDisk {
    const next = new SimulatedDisk();
    for (const [path, inode] of this.names) next.addFile(path, new Inode(Buffer.from(inode.data)));
    return next;
  }

  addFile(path: string, inode: Inode): void {
    inode.synced = inode.data;
    this.names.set(path, inode);
    this.syncedNames.set(path, inode);
  }

  // ---- FileSystem ------------------------------------------------------------------------------------------------------------

  async makeDirectory(path: string): Promise<void> {
    const fault = await this.step('makeDirectory', path);
    if (fault !== undefined) this.fail(fault);
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
      this.#rename({ kind: 'create', folder: dirname(path), path, inode });
    }
    this.#open++;
    return new WholeFile(new SimulatedFile(this, inode, path, () => this.#open--));
  }

  async unlink(path: string): Promise<void> {
    const fault = await this.step('unlink', path);
    if (fault !== undefined) this.fail(fault);
    const inode = this.names.get(path);
    if (inode === undefined) throw errno('ENOENT');
    this.#rename({ kind: 'unlink', folder: dirname(path), path, inode });
  }

  async rename(from: string, to: string): Promise<void> {
    const fault = await this.step('rename', from);
    if (fault !== undefined) this.fail(fault);
    const inode = this.names.get(from);
    if (inode === undefined) throw errno('ENOENT');
    this.#rename({ kind: 'rename', folder: dirname(to), path: to, from, inode });
  }

  #rename(change: NameChange): void {
    redo(this.names, change);
    this.#unsynced.push(change);
  }

  async syncDirectory(path: string): Promise<void> {
    const fault = await this.step('syncDirectory', path);
    if (fault !== undefined) this.fail(fault);
    const others: NameChange[] = [];
    for (const change of this.#unsynced) {
      if (change.folder === path) redo(this.syncedNames, change);
      else others.push(change);
    }
    this.#unsynced = others;
  }

  async free(path: string): Promise<number> {
    const fault = await this.step('free', path);
    if (fault !== undefined) this.fail(fault);
    return this.capacity === Infinity ? 1e15 : Math.max(0, this.capacity - this.used);
  }
}

/** How much of what was not synced survives: often nothing or all of it. */
function share(random: () => number): number {
  const choice = random();
  return choice < 0.15 ? 0 : choice < 0.3 ? 1 : random();
}

function survivor(inode: Inode, survives: number, random: () => number): Buffer {
  const { data, synced, dirty, abandoned, between } = inode;
  if (data === synced) return data;
  const length = random() < survives ? data.length : synced.length;
  const copy = Buffer.alloc(length);
  synced.copy(copy);
  for (const sectors of [dirty, abandoned]) {
    for (const sector of sectors) {
      const from = sector * SECTOR;
      if (random() >= survives || from >= length) continue;
      const versions = between.get(sector) ?? [];
      const version = versions[Math.floor(random() * (versions.length + 1))];
      if (version !== undefined) version.copy(copy, from, 0, length - from);
      else if (from < data.length) data.copy(copy, from, from, Math.min(from + SECTOR, length));
    }
  }
  return copy;
}

class SimulatedFile implements SystemFile {
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

  async write(buffer: Buffer, offset: number, length: number, position: number): Promise<{ bytesWritten: number }> {
    const bytes = Buffer.from(buffer.subarray(offset, offset + length));
    const fault = await this.#step('write');
    const grown = Math.max(0, position + length - this.#inode.data.length);
    // As a real system does: what has room is written, and the next write has the error.
    const missing = Math.max(0, this.#disk.used + grown - this.#disk.capacity);
    if (missing >= length) throw errno('ENOSPC');
    const possible = fault === undefined || fault === POWER ? length : (fault.written ?? 0);
    const bytesWritten = Math.min(possible, length - missing);
    this.#put(bytes.subarray(0, bytesWritten), position);
    if (fault !== undefined) this.#disk.fail(fault);
    return { bytesWritten };
  }

  #put(bytes: Buffer, position: number): void {
    if (bytes.length === 0) return;
    const end = position + bytes.length;
    const inode = this.#inode;
    this.#resize(Math.max(end, inode.data.length));
    for (let sector = Math.floor(position / SECTOR); sector * SECTOR < end; sector++) this.#change(sector);
    bytes.copy(inode.data, position);
  }

  /** A sector is about to differ from what it was. */
  #change(sector: number): void {
    const { data, dirty, abandoned, between } = this.#inode;
    if (dirty.has(sector) || abandoned.has(sector)) {
      const versions = between.get(sector) ?? [];
      versions.push(Buffer.from(data.subarray(sector * SECTOR, (sector + 1) * SECTOR)));
      between.set(sector, versions);
    }
    dirty.add(sector);
  }

  /** Makes the data differ from what was synced. */
  #resize(size: number): void {
    const inode = this.#inode;
    if (size === inode.data.length && inode.data !== inode.synced) return;
    const before = inode.data;
    // What is cut off and comes back holds zeros.
    for (let sector = Math.floor(size / SECTOR); sector * SECTOR < before.length; sector++) this.#change(sector);
    inode.data = Buffer.alloc(size);
    before.copy(inode.data);
  }

  async read(buffer: Buffer, offset: number, length: number, position: number): Promise<{ bytesRead: number }> {
    const fault = await this.#step('read');
    if (fault !== undefined) this.#disk.fail(fault);
    const end = Math.min(position + length, position + (fault?.written ?? length), this.#inode.data.length);
    const bytesRead = end <= position ? 0 : this.#inode.data.copy(buffer, offset, position, end);
    return { bytesRead };
  }

  async datasync(): Promise<void> {
    const fault = await this.#step('sync');
    const inode = this.#inode;
    if (fault !== undefined) {
      if (fault !== POWER) for (const sector of inode.dirty) inode.abandoned.add(sector);
      if (fault !== POWER) inode.dirty.clear();
      this.#disk.fail(fault);
    }
    if (inode.data === inode.synced) return;
    const { data, dirty, abandoned, between } = inode;
    const synced = inode.ownSynced(data.length);
    for (const sector of dirty) {
      const from = sector * SECTOR;
      if (from < data.length) data.copy(synced, from, from, from + SECTOR);
      abandoned.delete(sector);
      between.delete(sector);
    }
    dirty.clear();
  }

  async truncate(size: number): Promise<void> {
    const fault = await this.#step('truncate');
    if (fault !== undefined) this.#disk.fail(fault);
    this.#resize(size);
  }

  async stat(): Promise<{ size: number }> {
    const fault = await this.#step('stat');
    if (fault !== undefined) this.#disk.fail(fault);
    return { size: this.#inode.data.length };
  }

  /** As with a real one, the file is closed whatever is said of it. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#onClose();
    const fault = await this.#disk.step('close', this.#path);
    if (fault !== undefined) this.#disk.fail(fault);
  }
}
