/** One connection: what leaves when, what ends it and how, and who is taken for dead. */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { describe, expect, it, onTestFinished } from 'vitest';
import { BroadcastError } from '../../src/errors.js';
import { Reader } from '../../src/protocol/bytes.js';
import { FRAME, FRAME_HEADER, PREAMBLE } from '../../src/protocol/constants.js';
import { decodeError, encodeError, encodeFlush, encodeOk, PING, PONG } from '../../src/protocol/frames.js';
import { TestClock } from '../../src/testing/test-clock.js';
import { FrameConnection, type ConnectionOptions, type ConnectionOwner } from '../../src/transport/frame-connection.js';
import { Heart } from '../../src/transport/heart.js';
import { recordingLogger } from '../helpers/scene.js';

const turn = (): Promise<void> => new Promise(resolve => setImmediate(resolve));

/** A stream whose system calls are counted, and which takes bytes when the test says so. */
class Wire extends Duplex {
  readonly calls: Buffer[] = [];
  isStuck = false;
  #taken: (() => void) | undefined;

  constructor() {
    super({ allowHalfOpen: true });
  }

  override _read(): void {
    // Bytes come by `arrive`.
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#system(chunk, done);
  }

  override _writev(chunks: { chunk: Buffer }[], done: () => void): void {
    this.#system(Buffer.concat(chunks.map(({ chunk }) => chunk)), done);
  }

  #system(bytes: Buffer, done: () => void): void {
    this.calls.push(bytes);
    if (this.isStuck) this.#taken = done;
    else process.nextTick(done);
  }

  /** The system takes what waits, and goes on doing so, or not. */
  accept(isStuck = false): void {
    this.isStuck = isStuck;
    this.#taken?.();
  }

  arrive(...bytes: Buffer[]): void {
    for (const chunk of bytes) this.push(chunk);
  }

  get sent(): Buffer {
    return Buffer.concat(this.calls);
  }
}

class Owner implements ConnectionOwner {
  readonly frames: number[] = [];
  preambles = 0;
  drains = 0;
  closed: { error: BroadcastError | undefined } | undefined;
  flushing: (() => void) | undefined;
  take: ((type: number, frame: Buffer) => void) | undefined;
  onPreamble(): void {
    this.preambles++;
  }
  onFrame(type: number, frame: Buffer): void {
    this.frames.push(type);
    this.take?.(type, frame);
  }
  onClose(error: BroadcastError | undefined): void {
    expect(this.closed).toBeUndefined();
    this.closed = { error };
  }
  onDrain(): void {
    this.drains++;
  }
  onFlush(): void {
    this.flushing?.();
  }
}

interface Setup<T extends Duplex> {
  stream: T;
  owner: Owner;
  clock: TestClock;
  connection: FrameConnection;
  logged: readonly string[];
}

function setup<T extends Duplex>(stream: T, options: Partial<ConnectionOptions> = {}): Setup<T> {
  const clock = new TestClock();
  const owner = new Owner();
  const logger = recordingLogger();
  const heart = new Heart(clock, 10_000, 25_000);
  const connection = new FrameConnection(stream, owner, { clock, logger, heart, maxFrame: 4096, ...options });
  connection.setMaxFrame(1024 * 1024);
  return { stream, owner, clock, connection, logged: logger.warnings };
}

const onWire = (options?: Partial<ConnectionOptions>): Setup<Wire> => setup(new Wire(), options);

/** Two ends of a real connection; the first is a FrameConnection's. */
async function onSocket(options?: Partial<ConnectionOptions>): Promise<Setup<Socket> & { far: Socket }> {
  const server = createServer({ allowHalfOpen: true });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const accepted = once(server, 'connection');
  const far = connect({ port: (server.address() as { port: number }).port, host: '127.0.0.1', allowHalfOpen: true });
  const [near] = (await accepted) as [Socket];
  onTestFinished(() => {
    far.destroy();
    near.destroy();
    server.close();
  });
  far.on('error', () => undefined);
  return { ...setup(near, options), far };
}

function frame(size: number): Buffer {
  const bytes = Buffer.alloc(FRAME_HEADER + size, 0x2a);
  bytes.writeUInt32LE(1 + size);
  bytes[4] = 0x90;
  return bytes;
}

/** The error that was told to the peer, as the last frame. */
function told(bytes: Buffer): { code: string; text: string } {
  let last = PREAMBLE.length;
  for (let at = last; at < bytes.length; at += 4 + bytes.readUInt32LE(at)) last = at;
  expect(bytes[last + 4]).toBe(FRAME.ERROR);
  return decodeError(new Reader(bytes.subarray(last), FRAME_HEADER));
}

describe('sending', () => {
  it('makes one system call of everything that is sent in one turn of the event loop', async () => {
    const { stream, connection } = onWire();
    const frames = Array.from({ length: 500 }, (_, i) => encodeFlush(i));
    for (const bytes of frames) connection.send(bytes);
    expect(stream.calls).toHaveLength(0);
    await turn();
    expect(stream.calls).toHaveLength(1);
    expect(stream.sent).toEqual(Buffer.concat([PREAMBLE, ...frames]));
    connection.send(frame(10_000));
    connection.send(encodeFlush(1));
    connection.send(frame(10_000));
    await turn();
    expect(stream.calls).toHaveLength(2);
  });

  it('asks the owner once more at the end of the turn, and what it sends then leaves with the rest', async () => {
    const { stream, owner, connection } = onWire();
    await turn();
    let asked = 0;
    owner.flushing = () => {
      asked++;
      connection.send(encodeOk(7));
    };
    connection.send(encodeOk(6));
    connection.wake();
    connection.wake();
    await turn();
    await turn();
    expect(asked).toBe(1);
    expect(stream.calls.slice(1)).toEqual([Buffer.concat([encodeOk(6), encodeOk(7)])]);
  });

  it('does not wait for the end of the turn with much', () => {
    const { stream, connection } = onWire();
    connection.send(frame(128 * 1024));
    expect(stream.calls).toHaveLength(1);
  });

  it('gives the system no more before it has taken what it has, and says when there is room again', async () => {
    const { stream, owner, clock, connection } = onWire();
    await turn();
    stream.isStuck = true;
    connection.send(frame(300 * 1024));
    await turn();
    const before = stream.calls.length;
    connection.send(encodeOk(1));
    await turn();
    expect(stream.calls).toHaveLength(before);
    expect(connection.buffered).toBeGreaterThan(300 * 1024);
    expect(owner.drains).toBe(0);
    clock.tick(50);
    const stuck = connection.lastProgress;
    stream.accept();
    await turn();
    expect(connection.buffered).toBe(0);
    expect(owner.drains).toBe(1);
    expect(connection.lastProgress).toBeGreaterThan(stuck);
    expect(stream.calls[before]).toEqual(encodeOk(1));
  });

  it('sends nothing once it is ending', async () => {
    const { stream, connection } = onWire();
    connection.end();
    connection.send(encodeOk(1));
    await turn();
    expect(stream.sent).toEqual(PREAMBLE);
    expect(connection.isOpen).toBe(false);
  });
});

describe('reading', () => {
  it('hands frames on in order, and takes care of PING, PONG and ERROR itself', async () => {
    const { stream, owner } = onWire();
    stream.arrive(Buffer.concat([PREAMBLE, encodeOk(1), PING, PONG, encodeFlush(2)]));
    await turn();
    await turn();
    expect(owner.preambles).toBe(1);
    expect(owner.frames).toEqual([FRAME.OK, FRAME.FLUSH]);
    expect(stream.sent).toEqual(Buffer.concat([PREAMBLE, PONG]));
  });

  it('answers any number of PINGs in one turn by one PONG', async () => {
    const { stream } = onWire();
    stream.arrive(Buffer.concat([PREAMBLE, ...new Array<Buffer>(1000).fill(PING)]));
    await turn();
    await turn();
    expect(stream.sent).toEqual(Buffer.concat([PREAMBLE, PONG]));
    stream.arrive(PING);
    await turn();
    await turn();
    expect(stream.sent).toEqual(Buffer.concat([PREAMBLE, PONG, PONG]));
  });

  it('stops while the owner wants it to', async () => {
    const { stream, owner, connection } = onWire();
    stream.arrive(PREAMBLE);
    await turn();
    connection.pauseReading(true);
    expect(connection.deaf).toBe(true);
    stream.arrive(encodeOk(1));
    await turn();
    expect(owner.frames).toEqual([]);
    connection.pauseReading(false);
    await turn();
    expect(owner.frames).toEqual([FRAME.OK]);
  });

  it('stops while the peer takes nothing of what it is sent, and goes on when it does', async () => {
    const { stream, owner, connection } = onWire({ pauseAbove: 1000 });
    await turn();
    stream.isStuck = true;
    owner.take = () => connection.send(frame(600));
    stream.arrive(PREAMBLE, encodeOk(1));
    await turn();
    stream.arrive(encodeOk(2));
    await turn();
    expect(owner.frames).toHaveLength(2);
    stream.arrive(encodeOk(3));
    await turn();
    expect(owner.frames).toHaveLength(2);
    stream.accept();
    await turn();
    await turn();
    expect(owner.frames).toHaveLength(3);
  });
});

describe('errors', () => {
  it('are told to the peer, then the stream ends, then the connection is reset a second later', async () => {
    const { far, clock, owner, connection } = await onSocket();
    const bytes: Buffer[] = [];
    far.on('data', chunk => bytes.push(chunk));
    connection.fail('protocol-error', 'that was wrong');
    await once(far, 'end');
    expect(told(Buffer.concat(bytes))).toMatchObject({ code: 'protocol-error', text: 'that was wrong' });
    clock.tick(999);
    await turn();
    expect(owner.closed).toBeUndefined();
    clock.tick(1);
    await turn();
    await turn();
    expect(owner.closed?.error?.code).toBe('protocol-error');
    while (!far.destroyed) {
      far.write('?');
      await turn();
    }
    expect(far.errored).toMatchObject({ code: expect.stringMatching(/ECONNRESET|EPIPE/) });
  });

  it('need no reset when the peer ends as well', async () => {
    const { far, clock, owner, connection } = await onSocket();
    far.resume();
    connection.fail('closed', 'bye');
    await once(far, 'end');
    far.end();
    await once(far, 'close');
    while (owner.closed === undefined) await turn();
    expect(owner.closed.error?.code).toBe('closed');
    expect(clock.pending).toBe(0);
  });

  it('are told once, and what the peer says behind them is thrown away', async () => {
    const { stream, owner, connection } = onWire();
    stream.arrive(PREAMBLE);
    await turn();
    connection.fail('protocol-error', 'first');
    connection.fail('unknown-frame', 'second');
    stream.arrive(encodeOk(1));
    await turn();
    expect(owner.frames).toEqual([]);
    expect(told(stream.sent).text).toBe('first');
  });

  it('of the peer are handed on, and nothing further is sent', async () => {
    const { stream, owner, connection } = onWire();
    stream.arrive(PREAMBLE);
    await turn();
    connection.send(encodeOk(1));
    stream.arrive(encodeError({ code: 'taken-over', retryable: false, text: 'somebody else' }));
    await turn();
    stream.push(null);
    await turn();
    await turn();
    expect(stream.sent).toEqual(PREAMBLE);
    expect(owner.closed?.error).toMatchObject({ code: 'taken-over', message: 'somebody else' });
  });

  it('that an owner throws are told as they are, faults as an internal error, with a line in the log', async () => {
    for (const [error, code] of [
      [new BroadcastError('invalid-ack', 'no such delivery'), 'invalid-ack'],
      [new TypeError('x is not a function'), 'internal-error'],
    ] as const) {
      const { stream, owner, logged } = onWire();
      owner.take = () => {
        throw error;
      };
      stream.arrive(PREAMBLE, encodeOk(1));
      await turn();
      await turn();
      expect(told(stream.sent).code).toBe(code);
      expect(told(stream.sent).text).not.toContain('is not a function');
      expect(logged).toHaveLength(code === 'internal-error' ? 1 : 0);
    }
  });

  it('of an owner at the end of a connection go to the log and no further', async () => {
    const { stream, owner, logged, connection } = onWire();
    owner.onClose = () => {
      throw new Error('too late');
    };
    connection.destroy();
    await once(stream, 'close');
    expect(logged.join()).toContain('too late');
  });
});

describe('the opening', () => {
  it('has a deadline that no byte renews', async () => {
    const clock = new TestClock();
    const owner = new Owner();
    const stream = new Wire();
    const options = { clock, logger: recordingLogger(), heart: new Heart(clock, 10_000, 25_000), maxFrame: 4096 };
    const connection = new FrameConnection(stream, owner, { ...options, handshakeMs: 5000 });
    for (const byte of PREAMBLE) {
      stream.arrive(Buffer.from([byte]));
      await turn();
      clock.tick(600);
    }
    expect(connection.isOpen).toBe(true);
    clock.tick(200);
    await turn();
    expect(told(stream.sent).code).toBe('handshake-timeout');
  });
});

describe('the end', () => {
  it('of the peer’s stream between frames is no error, and what was to be sent still leaves', async () => {
    const { far, owner, connection } = await onSocket();
    far.end(PREAMBLE);
    const bytes: Buffer[] = [];
    far.on('data', chunk => bytes.push(chunk));
    owner.onPreamble = () => connection.send(frame(1_000_000));
    await once(far, 'end');
    expect(Buffer.concat(bytes).length).toBe(PREAMBLE.length + FRAME_HEADER + 1_000_000);
    while (owner.closed === undefined) await turn();
    expect(owner.closed.error).toBeUndefined();
  });

  it('of the peer’s stream within a frame is a lost connection', async () => {
    const { far, owner } = await onSocket();
    far.resume();
    far.end(Buffer.concat([PREAMBLE, encodeOk(1).subarray(0, 3)]));
    await once(far, 'end');
    while (owner.closed === undefined) await turn();
    expect(owner.closed.error?.code).toBe('connection-lost');
  });

  it('by a reset is a lost connection', async () => {
    const { far, owner } = await onSocket();
    far.resetAndDestroy();
    while (owner.closed === undefined) await turn();
    expect(owner.closed.error).toMatchObject({ code: 'connection-lost', retryable: true });
  });

  it('waits for a slow peer as long as it takes something, and resets one that takes nothing for a second', async () => {
    const { stream, clock, connection } = onWire();
    await turn();
    stream.isStuck = true;
    connection.send(frame(700 * 1024));
    connection.send(frame(700 * 1024));
    connection.end();
    clock.tick(500);
    stream.accept(true);
    await turn();
    clock.tick(600);
    await turn();
    expect(stream.destroyed).toBe(false);
    clock.tick(1000);
    expect(stream.destroyed).toBe(true);
  });
});

describe('the heartbeat', () => {
  it('says that it lives after so long a silence, but adds nothing to what waits', async () => {
    const { stream, clock } = onWire();
    await turn();
    clock.tick(10_000);
    await turn();
    expect(stream.sent).toEqual(Buffer.concat([PREAMBLE, PING]));
    stream.isStuck = true;
    clock.tick(10_000);
    await turn();
    clock.tick(2_500);
    await turn();
    expect(stream.calls).toHaveLength(3);
  });

  it('takes a silent peer for dead, but not before what waits in the socket has been read', async () => {
    const { far, clock, owner, connection } = await onSocket();
    far.write(PREAMBLE);
    while (owner.preambles === 0) await turn();
    // Its bytes arrive while this process does not look: they are read before it is judged.
    far.write(encodeOk(1));
    clock.tick(25_000);
    await turn();
    await turn();
    await turn();
    expect(owner.closed).toBeUndefined();
    expect(connection.isOpen).toBe(true);
    clock.tick(27_500);
    while (owner.closed === undefined) await turn();
    expect(owner.closed.error?.code).toBe('dead-peer');
  });

  it('does not judge a peer that it does not read', async () => {
    const { clock, owner, connection } = await onSocket();
    connection.pauseReading(true);
    clock.tick(100_000);
    for (let i = 0; i < 5; i++) await turn();
    expect(owner.closed).toBeUndefined();
  });

  it('judges a peer that it does not read because it takes nothing by what it takes', async () => {
    const { stream, owner, clock, connection } = onWire({ pauseAbove: 1000 });
    await turn();
    stream.isStuck = true;
    owner.take = () => connection.send(frame(2000));
    stream.arrive(PREAMBLE, encodeOk(1));
    await turn();
    await turn();
    connection.send(frame(2000)); // waits behind the first
    clock.tick(24_000);
    stream.accept(true); // a sign of life
    await turn();
    for (let i = 0; i < 3; i++) await turn();
    clock.tick(5_000);
    for (let i = 0; i < 3; i++) await turn();
    expect(owner.closed).toBeUndefined();
    clock.tick(30_000);
    for (let i = 0; i < 5; i++) await turn();
    expect(owner.closed?.error?.code).toBe('dead-peer');
  });
});
