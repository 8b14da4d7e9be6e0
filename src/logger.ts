/** The logger's shape, the one that is used when the user gives none, and a guard around the user's. */
import { textOf } from './errors.js';

/**
 * Where log lines go: pino's or console's shape. Default: warnings and errors, a line each, to standard error.
 * @example
 * new BroadcastTcpClient({ logger: pino() });
 */
export interface Logger {
  /**
   * Every frame that comes and goes; left out, or console's own, which prints a stack each time, none is described.
   * @example
   * const logger = { ...console, trace: (...a) => console.log(...a) };
   */
  trace?(...a: unknown[]): void;
  /**
   * What only a developer of the library wants to know.
   * @example
   * logger.debug('connecting to localhost:9000');
   */
  debug(...a: unknown[]): void;
  /**
   * What goes as it should.
   * @example
   * logger.info('online');
   */
  info(...a: unknown[]): void;
  /**
   * What somebody should look at some time.
   * @example
   * logger.warn('a message for "orders" went to the dead letters');
   */
  warn(...a: unknown[]): void;
  /**
   * What somebody should look at now.
   * @example
   * logger.error('the store failed', error);
   */
  error(...a: unknown[]): void;
}

const silent = (): void => undefined;

/** What peers said may stand in a line: nothing of it moves a terminal's cursor or begins a line of its own. */
function print(line: unknown): void {
  const safe = String(line)
    .replace(/\s*\n\s*/g, ' ')
    .replace(/[\u0000-\u001f\u007f-\u009f]/g, '\ufffd');
  process.stderr.write(`broadcast: ${safe}\n`);
}

/** Warnings and errors, a line each, on standard error. */
export const defaultLogger: Logger = { debug: silent, info: silent, warn: print, error: print };

type Level = 'trace' | 'debug' | 'info' | 'warn' | 'error';

/**
 * A logger that never throws, whatever the user's does: a log line must not end a process. An error that is logged is
 * part of the line, because pino shows nothing but its first argument, and follows it, because console shows its stack.
 */
export function guardLogger(logger: Logger): Logger {
  const guard =
    (level: Level) =>
    (line: unknown, ...rest: unknown[]): void => {
      try {
        const text = rest.length === 0 ? line : `${String(line)}: ${textOf(rest[0])}`;
        const result: unknown = logger[level]?.(text, ...rest.filter(part => part instanceof Error));
        if (result instanceof Promise) result.catch(silent);
      } catch {
        // Nowhere is left to say it.
      }
    };
  const guarded: Logger = { debug: guard('debug'), info: guard('info'), warn: guard('warn'), error: guard('error') };
  // console's own prints a stack for every line.
  if (typeof logger.trace === 'function' && logger.trace !== console.trace) guarded.trace = guard('trace');
  return guarded;
}
