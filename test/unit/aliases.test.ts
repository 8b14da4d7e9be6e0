/** The server's numbers for names and senders, and the frames that are kept with batches. */
import { describe, expect, it } from 'vitest';
import type { Batch } from '../../src/batch.js';
import { Aliases } from '../../src/server/aliases.js';
import { wireOf } from '../../src/server/wire.js';
import { ENVELOPE } from '../helpers/envelope.js';

const A = 'a'.repeat(32);
const B = 'b'.repeat(32);
const PREFIX = 'prefix0123456789';

describe('aliases', () => {
  it('are one for each name and kind, and never 0', () => {
    const aliases = new Aliases();
    const channel = aliases.addChannel('x');
    const client = aliases.addClient('x');
    expect(channel).toBeGreaterThan(0);
    expect(client).not.toBe(channel);
    expect(aliases.addChannel('x')).toBe(channel);
    expect([aliases.channel('x'), aliases.channel(channel!)]).toEqual([channel, 'x']);
    expect(aliases.channel(client!)).toBeUndefined();
    expect(aliases.client(channel!)).toBeUndefined();
    expect(aliases.sender(channel!)).toBeUndefined();
    expect(aliases.channel(0)).toBeUndefined();
    expect(aliases.channel(2 ** 40)).toBeUndefined();
  });

  it('of a sender whose prefix becomes known are replaced, and all withdrawn when it is gone', () => {
    const aliases = new Aliases();
    const identity = { instance: A, name: 'a' };
    const stored = aliases.addSender(identity, '');
    const known = aliases.addSender(identity, PREFIX);
    expect(known).not.toBe(stored);
    expect(aliases.addSender(identity, '')).toBe(known);
    expect(aliases.sender(stored)?.idPrefix).toBe('');
    const other = aliases.addSender({ instance: B, name: 'b' }, PREFIX);
    expect([...aliases.removeSender(A)].sort()).toEqual([stored, known].sort());
    expect(aliases.sender(stored) ?? aliases.sender(known)).toBeUndefined();
    expect(aliases.announcement(known)).toBeUndefined();
    expect(aliases.sender(other)?.identity.instance).toBe(B);
    expect(aliases.removeSender(A)).toEqual([]);
    expect(aliases.addSender(identity, PREFIX)).not.toBe(known);
  });

  it('agree with a sender that keeps its prefix, and with no other', () => {
    const aliases = new Aliases();
    expect(aliases.agrees(A, PREFIX)).toBe(true);
    aliases.addSender({ instance: A, name: 'a' }, '');
    expect(aliases.agrees(A, PREFIX)).toBe(true);
    aliases.addSender({ instance: A, name: 'a' }, PREFIX);
    expect(aliases.agrees(A, PREFIX)).toBe(true);
    expect(aliases.agrees(A, 'another-prefix-0')).toBe(false);
  });
});

describe('a batch that was kept longer than its sender’s number lived', () => {
  it('is written anew, with a number that can be announced', () => {
    const aliases = new Aliases();
    const batch: Batch = {
      sender: { instance: A, name: 'a' },
      envelope: { ...ENVELOPE, channels: ['x'], idPrefix: PREFIX },
      first: 1,
      count: 1,
      idBase: 1,
      floor: 1,
      timestamp: 0,
      items: Buffer.from('010000000000', 'hex').subarray(0, 5),
    };
    const first = wireOf(batch, 0, 1, aliases);
    expect(wireOf(batch, 0, 1, aliases)).toBe(first);
    aliases.removeSender(A);
    const second = wireOf(batch, 0, 1, aliases);
    expect(second).not.toBe(first);
    for (const alias of second.aliases) expect(aliases.announcement(alias)).toBeDefined();
  });
});
