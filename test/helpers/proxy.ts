/**
 * A TCP proxy between clients and a server that does to them what networks do: cuts, resets, half-closes, delays, holds
 * bytes back, loses them, hands them on in pieces. By events, never by time; what is left to chance follows a seed.
 *
 *   client ──up──▶ proxy ──up──▶ server            each direction of each connection is a `Stream` with a queue
 *          ◀─down──       ◀─down──
 */
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';

/** `up`: from the client to the server. */
export type Direction = 'up' | 'down';

/** Numbers from 0 to below 1 that follow from a seed. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** How bytes travel in one direction, for all connections. */
interface Conditions {
  /** They wait until `release`. */
  held: boolean;
  /** They are thrown away, and the sender's system says that they have left. */
  dropped: boolean;
  /** Bytes in one piece at most; 0: a random number of them. */
  piece: number;
  /** Turns of the event loop between pieces. */
  turns: number;
}

class Stream {
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #conditions: Conditions;
  readonly #random: () => number;
  readonly #queue: Buffer[] = [];
  #isEnded = false;
  #isPumping = false;

  constructor(from: Socket, to: Socket, conditions: Conditions, random: () => number) {
    this.#from = from;
    this.#to = to;
    this.#conditions = conditions;
    this.#random = random;
    from.on('data', chunk => this.#take(chunk));
    from.on('end', () => {
      this.#isEnded = true;
      this.pump();
    });
  }

  #take(chunk: Buffer): void {
    if (this.#conditions.dropped) return;
    this.#queue.push(chunk);
    // As a peer that reads nothing: its side of the sockets fills, and its sender is slowed down.
    if (this.#conditions.held && this.#queue.length > 16) this.#from.pause();
    this.pump();
  }

  pump(): void {
    if (!this.#isPumping) void this.#run();
  }

  async #run(): Promise<void> {
    this.#isPumping = true;
    while (this.#queue.length > 0 && !this.#conditions.held && !this.#to.destroyed) {
      for (let turn = 0; turn < this.#conditions.turns; turn++) await new Promise(setImmediate);
      await this.#write(this.#next());
    }
    this.#isPumping = false;
    if (this.#isEnded && this.#queue.length === 0 && !this.#conditions.held) this.#to.end();
  }

  #next(): Buffer {
    const chunk = this.#queue[0] as Buffer;
    const { piece } = this.#conditions;
    const size = Math.min(chunk.length, piece === 0 ? 1 + Math.floor(this.#random() * 64) : piece);
    if (size === chunk.length) this.#queue.shift();
    else this.#queue[0] = chunk.subarray(size);
    return chunk.subarray(0, size);
  }

  /** Waits for the system: a slow reader slows its sender down, through the proxy too. */
  #write(bytes: Buffer): Promise<void> {
    return new Promise(resolve => {
      if (this.#queue.length > 16) this.#from.pause();
      this.#to.write(bytes, () => {
        if (this.#queue.length <= 16) this.#from.resume();
        resolve();
      });
    });
  }
}

interface Link {
  readonly near: Socket;
  readonly far: Socket;
  readonly up: Stream;
  readonly down: Stream;
}

export class Proxy {
  readonly seed: number;
  readonly #server: Server;
  readonly #links = new Set<Link>();
  readonly #random: () => number;
  readonly #conditions: Record<Direction, Conditions> = {
    up: { held: false, dropped: false, piece: Infinity, turns: 0 },
    down: { held: false, dropped: false, piece: Infinity, turns: 0 },
  };
  /** New connections are reset. */
  isRefusing = false;

  constructor(to: { port: number; host: string }, seed: number) {
    this.seed = seed;
    this.#random = seeded(seed);
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, near => this.#accept(near, to));
  }

  #accept(near: Socket, to: { port: number; host: string }): void {
    near.on('error', () => undefined);
    if (this.isRefusing) {
      near.resetAndDestroy();
      return;
    }
    const far = connect({ ...to, allowHalfOpen: true, noDelay: true });
    const link = {
      near,
      far,
      up: new Stream(near, far, this.#conditions.up, this.#random),
      down: new Stream(far, near, this.#conditions.down, this.#random),
    };
    this.#links.add(link);
    far.on('error', () => near.resetAndDestroy());
    far.on('close', () => near.destroy());
    near.on('error', () => far.resetAndDestroy());
    near.on('close', () => {
      this.#links.delete(link);
      if (!far.writableFinished) far.resetAndDestroy();
    });
  }

  async listen(): Promise<void> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  get connections(): number {
    return this.#links.size;
  }

  /** Every connection is reset, at both ends. */
  cut(): void {
    for (const { near, far } of this.#links) {
      near.resetAndDestroy();
      far.resetAndDestroy();
    }
  }

  /** The end of the stream in one direction; the other stays open. */
  halfClose(direction: Direction): void {
    for (const { near, far } of this.#links) (direction === 'up' ? far : near).end();
  }

  /** Bytes wait from now on. */
  hold(direction: Direction): void {
    this.#conditions[direction].held = true;
  }

  /** What waits goes on, and new bytes too. */
  release(direction: Direction): void {
    this.#conditions[direction].held = false;
    this.#conditions[direction].dropped = false;
    for (const link of this.#links) link[direction].pump();
  }

  /** Bytes are lost from now on, as in a network that is cut without a word. */
  drop(direction: Direction): void {
    this.#conditions[direction].dropped = true;
  }

  /** Bytes travel in pieces of so many, or of a random number (0), so many turns of the event loop apart. */
  slice(direction: Direction, piece: number, turns = 1): void {
    Object.assign(this.#conditions[direction], { piece, turns });
  }

  async close(): Promise<void> {
    this.#server.close();
    this.cut();
    await once(this.#server, 'close');
  }
}

/** A proxy to a port on this machine; it ends with the test. */
export async function startProxy(port: number, seed = 1): Promise<Proxy> {
  const proxy = new Proxy({ port, host: '127.0.0.1' }, seed);
  await proxy.listen();
  onTestFinished(() => proxy.close());
  return proxy;
}
