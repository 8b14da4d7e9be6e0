/**
 * Random traffic under random faults, with an oracle that never asks the server what it believes: senders note what they
 * were promised, receivers note what they handled, and at the end the two are held against each other. What is sent, when,
 * and which fault comes next follows from the seed alone; how long handlers take follows from a seed for each of them.
 */
import { setImmediate as turn } from 'node:timers/promises';
import {
  BroadcastMessage,
  BroadcastTcpClient,
  type BroadcastClient,
  type ClientConfig,
  type DeliveryFailure,
  type DeliveryInfo,
  type Logger,
  type MessageOptions,
  type Receipt,
} from '../../src/index.js';
import type { Proxy } from '../helpers/proxy.js';
import { seeded } from '../helpers/seeded.cjs';

const CHANNELS = ['x', 'y', 'z'];
const NAMES = ['alone', 'shared', 'reborn'];
const silent = (): void => undefined;
const QUIET: Logger = { debug: silent, info: silent, warn: silent, error: silent };

interface Payload {
  readonly sender: string;
  readonly n: number;
}

interface Sent {
  readonly payload: Payload;
  /** `name/subscription` of everyone who is to get it. */
  readonly expected: readonly string[];
  /** What the receipt may say. */
  readonly statuses: readonly Receipt['status'][];
  /** It is followed to the end. */
  readonly followed: boolean;
  receipt: Receipt | Error | undefined;
}

interface Handled {
  readonly payload: Payload;
  readonly subscription: string;
  readonly redelivered: boolean;
}

/** One client object that receives, and what its handlers have done. */
interface Receiver {
  readonly name: string;
  readonly client: BroadcastClient;
  readonly started: Handled[];
  readonly ended: Handled[];
}

export interface TrafficOptions {
  readonly seed: number;
  readonly messages: number;
  /** Messages that a handler fails at, once. */
  readonly failing: number;
  /** Share of the messages that are followed to the end; 0 by default. */
  readonly followed?: number;
  /** For every client. */
  readonly client?: ClientConfig;
  /** Called now and then, while messages flow. */
  readonly fault: (random: () => number) => Promise<void> | void;
  /** Called when the last message has been sent: from now on nothing goes wrong any more. */
  readonly heal?: () => void;
}

/** What became of the messages, as the oracle sees it; a delivery is a message for one subscription of one name. */
export interface TrafficFigures {
  readonly messages: number;
  readonly deliveries: number;
  readonly delivered: number;
  readonly redelivered: number;
  /** Messages of which the sender was told that they will not arrive. */
  readonly failedWithNotice: number;
  readonly unknown: number;
  readonly lost: number;
  readonly duplicated: number;
  readonly outOfOrder: number;
  readonly phantom: number;
}

export interface TrafficResult {
  /** Everything that was wrong; empty when every promise was kept. */
  readonly wrong: readonly string[];
  readonly figures: TrafficFigures;
}

/** For what comes after the last fault, on a machine that does something else. */
const DRAIN_MS = 60_000;
const LEAVE_MS = 200;

export class Traffic {
  readonly #random: () => number;
  readonly #options: TrafficOptions;
  readonly #proxies: readonly Proxy[];
  readonly #sent: Sent[] = [];
  readonly #receivers: Receiver[] = [];
  readonly #senders = new Map<string, BroadcastClient>();
  readonly #counters = new Map<string, number>();
  readonly #notices = new Map<string, DeliveryFailure>();
  readonly #failures: string[] = [];
  #duplicated = 0;
  #outOfOrder = 0;
  #phantom = 0;

  /** Receivers connect through the proxies, which faults may then break. */
  constructor(proxies: readonly Proxy[], options: TrafficOptions) {
    this.#proxies = proxies;
    this.#options = options;
    this.#random = seeded(options.seed);
  }

  async run(): Promise<TrafficResult> {
    for (const name of ['alone', 'shared', 'shared', 'reborn']) await this.#addReceiver(name, true);
    for (const name of ['s1', 's2', 's3']) {
      const client = this.#newClient(name);
      client.onDeliveryFailure(failure => {
        if (failure.final) this.#notices.set(failure.messageId, failure);
      });
      await client.connect();
      this.#senders.set(name, client);
    }
    const steps = Math.ceil(this.#options.messages / 20);
    for (let step = 0; step < steps; step++) {
      this.#burst();
      if (this.#random() < 0.3) await this.#options.fault(this.#random);
      if (this.#random() < 0.05) await this.#rebirth();
      await turn();
    }
    this.#options.heal?.();
    await this.#drain();
    this.#check();
    await this.close();
    return { wrong: this.#failures.slice(0, 20), figures: this.#figures() };
  }

  /** Who was promised what, and who handled what, so far. */
  history(): object {
    return {
      sent: this.#sent.map(({ receipt, ...sent }) => ({
        ...sent,
        receipt: receipt instanceof Error ? String(receipt) : receipt,
      })),
      receivers: this.#receivers.map(({ name, started, ended }) => ({ name, started, ended })),
      notices: [...this.#notices.values()],
    };
  }

  #newClient(name: string): BroadcastClient {
    const proxy = this.#proxies[Math.floor(this.#random() * this.#proxies.length)] as Proxy;
    return new BroadcastTcpClient(
      {
        host: '127.0.0.1',
        port: proxy.port,
        reconnectInterval: 5,
        logger: QUIET,
        maxAttempts: 50,
        ...this.#options.client,
      },
      name,
    );
  }

  async #addReceiver(name: string, isAwaited: boolean): Promise<void> {
    const receiver: Receiver = { name, client: this.#newClient(name), started: [], ended: [] };
    const random = seeded(this.#options.seed * 1000 + this.#receivers.length);
    this.#receivers.push(receiver);
    const handle = async (message: BroadcastMessage<Payload>, info: DeliveryInfo): Promise<void> => {
      const handled = { payload: message.data, subscription: info.channel ?? '', redelivered: info.redelivered };
      receiver.started.push(handled);
      for (let turns = Math.floor(random() * 3); turns > 0; turns--) await turn();
      if (info.attempt === 1 && random() < this.#options.failing) throw new Error('once');
      receiver.ended.push(handled);
    };
    for (const channel of CHANNELS) receiver.client.onMessage<Payload>(channel, handle);
    receiver.client.onMessage<Payload>(handle);
    const connected = receiver.client.connect();
    if (isAwaited) await connected;
  }

  /** The process of a name is replaced by a new one. The network may be such that neither of them gets through to the server now. */
  async #rebirth(): Promise<void> {
    const old = this.#receivers.filter(({ name }) => name === 'reborn').at(-1) as Receiver;
    await old.client.close({ timeout: LEAVE_MS });
    await this.#addReceiver('reborn', false);
  }

  #burst(): void {
    const [name, client] = [...this.#senders][Math.floor(this.#random() * this.#senders.size)] as [
      string,
      BroadcastClient,
    ];
    for (let i = Math.floor(this.#random() * 40); i > 0; i--) this.#send(name, client);
  }

  #send(sender: string, client: BroadcastClient): void {
    const n = (this.#counters.get(sender) ?? 0) + 1;
    this.#counters.set(sender, n);
    const payload = { sender, n };
    const { message, expected, statuses } = this.#message(payload);
    const followed = this.#random() < (this.#options.followed ?? 0);
    const sent: Sent = { payload, expected, statuses, followed, receipt: undefined };
    this.#sent.push(sent);
    client.sendMessage(message, { until: followed ? 'delivered' : 'safe' }).then(
      receipt => (sent.receipt = receipt),
      (error: unknown) => (sent.receipt = error as Error),
    );
  }

  /** Persistent ones reach everyone; of the others each reaches nobody twice, and what expires reaches nobody at all. */
  #message(payload: Payload): Pick<Sent, 'expected' | 'statuses'> & { message: BroadcastMessage } {
    const kind = this.#random();
    if (kind < 0.05) {
      const message = BroadcastMessage.createClientMessage('nobody', payload, { ttl: 1 + Math.floor(kind * 2000) });
      return { message, expected: [], statuses: ['stored', 'undelivered'] };
    }
    if (kind < 0.1) {
      const message = BroadcastMessage.createMultiChannelMessage(['x', 'z'], payload, { persistent: false });
      return { message, expected: [], statuses: ['routed', 'undelivered'] };
    }
    return { ...this.#reliable(payload, kind < 0.2 ? { ttl: 600_000 } : {}), statuses: ['delivered', 'stored'] };
  }

  #reliable(payload: Payload, options: MessageOptions): { message: BroadcastMessage; expected: string[] } {
    const some = (all: readonly string[]): string[] => all.filter(() => this.#random() < 0.5);
    const one = (all: readonly string[]): string => all[Math.floor(this.#random() * all.length)] as string;
    const subscribers = (channels: readonly string[]): string[] =>
      channels.flatMap(channel => NAMES.map(name => `${name}/${channel}`));
    const kind = this.#random();
    if (kind < 0.5) {
      const channel = one(CHANNELS);
      return {
        message: BroadcastMessage.createChannelMessage(channel, payload, options),
        expected: subscribers([channel]),
      };
    }
    if (kind < 0.75) {
      const name = one(NAMES);
      return { message: BroadcastMessage.createClientMessage(name, payload, options), expected: [`${name}/`] };
    }
    if (kind < 0.9) {
      const channels = [one(CHANNELS), ...some(CHANNELS)].filter((channel, i, all) => all.indexOf(channel) === i);
      return {
        message: BroadcastMessage.createMultiChannelMessage(channels, payload, options),
        expected: subscribers(channels),
      };
    }
    const [name, channel] = [one(NAMES), one(CHANNELS)];
    return {
      message: BroadcastMessage.create(name, channel, payload, options),
      expected: [`${name}/`, ...subscribers([channel])],
    };
  }

  // ---- the end ---------------------------------------------------------------------------------------------------------

  /** Until nothing new has been handled for a while, or everything was. */
  async #drain(): Promise<void> {
    const missing = (): boolean => this.#sent.some(sent => sent.receipt === undefined) || this.#unhandled().length > 0;
    const end = performance.now() + DRAIN_MS;
    while (missing() && performance.now() < end) await new Promise(resolve => setTimeout(resolve, 20));
    for (const client of this.#senders.values()) await client.flush();
  }

  #unhandled(): string[] {
    const done = new Set(this.#receivers.flatMap(({ name, ended }) => ended.map(one => keyOf(name, one))));
    return this.#sent.flatMap(({ payload, expected }) =>
      expected.map(who => `${payload.sender}:${String(payload.n)} for ${who}`).filter(key => !done.has(key)),
    );
  }

  #check(): void {
    const wrong = this.#failures;
    for (const { payload, statuses, followed, receipt } of this.#sent) {
      if (receipt === undefined)
        wrong.push(
          `no receipt for ${payload.sender}:${String(payload.n)}: ${statuses.join(' or ')}${followed ? ', in the end' : ''}`,
        );
      else if (receipt instanceof Error)
        wrong.push(`${payload.sender}:${String(payload.n)} was rejected: ${receipt.message}`);
      else if (!statuses.includes(receipt.status) || (followed && receipt.status === 'stored'))
        wrong.push(
          `${payload.sender}:${String(payload.n)} is ${receipt.status}, not ${statuses.join(' or ')}${followed ? ', in the end' : ''}`,
        );
    }
    for (const key of this.#unhandled()) wrong.push(`lost: ${key}`);
    for (const receiver of this.#receivers) this.#checkReceiver(receiver);
    this.#checkSharing();
  }

  #figures(): TrafficFigures {
    const handled = this.#receivers.flatMap(({ ended }) => ended);
    const deliveries = this.#sent.reduce((sum, { expected }) => sum + expected.length, 0);
    const lost = this.#unhandled().length;
    const receipts = this.#sent.map(({ receipt }) => receipt);
    return {
      messages: this.#sent.length,
      deliveries,
      delivered: deliveries - lost,
      redelivered: handled.filter(({ redelivered }) => redelivered).length,
      failedWithNotice: receipts.filter(
        receipt => receipt !== undefined && 'id' in receipt && this.#notices.has(receipt.id),
      ).length,
      unknown: receipts.filter(receipt => receipt === undefined || receipt instanceof Error).length,
      lost,
      duplicated: this.#duplicated,
      outOfOrder: this.#outOfOrder,
      phantom: this.#phantom,
    };
  }

  #checkReceiver({ name, started, ended }: Receiver): void {
    const sent = new Set(this.#sent.map(keyOfSent));
    const seen = new Set<string>();
    for (const one of ended) {
      const key = keyOf(name, one);
      if (seen.has(key)) {
        this.#failures.push(`handled twice by one instance: ${key}`);
        this.#duplicated++;
      }
      if (!sent.has(keyOfSent(one))) {
        this.#failures.push(`never sent, and handled: ${key}`);
        this.#phantom++;
      }
      seen.add(key);
    }
    // No order is promised across the instances of a name, and one that was replaced may have been lost before it was closed.
    if (name !== 'alone') return;
    const last = new Map<string, number>();
    const unordered = new Set(this.#sent.filter(({ statuses }) => statuses.includes('routed')).map(keyOfSent));
    for (const { payload, subscription } of started) {
      if (unordered.has(keyOfSent({ payload }))) continue;
      const key = `${payload.sender}/${subscription}`;
      const before = last.get(key) ?? 0;
      if (payload.n < before) {
        this.#failures.push(
          `out of order: ${name}/${subscription} started ${payload.sender}:${String(payload.n)} after ${String(before)}`,
        );
        this.#outOfOrder++;
      }
      last.set(key, Math.max(before, payload.n));
    }
  }

  /** What is addressed to a name is handled by one instance; by a second one only if it is so marked. */
  #checkSharing(): void {
    const first = new Map<string, Receiver>();
    for (const receiver of this.#receivers) {
      for (const one of receiver.ended) {
        // A channel's messages go to every instance, also to one that is being replaced.
        if (one.subscription !== '') continue;
        const key = keyOf(receiver.name, one);
        const before = first.get(key);
        if (before === undefined) first.set(key, receiver);
        else if (before !== receiver && !one.redelivered && !wasMarked(before, one)) {
          this.#failures.push(`handled by two, unmarked: ${key}`);
          this.#duplicated++;
        }
      }
    }
  }

  async close(): Promise<void> {
    const clients = [...this.#receivers.map(({ client }) => client), ...this.#senders.values()];
    await Promise.all(clients.map(client => client.close({ timeout: LEAVE_MS })));
  }
}

function keyOfSent({ payload }: { payload: Payload }): string {
  return `${payload.sender}:${String(payload.n)}`;
}

function keyOf(name: string, { payload, subscription }: Handled): string {
  return `${payload.sender}:${String(payload.n)} for ${name}/${subscription}`;
}

/** The one that came second may have been listed first. */
function wasMarked({ ended }: Receiver, { payload, subscription }: Handled): boolean {
  return ended.some(
    one =>
      one.redelivered &&
      one.payload.n === payload.n &&
      one.payload.sender === payload.sender &&
      one.subscription === subscription,
  );
}
