/**
 * The way between one client and the server, as a network would be it: up or down, and while it is up, each direction
 * flows or holds its bytes back. It runs over Unix sockets of this process: what one end has written the other end can
 * read in the next turn of the event loop, so that a test can tell when everything has come to rest.
 */
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';

/** `up`: from the client to the server. */
export type Direction = 'up' | 'down';

interface Link {
  readonly near: Socket;
  readonly far: Socket;
  readonly waiting: Record<Direction, (Buffer | 'end')[]>;
}

export class Line {
  readonly path: string;
  readonly #serverPath: string;
  readonly #onActivity: () => void;
  readonly #listener: Server;
  readonly #links = new Set<Link>();
  readonly #held = { up: false, down: false };
  /** Connections are taken; otherwise they end at once. */
  isUp = false;

  constructor(path: string, serverPath: string, onActivity: () => void) {
    this.path = path;
    this.#serverPath = serverPath;
    this.#onActivity = onActivity;
    this.#listener = createServer({ allowHalfOpen: true }, near => this.#accept(near));
  }

  async listen(): Promise<void> {
    this.#listener.listen(this.path);
    await once(this.#listener, 'listening');
  }

  #accept(near: Socket): void {
    this.#onActivity();
    near.on('error', () => undefined);
    if (!this.isUp) {
      near.destroy();
      return;
    }
    const far = connect({ path: this.#serverPath, allowHalfOpen: true });
    const link: Link = { near, far, waiting: { up: [], down: [] } };
    this.#links.add(link);
    far.on('error', () => near.destroy());
    this.#carry(link, near, far, 'up');
    this.#carry(link, far, near, 'down');
  }

  #carry(link: Link, from: Socket, to: Socket, direction: Direction): void {
    from.on('data', chunk => this.#pass(link, to, direction, chunk));
    from.on('end', () => this.#pass(link, to, direction, 'end'));
    from.on('close', () => {
      this.#onActivity();
      this.#links.delete(link);
      if (!this.#held[direction]) to.destroySoon();
    });
  }

  #pass(link: Link, to: Socket, direction: Direction, what: Buffer | 'end'): void {
    this.#onActivity();
    if (this.#held[direction]) link.waiting[direction].push(what);
    else if (what === 'end') to.end();
    else to.write(what);
  }

  isHeld(direction: Direction): boolean {
    return this.#held[direction];
  }

  /** Nothing is held back. */
  get isClear(): boolean {
    return this.isUp && !this.#held.up && !this.#held.down;
  }

  hold(direction: Direction): void {
    this.#held[direction] = true;
  }

  release(direction: Direction): void {
    this.#held[direction] = false;
    for (const link of this.#links) {
      const to = direction === 'up' ? link.far : link.near;
      for (const what of link.waiting[direction].splice(0)) this.#pass(link, to, direction, what);
    }
  }

  /** The connection breaks, with all that is on its way, and there is no other one until the line is up again. */
  cut(): void {
    this.isUp = false;
    this.#held.up = false;
    this.#held.down = false;
    for (const { near, far } of this.#links) {
      near.destroy();
      far.destroy();
    }
    this.#links.clear();
  }

  close(): void {
    this.cut();
    this.#listener.close();
  }
}
