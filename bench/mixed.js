// The mixed load of npm run bench:endurance: kinds of messages, and who takes each.

/**
 * Of a hundred messages `share` are of a kind. What is for a channel goes to its `takers`, who have subscribed; what is for
 * clients, to these. `nobody` never comes: what is for it expires.
 */
export const KINDS = {
  steady: { share: 52, channel: 'steady', takers: ['here', 'away', 'broken'], size: 128 },
  transient: { share: 25, channel: 'transient', takers: ['here'], size: 128, persistent: false },
  middle: { share: 10, channel: 'middle', takers: ['here', 'broken'], size: 1024, ttl: 600_000 },
  large: { share: 2, channel: 'large', takers: ['here', 'away'], size: 16 * 1024 },
  followed: { share: 4, clients: ['here'], size: 128, until: 'delivered' },
  group: { share: 4, clients: ['here', 'away', 'broken'], size: 1024 },
  failing: { share: 2, clients: ['failing'], size: 128 },
  expiring: { share: 1, clients: ['nobody'], size: 1024, ttl: 2000 },
};

/** The names of those who take something: one is here, one goes away at times, one's connection breaks, one's handler fails. */
export const MEMBERS = ['here', 'away', 'broken', 'failing'];
export const SENDERS = 2;

/** Of its messages one of so many fails when it is attempted first, and another one of so many for good. */
export const FAILS = 50;
export const REJECTS = 100;

export const isPersistent = kind => KINDS[kind].persistent ?? true;

export function kindsOf(member) {
  return Object.keys(KINDS).filter(kind => (KINDS[kind].takers ?? KINDS[kind].clients).includes(member));
}

/** A hundred messages, the kinds well mixed. */
export function cycle() {
  const kinds = Object.entries(KINDS).flatMap(([kind, { share }]) => new Array(share).fill(kind));
  // A step that has no divisor in common with a hundred goes to each of them once.
  return kinds.map((_, i) => kinds[(i * 37) % kinds.length]);
}
