// What roles measure with, whoever they are: trips there and back, messages at a pace, and waiting as long as something comes.
import { createHistogram } from 'node:perf_hooks';
import { setImmediate as turn } from 'node:timers/promises';
import { now } from './role-channel.js';
import { channelName, payload, scatter, takingTurns } from './payload.js';

/** Latencies outside of these are counted as the nearest. */
export const HISTOGRAM = { lowest: 1, highest: 60e9, figures: 3 };
/** A logger for those who fail on purpose. */
export const QUIET = Object.fromEntries(['debug', 'info', 'warn', 'error'].map(level => [level, () => undefined]));
// Milliseconds without a message after which nothing is expected to come.
const STALLED = 10_000;

/** One numbered object there and back at a time, each checked. */
export function pingPong({ size, messages, warmUp }, send, onArrival) {
  const { make, numberOf } = payload(size);
  const histogram = createHistogram(HISTOGRAM);
  let n = 0;
  let began;
  const next = () => {
    began = process.hrtime.bigint();
    send(make(n));
  };
  return new Promise((resolve, reject) => {
    onArrival(data => {
      if (n >= warmUp) histogram.record(process.hrtime.bigint() - began);
      if (numberOf(data) !== n) reject(new Error(`number ${numberOf(data)} came back instead of ${n}`));
      else if (++n < warmUp + messages) next();
      else resolve(percentiles(histogram));
    });
    next();
  });
}

/** Waits for `arrange`'s callback as long as something comes. */
export function progress(arrange, received, count) {
  return new Promise((resolve, reject) => {
    let seen = received();
    const timer = setInterval(() => {
      if (received() === seen) reject(new Error(`nothing comes any more after ${seen} of ${count} messages`));
      seen = received();
    }, STALLED);
    arrange(resolve);
    timer.unref();
  });
}

export function percentiles(histogram) {
  return { p50: histogram.percentile(50) / 1000, p99: histogram.percentile(99) / 1000, count: histogram.count };
}

/**
 * Sends so many messages at a rate, with as many each millisecond as are due; each carries when it was sent. Rejects when the
 * rate cannot be kept: what a sender that is behind measures is its own hurry.
 */
export function pace({ size, rate, messages }, send) {
  const { make } = payload(size);
  const began = now();
  let sent = 0;
  return new Promise((resolve, reject) => {
    const timer = setInterval(() => {
      const due = Math.min(messages, Math.floor(((now() - began) * rate) / 1000));
      while (sent < due) send(make, sent++);
      if (sent < messages) return;
      clearInterval(timer);
      const kept = (sent * 1000) / (now() - began) / rate;
      if (kept < 0.9) reject(new Error(`only ${(kept * 100).toFixed(0)} % of the rate was kept`));
      else resolve({ kept });
    }, 1);
  });
}

/** How long messages of a pace were on their way. */
export class Stopwatch {
  #histogram;

  begin() {
    this.#histogram = createHistogram(HISTOGRAM);
  }

  see(sentAt) {
    this.#histogram?.record(Math.max(1, Math.round((now() - sentAt) * 1e6)));
  }

  end() {
    const seen = percentiles(this.#histogram);
    this.#histogram = undefined;
    return seen;
  }
}

/** What a subscriber has received, checked by `begin`'s order, and the verbs that tell of it. */
export class Reception {
  #order;
  #target = Infinity;
  #reached = () => undefined;
  #watch = new Stopwatch();

  begin(order) {
    this.#order = order;
  }

  /** A message has come, with its number and when it was sent; `place` is its channel where there are many. */
  take(number, sentAt, place) {
    this.#watch.see(sentAt);
    if (this.#order.take(number, place) >= this.#target) this.#reached();
  }

  /** Tells when so many have come in all, and when as many as each of `marks` says. */
  async #reach({ count, marks = [] }) {
    const targets = [...marks, count];
    const times = [];
    const see = () => {
      for (; this.#order.received >= targets[times.length]; times.push(now()));
      this.#target = targets[times.length] ?? Infinity;
      return times.length === targets.length;
    };
    const arrange = resolve => {
      this.#reached = () => {
        if (see()) resolve();
      };
    };
    if (!see()) await progress(arrange, () => this.#order.received, count);
    // Whatever comes too often, comes with these.
    await turn();
    this.#order.check(count);
    return { at: times.pop(), marks: times };
  }

  verbs = {
    watch: () => this.#watch.begin(),
    latencies: () => this.#watch.end(),
    reach: options => this.#reach(options),
  };
}

/**
 * A publisher's way through many channels, by chance or in turn; it remembers how many each of the subscribers is to have
 * had.
 */
export class Scattering {
  #choose;
  #shares;

  /**
   * Sends for so long, or so many, `burst` messages in a turn of the event loop, and `run` to a channel before the next one
   * is chosen. `outlet` says whether it is full, when it has room, and sends.
   */
  async run({ seconds, messages, channels, of, burst, run = 1, inTurn = false }, outlet) {
    this.#choose ??= inTurn ? takingTurns(channels) : scatter(channels);
    this.#shares ??= new Array(of).fill(0);
    const began = now();
    const end = began + (seconds ?? 0) * 1000;
    let sent = 0;
    let at = 0;
    let left = 0;
    while (messages === undefined ? now() < end : sent < messages) {
      for (let i = 0; i < burst && !outlet.isFull(); i++, sent++) {
        if (left === 0) {
          at = this.#choose();
          left = run;
        }
        left--;
        this.#shares[at % of]++;
        outlet.send(channelName(at));
      }
      if (outlet.isFull()) await outlet.room();
      else await turn();
    }
    return { began, shares: this.#shares };
  }
}
