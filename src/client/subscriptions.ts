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
import type { Rest } from './work.js';

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
  /** The same of one of several handlers: for the others they have ended. */
  withdraw(rest: readonly Rest[]): void;
  refused(channel: string, error: BroadcastError): void;
}

const NONE: readonly Runner[] = [];

export class Subscriptions {
  readonly #host: SubscriptionHost;
  /** Lists are replaced, not changed: messages on their way keep the handlers that they came for. */
  readonly #runners = new Map<string, readonly Runner[]>();
  readonly #refusals = new Map<string, BroadcastError>();
  /** Channels that the server was told we handle: it must hear, if need be later, when that is over. */
  readonly #declared = new Set<string>();
  readonly #held = new Set<string>();
  /** The client leaves, and only finishes what is running. */
  #isLeaving = false;

  constructor(host: SubscriptionHost) {
    this.#host = host;
  }

  runners(channel: string): readonly Runner[] | undefined {
    return this.#runners.get(channel);
  }

  // ---- handlers ------------------------------------------------------------------------------------------------------------

  add(channel: string, handler: MessageHandler, options: HandlerOptions): Unsubscribe {
    const { concurrency = 1, window, maxAttempts = this.#host.maxAttempts, handlerTimeout } = options;
    const runner = new Runner(
      channel,
      handler,
      { concurrency, window, maxAttempts, handlerTimeout },
      {
        clock: this.#host.clock,
        handlerError: (error, message) => this.#host.handlerError(channel, error, message),
        idle: () => this.#host.idle(),
        beginning: () => this.#host.beginning(),
        withdraw: rest => this.#host.withdraw([rest]),
      },
    );
    this.#runners.set(channel, [...(this.#runners.get(channel) ?? NONE), runner]);
    if (this.#host.isOnline) this.#declare(channel);
    return () => this.#remove(channel, runner);
  }

  #remove(channel: string, runner: Runner): void {
    const runners = this.#runners.get(channel) ?? NONE;
    if (!runners.includes(runner)) return;
    if (runners.length > 1) {
      this.#runners.set(
        channel,
        runners.filter(other => other !== runner),
      );
      this.#host.withdraw(runner.stop());
      return;
    }
    this.#runners.delete(channel);
    this.#refusals.delete(channel);
    this.#unhandle(channel);
    this.#host.giveBack(runner.stop());
  }

  /** Ends the name's subscription. */
  unsubscribe(channel: string): Promise<void> {
    for (const runner of this.#runners.get(channel) ?? NONE) this.#remove(channel, runner);
    return this.#host.requests.order(request => encodeUnsubscribe({ request, channel }));
  }

  // ---- what the server is told ---------------------------------------------------------------------------------------------

  /** A connection is up. */
  online(): void {
    this.#held.clear();
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
    this.#host.requests
      .declare(request => encodeUnhandle({ request, channel }))
      .then(
        () => {
          if (!this.#isWanted(channel)) this.#declared.delete(channel);
        },
        () => undefined,
      );
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
  }

  all(): Runner[] {
    return [...this.#runners.values()].flat();
  }

  get isIdle(): boolean {
    return this.all().every(runner => runner.isIdle);
  }

  /** Nobody waits for running handlers any longer. */
  abort(reason: BroadcastError): void {
    for (const runner of this.all()) runner.abort(reason);
  }
}
