/** Looks whether the process of a lost instance on this machine has died; if so nobody waits for the instance. */
import type { Clock, Timer } from '../clock.js';
import { isAlive, type ProcessHere } from '../process-identity.js';

/** Milliseconds between looks, at first and later: a process that was killed takes a moment to be gone. */
const PAUSES = [20, 50, 100, 250, 500, 1000] as const;

export class Suspects {
  readonly #clock: Clock;
  readonly #looksFor: number;
  readonly #died: (instance: string) => void;
  readonly #timers = new Set<Timer>();

  /** `looksFor`: milliseconds after which a process that still lives is no longer looked at. */
  constructor(clock: Clock, looksFor: number, died: (instance: string) => void) {
    this.#clock = clock;
    this.#looksFor = looksFor;
    this.#died = died;
  }

  add(instance: string, process: ProcessHere): void {
    this.#look(instance, process, 0, this.#clock.monotonic() + this.#looksFor);
  }

  #look(instance: string, process: ProcessHere, look: number, until: number): void {
    if (!isAlive(process)) {
      this.#died(instance);
      return;
    }
    if (this.#clock.monotonic() > until) return;
    const timer = this.#clock.setTimeout(
      () => {
        this.#timers.delete(timer);
        this.#look(instance, process, look + 1, until);
      },
      PAUSES[Math.min(look, PAUSES.length - 1)] as number,
    );
    this.#timers.add(timer);
  }

  stop(): void {
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
  }
}
