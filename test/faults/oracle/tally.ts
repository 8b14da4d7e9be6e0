/** The figures of several runs together, as `report` of suite.ts takes them. */
import { report, seedsOf, type Extent, type Figures } from '../suite.js';
import type { Verdict } from './checker.js';

export class Tally {
  readonly #counts = new Map<string, number>();

  add(name: string, count = 1): void {
    this.#counts.set(name, this.count(name) + count);
  }

  count(name: string): number {
    return this.#counts.get(name) ?? 0;
  }

  addVerdict({ reasons, transient, wrong, text: _, ...counts }: Verdict): void {
    for (const [name, count] of Object.entries({ ...counts, ...wrong })) this.add(name, count);
    for (const [reason, count] of Object.entries(reasons)) this.add(`notices ${reason}`, count);
    this.add('transient messages', transient.messages);
    this.add('transient handlings', transient.handlings);
  }

  get figures(): Figures {
    return Object.fromEntries(this.#counts);
  }
}

/** Plays each seed of an extent, and reports what was seen of the part. */
export async function playAll(
  suite: string,
  part: string,
  extent: Extent,
  play: (seed: number, tally: Tally) => Promise<void>,
): Promise<Tally> {
  const tally = new Tally();
  for (const seed of seedsOf(extent)) await play(seed, tally);
  report(suite, extent, { part, ...tally.figures });
  return tally;
}
