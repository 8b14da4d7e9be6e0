/** Exit codes of the command line; docs/command-line.md shows them with these comments. */
export const EXIT = {
  /** Done. A reader that goes away (`| head`) is no failure. */
  OK: 0,
  /** Something failed that is not one of the others; the error says what. */
  FAILURE: 1,
  /** A wrong command, option or argument; nothing was done. */
  USAGE: 2,
  /** `pub`: at least one message is not safe: it is undelivered, or its outcome is unknown. */
  NOT_SAFE: 3,
  /** No server, or it refused the connection for good. */
  UNAVAILABLE: 4,
  /** `serve`: the address or the data directory belongs to another server. */
  IN_USE: 5,
  /** `sub --count`: the time was over before so many messages had come. */
  TIMEOUT: 6,
  /** `pub`: a line of the input is wrong; those before it were sent, none after it. */
  BAD_INPUT: 7,
  /** A signal ended `pub` or `sub --count` before it was done, or a second one `serve` at once. */
  INTERRUPTED: 130,
} as const;
