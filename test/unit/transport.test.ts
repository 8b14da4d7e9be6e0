/** The small parts of the transport: the heart, addresses, the joining of buffers. */
import { describe, expect, it } from 'vitest';
import type { BroadcastError } from '../../src/errors.js';
import { TestClock } from '../../src/testing/test-clock.js';
import { formatAddress, parseEndpoint } from '../../src/transport/endpoint.js';
import { Heart, type Beating } from '../../src/transport/heart.js';
import { joinSmall } from '../../src/transport/join.js';

const turns = async (): Promise<void> => {
  for (let i = 0; i < 3; i++) await new Promise(setImmediate);
};

class Member implements Beating {
  lastHeard = 0;
  lastWrite = 0;
  lastPing = 0;
  deaf = false;
  pings = 0;
  isDead = false;
  readonly #clock: TestClock;
  constructor(clock: TestClock) {
    this.#clock = clock;
  }
  ping(): void {
    this.pings++;
    this.lastPing = this.#clock.monotonic();
    this.lastWrite = this.lastPing;
  }
  silent(): void {
    this.isDead = true;
  }
}

describe('the heart', () => {
  const start = (): { clock: TestClock; heart: Heart; member: Member } => {
    const clock = new TestClock();
    const heart = new Heart(clock, 1000, 2500);
    const member = new Member(clock);
    heart.add(member);
    return { clock, heart, member };
  };

  it('beats on one timer, which ends with its last member', () => {
    const { clock, heart, member } = start();
    const other = new Member(clock);
    heart.add(other);
    expect(heart.size).toBe(2);
    expect(clock.pending).toBe(1);
    heart.delete(member);
    expect(clock.pending).toBe(1);
    heart.delete(other);
    heart.delete(other);
    expect(clock.pending).toBe(0);
  });

  it('pings who has said nothing for an interval, and who was not heard of for one', () => {
    const { clock, member } = start();
    clock.tick(999);
    expect(member.pings).toBe(0);
    clock.tick(1);
    expect(member.pings).toBe(1);
    // It writes all the time, and hears nothing: a ping asks for an answer.
    for (let i = 0; i < 8; i++) {
      clock.tick(250);
      member.lastWrite = clock.monotonic();
    }
    expect(member.pings).toBeGreaterThanOrEqual(2);
    const { pings } = member;
    for (let i = 0; i < 8; i++) {
      clock.tick(250);
      member.lastWrite = member.lastHeard = clock.monotonic();
    }
    expect(member.pings).toBe(pings);
  });

  it('judges who is silent only after the sockets have been looked at twice', async () => {
    const { clock, member } = start();
    clock.tick(2500);
    expect(member.isDead).toBe(false);
    member.lastHeard = clock.monotonic(); // it was read meanwhile
    await turns();
    expect(member.isDead).toBe(false);
    clock.tick(2500);
    await turns();
    expect(member.isDead).toBe(true);
  });

  it('does not judge who has left meanwhile, nor who is not read', async () => {
    const { clock, heart, member } = start();
    const deaf = new Member(clock);
    deaf.deaf = true;
    heart.add(deaf);
    clock.tick(2500);
    heart.delete(member);
    await turns();
    expect(member.isDead).toBe(false);
    clock.tick(10_000);
    await turns();
    expect(deaf.isDead).toBe(false);
  });

  it('gives its peers time to speak when the process itself was stopped', async () => {
    const clock = new TestClock();
    let look: (() => void) | undefined;
    let now = 0;
    const frozen = Object.assign(Object.create(clock) as TestClock, {
      monotonic: () => now,
      setInterval: (callback: () => void) => {
        look = callback;
        return { cancel: () => undefined };
      },
    });
    const heart = new Heart(frozen, 1000, 2500);
    const member = new Member(clock);
    heart.add(member);
    now = 60_000; // a minute in which nothing ran
    look?.();
    await turns();
    expect(member.isDead).toBe(false);
    for (let i = 0; i < 5; i++) {
      now += 250;
      look?.();
      await turns();
    }
    expect(member.isDead).toBe(true);
  });
});

describe('addresses', () => {
  it.each<[given: Parameters<typeof parseEndpoint>[0], address: object, text: string]>([
    [{}, { host: 'localhost', port: 9000 }, 'localhost:9000'],
    [{ host: '10.0.0.1', port: 1 }, { host: '10.0.0.1', port: 1 }, '10.0.0.1:1'],
    [{ port: 0 }, { host: 'localhost', port: 0 }, 'localhost:0'],
    [{ host: '::1' }, { host: '::1', port: 9000 }, '[::1]:9000'],
    [{ host: '[fe80::1%eth0]' }, { host: 'fe80::1%eth0', port: 9000 }, '[fe80::1%eth0]:9000'],
    [{ url: 'tcp://example.org:7000' }, { host: 'example.org', port: 7000 }, 'example.org:7000'],
    ['tcp://example.org', { host: 'example.org', port: 9000 }, 'example.org:9000'],
    ['tcp://example.org:7000/', { host: 'example.org', port: 7000 }, 'example.org:7000'],
    ['TCP://example.org', { host: 'example.org', port: 9000 }, 'example.org:9000'],
    ['tcp://[::1]:7000', { host: '::1', port: 7000 }, '[::1]:7000'],
    ['example.org:7000', { host: 'example.org', port: 7000 }, 'example.org:7000'],
    ['localhost', { host: 'localhost', port: 9000 }, 'localhost:9000'],
    ['[::1]:7000', { host: '::1', port: 7000 }, '[::1]:7000'],
    ['unix:/run/b.sock', { path: '/run/b.sock' }, '/run/b.sock'],
    ['unix:///run/b.sock', { path: '/run/b.sock' }, '/run/b.sock'],
    ['unix:./b.sock', { path: './b.sock' }, './b.sock'],
    ['/run/b.sock', { path: '/run/b.sock' }, '/run/b.sock'],
    ['./b.sock', { path: './b.sock' }, './b.sock'],
  ])('%j is read, and its text is read again', (given, address, text) => {
    expect(parseEndpoint(given)).toEqual(address);
    expect(formatAddress(parseEndpoint(given))).toBe(text);
    expect(parseEndpoint(text)).toEqual(address);
  });

  it.each([
    '',
    '9000',
    'tcp://',
    'tcp://a b',
    'tcp://host:99999',
    'tcp://host:port',
    'http://host',
    'tls://host',
    'unix:',
    'unix:/run/',
    '/a\0b',
    `/${'x'.repeat(107)}`,
    '[::g]:1',
    'user@host',
    'host/path',
  ])('%j is refused with a text that names it', given => {
    let error: BroadcastError | undefined;
    try {
      parseEndpoint(given);
    } catch (thrown) {
      error = thrown as BroadcastError;
    }
    expect(error?.code).toBe('invalid-option');
    expect(error?.message).not.toMatch(/[\u0000-\u001f]/);
  });

  it.each([-1, 65_536, 1.5, NaN])('the port %s is refused', port => {
    expect(() => parseEndpoint({ port })).toThrow(expect.objectContaining({ code: 'invalid-option' }) as Error);
  });
});

describe('joining buffers', () => {
  const of = (size: number, fill: number): Buffer => Buffer.alloc(size, fill);

  it.each<[what: string, buffers: Buffer[], pieces: number]>([
    ['a single one', [of(10, 1)], 1],
    ['small ones', [of(1, 1), of(4096, 2), of(3, 3)], 1],
    ['large ones', [of(4097, 1), of(5000, 2)], 2],
    ['small ones around a large one', [of(1, 1), of(2, 2), of(5000, 3), of(4, 4), of(5, 5)], 3],
    ['a large one first', [of(5000, 1), of(2, 2)], 2],
    ['one small one before a large one', [of(1, 1), of(5000, 2)], 2],
  ])('%s: the same bytes in fewer pieces', (_what, buffers, pieces) => {
    const joined = joinSmall(buffers.slice());
    expect(joined).toHaveLength(pieces);
    expect(Buffer.concat(joined).equals(Buffer.concat(buffers))).toBe(true);
    for (const buffer of buffers) if (buffer.length > 4096) expect(joined).toContain(buffer); // not copied
  });
});
