/**
 * What a failing run leaves in `.cache/faults`, for whoever looks for the reason: how it is made again (run.json), what was
 * seen of it (history.json), and the files of its server and its processes. What goes well leaves nothing.
 */
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { SimulatedDisk } from '../helpers/simulated-files.js';
import { latest } from './log-work.js';
import { revision, RUN_MS } from './suite.js';

const KEPT = fileURLToPath(new URL('../../.cache/faults/', import.meta.url));

/** A run, as its failure names it, and what to keep of it. */
export interface Run {
  readonly suite: string;
  readonly seed: number;
  /** What else decides it. */
  readonly options: unknown;
  /** What tells it from others of its suite with its seed. */
  readonly part?: string;
  /** Asked when it has failed, before files are copied: processes that are ended here write nothing meanwhile. */
  readonly history: () => unknown;
  /** A run that takes longer has failed: the test's own end would leave nothing to look at. */
  readonly limitMs?: number;
}

/** Says how a run is made again, before it begins. */
export function announce({ suite, part, seed, options }: Omit<Run, 'history'>): void {
  console.log(`run ${JSON.stringify({ suite, part, seed, options, revision: revision() })}`);
}

/** A file system of its own, where there is one. */
export const MEMORY = '/dev/shm';

/** A folder for what judges a store: what happens to the store's file system must not happen to it. */
export function apartFolder(prefix: string): string {
  return mkdtempSync(join(existsSync(MEMORY) ? MEMORY : tmpdir(), prefix));
}

/**
 * Runs `body` with a folder of its own for a store, and one for histories, and throws what it throws, with what is needed to
 * make the run again. `free` is called in any case, before the folders are removed.
 */
export async function withEvidence<T>(
  run: Run,
  body: (folder: string, histories: string) => Promise<T>,
  free: (folder: string) => Promise<void> | void,
): Promise<T> {
  announce(run);
  const folder = mkdtempSync(join(tmpdir(), `broadcast-${run.suite}-`));
  const histories = apartFolder(`broadcast-${run.suite}-`);
  try {
    return await within(run.limitMs ?? RUN_MS, body(folder, histories));
  } catch (error) {
    throw await keep(run, error, { files: folder, histories });
  } finally {
    await free(folder);
    for (const each of [folder, histories]) rmSync(each, { recursive: true, force: true });
  }
}

/** Rejects when it takes longer. */
async function within<T>(ms: number, body: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`the run has not ended after ${ms} ms`)), ms);
  });
  body.catch(() => undefined); // what is too late fails once more when its processes are ended
  return Promise.race([body, late]).finally(() => clearTimeout(timer));
}

/** Keeps folders under these names. The error says what went wrong, how the run is made again, and where everything is. */
export async function keep(run: Run, problem: unknown, folders: Readonly<Record<string, string>>): Promise<Error> {
  const { suite, seed, options, part } = run;
  const words = [suite, seed, part].filter(word => word !== undefined).join('-');
  const kept = unused(join(KEPT, words.replace(/[^\w.-]+/g, '-')));
  mkdirSync(kept, { recursive: true });
  const { message } = problem as Error;
  const history = await Promise.resolve()
    .then(run.history)
    .catch((error: unknown) => `it could not be asked for: ${String(error)}`);
  write(join(kept, 'run.json'), { suite, part, seed, options, revision: revision(), problem: message });
  write(join(kept, 'history.json'), history);
  for (const [name, folder] of Object.entries(folders)) copy(folder, join(kept, name));
  const how = `${suite}, seed ${seed}, ${JSON.stringify(options)}, revision ${revision()}; kept in ${kept}`;
  return new Error(`${message}\n  ${how}`, { cause: problem });
}

/** What a run before has left stays. */
function unused(path: string): string {
  let free = path;
  for (let n = 2; existsSync(free); n++) free = `${path}-${String(n)}`;
  return free;
}

function write(path: string, value: unknown): void {
  const readable = (_: string, part: unknown): unknown => (part instanceof Error ? String(part) : part);
  writeFileSync(path, JSON.stringify(value ?? null, readable, 1));
}

/** A disk that was cut off cannot be read, which must not hide why the run has failed. */
function copy(from: string, to: string): void {
  try {
    cpSync(from, to, { recursive: true });
  } catch (error) {
    writeFileSync(`${to}-not-kept.txt`, String(error));
  }
}

/** The same for a run on a simulated disk: keeps its files, as the run that failed has left them. */
export async function keepDisk(run: Run, problem: unknown, disk: SimulatedDisk | undefined): Promise<Error> {
  const folder = mkdtempSync(join(tmpdir(), `broadcast-${run.suite}-`));
  try {
    for (const [path, { data }] of disk?.names ?? []) {
      mkdirSync(join(folder, dirname(path)), { recursive: true });
      writeFileSync(join(folder, path), data);
    }
    return await keep(run, problem, { data: folder });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Runs `body`, which works on simulated disks with the engine alone. What fails keeps the last of them, and what was done. */
export async function withDiskEvidence<T>(run: Omit<Run, 'history'>, body: () => Promise<T>): Promise<T> {
  announce(run);
  try {
    return await within(RUN_MS, body());
  } catch (error) {
    const { bench, work } = latest;
    const history = (): unknown => ({
      operations: bench?.disk.log,
      engine: { warnings: bench?.warnings, failures: bench?.failures, damaged: bench?.damaged },
      changes: work?.changes,
      promised: work?.promised,
    });
    throw await keepDisk({ ...run, history }, error, bench?.disk);
  }
}

/** Throws what was wrong, if anything was. */
export function demandNothingWrong(wrong: readonly string[]): void {
  if (wrong.length > 0) throw new Error(`${wrong.length} wrong: ${wrong.join('\n')}`);
}

const PATIENCE_MS = 2000;

/** For evidence: what a process answers, or undefined when it is in no state to. */
export async function ifAnswered<T>(answer: Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const none = new Promise<undefined>(resolve => (timer = setTimeout(() => resolve(undefined), PATIENCE_MS)));
  return Promise.race([answer.catch(() => undefined), none]).finally(() => clearTimeout(timer));
}
