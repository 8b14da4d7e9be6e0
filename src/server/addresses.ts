/** The addresses of connections, as clients may use them for targets: `host:port`, and `unix:n` for those without. */
import type { Socket } from 'node:net';

/** What is behind the colon of an address has at most five digits. */
const NUMBERS = 100_000;

export class Addresses {
  readonly #unix = new Set<string>();
  #last = 0;

  take(socket: Socket): string {
    const { remoteAddress, remotePort } = socket;
    if (remoteAddress === undefined) return this.#takeUnix();
    const host = remoteAddress.replace(/^::ffff:(?=\d+\.)/, '');
    return host.includes(':') ? `[${host}]:${String(remotePort)}` : `${host}:${String(remotePort)}`;
  }

  #takeUnix(): string {
    let address: string;
    do {
      this.#last = (this.#last + 1) % NUMBERS;
      address = `unix:${String(this.#last)}`;
    } while (this.#unix.has(address));
    this.#unix.add(address);
    return address;
  }

  /** The connection has ended. */
  release(address: string): void {
    this.#unix.delete(address);
  }
}

/** True for a peer on the server's own machine. */
export function isLocal({ remoteAddress }: Socket): boolean {
  return remoteAddress === undefined || remoteAddress === '::1' || /^(?:::ffff:)?127\./.test(remoteAddress);
}
