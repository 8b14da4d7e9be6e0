/** Listens at an address: on every loopback address for `localhost`, on a Unix socket, or on one host and port. */
import { createServer, connect, type Server, type Socket } from 'node:net';
import { lstat, unlink } from 'node:fs/promises';
import { BroadcastError } from '../errors.js';
import { formatAddress, type Address } from '../transport/endpoint.js';

const LOOPBACK = ['127.0.0.1', '::1'];

export class Listener {
  readonly #onSocket: (socket: Socket) => void;
  readonly #onFailure: (error: Error) => void;
  readonly #backlog: number;
  #servers: Server[] = [];
  #closing = false;
  address: Address | undefined;

  constructor(onSocket: (socket: Socket) => void, onFailure: (error: Error) => void, backlog = 4096) {
    this.#onSocket = onSocket;
    this.#onFailure = onFailure;
    this.#backlog = backlog;
  }

  /** Rejects with `address-in-use` or `address-unavailable`. */
  async listen(address: Address): Promise<void> {
    if ('path' in address) {
      await removeStale(address.path);
      await this.#listenAt({ path: address.path }, address);
      this.address = address;
      return;
    }
    if (address.host !== 'localhost') {
      const port = await this.#listenAt({ host: address.host, port: address.port }, address);
      this.address = { host: address.host, port };
      return;
    }
    const port = await this.#listenAt({ host: '127.0.0.1', port: address.port }, address);
    this.address = { host: 'localhost', port };
    try {
      await this.#listenAt({ host: LOOPBACK[1] as string, port }, address);
    } catch (error) {
      const { code } = (error as BroadcastError).cause as NodeJS.ErrnoException;
      if (code === 'EADDRNOTAVAIL' || code === 'EAFNOSUPPORT') return; // no IPv6 here
      await this.close();
      // A port that the system chose for IPv4 may be taken on IPv6: choose again.
      if (address.port === 0) return this.listenAgain(address);
      throw error;
    }
  }

  /** The same after `close`, or after a failure. */
  async listenAgain(address: Address): Promise<void> {
    await this.close();
    this.#closing = false;
    await this.listen(address);
  }

  #listenAt(options: { host: string; port: number } | { path: string }, wanted: Address): Promise<number> {
    return new Promise((resolve, reject) => {
      const server = createServer({ noDelay: true }, this.#onSocket);
      const failed = (error: NodeJS.ErrnoException): void => reject(listenError(error, wanted));
      server.once('error', failed);
      server.listen({ ...options, backlog: this.#backlog }, () => {
        server.off('error', failed);
        server.on('error', error => {
          if (!this.#closing) this.#onFailure(error);
        });
        this.#servers.push(server);
        const bound = server.address();
        resolve(typeof bound === 'object' && bound !== null ? bound.port : 0);
      });
    });
  }

  /** Takes no further connections and frees the address; those that are open live on. */
  async close(): Promise<void> {
    this.#closing = true;
    const servers = this.#servers;
    this.#servers = [];
    for (const server of servers) server.close();
    await Promise.resolve();
  }
}

function listenError(error: NodeJS.ErrnoException, address: Address): BroadcastError {
  const text = formatAddress(address);
  if (error.code === 'EADDRINUSE') {
    return new BroadcastError(
      'address-in-use',
      `${text} is in use by another process; stop it or choose another port`,
      { cause: error },
    );
  }
  return new BroadcastError(
    'address-unavailable',
    `cannot listen at ${text}: ${error.message}; ${remedyFor(error, address)}`,
    {
      cause: error,
    },
  );
}

function remedyFor({ code }: NodeJS.ErrnoException, address: Address): string {
  if ('path' in address) return 'choose a path in a directory that exists and may be written to';
  if (code === 'EACCES') return 'choose an address that this user may listen at, such as a port from 1024 on';
  return 'choose an address of this machine, such as localhost, or 0.0.0.0 for all of them';
}

/** A socket file whose server has died is in the way; one that answers belongs to somebody. */
async function removeStale(path: string): Promise<void> {
  try {
    const stat = await lstat(path);
    if (!stat.isSocket())
      throw new BroadcastError('address-in-use', `${path} exists and is not a socket; choose another path`);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error instanceof BroadcastError
      ? error
      : new BroadcastError('address-unavailable', `cannot listen at ${path}: ${(error as Error).message}`);
  }
  const alive = await new Promise<boolean>(resolve => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
  if (!alive) await unlink(path).catch(() => undefined);
}
