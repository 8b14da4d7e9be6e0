/** A peer that speaks the protocol by hand, as well or as badly as a test wants, over a real socket. */
import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';
import type { Batch, Envelope } from '../../src/batch.js';
import { Reader } from '../../src/protocol/bytes.js';
import { FRAME, FRAME_HEADER, PREAMBLE } from '../../src/protocol/constants.js';
import * as frames from '../../src/protocol/frames.js';
import { encodeMessagesHeader } from '../../src/protocol/messages.js';
import { FrameParser } from '../../src/protocol/parser.js';
import { ENVELOPE } from './envelope.js';

const ID_PREFIX = 'raw-peer-0000000';
const NO_ALIASES = { channel: () => undefined, client: () => undefined };

export function plainHello(change: Partial<frames.Hello> = {}): frames.Hello {
  return {
    generated: false,
    name: `raw-${randomBytes(4).toString('hex')}`,
    instance: randomBytes(16).toString('hex'),
    idPrefix: ID_PREFIX,
    floor: 1,
    next: 1,
    store: '',
    host: '',
    pid: 0,
    pingInterval: 10_000,
    deadAfter: 25_000,
    extensions: new Map(),
    ...change,
  };
}

export class RawPeer {
  readonly socket: Socket;
  readonly frames: { type: number; frame: Buffer }[] = [];
  welcome: frames.Welcome | undefined;
  /** The server has ended its stream; the connection is gone. */
  hasEnded = false;
  isClosed = false;
  readonly #waiters = new Set<() => void>();

  private constructor(socket: Socket) {
    this.socket = socket;
    const parser = new FrameParser(
      {
        onPreamble: () => undefined,
        onFrame: (type, frame) => {
          this.frames.push({ type, frame });
          this.#look();
        },
      },
      Infinity,
    );
    socket.on('data', chunk => parser.push(chunk));
    socket.on('error', () => undefined);
    socket.on('end', () => {
      this.hasEnded = true;
      this.#look();
    });
    socket.on('close', () => {
      this.isClosed = true;
      this.#look();
    });
  }

  /** Connects; with `allowHalfOpen` it does not end when the server does. */
  static async connect(port: number): Promise<RawPeer> {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
    const peer = new RawPeer(socket);
    onTestFinished(() => void socket.destroy());
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    return peer;
  }

  /** Connects and introduces itself. */
  static async open(port: number, change: Partial<frames.Hello> = {}): Promise<RawPeer> {
    const peer = await RawPeer.connect(port);
    peer.write(PREAMBLE, frames.encodeHello(plainHello(change)));
    const frame = await peer.next(FRAME.WELCOME);
    peer.welcome = frames.decodeWelcome(new Reader(frame, FRAME_HEADER));
    return peer;
  }

  write(...pieces: (Buffer | string)[]): void {
    this.socket.write(Buffer.concat(pieces.map(piece => (typeof piece === 'string' ? Buffer.from(piece) : piece))));
  }

  #look(): void {
    for (const waiter of this.#waiters) waiter();
  }

  async until(condition: () => boolean): Promise<void> {
    if (condition()) return;
    await new Promise<void>(resolve => {
      const waiter = (): void => {
        if (!condition()) return;
        this.#waiters.delete(waiter);
        resolve();
      };
      this.#waiters.add(waiter);
    });
  }

  /** Takes the first frame of a type that came, or comes. Throws when the connection ends without one. */
  async next(type: number): Promise<Buffer> {
    const find = (): number => this.frames.findIndex(frame => frame.type === type);
    await this.until(() => find() >= 0 || this.isClosed || this.hasEnded);
    const index = find();
    if (index < 0) throw new Error(`the connection ended before a frame of type ${String(type)} came`);
    return (this.frames.splice(index, 1)[0] as { frame: Buffer }).frame;
  }

  /** What the server says is wrong, once it has ended its stream behind it. */
  async refusal(): Promise<frames.ErrorFrame> {
    const error = frames.decodeError(new Reader(await this.next(FRAME.ERROR), FRAME_HEADER));
    await this.until(() => this.hasEnded);
    return error;
  }

  /** The connection is gone, which who has read the end of the stream only learns by writing. */
  async wasReset(): Promise<void> {
    while (!this.isClosed) {
      this.write('?');
      await new Promise(setImmediate);
    }
  }

  /** Everything that was sent has been taken. */
  async flush(request = 99): Promise<void> {
    this.write(frames.encodeFlush(request));
    for (;;) if (frames.decodeRequest(new Reader(await this.next(FRAME.OK), FRAME_HEADER)) === request) return;
  }

  async subscribe(channel: string, maxAttempts = 1): Promise<void> {
    this.write(frames.encodeSubscribe({ request: 1, channel, concurrency: 1, window: 0, maxAttempts }));
    await this.next(FRAME.OK);
  }

  /** A MESSAGES frame of one message. */
  message(
    position: number,
    to: Partial<Envelope>,
    body: Buffer,
    change: Partial<Batch & { alias: number }> = {},
  ): Buffer {
    const items = Buffer.concat([Buffer.alloc(4), Buffer.from([0]), body]);
    items.writeUInt32LE(1 + body.length);
    const batch: Batch = {
      sender: { instance: '', name: undefined },
      envelope: { ...ENVELOPE, idPrefix: ID_PREFIX, ...to },
      first: position,
      count: 1,
      idBase: position,
      floor: 1,
      timestamp: 0,
      items,
      ...change,
    };
    const alias = change.alias ?? this.welcome!.sender;
    return Buffer.concat([encodeMessagesHeader(batch, alias, NO_ALIASES, ID_PREFIX), batch.items]);
  }
}
