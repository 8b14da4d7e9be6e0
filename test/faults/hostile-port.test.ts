/**
 * Bad input on the port: a stable error where the peer can read one, an end in time, bounded memory, one line in the
 * log, and a good client beside it that notices nothing.
 */
import { randomBytes } from 'node:crypto';
import { describe, expect, it, onTestFinished } from 'vitest';
import { BroadcastMessage, type BroadcastServer, type DeliveryFailure, type ServerConfig } from '../../src/index.js';
import { Reader, Writer } from '../../src/protocol/bytes.js';
import { FRAME, FRAME_HEADER, PREAMBLE } from '../../src/protocol/constants.js';
import * as frames from '../../src/protocol/frames.js';
import { TestClock } from '../../src/testing/test-clock.js';
import { plainHello, RawPeer } from '../helpers/raw-peer.js';
import { connectedClient, Inbox, newClient, recordingLogger, startServer } from '../helpers/scene.js';

interface Scene {
  readonly port: number;
  readonly server: BroadcastServer;
  readonly clock: TestClock;
  readonly warnings: readonly string[];
  /** The good clients have exchanged another message, and lost no connection. */
  undisturbed(): Promise<void>;
}

/** A server whose time stands still, and two good clients that talk through it. */
async function startScene(options: ServerConfig = {}): Promise<Scene> {
  const clock = new TestClock();
  const logger = recordingLogger();
  const { server, port } = await startServer('memory', { clock, logger, ...options });
  onTestFinished(async () => {
    let isStopped = false;
    void server.stop().finally(() => (isStopped = true));
    while (!(isStopped as boolean)) {
      clock.tick(1000);
      await new Promise(setImmediate);
    }
  });
  const inbox = new Inbox<number>();
  let lost = 0;
  const receiver = newClient(port, 'good-receiver');
  receiver.onMessage('good', message => inbox.push(message.data as number));
  await receiver.connect();
  const sender = await connectedClient(port, 'good-sender');
  for (const client of [receiver, sender]) client.on('offline', () => lost++);
  let sent = 0;
  const undisturbed = async (): Promise<void> => {
    for (let i = 0; i < 10; i++) sender.sendMessage(BroadcastMessage.createChannelMessage('good', sent++));
    await inbox.reached(sent);
    expect(inbox.items).toEqual(Array.from({ length: sent }, (_, i) => i));
    expect(lost).toBe(0);
  };
  await undisturbed();
  return { port, server, clock, warnings: logger.warnings, undisturbed };
}

/** A frame of any type with any payload. */
function frame(type: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  return new Writer(type).raw(payload).finish();
}

function length(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

const HELLO = frames.encodeHello(plainHello({ name: 'somebody' }));

/** HELLO with a name that an honest encoder may not write. */
function helloNamed(name: Buffer | string): Buffer {
  const whole = frames.encodeHello(plainHello({ name: 'x' }));
  const [flags, rest] = [whole.subarray(FRAME_HEADER, FRAME_HEADER + 1), whole.subarray(FRAME_HEADER + 3)];
  const text = Buffer.from(name);
  return new Writer(FRAME.HELLO).raw(flags).bytes(text).raw(rest).finish();
}

describe('bad input before the opening is done', () => {
  it.each<[what: string, bytes: Buffer | string, code: string]>([
    ['random bytes', Buffer.from('5f1c9a', 'hex'), 'not-broadcast'],
    ['HTTP', 'GET / HTTP/1.1\r\nHost: x\r\n\r\n', 'not-broadcast'],
    ['a TLS hello', Buffer.from('16030100ca010000c60303', 'hex'), 'not-broadcast'],
    ['SSH', 'SSH-2.0-OpenSSH_9.2p1\r\n', 'not-broadcast'],
    ['a single wrong byte', 'P', 'not-broadcast'],
    ['an older version', Buffer.from('8942435300000000', 'hex'), 'protocol-version'],
    ['a newer version that does not speak this one', Buffer.from('8942435309020000', 'hex'), 'protocol-version'],
    ['a length of 0', Buffer.concat([PREAMBLE, length(0)]), 'protocol-error'],
    ['a length of −1', Buffer.concat([PREAMBLE, length(0xffffffff)]), 'handshake-too-large'],
    ['a length of 2³¹', Buffer.concat([PREAMBLE, length(2 ** 31)]), 'handshake-too-large'],
    ['a length beyond the introduction', Buffer.concat([PREAMBLE, length(4093)]), 'handshake-too-large'],
    [
      'an introduction in too many frames',
      Buffer.concat([PREAMBLE, ...Array<Buffer>(900).fill(frames.PING)]),
      'handshake-too-large',
    ],
    ['a frame before HELLO', Buffer.concat([PREAMBLE, frames.encodeFlush(1)]), 'unexpected-frame'],
    ['an unknown frame before HELLO', Buffer.concat([PREAMBLE, frame(0x7e)]), 'unexpected-frame'],
    [
      'HELLO with a byte too many',
      Buffer.concat([PREAMBLE, frame(FRAME.HELLO, Buffer.concat([HELLO.subarray(5), Buffer.from([0])]))]),
      'protocol-error',
    ],
    ['HELLO cut short', Buffer.concat([PREAMBLE, frame(FRAME.HELLO, HELLO.subarray(5, 40))]), 'protocol-error'],
    [
      'a feature that must be understood',
      Buffer.concat([
        PREAMBLE,
        frames.encodeHello(plainHello({ extensions: new Map([['!time-travel', Buffer.alloc(0)]]) })),
      ]),
      'unsupported-feature',
    ],
    ['an empty name', Buffer.concat([PREAMBLE, helloNamed('')]), 'invalid-name'],
    ['a name of 256 bytes', Buffer.concat([PREAMBLE, helloNamed('x'.repeat(256))]), 'invalid-name'],
    ['a name with NUL', Buffer.concat([PREAMBLE, helloNamed('a\0')]), 'invalid-name'],
    ['a name with CR and LF', Buffer.concat([PREAMBLE, helloNamed('a\r\nSet-Cookie: b')]), 'invalid-name'],
    ['a name with an escape sequence', Buffer.concat([PREAMBLE, helloNamed('\x1b[2Jgone')]), 'invalid-name'],
    [
      'a name with a lone surrogate',
      Buffer.concat([PREAMBLE, helloNamed(Buffer.from('eda080', 'hex'))]),
      'protocol-error',
    ],
    ['a name like an address', Buffer.concat([PREAMBLE, helloNamed('127.0.0.1:9000')]), 'invalid-name'],
  ])('%s is refused', async (_what, bytes, code) => {
    const { port, warnings, clock, undisturbed } = await startScene();
    const peer = await RawPeer.connect(port);
    peer.write(typeof bytes === 'string' ? Buffer.from(bytes) : bytes);
    const error = await peer.refusal();
    expect(error.code).toBe(code);
    expect(error.retryable).toBe(false);
    expect(Buffer.byteLength(error.text)).toBeLessThanOrEqual(256);
    expect(error.text).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/);
    await undisturbed();
    // The peer does not end: it is reset a second later.
    expect(peer.isClosed).toBe(false);
    clock.tick(999);
    peer.write('?');
    await undisturbed();
    expect(peer.isClosed).toBe(false);
    clock.tick(1);
    await peer.wasReset();
    await undisturbed();
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain(code);
    expect(warnings[0]).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/);
  });

  it.each<[what: string, drip: Buffer[]]>([
    ['nothing at all', []],
    ['half a preamble', [PREAMBLE.subarray(0, 4)]],
    ['one byte now and then', [...Buffer.concat([PREAMBLE, HELLO]).subarray(0, 40)].map(byte => Buffer.from([byte]))],
    ['a large introduction, announced', [PREAMBLE, length(4000)]],
    ['pings', [PREAMBLE, frames.PING, frames.PING, frames.PING, frames.PING]],
  ])('%s ends at the deadline, which no byte renews', async (_what, drip) => {
    const { port, clock, undisturbed } = await startScene({ limits: { handshakeMs: 5000 } });
    const peer = await RawPeer.connect(port);
    const step = 4999 / Math.max(1, drip.length);
    for (const bytes of drip) {
      peer.write(bytes);
      await undisturbed(); // the byte is there as well
      clock.tick(step);
    }
    if (drip.length === 0) clock.tick(4999);
    await undisturbed();
    expect(peer.hasEnded).toBe(false);
    clock.tick(2);
    expect(await peer.refusal()).toMatchObject({ code: 'handshake-timeout', retryable: true });
    clock.tick(1000);
    await peer.wasReset();
    await undisturbed();
  });

  it('a deadline that has been met is over', async () => {
    const { port, clock, undisturbed } = await startScene();
    const peer = await RawPeer.open(port);
    clock.tick(9000);
    await peer.flush();
    await undisturbed();
    expect(peer.hasEnded).toBe(false);
  });

  it('more connections than the limit are told so, and may try again', async () => {
    const { port, undisturbed } = await startScene({ limits: { connections: 3 } });
    const third = await RawPeer.open(port);
    const fourth = await RawPeer.connect(port);
    expect(await fourth.refusal()).toMatchObject({ code: 'too-many-connections', retryable: true });
    await third.flush();
    await undisturbed();
  });
});

describe('bad input once the opening is done', () => {
  const body = Buffer.from([1]);

  it.each<[what: string, bytes: (peer: RawPeer) => Buffer, code: string]>([
    ['a length of 0', () => length(0), 'protocol-error'],
    ['a length of −1', () => length(0xffffffff), 'frame-too-large'],
    ['a length of 2³¹', () => length(2 ** 31), 'frame-too-large'],
    ['a length beyond the limit', () => length(1_364_993), 'frame-too-large'],
    ['a second HELLO', () => HELLO, 'unexpected-frame'],
    ['a frame of the server’s', () => frames.encodeOk(1), 'unexpected-frame'],
    ['an unknown type', () => frame(0x7e), 'unknown-frame'],
    ['a byte too many', () => frame(FRAME.FLUSH, Buffer.from([1, 0])), 'protocol-error'],
    ['a field cut short', () => frame(FRAME.SUBSCRIBE, Buffer.from([1, 5, 0x61])), 'protocol-error'],
    ['PING with a payload', () => frame(FRAME.PING, Buffer.from([0])), 'protocol-error'],
    [
      'a number out of range',
      () =>
        frame(
          FRAME.SUBSCRIBE,
          new Writer(0)
            .varint(1)
            .str('x')
            .varint(2 ** 40)
            .varint(0)
            .varint(1)
            .finish()
            .subarray(5),
        ),
      'protocol-error',
    ],
    [
      'a channel with a line break',
      () =>
        frame(FRAME.SUBSCRIBE, new Writer(0).varint(1).str('a\nb').varint(1).varint(0).varint(1).finish().subarray(5)),
      'invalid-name',
    ],
    [
      'the alias of another sender',
      peer => peer.message(1, { channels: ['good'] }, body, { alias: 1 }),
      'protocol-error',
    ],
    [
      'an alias that nobody has',
      peer => peer.message(1, { channels: ['good'] }, body, { alias: 4000 }),
      'protocol-error',
    ],
    ['a message without targets', peer => peer.message(1, {}, body), 'protocol-error'],
    ['a target with an escape sequence', peer => peer.message(1, { channels: ['\x1b[31m'] }, body), 'invalid-name'],
    ['an empty target', peer => peer.message(1, { clients: [''] }, body), 'invalid-name'],
    [
      'too many targets',
      peer => peer.message(1, { channels: Array.from({ length: 1025 }, (_, i) => `c${String(i)}`) }, body),
      'too-many-targets',
    ],
    [
      'headers beyond the limit',
      peer => peer.message(1, { channels: ['x'], headers: { a: 'b'.repeat(16_384) } }, body),
      'headers-too-large',
    ],
    [
      'a message beyond the limit',
      peer => peer.message(1, { channels: ['x'] }, Buffer.alloc(1_048_576 + 9)),
      'message-too-large',
    ],
    ['a position far above the floor', peer => peer.message(40_000, { channels: ['x'] }, body), 'protocol-error'],
    ['ACK of what was never delivered', () => frames.encodeRanges(FRAME.ACK, [{ first: 1, count: 1 }]), 'invalid-ack'],
    ['ACK of delivery 0', () => frames.encodeRanges(FRAME.ACK, [{ first: 0, count: 1 }]), 'invalid-ack'],
    ['ACK of everything', () => frames.encodeRanges(FRAME.ACK, [{ first: 0, count: 2 ** 52 }]), 'invalid-ack'],
    ['RELEASE of everything', () => frames.encodeRanges(FRAME.RELEASE, [{ first: 1, count: 2 ** 52 }]), 'invalid-ack'],
    [
      'FAIL of what was never delivered',
      () => frames.encodeFail({ delivery: 7, channel: '', attempt: 1, reason: '' }),
      'invalid-ack',
    ],
    [
      'REJECT of what was never delivered',
      () => frames.encodeReject({ delivery: 7, channel: '', kind: 'expired', attempts: 1, reason: '' }),
      'invalid-ack',
    ],
    [
      'GOODBYE twice',
      () =>
        Buffer.concat([
          frames.encodeGoodbye({ finished: false, text: '' }),
          frames.encodeGoodbye({ finished: false, text: '' }),
        ]),
      'unexpected-frame',
    ],
  ])('%s ends the connection', async (_what, bytes, code) => {
    const { port, clock, warnings, undisturbed } = await startScene();
    const peer = await RawPeer.open(port);
    peer.write(bytes(peer));
    const error = await peer.refusal();
    expect(error.code).toBe(code);
    expect(Buffer.byteLength(error.text)).toBeLessThanOrEqual(256);
    clock.tick(1000);
    await peer.wasReset();
    await undisturbed();
    expect(warnings.filter(line => line.includes(code))).toHaveLength(1);
  });

  it.each<[what: string, bytes: Buffer]>([
    ['an optional frame that is not known', frame(0x93, Buffer.from('anything'))],
    ['NOTED of notices that were not sent', frames.encodeRanges(FRAME.NOTED, [{ first: 0, count: 2 ** 52 }])],
    ['TRACK of all positions there are', frames.encodeRanges(FRAME.TRACK, [{ first: 0, count: 2 ** 52 }])],
    ['an end of a subscription that it does not have', frames.encodeUnsubscribe({ request: 5, channel: 'good' })],
  ])('%s is passed over, in time', async (_what, bytes) => {
    const { port, undisturbed } = await startScene();
    const peer = await RawPeer.open(port);
    peer.write(bytes);
    await peer.flush();
    await undisturbed();
    expect(peer.hasEnded).toBe(false);
  });

  it('TRACK behind a floor in the clouds is answered in ranges, in time', async () => {
    const { port, undisturbed } = await startScene();
    const peer = await RawPeer.open(port);
    peer.write(frames.encodeSettled(2 ** 52), frames.encodeRanges(FRAME.TRACK, [{ first: 0, count: 2 ** 51 }]));
    await peer.flush();
    await undisturbed();
  });

  it('an acknowledgement that is repeated ends the connection, and what follows it waits for the next', async () => {
    const { port, undisturbed } = await startScene();
    const sender = await connectedClient(port, 'sender');
    const peer = await RawPeer.open(port, { name: 'worker' });
    await peer.subscribe('jobs');
    for (const data of [1, 2, 3]) sender.sendMessage(BroadcastMessage.createChannelMessage('jobs', data));
    await sender.flush();
    const ack = frames.encodeRanges(FRAME.ACK, [{ first: 1, count: 1 }]);
    await peer.next(FRAME.MESSAGES);
    peer.write(ack, ack);
    expect(await peer.refusal()).toMatchObject({ code: 'invalid-ack' });
    await undisturbed();
    peer.socket.destroy();
  });

  it('acknowledgements of another client’s deliveries do not touch them', async () => {
    const { port, server, undisturbed } = await startScene();
    const sender = await connectedClient(port, 'sender');
    const victim = await RawPeer.open(port, { name: 'victim' });
    await victim.subscribe('jobs');
    sender.sendMessage(BroadcastMessage.createChannelMessage('jobs', 1));
    await victim.next(FRAME.MESSAGES);
    const thief = await RawPeer.open(port, { name: 'thief' });
    thief.write(frames.encodeRanges(FRAME.ACK, [{ first: 1, count: 1 }]));
    expect(await thief.refusal()).toMatchObject({ code: 'invalid-ack' });
    victim.write(frames.encodeRanges(FRAME.ACK, [{ first: 1, count: 1 }]));
    await victim.flush();
    expect((await server.sessions()).find(session => session.name === 'victim')?.queued).toBe(0);
    await undisturbed();
  });

  it('one position with two bodies is a conflict while the first is held, never a repeat', async () => {
    const { port, undisturbed } = await startScene();
    const holder = await RawPeer.open(port, { name: 'holder' });
    await holder.subscribe('held');
    const peer = await RawPeer.open(port);
    peer.write(peer.message(1, { channels: ['held'] }, Buffer.from([1])));
    await holder.next(FRAME.MESSAGES);
    peer.write(peer.message(1, { channels: ['held'] }, Buffer.from([1])));
    await peer.flush(); // the same again: passed over
    expect(holder.frames.filter(({ type }) => type === FRAME.MESSAGES)).toHaveLength(0);
    peer.write(peer.message(1, { channels: ['held'] }, Buffer.from([2])));
    expect(await peer.refusal()).toMatchObject({ code: 'position-conflict' });
    await undisturbed();
  });

  it('a flood of subscriptions meets the limit, and is told so for each', async () => {
    const { port, undisturbed } = await startScene({ limits: { subscriptions: 100 } });
    const peer = await RawPeer.open(port);
    const subscribe = (i: number): Buffer =>
      frames.encodeSubscribe({ request: i, channel: `c${String(i)}`, concurrency: 1, window: 0, maxAttempts: 1 });
    peer.write(...Array.from({ length: 500 }, (_, i) => subscribe(i)));
    await peer.until(() => peer.frames.filter(({ type }) => type === FRAME.FAILED).length === 400);
    const failed = frames.decodeFailed(new Reader(await peer.next(FRAME.FAILED), FRAME_HEADER));
    expect(failed).toMatchObject({ request: 100, code: 'too-many-subscriptions', retryable: false });
    await peer.flush(9999);
    await undisturbed();
  });

  it('a flood of names meets the limit, with a notice for each', async () => {
    const { port, server, undisturbed } = await startScene({ limits: { sessions: 20, backlogChannels: 10 } });
    const sender = await connectedClient(port, 'flood');
    const failures = new Inbox<DeliveryFailure>();
    sender.onDeliveryFailure(failures.push);
    for (let i = 0; i < 100; i++) sender.sendMessage(BroadcastMessage.createClientMessage(`name-${String(i)}`, i));
    for (let i = 0; i < 100; i++) sender.sendMessage(BroadcastMessage.createChannelMessage(`channel-${String(i)}`, i));
    await sender.flush();
    const full = (await failures.reached(200)).filter(({ reason, final }) => final && reason === 'queue-full');
    expect(full.filter(({ target }) => target.client !== undefined).length).toBeGreaterThanOrEqual(80);
    expect(full.filter(({ target }) => target.channel !== undefined)).toHaveLength(90);
    expect((await server.sessions()).length).toBeLessThanOrEqual(20);
    const refused = await RawPeer.connect(port);
    refused.write(PREAMBLE, frames.encodeHello(plainHello()));
    expect(await refused.refusal()).toMatchObject({ code: 'too-many-sessions', retryable: true });
    await undisturbed();
  });

  it.each(['__proto__', 'constructor', '../x', 'toString', 'hasOwnProperty', 'ä🧱', 'a b'])(
    'the name %s is a name like any other',
    async name => {
      const { port, server, undisturbed } = await startScene();
      const inbox = new Inbox();
      const receiver = newClient(port, name);
      receiver.onMessage(name, message => inbox.push(['channel', message.channel, message.data]));
      receiver.onMessage(message => inbox.push(['client', message.client, message.name, message.headers[name]]));
      await receiver.connect();
      const sender = await connectedClient(port, `${name}2`);
      const receipt = await sender.sendMessage(BroadcastMessage.createChannelMessage(name, { value: 1 }));
      expect(receipt.status).toBe('delivered');
      const headers = Object.fromEntries([[name, 'x']]);
      await sender.sendMessage(BroadcastMessage.createClientMessage(name, 1, { name, headers }));
      expect(await inbox.reached(2)).toEqual([
        ['channel', name, { value: 1 }],
        ['client', name, name, 'x'],
      ]);
      expect((await server.sessions()).map(session => session.name)).toContain(name);
      expect(Object.keys(Object.prototype)).toEqual([]);
      await undisturbed();
    },
  );

  it.each<[what: string, body: Buffer]>([
    ['nested 100,000 deep', Buffer.alloc(100_001, 0x91)],
    ['an array of 4 billion', Buffer.from('ddffffffff01', 'hex')],
    ['a map of 4 billion', Buffer.from('dfffffffff01', 'hex')],
    ['a text of 4 GiB', Buffer.from('dbffffffff61', 'hex')],
    ['an extension that nobody knows', Buffer.from('c70177ff', 'hex')],
    ['nothing', Buffer.alloc(0)],
    ['random bytes', randomBytes(200)],
  ])('a body with %s goes to the dead letters, and its receiver lives', async (_what, hostile) => {
    const { port, server, undisturbed } = await startScene();
    const peer = await RawPeer.open(port);
    const inbox = new Inbox();
    const receiver = newClient(port, 'receiver');
    receiver.onMessage('bodies', message => inbox.push(message.data));
    await receiver.connect();
    peer.write(
      peer.message(1, { channels: ['bodies'] }, hostile),
      peer.message(2, { channels: ['bodies'] }, Buffer.from([7])),
    );
    await inbox.reached(1);
    await receiver.flush();
    const letters = await server.deadLetters('receiver').list();
    if (_what !== 'random bytes') {
      expect(inbox.items).toEqual([7]);
      expect(letters).toHaveLength(1);
    } else expect(inbox.items.length + letters.length).toBe(2);
    expect(receiver.state).toBe('online');
    await undisturbed();
  });

  it('a body with keys __proto__ changes no prototype', async () => {
    const { port, undisturbed } = await startScene();
    const peer = await RawPeer.open(port);
    const inbox = new Inbox<Record<string, unknown>>();
    const receiver = newClient(port, 'receiver');
    receiver.onMessage('bodies', message => inbox.push(message.data as Record<string, unknown>));
    await receiver.connect();
    const hostile = Buffer.concat([
      Buffer.from([0x81, 0xa9]),
      Buffer.from('__proto__'),
      Buffer.from([0x81, 0xa1, 0x78, 1]),
    ]);
    peer.write(peer.message(1, { channels: ['bodies'] }, hostile));
    const [data] = await inbox.reached(1);
    expect(({} as Record<string, unknown>)['x']).toBeUndefined();
    expect(data!['x']).toBeUndefined();
    expect(Object.getPrototypeOf(data)).toBe(Object.prototype);
    await undisturbed();
  });
});

describe('what a peer can make grow', () => {
  it('is not the memory for frames that are announced and never come', async () => {
    const { port, undisturbed } = await startScene();
    const peers: RawPeer[] = [];
    for (let i = 0; i < 200; i++) peers.push(await RawPeer.open(port));
    const before = process.memoryUsage();
    for (const peer of peers) peer.write(length(1_300_000), Buffer.from([FRAME.MESSAGES, 1]));
    for (const peer of peers) peer.write(Buffer.alloc(10));
    await undisturbed();
    const after = process.memoryUsage();
    expect(after.arrayBuffers - before.arrayBuffers).toBeLessThan(16 * 1024 * 1024);
  });

  it('is not the queue of answers for a peer that asks and does not read', async () => {
    const { port, undisturbed } = await startScene({ limits: { windowBytes: 65_536, messageBytes: 65_536 } });
    const peer = await RawPeer.open(port);
    peer.socket.pause();
    const question = frames.encodeAdmin({ request: 1, verb: 'x'.repeat(60), args: '{}' });
    const some = Buffer.alloc(question.length * 1000, question);
    const enough = 400;
    let taken = 0;
    const ask = (): void => {
      if (taken === enough) return;
      peer.socket.write(some, () => {
        taken++;
        ask();
      });
    };
    ask();
    // Until nothing further was taken while the others talked for a while.
    for (let quiet = 0, seen = 0; quiet < 20 && taken < enough; quiet++) {
      await undisturbed();
      if (taken !== seen) quiet = 0;
      seen = taken;
    }
    expect(taken).toBeLessThan(enough);
  });
});

describe('the log', () => {
  it('has at most one line a second for each address and code', async () => {
    const { port, clock, warnings, undisturbed } = await startScene();
    const bother = async (bytes: string | Buffer): Promise<void> => {
      const peer = await RawPeer.connect(port);
      peer.write(bytes);
      await peer.refusal();
      peer.socket.destroy();
      await peer.until(() => peer.isClosed);
    };
    for (let i = 0; i < 5; i++) await bother('GET / HTTP/1.1\r\n\r\n');
    await undisturbed();
    expect(warnings).toHaveLength(1);
    for (let i = 0; i < 5; i++) await bother(Buffer.from('8942435309090000', 'hex'));
    await undisturbed();
    expect(warnings).toHaveLength(2);
    clock.tick(1000);
    for (let i = 0; i < 5; i++) await bother('GET / HTTP/1.1\r\n\r\n');
    await undisturbed();
    expect(warnings).toHaveLength(3);
    expect(warnings.join()).toMatch(/127\.0\.0\.1.*not-broadcast.*protocol-version.*not-broadcast/);
  });
});
