/**
 * Signals of `sendMessage`: one listener for each signal, however many messages were sent with it, and none any longer
 * once all of them are settled.
 */

/** What a signal ends; called at most once. */
type OnAbort = () => void;

export class AbortWatch {
  readonly #waiting = new Map<AbortSignal, Set<OnAbort>>();

  /** Calls `onAbort` when the signal is aborted, unless the function that is returned was called before. */
  watch(signal: AbortSignal, onAbort: OnAbort): () => void {
    const waiting = this.#waiting.get(signal) ?? this.#listen(signal);
    waiting.add(onAbort);
    return () => {
      if (!waiting.delete(onAbort) || waiting.size > 0) return;
      this.#waiting.delete(signal);
      signal.removeEventListener('abort', this.#onAbort);
    };
  }

  #listen(signal: AbortSignal): Set<OnAbort> {
    const waiting = new Set<OnAbort>();
    this.#waiting.set(signal, waiting);
    signal.addEventListener('abort', this.#onAbort);
    return waiting;
  }

  readonly #onAbort = (event: Event): void => {
    const signal = event.target as AbortSignal;
    signal.removeEventListener('abort', this.#onAbort);
    const waiting = this.#waiting.get(signal);
    this.#waiting.delete(signal);
    if (waiting === undefined) return;
    for (const onAbort of [...waiting]) onAbort();
  };
}
