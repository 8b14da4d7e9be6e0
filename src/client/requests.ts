/**
 * Requests: what the client asks of the server and what is answered by OK or FAILED (docs/protocol.md, 4).
 *
 *   declaration   made anew by each connection, forgotten with it
 *   order         sent by the next connection when the answer did not come, before the declarations: it was asked earlier
 *   flush         sent when every message that was sent before it is on the same connection, again by the next one
 */
import type { BroadcastError } from '../errors.js';
import { encodeFlush } from '../protocol/frames.js';
import { quiet } from '../waiters.js';

type Encode = (request: number) => Buffer;
type Kind = 'declaration' | 'order' | 'flush';

interface Request {
  readonly kind: Kind;
  readonly encode: Encode;
  /** Messages below this position go first. */
  readonly behind: number;
  readonly resolve: () => void;
  readonly reject: (error: BroadcastError) => void;
  isSent: boolean;
}

export class Requests {
  readonly #send: (frame: Buffer) => void;
  readonly #asked = new Map<number, Request>();
  #isOnline = false;
  #last = 0;
  #unsentFlushes = 0;

  constructor(send: (frame: Buffer) => void) {
    this.#send = send;
  }

  /** Asks for what holds on this connection only; call it when there is one. */
  declare(encode: Encode): Promise<void> {
    return this.#ask('declaration', encode, 0);
  }

  /** Asks for what must happen, on this connection or the next. */
  order(encode: Encode): Promise<void> {
    return this.#ask('order', encode, 0);
  }

  /** Asks for the answer that everything before it is done, messages below `position` included. `pump` sends it. */
  flush(position: number): Promise<void> {
    this.#unsentFlushes++;
    return this.#ask('flush', encodeFlush, position);
  }

  #ask(kind: Kind, encode: Encode, behind: number): Promise<void> {
    return quiet(
      new Promise((resolve, reject) => {
        const request: Request = { kind, encode, behind, resolve, reject, isSent: false };
        this.#asked.set(++this.#last, request);
        if (this.#isOnline && kind !== 'flush') this.#sendOne(this.#last, request);
      }),
    );
  }

  #sendOne(number: number, request: Request): void {
    request.isSent = true;
    this.#send(request.encode(number));
  }

  /** A connection is up: orders that were not answered go first. */
  online(): void {
    this.#isOnline = true;
    for (const [number, request] of this.#asked) if (request.kind === 'order') this.#sendOne(number, request);
  }

  /** Messages below `position` are on this connection: the flushes behind them follow. */
  pump(position: number): void {
    if (!this.#isOnline || this.#unsentFlushes === 0) return;
    for (const [number, request] of this.#asked) {
      if (request.kind !== 'flush' || request.isSent || request.behind > position) continue;
      this.#unsentFlushes--;
      this.#sendOne(number, request);
    }
  }

  offline(): void {
    this.#isOnline = false;
    this.#unsentFlushes = 0;
    for (const [number, request] of this.#asked) {
      request.isSent = false;
      if (request.kind === 'declaration') this.#asked.delete(number);
      else if (request.kind === 'flush') this.#unsentFlushes++;
    }
  }

  answered(number: number, error: BroadcastError | undefined): void {
    const request = this.#asked.get(number);
    this.#asked.delete(number);
    if (error === undefined) request?.resolve();
    else request?.reject(error);
  }

  /** Nothing will be answered any more. */
  rejectAll(error: BroadcastError): void {
    const asked = [...this.#asked.values()];
    this.#asked.clear();
    this.#unsentFlushes = 0;
    for (const { reject } of asked) reject(error);
  }
}
