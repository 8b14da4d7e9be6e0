/**
 * A disk that loses its power: an ext4 file system in a file, mounted by a loop device. `cut` shuts it down at once
 * (EXT4_IOC_SHUTDOWN), so that what was not synced is gone and every later operation fails; `repair` mounts it anew, which
 * recovers its journal as after a power cut. Needs root on Linux.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { apartFolder } from './evidence.js';

/** How it is shut down: with the log of metadata written out, or without. */
export type Cut = 'log flushed' | 'nothing flushed';

/** _IOR('X', 125, __u32), and its flags. */
const SHUTDOWN = 0x8004587d;
const FLAGS: Record<Cut, number> = { 'log flushed': 1, 'nothing flushed': 2 };
/** There is no ioctl in Node; perl is everywhere, and starts quickly. */
const IOCTL =
  'open(my $f, "<", $ARGV[0]) or die "open: $!"; ioctl($f, $ARGV[1], pack("L", $ARGV[2])) or die "ioctl: $!";';

const run = (command: string, ...args: string[]): void =>
  void execFileSync(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });

export class LoopDisk {
  readonly #folder: string;
  readonly #image: string;
  /** Where it is mounted. */
  readonly path: string;
  #isCut = false;
  readonly #remove = (): void => this.remove();

  constructor(bytes: number) {
    // In memory where there is some: what matters is what ext4 hands over, not what becomes of it.
    this.#folder = apartFolder('broadcast-disk-');
    this.#image = join(this.#folder, 'image');
    this.path = join(this.#folder, 'mounted');
    process.once('exit', this.#remove);
    try {
      mkdirSync(this.path);
      writeFileSync(this.#image, '');
      truncateSync(this.#image, bytes);
      run('mkfs.ext4', '-q', '-F', '-m', '0', this.#image);
      this.#mount();
    } catch (error) {
      this.remove();
      throw error;
    }
  }

  #mount(): void {
    run('mount', '-o', 'loop,noatime', '-t', 'ext4', this.#image, this.path);
  }

  cut(how: Cut): void {
    this.#isCut = true;
    run('perl', '-e', IOCTL, this.path, String(SHUTDOWN), String(FLAGS[how]));
  }

  /** When it was cut. Nobody may have a file of it open. */
  repair(): void {
    if (!this.#isCut) return;
    this.#isCut = false;
    run('umount', this.path);
    this.#mount();
  }

  remove(): void {
    process.off('exit', this.#remove);
    // Lazily: the loop device goes with its last user.
    spawnSync('umount', ['-l', this.path], { stdio: 'ignore' });
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** Why there can be no such disk here; undefined when there can. */
export function noLoopDisk(): string | undefined {
  if (process.platform !== 'linux') return 'it needs Linux';
  if (process.getuid?.() !== 0) return 'it needs root';
  if (!existsSync('/dev/loop-control')) return 'there are no loop devices';
  try {
    const disk = new LoopDisk(16 * 1024 * 1024);
    try {
      disk.cut('nothing flushed');
      disk.repair();
    } finally {
      disk.remove();
    }
    return undefined;
  } catch (error) {
    return (error as Error).message.trim().split('\n').join('; ');
  }
}
