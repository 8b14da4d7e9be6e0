/** Ids of the engine's queues. NUL cannot be part of a name. */
export const queueIds = {
  session: (name: string, subscription: string): string => `q/${name}\0${subscription}`,
  lane: (instance: string, name: string, subscription: string): string => `i/${instance}\0${name}\0${subscription}`,
  backlog: (channel: string): string => `b/${channel}`,
  deadLetters: (name: string, subscription: string): string => `d/${name}\0${subscription}`,
  notices: (name: string): string => `n/${name}`,
};
