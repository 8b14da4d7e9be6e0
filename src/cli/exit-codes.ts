/** Exit codes of the command line; docs/command-line.md shows them with these comments. */
export const EXIT = {
  /** Done. */
  OK: 0,
  /** Something failed that is not one of the others. */
  FAILURE: 1,
  /** A wrong command, option or argument. */
  USAGE: 2,
  /** `pub`: not every message was safe. */
  NOT_SAFE: 3,
  /** No server, or the connection was refused. */
  UNAVAILABLE: 4,
  /** `serve`: the port or the data directory belongs to another server. */
  IN_USE: 5,
  /** `sub`: the time was over before everything had come. */
  TIMEOUT: 6,
} as const;
