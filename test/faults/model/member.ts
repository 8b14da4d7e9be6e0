/** A real client object, the line that connects it, and handlers that do what they are told. */
import {
  BroadcastReject,
  BroadcastTcpClient,
  type BroadcastClient,
  type BroadcastMessage,
  type DeliveryInfo,
  type Unsubscribe,
} from '../../../src/index.js';
import type { TestClock } from '../../../src/testing/index.js';
import { gate } from '../../helpers/scene.js';
import type { Direction, Line } from './line.js';
import { MAX_ATTEMPTS, noticeOf, type Model, type Peer, type Sent } from './model.js';
import { QUIET } from './world.js';

/** What becomes of a handler that hangs. */
export type Outcome = 'ends' | 'fails' | 'rejects';

/** A handler: it ends at once, unless it was told otherwise. */
export class Script {
  readonly subscription: string;
  /** So many of the next attempts fail. */
  failures = 0;
  /** The next one is rejected for good. */
  isRejecting = false;
  /** The next ones hang. */
  isHanging = false;
  /** What hangs now. */
  hanging: { readonly n: number; readonly open: (outcome: Outcome) => void } | undefined;
  /** Its subscription was ended: the handler of another one does not wait for it. */
  isEnded = false;
  remove: Unsubscribe = () => undefined;

  constructor(subscription: string) {
    this.subscription = subscription;
  }
}

export class Member implements Peer {
  readonly label: string;
  readonly name: string;
  readonly pid: number;
  readonly client: BroadcastClient;
  readonly line: Line;
  readonly scripts = new Map<string, Script>();
  /** Handlers that were taken away. */
  readonly loose: Script[] = [];
  readonly #model: Model;
  readonly #clock: TestClock;
  state: Peer['state'] = 'away';
  lostAt = 0;
  isAlive = true;
  isLeaving = false;
  readonly declared = new Set<string>();
  readonly sent: Sent[] = [];
  readonly latest = new Map<string, number>();
  delayedUntil = -1;
  troubledAt = -Infinity;
  /** Final notices that it has heard, of anybody's messages. */
  readonly heard = new Set<string>();

  constructor(model: Model, clock: TestClock, label: string, name: string, pid: number, line: Line) {
    this.#model = model;
    this.#clock = clock;
    this.label = label;
    this.name = name;
    this.pid = pid;
    this.line = line;
    this.client = new BroadcastTcpClient(
      { url: `unix:${line.path}`, clock, maxAttempts: MAX_ATTEMPTS, logger: QUIET },
      name,
    );
    this.client.onDeliveryFailure(failure => {
      if (!failure.final || !this.isAlive) return;
      for (const { n } of model.named(failure)) this.heard.add(`#${n} ${noticeOf(failure.reason, failure.target)}`);
    });
  }

  get isOnline(): boolean {
    return this.state === 'online';
  }

  /** It is connected, and nothing is held back. */
  get isClear(): boolean {
    return this.isOnline && this.isAlive && this.line.isClear;
  }

  release(direction: Direction): void {
    this.delayedUntil = this.#clock.monotonic();
    this.line.release(direction);
  }

  handle(subscription: string): void {
    const script = new Script(subscription);
    const handler = (message: BroadcastMessage, info: DeliveryInfo): unknown =>
      this.#run(script, subscription, message, info);
    script.remove = subscription === '' ? this.client.onMessage(handler) : this.client.onMessage(subscription, handler);
    this.scripts.set(subscription, script);
  }

  /** A handler that is running is left to itself: it ends when it is released. */
  forget(subscription: string): Script | undefined {
    const script = this.scripts.get(subscription);
    this.scripts.delete(subscription);
    if (script !== undefined) this.loose.push(script);
    return script;
  }

  /** What hangs goes on, and nothing fails any more. */
  works(): void {
    for (const script of [...this.scripts.values(), ...this.loose]) {
      Object.assign(script, { isHanging: false, failures: 0, isRejecting: false });
      script.hanging?.open('ends');
    }
  }

  /** What hangs. */
  get hanging(): Script[] {
    return [...this.scripts.values(), ...this.loose].filter(script => script.hanging !== undefined);
  }

  #run(script: Script, subscription: string, message: BroadcastMessage, info: DeliveryInfo): unknown {
    if (!this.isAlive) return gate().promise; // its process is dead
    const n = message.data as number;
    for (const other of this.hanging)
      if (other === script || (other.subscription === subscription && !other.isEnded))
        this.#model.fail(`${this.label} started #${n} for /${subscription} while #${other.hanging?.n} was running`);
    this.#model.starts(this, n, subscription, info);
    if (script.isHanging) return this.#hang(script, subscription, n, info.attempt);
    const isRejected = script.isRejecting;
    script.isRejecting = false;
    if (isRejected || script.failures > 0) {
      script.failures = isRejected ? script.failures : script.failures - 1;
      return this.#fail(script, subscription, n, info.attempt, isRejected);
    }
    this.#model.ends(this, n, subscription);
    return undefined;
  }

  async #hang(script: Script, subscription: string, n: number, attempt: number): Promise<void> {
    const { promise, open } = gate<Outcome>();
    script.hanging = { n, open };
    const outcome = await promise;
    script.hanging = undefined;
    if (outcome !== 'ends') this.#fail(script, subscription, n, attempt, outcome === 'rejects');
    this.#model.ends(this, n, subscription);
  }

  #fail(script: Script, subscription: string, n: number, attempt: number, isRejected: boolean): never {
    const isLast = isRejected || attempt >= MAX_ATTEMPTS;
    this.#model.fails(this, n, subscription, isLast);
    throw isRejected ? new BroadcastReject('refused') : new Error('failed');
  }
}
