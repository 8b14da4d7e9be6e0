/**
 * Handlers and how they are run: in order, `concurrency` at a time, again after a failure, given up after `maxAttempts`.
 *
 *   waiting ──▶ running ──ends──▶ done
 *                 │ └─throws──▶ failed ──FAIL──▶ recorded (RETRY) ──pause──▶ running, attempt + 1
 *                 └─BroadcastReject, or the last attempt──▶ rejected ──▶ done
 */
import type { Clock, Timer } from '../clock.js';
import { Deque } from '../deque.js';
import { BroadcastReject } from '../errors.js';
import type { BroadcastMessage } from '../message.js';
import type { Rest, Work, WorkRunner } from './work.js';

/** What a handler is told beside the message. */
export interface DeliveryInfo {
  /** The subscription it is for; null for what is addressed to the client or to everyone. */
  channel: string | null;
  /** The message may have been handled before. */
  redelivered: boolean;
  /** 1 for the first. */
  attempt: number;
  /** Aborted when the handler's time is over or the client closes without waiting for it. */
  signal: AbortSignal;
}

/** Handles a message; a thenable that it returns is awaited. */
export type MessageHandler<D = unknown> = (message: BroadcastMessage<D>, info: DeliveryInfo) => unknown;

export interface HandlerOptions {
  /** Messages handled at the same time. Default 1, which keeps their order. */
  concurrency?: number;
  /** Most unacknowledged messages of this subscription. Default: a share of `limits.windowMessages`. */
  window?: number;
  /** Attempts before the message goes to the dead letters. Default 5. */
  maxAttempts?: number;
  /** Milliseconds after which a handler that has not ended has failed. Default none. */
  handlerTimeout?: number;
}

interface Span {
  readonly work: Work;
  next: number;
  readonly end: number;
}

/** Pauses between attempts add up to this, each three times the one before. */
const PAUSES_IN_ALL = 10_000;

export function pauseBefore(attempt: number, maxAttempts: number): number {
  const pauses = maxAttempts - 1;
  const sum = (3 ** pauses - 1) / 2;
  return (PAUSES_IN_ALL * 3 ** (attempt - 2)) / sum;
}

class Info implements DeliveryInfo {
  readonly channel: string | null;
  readonly redelivered: boolean;
  readonly attempt: number;
  #controller: AbortController | undefined;
  #aborted: unknown;

  constructor(channel: string | null, redelivered: boolean, attempt: number) {
    this.channel = channel;
    this.redelivered = redelivered;
    this.attempt = attempt;
  }

  /** Made when it is first read: few handlers look at it. */
  get signal(): AbortSignal {
    this.#controller ??= new AbortController();
    if (this.#aborted !== undefined) this.#controller.abort(this.#aborted);
    return this.#controller.signal;
  }

  abort(reason: Error): void {
    this.#aborted = reason;
    this.#controller?.abort(reason);
  }
}

export interface RunnerHost {
  readonly clock: Clock;
  /** A handler threw. */
  handlerError(error: unknown, message: BroadcastMessage): void;
  /** A handler has ended. */
  idle(): void;
}

/** Runs one handler of one subscription. */
export class Runner implements WorkRunner {
  readonly channel: string;
  readonly handler: MessageHandler;
  readonly concurrency: number;
  readonly maxAttempts: number;
  readonly handlerTimeout: number | undefined;
  readonly #host: RunnerHost;
  readonly #queue = new Deque<Span>();
  readonly #infos = new Set<Info>();
  #active = 0;
  #pumping = false;
  #stopped = false;
  readonly #timers = new Set<Timer>();

  constructor(
    channel: string,
    handler: MessageHandler,
    options: { concurrency: number; maxAttempts: number; handlerTimeout: number | undefined },
    host: RunnerHost,
  ) {
    this.channel = channel;
    this.handler = handler;
    this.concurrency = options.concurrency;
    this.maxAttempts = options.maxAttempts;
    this.handlerTimeout = options.handlerTimeout;
    this.#host = host;
  }

  /** Handlers that are running or wait for another attempt. */
  get active(): number {
    return this.#active;
  }

  /** Takes messages behind those that wait. */
  accept(work: Work, from: number, end: number): void {
    this.#queue.push({ work, next: from, end });
    this.#pump();
  }

  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    try {
      while (this.#active < this.concurrency && !this.#stopped) {
        const span = this.#queue.peek();
        if (span === undefined) return;
        const index = span.next++;
        if (span.next >= span.end) this.#queue.shift();
        this.#start(span.work, index);
      }
    } finally {
      this.#pumping = false;
    }
  }

  #start(work: Work, index: number): void {
    const message = work.take(index);
    if (message === undefined) {
      work.end(index);
      return;
    }
    this.#active++;
    this.#attempt(work, index, message, work.attemptOf(index));
  }

  #attempt(work: Work, index: number, message: BroadcastMessage, attempt: number): void {
    const info = new Info(this.channel === '' ? null : this.channel, work.isRedelivered, attempt);
    let result: unknown;
    try {
      result = this.handler(message, info);
    } catch (error) {
      this.#failed(work, index, message, attempt, error);
      return;
    }
    if (!isThenable(result)) {
      this.#done(work, index);
      return;
    }
    this.#await(work, index, message, attempt, info, result);
  }

  #await(
    work: Work,
    index: number,
    message: BroadcastMessage,
    attempt: number,
    info: Info,
    result: PromiseLike<unknown>,
  ): void {
    let over = false;
    let timer: Timer | undefined;
    this.#infos.add(info);
    const finish = (then: () => void): void => {
      if (over) return;
      over = true;
      timer?.cancel();
      this.#infos.delete(info);
      then();
    };
    if (this.handlerTimeout !== undefined) {
      const { handlerTimeout } = this;
      timer = this.#host.clock.setTimeout(() => {
        finish(() => {
          const error = new Error(`the handler did not end within ${String(handlerTimeout)} ms (handlerTimeout)`);
          info.abort(error);
          this.#failed(work, index, message, attempt, error);
        });
      }, handlerTimeout);
    }
    Promise.resolve(result).then(
      () => finish(() => this.#done(work, index)),
      (error: unknown) => finish(() => this.#failed(work, index, message, attempt, error)),
    );
  }

  #done(work: Work, index: number): void {
    this.#active--;
    work.end(index);
    if (!this.#pumping) this.#pump();
    if (this.#active === 0) this.#host.idle();
  }

  #failed(work: Work, index: number, message: BroadcastMessage, attempt: number, error: unknown): void {
    this.#host.handlerError(error, message);
    const reason = error instanceof Error ? error.message : String(error);
    if (error instanceof BroadcastReject || attempt >= this.maxAttempts) {
      work.reject(index, attempt, reason);
      this.#done(work, index);
      return;
    }
    if (!work.fail(index, this, attempt, reason)) this.#done(work, index);
  }

  /** Another attempt is to be made, after a pause. */
  retry(work: Work, index: number, attempt: number): void {
    const timer = this.#host.clock.setTimeout(
      () => {
        this.#timers.delete(timer);
        if (this.#stopped) return;
        const message = work.take(index);
        if (message === undefined) this.#done(work, index);
        else this.#attempt(work, index, message, attempt);
      },
      pauseBefore(attempt, this.maxAttempts),
    );
    this.#timers.add(timer);
  }

  /** The handler was taken away, or the client closes: what has not started is given back. */
  stop(): Rest[] {
    this.#stopped = true;
    return this.takeBack(() => true);
  }

  /** Takes out what has not started, of the work that `wanted` accepts; the rest keeps its order. */
  takeBack(wanted: (work: Work) => boolean): Rest[] {
    const spans = [...this.#queue];
    this.#queue.clear();
    for (const span of spans) if (!wanted(span.work)) this.#queue.push(span);
    return spans.filter(({ work }) => wanted(work)).map(({ work, next, end }) => ({ work, from: next, end }));
  }

  /** A message that waited for another attempt will not get one here. */
  giveUp(): void {
    this.#active--;
    this.#pump();
    if (this.#active === 0) this.#host.idle();
  }

  /** Nobody waits for it any longer. */
  abort(reason: Error): void {
    this.#stopped = true;
    for (const timer of this.#timers) timer.cancel();
    for (const info of this.#infos) info.abort(reason);
  }

  /** Only waits for another attempt, if anything. */
  get isWaiting(): boolean {
    return this.#active === this.#timers.size;
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function';
}
