// What is sent: plain objects whose encoded body has exactly the wanted size, each with its number, by which the other
// side checks that none is missing, repeated or out of place.
import { Packr } from 'msgpackr';

const packr = new Packr({ useRecords: false, variableMapSize: true });
// Numbers from here on are encoded in five bytes, so that the size does not change on the way.
const FIRST = 2 ** 24;

// Each publisher has as many numbers of its own.
const RANGE = 2 ** 28;

const small = (n, text) => ({ n: FIRST + n, t: text });
const usual = (n, text, amount) => ({
  n: FIRST + n,
  kind: 'transfer',
  from: 'alice.account',
  to: 'bob.account',
  amount,
  memo: text,
});

/** What a publisher numbers its n-th message with. */
export function numberOf(n, publisher) {
  return publisher * RANGE + n;
}

/** Whose number it is. */
export function publisherOf(number) {
  return Math.floor(number / RANGE);
}

/** Checks that of each publisher every number comes once, and each behind the one before it. */
export class Order {
  received;
  #next;
  #fault;

  /** @param from the first number that is expected of a publisher that is alone */
  constructor(from = 0) {
    this.received = from;
    this.#next = [from];
  }

  /** Returns how many have come. */
  take(number) {
    const publisher = publisherOf(number);
    const next = this.#next[publisher] ?? publisher * RANGE;
    if (number !== next) this.#fault ??= `number ${number} came instead of ${next}`;
    this.#next[publisher] = next + 1;
    return ++this.received;
  }

  /** Throws what was wrong, or when it was not just so many. */
  check(count) {
    if (this.received > count) this.#fault ??= `${this.received} messages came instead of ${count}`;
    if (this.#fault !== undefined) throw new Error(this.#fault);
  }
}

/** Checks that of one publisher each of many channels brings higher and higher numbers, and all together so many. */
export class ChannelOrder {
  received = 0;
  #last;
  #fault;

  constructor(channels) {
    this.#last = new Float64Array(channels).fill(-1);
  }

  /** Returns how many have come. */
  take(number, channel) {
    if (!(number > this.#last[channel])) this.#fault ??= `number ${number} came behind ${this.#last[channel]}`;
    this.#last[channel] = number;
    return ++this.received;
  }

  check(count) {
    if (this.received !== count) this.#fault ??= `${this.received} messages came instead of ${count}`;
    if (this.#fault !== undefined) throw new Error(this.#fault);
  }
}

/** A publisher's choice of a channel for each message, the same in every run. */
export function scatter(channels) {
  let state = 1;
  return () => {
    // A linear congruence; its high bits are good enough to go anywhere.
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * channels);
  };
}

/** One channel after the other. */
export function takingTurns(channels) {
  let next = 0;
  return () => next++ % channels;
}

/** Names of the channels of which a subscriber has its share. */
export const channelName = i => `channel-${i}`;

export function shareOf(channels, share, of) {
  return Array.from({ length: Math.ceil((channels - share) / of) }, (_, i) => share + i * of);
}

/** A function that makes the object with a number, and others that give the number of an object and when it was sent. */
export function payload(size) {
  const make = size < 100 ? small : usual;
  let text = '';
  // A number with a fraction, which takes nine bytes as any time does.
  const amount = 1234.5;
  const length = () => packr.pack(make(0, text, amount)).length;
  if (length() > size) throw new RangeError(`no object has ${size} bytes; the smallest has ${length()}`);
  // A length of 32, 256 or 65536 takes one byte more of its own: the last object may come out a byte short of it.
  text = 'x'.repeat(Math.max(0, size - length() - 4));
  while (length() < size) text += 'x';
  return {
    bytes: length(),
    make: (n, at = amount) => make(n, text, at),
    numberOf: data => data.n - FIRST,
    timeOf: data => data.amount,
  };
}
