/**
 * A network that goes wrong at random: each of several proxies is disturbed for a while and then mends, as a seed says.
 * Where bytes were lost the connection ends before anything else comes through, as it does in TCP.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { FRAME } from '../../src/protocol/constants.js';
import type { Direction, Proxy } from '../helpers/proxy.js';

type Random = () => number;

/** Begins a disturbance; what it returns ends it, if there is anything to be ended. */
type Disturbance = (proxy: Proxy, random: Random) => (() => void) | undefined | Promise<() => void>;

const BOTH: readonly Direction[] = ['up', 'down'];
const DIRECTIONS = [['up'], ['down'], BOTH] as const;

/** Several times what clients take before they give a connection up. */
const LONG_STALL_MS = 1500;

function pick<T>(all: readonly T[], random: Random): T {
  return all[Math.floor(random() * all.length)] as T;
}

/** Whatever was lost, the connection is lost with it. */
function cutAndRelease(proxy: Proxy): void {
  proxy.cut();
  for (const direction of BOTH) proxy.release(direction);
}

function sliced(proxy: Proxy, piece: number, turns: number): () => void {
  for (const direction of BOTH) proxy.slice(direction, piece, turns);
  return () => {
    for (const direction of BOTH) proxy.slice(direction, Infinity, 0);
  };
}

function held(proxy: Proxy, directions: readonly Direction[]): () => void {
  for (const direction of directions) proxy.hold(direction);
  return () => {
    for (const direction of directions) proxy.release(direction);
  };
}

const DISTURBANCES: Readonly<Record<string, Disturbance>> = {
  reset: proxy => {
    proxy.cut();
    return undefined;
  },
  end: proxy => {
    proxy.end();
    return undefined;
  },
  halfClose: (proxy, random) => {
    proxy.halfClose(pick(BOTH, random));
    return undefined;
  },
  refuse: proxy => {
    proxy.isRefusing = true;
    proxy.cut();
    return () => {
      proxy.isRefusing = false;
    };
  },
  blackHole: (proxy, random) => {
    for (const direction of pick(DIRECTIONS, random)) proxy.drop(direction);
    return () => cutAndRelease(proxy);
  },
  /** Bytes that are late, some of them for connections that were given up meanwhile. */
  stall: (proxy, random) => held(proxy, pick(DIRECTIONS, random)),
  /** The same for so long that a peer is taken for dead, and in vain tries again. */
  longStall: async (proxy, random) => {
    const end = held(proxy, pick(DIRECTIONS, random));
    const enough = proxy.accepted + 1 + Math.floor(random() * 3);
    // There may be no client behind this proxy.
    const latest = performance.now() + LONG_STALL_MS;
    while (proxy.accepted < enough && performance.now() < latest) await delay(5);
    return end;
  },
  latency: (proxy, random) => {
    const ms = 1 + Math.floor(random() * 60);
    for (const direction of BOTH) proxy.delay(direction, ms);
    return () => {
      for (const direction of BOTH) proxy.delay(direction, 0);
    };
  },
  turns: (proxy, random) => sliced(proxy, Infinity, 1 + Math.floor(random() * 20)),
  oneByte: proxy => sliced(proxy, 1, 0),
  pieces: proxy => sliced(proxy, 0, 0),
  receiptsLost: proxy => {
    proxy.lose('down', FRAME.RECEIPT);
    return () => cutAndRelease(proxy);
  },
  /** The server knows the client from then on, who knows nothing of that. */
  welcomesLost: proxy => {
    proxy.cut();
    proxy.drop('down');
    return () => cutAndRelease(proxy);
  },
  acknowledgementsLost: proxy => {
    proxy.lose('up', FRAME.ACK);
    return () => cutAndRelease(proxy);
  },
};

/** What the random ones do; `welcomesLost` has a moment of its own, too. */
export const KINDS_OF_FAULTS: readonly string[] = Object.keys(DISTURBANCES);

export class NetworkFaults {
  readonly #proxies: readonly Proxy[];
  readonly kinds: readonly string[];
  /** What ends the disturbance of a proxy. */
  readonly #ends = new Map<Proxy, () => void>();
  /** Disturbances so far, by their names. */
  readonly injected: Record<string, number> = {};

  /** `kinds`: all by default. */
  constructor(proxies: readonly Proxy[], kinds = KINDS_OF_FAULTS) {
    this.#proxies = proxies;
    this.kinds = kinds;
  }

  /** Ends the disturbance of some proxy, or begins one there. */
  readonly next = async (random: Random): Promise<void> => {
    const proxy = pick(this.#proxies, random);
    const end = this.#ends.get(proxy);
    if (end !== undefined) {
      this.#ends.delete(proxy);
      end();
      return;
    }
    await this.#begin(proxy, pick(this.kinds, random), random);
  };

  /** A server is about to start anew, and what it says first to some client is lost. */
  readonly loseFirstWords = async (random: Random): Promise<void> => {
    const proxy = pick(this.#proxies, random);
    if (!this.#ends.has(proxy)) await this.#begin(proxy, 'welcomesLost', random);
  };

  async #begin(proxy: Proxy, kind: string, random: Random): Promise<void> {
    this.injected[kind] = (this.injected[kind] ?? 0) + 1;
    const begun = await (DISTURBANCES[kind] as Disturbance)(proxy, random);
    if (begun !== undefined) this.#ends.set(proxy, begun);
  }

  /** Nothing is disturbed any longer. */
  readonly heal = (): void => {
    for (const end of this.#ends.values()) end();
    this.#ends.clear();
  };

  get lostFrames(): number {
    return this.#proxies.reduce((sum, { lostFrames }) => sum + lostFrames, 0);
  }
}
