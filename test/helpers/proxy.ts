/**
 * A TCP proxy between clients and a server that does to them what networks do: cuts, resets, half-closes, delays, holds
 * bytes back, loses them, hands them on in pieces. By events and not by time, but for `throttle` and `delay`; what is left to chance
 * follows a seed.
 *
 *   client ──up──▶ proxy ──up──▶ server            each direction of each connection is a `Stream` with a queue
 *          ◀─down──       ◀─down──
 */
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';
import { FrameSieve } from './frame-sieve.js';
import { seeded } from './seeded.cjs';

/** `up`: from the client to the server. */
export type Direction = 'up' | 'down';

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
  /** Milliseconds that the oldest of what waits is held up. */
  delay: number;
  /** Types of frames that are lost, while all others arrive. */
  lost: ReadonlySet<number>;
  /** Bytes in a second; Infinity: as many as there are. */
  rate: number;
}

const untouched = (): Conditions => ({
  held: false,
  dropped: false,
  piece: Infinity,
  turns: 0,
  delay: 0,
  lost: new Set(),
  rate: Infinity,
});

/** A throttled direction passes bytes on so often in a second. */
const PORTIONS = 10;

class Stream {
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #conditions: Conditions;
  readonly #random: () => number;
  readonly #queue: Buffer[] = [];
  readonly #sieve = new FrameSieve();
  #isEnded = false;
  #isPumping = false;

  constructor(from: Socket, to: Socket, conditions: Conditions, random: () => number) {
    this.#from = from;
    this.#to = to;
    this.#conditions = conditions;
    this.#random = random;
    from.on('data', chunk => this.#take(chunk));
    from.on('end', () => this.finish());
  }

  /** Nothing more comes; what waits goes on, and then the end. */
  finish(): void {
    this.#isEnded = true;
    this.pump();
  }

  /** Frames that were lost alone. */
  get lost(): number {
    return this.#sieve.lost;
  }

  #take(bytes: Buffer): void {
    if (this.#conditions.dropped) return;
    const chunk = this.#sieve.pass(bytes, this.#conditions.lost);
    if (chunk.length === 0) return;
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
      const { delay } = this.#conditions;
      if (delay > 0) await new Promise(resolve => setTimeout(resolve, delay));
      if (this.#conditions.rate !== Infinity) await new Promise(resolve => setTimeout(resolve, 1000 / PORTIONS));
      await this.#write(this.#next());
    }
    this.#isPumping = false;
    if (this.#isEnded && this.#queue.length === 0 && !this.#conditions.held) this.#to.end();
  }

  #next(): Buffer {
    const chunk = this.#queue[0] as Buffer;
    const { piece, rate } = this.#conditions;
    const most = Math.ceil(rate / PORTIONS);
    const size = Math.min(chunk.length, most, piece === 0 ? 1 + Math.floor(this.#random() * 64) : piece);
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
    up: untouched(),
    down: untouched(),
  };
  #lost = 0;
  /** Connections that clients have made so far. */
  accepted = 0;
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
    this.accepted++;
    const far = connect({ ...to, allowHalfOpen: true, noDelay: true });
    const link = {
      near,
      far,
      up: new Stream(near, far, this.#conditions.up, this.#random),
      down: new Stream(far, near, this.#conditions.down, this.#random),
    };
    this.#links.add(link);
    far.on('error', () => undefined);
    near.on('close', () => this.#leave(link, 'up'));
    far.on('close', () => this.#leave(link, 'down'));
  }

  /** One side is gone, and so is the other one: at once, or once it has got the bytes that are held on their way. */
  #leave(link: Link, direction: Direction): void {
    const [from, to] = direction === 'up' ? [link.near, link.far] : [link.far, link.near];
    if (to.destroyed) {
      if (this.#links.delete(link)) this.#lost += link.up.lost + link.down.lost;
    } else if (this.#conditions[direction].held) {
      link[direction].finish();
    } else if (from.errored !== null || !to.writableFinished) {
      to.resetAndDestroy();
    } else {
      to.destroy();
    }
  }

  async listen(): Promise<void> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  /** How many clients are connected. */
  get connections(): number {
    return [...this.#links].filter(({ near }) => !near.destroyed).length;
  }

  /** Frames that were lost alone. */
  get lostFrames(): number {
    return [...this.#links].reduce((sum, { up, down }) => sum + up.lost + down.lost, this.#lost);
  }

  /** Every connection is reset, at both ends. */
  cut(): void {
    for (const { near, far } of this.#links) {
      near.resetAndDestroy();
      far.resetAndDestroy();
    }
  }

  /** Both streams end, between two pieces of what travels on them. */
  end(): void {
    this.halfClose('up');
    this.halfClose('down');
  }

  /** The end of the stream in one direction; the other stays open. */
  halfClose(direction: Direction): void {
    for (const { near, far } of this.#links) (direction === 'up' ? far : near).end();
  }

  /** Bytes wait from now on; those of a connection that its client gives up meanwhile arrive all the same, late. */
  hold(direction: Direction): void {
    this.#conditions[direction].held = true;
  }

  /** What waits goes on, and new bytes too. */
  release(direction: Direction): void {
    this.#conditions[direction].held = false;
    this.#conditions[direction].dropped = false;
    this.#conditions[direction].lost = new Set();
    // Connections know nothing of each other: the newest may be the first.
    const links = [...this.#links];
    if (this.#random() < 0.5) links.reverse();
    for (const link of links) link[direction].pump();
  }

  /** Bytes are lost from now on, as in a network that is cut without a word. */
  drop(direction: Direction): void {
    this.#conditions[direction].dropped = true;
  }

  /** Frames of these types are lost from now on. A network loses what came last; a connection must not live on without them. */
  lose(direction: Direction, ...types: number[]): void {
    this.#conditions[direction].lost = new Set(types);
  }

  /** So many bytes in a second and no more. */
  throttle(direction: Direction, rate: number): void {
    this.#conditions[direction].rate = rate;
  }

  /** Bytes are so many milliseconds late. */
  delay(direction: Direction, ms: number): void {
    this.#conditions[direction].delay = ms;
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
