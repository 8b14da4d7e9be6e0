/**
 * Runs one handler of one subscription: in order, `concurrency` at a time, again after a failure, given up after
 * `maxAttempts`.
 *
 *   waiting ──▶ running ──ends──▶ done
 *                 │ └─throws──▶ failed ──FAIL──▶ recorded (RETRY) ──pause──▶ running, attempt + 1
 *                 └─BroadcastReject, or the last attempt──▶ rejected ──▶ done
 *
 * A stopped runner starts nothing: what waits, for its turn or for another attempt, is given back.
 */
import type { Clock, Timer } from '../clock.js';
import { Deque } from '../deque.js';
import { BroadcastError, BroadcastReject, textOf } from '../errors.js';
import { isThenable } from '../events.js';
import type { BroadcastMessage } from '../message.js';
import type { DeliveryInfo, MessageHandler } from './handlers.js';
import type { Rest, Work, WorkRunner } from './work.js';

interface Span {
  readonly work: Work;
  next: number;
  readonly end: number;
  readonly attempt: number | undefined;
}

export interface RunnerOptions {
  readonly concurrency: number;
  readonly window: number | undefined;
  readonly maxAttempts: number;
  readonly handlerTimeout: number | undefined;
}

export interface RunnerHost {
  readonly clock: Clock;
  /** A handler threw. */
  handlerError(error: unknown, message: BroadcastMessage): void;
  /** No handler of this runner is running. */
  idle(): void;
  /** Time has passed while one ran, and others are about to be started. */
  beginning(): void;
  /** The runner was stopped, and is not to have it any more. */
  withdraw(rest: readonly Rest[]): void;
  /** The runner was stopped, and nothing that it began is left. */
  over(): void;
}

/** Handlers that end at once are started so many in a row before it is looked how much time has passed. */
const LOOK_EVERY = 8;

/** Pauses between attempts add up to this, each three times the one before. */
const PAUSES_IN_ALL = 10_000;

/** Milliseconds before an attempt, from the second on. */
function pauseBefore(attempt: number, maxAttempts: number): number {
  const pauses = maxAttempts - 1;
  const sum = (3 ** pauses - 1) / 2;
  return (PAUSES_IN_ALL * 3 ** (attempt - 2)) / sum;
}

class Info implements DeliveryInfo {
  readonly channel: string | null;
  readonly redelivered: boolean;
  readonly attempt: number;
  #controller: AbortController | undefined;
  #reason: Error | undefined;

  constructor(channel: string | null, redelivered: boolean, attempt: number) {
    this.channel = channel;
    this.redelivered = redelivered;
    this.attempt = attempt;
  }

  /** Made when it is first read: few handlers look at it. */
  get signal(): AbortSignal {
    this.#controller ??= new AbortController();
    if (this.#reason !== undefined) this.#controller.abort(this.#reason);
    return this.#controller.signal;
  }

  abort(reason: Error): void {
    this.#reason = reason;
    this.#controller?.abort(reason);
  }
}

export class Runner implements WorkRunner {
  readonly channel: string;
  readonly options: RunnerOptions;
  readonly #handler: MessageHandler;
  readonly #host: RunnerHost;
  readonly #queue = new Deque<Span>();
  readonly #infos = new Set<Info>();
  readonly #pauses = new Map<Timer, Rest>();
  /** Handlers that are running or wait for another attempt. */
  #active = 0;
  /** Of those, the ones that have failed and wait: for the record, or for their pause to end. */
  #failed = 0;
  #isPumping = false;
  #isStopped = false;
  /** What another handler began comes first. */
  #isHeld = false;

  constructor(channel: string, handler: MessageHandler, options: RunnerOptions, host: RunnerHost) {
    this.channel = channel;
    this.options = options;
    this.#handler = handler;
    this.#host = host;
  }

  /** No handler is running; some may wait for another attempt. */
  get isIdle(): boolean {
    return this.#active === this.#failed;
  }

  /** It was stopped, and nothing that it began is left. */
  get isOver(): boolean {
    return this.#isStopped && this.#active === 0;
  }

  /** Takes messages behind those that wait. */
  accept(work: Work, from: number, end: number): void {
    if (this.#isStopped) {
      // By another handler, to which the same came first.
      this.#host.withdraw([{ work, from, end, attempt: undefined }]);
      return;
    }
    this.#queue.push({ work, next: from, end, attempt: undefined });
    this.#pump();
  }

  /** Takes messages that another handler had, before those that wait. They are started when the runner is let go. */
  adopt(rest: readonly Rest[]): void {
    for (const { work, from, end, attempt } of [...rest].reverse())
      this.#queue.unshift({ work, next: from, end, attempt });
    this.hold();
  }

  /** It has work that other handlers have a part in. */
  get isShared(): boolean {
    for (const { work } of this.#queue) if (work.hasSeveralRunners) return true;
    return false;
  }

  /** Starts nothing, until another handler has ended. */
  hold(): void {
    this.#isHeld = true;
  }

  /** It has. */
  letGo(): void {
    this.#isHeld = false;
    this.#pump();
  }

  #pump(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    let sinceLook = 0;
    while (this.#active < this.options.concurrency && !this.#isStopped && !this.#isHeld) {
      const span = this.#queue.peek();
      if (span === undefined) break;
      if (++sinceLook % LOOK_EVERY === 0) this.#host.beginning();
      const index = span.next++;
      if (span.next >= span.end) this.#queue.shift();
      this.#start(span.work, index, span.attempt);
    }
    this.#isPumping = false;
  }

  #start(work: Work, index: number, attempt: number | undefined): void {
    const message = work.take(index);
    if (message === undefined) {
      work.end(index);
      return;
    }
    this.#active++;
    this.#attempt(work, index, message, attempt ?? work.attemptOf(index));
  }

  #attempt(work: Work, index: number, message: BroadcastMessage, attempt: number): void {
    const info = new Info(this.channel === '' ? null : this.channel, work.isRedelivered, attempt);
    let result: unknown;
    let isPending: boolean;
    try {
      result = this.#handler(message, info);
      isPending = isThenable(result);
    } catch (error) {
      this.#onFailure(work, index, message, attempt, error);
      return;
    }
    if (isPending) this.#await(work, index, message, attempt, info, result);
    else this.#done(work, index);
  }

  #await(work: Work, index: number, message: BroadcastMessage, attempt: number, info: Info, result: unknown): void {
    const { handlerTimeout } = this.options;
    let timer: Timer | undefined;
    this.#infos.add(info);
    // Whichever comes first counts: the handler's end or the end of its time.
    const isFirst = (): boolean => {
      timer?.cancel();
      return this.#infos.delete(info);
    };
    const failed = (error: unknown): void => {
      if (isFirst()) this.#onFailure(work, index, message, attempt, error);
    };
    if (handlerTimeout !== undefined) {
      timer = this.#host.clock.setTimeout(() => {
        const error = new BroadcastError(
          'handler-timeout',
          `the handler did not end within ${String(handlerTimeout)} ms (handlerTimeout)`,
        );
        info.abort(error);
        failed(error);
      }, handlerTimeout);
    }
    Promise.resolve(result).then(() => {
      if (isFirst()) this.#done(work, index);
    }, failed);
  }

  #done(work: Work, index: number): void {
    this.#active--;
    work.end(index);
    if (!this.#isPumping) {
      this.#host.beginning();
      this.#pump();
    }
    if (this.isIdle) this.#host.idle();
    if (this.isOver) this.#host.over();
  }

  #onFailure(work: Work, index: number, message: BroadcastMessage, attempt: number, error: unknown): void {
    this.#host.handlerError(error, message);
    if (error instanceof BroadcastReject || attempt >= this.options.maxAttempts) {
      work.reject(index, attempt, textOf(error));
      this.#done(work, index);
      return;
    }
    // It may be called back at once.
    this.#failed++;
    if (!work.fail(index, this, attempt, textOf(error))) {
      this.#failed--;
      this.#done(work, index);
      return;
    }
    if (this.isIdle) this.#host.idle();
  }

  /** Another attempt is to be made, after a pause. */
  retry(work: Work, index: number, attempt: number): void {
    if (this.#isStopped) {
      this.#host.withdraw([{ work, from: index, end: index + 1, attempt }]);
      this.#forget();
      return;
    }
    const pause = pauseBefore(attempt, this.options.maxAttempts);
    const timer = this.#host.clock.setTimeout(() => {
      this.#pauses.delete(timer);
      this.#failed--;
      const message = work.take(index);
      this.#host.beginning();
      if (message === undefined) this.#done(work, index);
      else this.#attempt(work, index, message, attempt);
    }, pause);
    this.#pauses.set(timer, { work, from: index, end: index + 1, attempt });
  }

  /** A message that waited for another attempt will not get one here. */
  giveUp(): void {
    this.#forget();
    this.#pump();
  }

  #forget(): void {
    this.#failed--;
    this.#active--;
    if (this.isOver) this.#host.over();
  }

  /** The handler was taken away, or the client closes: what is not running is given back. */
  stop(): Rest[] {
    this.#isStopped = true;
    const paused = [...this.#pauses];
    this.#pauses.clear();
    for (const [timer] of paused) {
      timer.cancel();
      this.#forget();
    }
    return [...paused.map(([, rest]) => rest), ...this.takeBack(() => true)];
  }

  /** Takes out what has not started, of the work that `wanted` accepts; the rest keeps its order. */
  takeBack(wanted: (work: Work) => boolean): Rest[] {
    const spans = [...this.#queue];
    this.#queue.clear();
    for (const span of spans) if (!wanted(span.work)) this.#queue.push(span);
    return spans
      .filter(({ work }) => wanted(work))
      .map(({ work, next, end, attempt }) => ({ work, from: next, end, attempt }));
  }

  /** Nobody waits for its handlers any longer. */
  abort(reason: Error): void {
    this.#isStopped = true;
    for (const info of this.#infos) info.abort(reason);
  }
}
