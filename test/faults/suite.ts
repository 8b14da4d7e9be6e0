/**
 * What the fault suites have in common: each is a test file with a short form, and a long one when `npm run faults` says
 * how many runs, from which seed, and for how long at most. Every run says its seed, its options and the revision, so that
 * it can be made again.
 */
import { execFileSync } from 'node:child_process';
import { appendFileSync } from 'node:fs';

/** How much of a suite is run. */
export interface Extent {
  /** Of the first run; the others follow it. */
  readonly seed: number;
  /** So many runs. */
  readonly runs: number;
  /** No run is begun after so many minutes. */
  readonly minutes: number;
  /** True for the form that is part of `npm test`. */
  readonly isShort: boolean;
}

/** The extent that was asked for, or the short one. */
export function extentOf(short: { readonly runs: number; readonly seed?: number }): Extent {
  const { FAULTS_SEED, FAULTS_RUNS, FAULTS_MINUTES } = process.env;
  return {
    seed: Number(FAULTS_SEED ?? short.seed ?? 1),
    runs: Number(FAULTS_RUNS ?? short.runs),
    minutes: Number(FAULTS_MINUTES ?? 5),
    isShort: FAULTS_RUNS === undefined,
  };
}

/** Time for one run: one that has begun is finished, and one that hangs has failed before its test does. */
export const RUN_MS = 100_000;

/** Time for a test that runs such an extent. */
export function timeoutOf({ minutes }: Extent): number {
  return minutes * 60_000 + RUN_MS + 20_000;
}

/** The seeds of an extent, until its time is over. */
export function* seedsOf({ seed, runs, minutes }: Extent): Generator<number> {
  const end = performance.now() + minutes * 60_000;
  for (let i = 0; i < runs && performance.now() < end; i++) yield seed + i;
}

/**
 * What a suite waits for, in time: `what` says what is missing otherwise. Without it a promise that is not kept is a test that
 * hangs, and nobody learns which one.
 */
export async function within<T>(seconds: number, promise: Promise<T>, what: () => string): Promise<T> {
  let late: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_resolve, reject) => {
    late = setTimeout(() => reject(new Error(`after ${String(seconds)} s: ${what()}`)), seconds * 1000);
  });
  return Promise.race([promise, limit]).finally(() => clearTimeout(late));
}

/** Numbers that a suite has seen, by what they count. */
export type Figures = Readonly<Record<string, number | string>>;

/** Adds numbers up by what they count. */
export function addUp(total: Record<string, number>, more: Readonly<Record<string, number>>): void {
  for (const [what, number] of Object.entries(more)) total[what] = (total[what] ?? 0) + number;
}

/** Says what a suite has seen; `npm run faults` collects it. */
export function report(suite: string, extent: Extent, figures: Figures): void {
  const line = JSON.stringify({ suite, revision: revision(), ...extent, ...figures });
  console.log(`faults ${line}`);
  const { FAULTS_REPORT } = process.env;
  if (FAULTS_REPORT !== undefined) appendFileSync(FAULTS_REPORT, `${line}\n`);
}

let known: string | undefined;

/** The commit that is tested, with a plus when there are changes on top of it. */
export function revision(): string {
  known ??= git('describe', '--always', '--dirty=+') || 'unknown';
  return known;
}

function git(...args: string[]): string {
  try {
    return execFileSync('git', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return ''; // an unpacked archive has no history
  }
}
