/** Ids of messages: their text and its parts. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BroadcastMessage, formatId, ID_PREFIX_LENGTH, parseId, processIdPrefix } from '../../src/message.js';

const PREFIX = 'another-process_';

describe('an id', () => {
  it('is taken apart into the prefix and the counter that it was made of', () => {
    const counters = fc.oneof(fc.maxSafeNat(), fc.nat(2000), fc.constant(Number.MAX_SAFE_INTEGER));
    fc.assert(
      fc.property(counters, fc.constantFrom(PREFIX, processIdPrefix), (counter, prefix) => {
        expect(parseId(formatId(prefix, counter))).toEqual({ prefix, counter });
      }),
    );
  });

  it('is written as the prefix and the counter in base 36, whatever was written before it', () => {
    const edges = fc.constantFrom(1295, 1296, 1297, 2591, 2592, 1296 ** 2 - 1, 1296 ** 2);
    const counters = fc.oneof(fc.maxSafeNat(), fc.nat(5000), edges);
    fc.assert(
      fc.property(fc.array(fc.tuple(counters, fc.constantFrom(PREFIX, processIdPrefix))), ids => {
        for (const [counter, prefix] of ids) expect(formatId(prefix, counter)).toBe(prefix + counter.toString(36));
      }),
    );
  });

  it('of a new message counts up within the process', () => {
    const [one, two] = [1, 2].map(data => parseId(BroadcastMessage.createChannelMessage('room', data).id)!);
    expect(one!.prefix).toBe(processIdPrefix);
    expect(two).toEqual({ prefix: processIdPrefix, counter: one!.counter + 1 });
  });

  it.each([
    ['nothing', ''],
    ['a prefix alone', PREFIX],
    ['a short prefix', '1a'],
    ['an upper case digit', `${PREFIX}1A`],
    ['a leading zero', `${PREFIX}01`],
    ['another character', `${PREFIX}1-`],
    ['a space', `${PREFIX} 1`],
    ['a counter that is not safe', PREFIX + (2 ** 53).toString(36)],
    ['an endless counter', PREFIX + 'z'.repeat(10_000)],
  ])('is refused when it has %s', (_what, id) => {
    expect(ID_PREFIX_LENGTH).toBe(PREFIX.length);
    expect(parseId(id)).toBeUndefined();
  });
});
