/**
 * Subscriptions: the handlers of each channel, what the server is told of them, and what the name holds. The channel ''
 * is what is addressed to the client itself or to everyone.
 */
import type { Clock } from '../clock.js';
import type { BroadcastError } from '../errors.js';
import type { Unsubscribe } from '../events.js';
import type { BroadcastMessage } from '../message.js';
import { encodeSubscribe, encodeUnhandle, encodeUnsubscribe } from '../protocol/frames.js';
import type { HandlerOptions, MessageHandler } from './handlers.js';
import type { Requests } from './requests.js';
import { Runner } from './runner.js';
import { Succession } from './succession.js';
import type { Acceptor, Rest, Work } from './work.js';

/** What subscriptions need of their client. */
export interface SubscriptionHost {
  readonly clock: Clock;
  readonly maxAttempts: number;
  readonly requests: Requests;
  readonly isOnline: boolean;
  handlerError(channel: string, error: unknown, message: BroadcastMessage): void;
  /** A handler has ended, and no other of its subscription is running. */
  idle(): void;
  /** Time has passed, and handlers are about to be started. */
  beginning(): void;
  /** Messages that were not started go back to the server. */
  giveBack(rest: readonly Rest[]): void;
  refused(channel: string, error: BroadcastError): void;
}

const NONE: readonly Runner[] = [];

export class Subscriptions {
  readonly #host: SubscriptionHost;
  /** Lists are replaced, not changed: messages on their way keep the handlers that they came for. */
  readonly #runners = new Map<string, readonly Runner[]>();
  /** Channels whose handlers were all taken away, until nothing is left of them. */
  readonly #successions = new Map<string, Succession>();
  readonly #refusals = new Map<string, BroadcastError>();
  /** Channels that the server was told we handle: it must hear, if need be later, when that is over. */
  readonly #declared = new Set<string>();
  readonly #held = new Set<string>();
  /** The client leaves, and only finishes what is running. */
  #isLeaving = false;

  constructor(host: SubscriptionHost) {
    this.#host = host;
  }

  /** Who takes what comes for a channel. */
  takers(channel: string): readonly Acceptor[] | undefined {
    const runners = this.#runners.get(channel);
    if (runners !== undefined || this.#successions.size === 0) return runners;
    const succession = this.#successions.get(channel);
    return succession?.isLeaving === true ? [succession] : undefined;
  }

  // ---- handlers ------------------------------------------------------------------------------------------------------------

  add(channel: string, handler: MessageHandler, options: HandlerOptions): Unsubscribe {
    const { concurrency = 1, window, maxAttempts = this.#host.maxAttempts, handlerTimeout } = options;
    const runner: Runner = new Runner(
      channel,
      handler,
      { concurrency, window, maxAttempts, handlerTimeout },
      {
        clock: this.#host.clock,
        handlerError: (error, message) => this.#host.handlerError(channel, error, message),
        idle: () => this.#host.idle(),
        beginning: () => this.#host.beginning(),
        withdraw: rest => this.#withdraw(channel, runner, rest),
        over: () => this.#over(channel, runner),
      },
    );
    const succession = this.#successions.get(channel);
    if (succession?.isRunning === true && concurrency === 1) runner.hold();
    this.#runners.set(channel, [...(this.#runners.get(channel) ?? NONE), runner]);
    if (this.#host.isOnline) this.#declare(channel);
    if (succession !== undefined) this.#handOn(channel, runner, succession.takeParked());
    return () => this.#remove(channel, runner);
  }

  #remove(channel: string, runner: Runner): void {
    const runners = this.#runners.get(channel) ?? NONE;
    if (!runners.includes(runner)) return;
    const rest = unended(runner.stop());
    const succession = this.#successionOf(channel);
    succession.retire(runner);
    const [other, ...others] = runners.filter(one => one !== runner);
    if (other !== undefined) {
      this.#runners.set(channel, [other, ...others]);
      this.#handOn(channel, other, rest);
    } else {
      this.#runners.delete(channel);
      this.#refusals.delete(channel);
      this.#unhandle(channel);
      this.#keep(succession, rest);
    }
    this.#tidy(channel);
  }

  /** What a handler that was taken away had, for another one: it is started in a turn of its own, not while handlers are added. */
  #handOn(channel: string, runner: Runner, rest: readonly Rest[]): void {
    if (rest.length === 0) return;
    runner.adopt(rest);
    this.#resumeSoon(channel);
  }

  /** What nobody is there to take over: for whoever comes before the server has answered, or is connected again. */
  #keep(succession: Succession, rest: readonly Rest[]): void {
    const isAwaited = succession.isLeaving || !this.#host.isOnline;
    if (isAwaited && !this.#isLeaving) succession.park(rest);
    else this.#host.giveBack(rest);
  }

  /** A handler that was taken away has failed with a message, or one has come to it in vain. */
  #withdraw(channel: string, runner: Runner, withdrawn: readonly Rest[]): void {
    const rest = unended(withdrawn);
    const succession = this.#successionOf(channel);
    const [successor] = this.#runners.get(channel) ?? NONE;
    if (succession.isStranger(runner) || this.#isLeaving) this.#host.giveBack(rest);
    else if (successor !== undefined) this.#handOn(channel, successor, rest);
    else this.#keep(succession, rest);
    this.#tidy(channel);
  }

  /** A handler that was taken away has ended what it had begun. */
  #over(channel: string, runner: Runner): void {
    this.#successions.get(channel)?.ended(runner);
    this.#tidy(channel);
    this.#resumeSoon(channel);
  }

  /** Handlers that wait for others start when those have ended. */
  #resumeSoon(channel: string): void {
    queueMicrotask(() => {
      const isRunning = this.#successions.get(channel)?.isRunning === true;
      for (const runner of this.#runners.get(channel) ?? NONE)
        if (!isRunning || runner.options.concurrency > 1) runner.letGo();
    });
  }

  #successionOf(channel: string): Succession {
    let succession = this.#successions.get(channel);
    if (succession === undefined) this.#successions.set(channel, (succession = new Succession()));
    return succession;
  }

  #tidy(channel: string): void {
    if (this.#successions.get(channel)?.isOver === true) this.#successions.delete(channel);
  }

  /** Ends the name's subscription. */
  unsubscribe(channel: string): Promise<void> {
    const runners = this.#runners.get(channel) ?? NONE;
    for (const runner of runners) this.#host.giveBack(runner.stop());
    const succession = this.#successionOf(channel);
    if (this.#runners.delete(channel)) this.#unhandle(channel);
    this.#refusals.delete(channel);
    this.#host.giveBack(succession.end(runners));
    this.#tidy(channel);
    return this.#host.requests.order(request => encodeUnsubscribe({ request, channel }));
  }

  // ---- what the server is told ---------------------------------------------------------------------------------------------

  /** A connection is up. */
  online(): void {
    this.#held.clear();
    for (const [channel, succession] of this.#successions) {
      this.#host.giveBack(succession.renew());
      this.#tidy(channel);
    }
    for (const channel of this.#runners.keys()) if (this.#isWanted(channel)) this.#declare(channel);
    for (const channel of this.#declared) if (!this.#isWanted(channel)) this.#unhandle(channel);
  }

  #isWanted(channel: string): boolean {
    const runners = this.#runners.get(channel);
    return runners !== undefined && !(this.#isLeaving && runners.every(runner => runner.isIdle));
  }

  /** Tells the server of a channel's handlers: the most that any of them wants. */
  #declare(channel: string): void {
    this.#declared.add(channel);
    const options = (this.#runners.get(channel) ?? NONE).map(runner => runner.options);
    const windows = options.map(({ window }) => window ?? Infinity);
    const window = Math.max(...windows);
    const declaration = {
      channel,
      concurrency: Math.max(...options.map(({ concurrency }) => concurrency)),
      window: window === Infinity ? 0 : window,
      maxAttempts: Math.max(...options.map(({ maxAttempts }) => maxAttempts)),
    };
    this.#host.requests
      .declare(request => encodeSubscribe({ request, ...declaration }))
      .then(
        () => this.#refusals.delete(channel),
        (error: unknown) => this.#refused(channel, error as BroadcastError),
      );
  }

  #refused(channel: string, error: BroadcastError): void {
    // At the end of the client every request is rejected; that is no refusal.
    if (error.code === 'closed' || !this.#runners.has(channel) || !this.#host.isOnline) return;
    this.#refusals.set(channel, error);
    this.#host.refused(channel, error);
  }

  #unhandle(channel: string): void {
    if (!this.#host.isOnline) return;
    const succession = this.#successionOf(channel);
    succession.leaves();
    const answered = (): void => {
      this.#host.giveBack(succession.answered());
      this.#tidy(channel);
    };
    this.#host.requests
      .declare(request => encodeUnhandle({ request, channel }))
      .then(() => {
        answered();
        if (!this.#isWanted(channel)) this.#declared.delete(channel);
      }, answered);
  }

  /** Throws the server's refusal of a subscription, if there is one. */
  check(): void {
    for (const refusal of this.#refusals.values()) throw refusal;
  }

  // ---- what the name holds -------------------------------------------------------------------------------------------------

  get held(): readonly string[] {
    return [...this.#held];
  }

  changed(channel: string, present: boolean): void {
    if (present) this.#held.add(channel);
    else this.#held.delete(channel);
  }

  // ---- leaving -------------------------------------------------------------------------------------------------------------

  /** The client leaves: nothing further is started, and what has not started goes to others at once. */
  stop(): void {
    this.#isLeaving = true;
    for (const [channel, runners] of this.#runners) {
      this.#unhandle(channel);
      for (const runner of runners) this.#host.giveBack(runner.stop());
    }
    for (const succession of this.#successions.values()) this.#host.giveBack(succession.takeParked());
  }

  /** Handlers that are there. */
  all(): Runner[] {
    return [...this.#runners.values()].flat();
  }

  /** Those that were taken away and have not ended, too. */
  #everyOne(): Runner[] {
    return [...this.all(), ...[...this.#successions.values()].flatMap(({ retired }) => [...retired])];
  }

  get isIdle(): boolean {
    return this.#everyOne().every(runner => runner.isIdle);
  }

  /** Nobody waits for running handlers any longer. */
  abort(reason: BroadcastError): void {
    for (const runner of this.#everyOne()) runner.abort(reason);
  }
}

/** What no other handler has ended. */
function unended(rest: readonly Rest[]): Rest[] {
  return rest.flatMap(({ work, from, end, attempt }) => {
    if (!work.hasSeveralRunners) return [{ work, from, end, attempt }];
    const left: { work: Work; from: number; end: number; attempt: number | undefined }[] = [];
    for (let i = from; i < end; i++) {
      if (!work.withdraw(i)) continue;
      const last = left[left.length - 1];
      if (last?.end === i) last.end++;
      else left.push({ work, from: i, end: i + 1, attempt });
    }
    return left;
  });
}
