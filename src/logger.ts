/** The logger's shape, and the one that is used when the user gives none. */

/** pino's or console's shape. Default: warnings and errors, a line each, on standard error. */
export interface Logger {
  trace?(...a: unknown[]): void;
  debug(...a: unknown[]): void;
  info(...a: unknown[]): void;
  warn(...a: unknown[]): void;
  error(...a: unknown[]): void;
}

const silent = (): void => undefined;

function print(...parts: unknown[]): void {
  const text = parts.map(part => (part instanceof Error ? part.message : String(part))).join(' ');
  process.stderr.write(`broadcast: ${text.replace(/\s*\n\s*/g, ' ')}\n`);
}

export const defaultLogger: Logger = { debug: silent, info: silent, warn: print, error: print };

/** A logger that never throws, whatever the user's does: a log line must not end a process. */
export function guardLogger(logger: Logger): Logger {
  const guard =
    (level: 'debug' | 'info' | 'warn' | 'error') =>
    (...parts: unknown[]): void => {
      try {
        logger[level](...parts);
      } catch {
        // Nowhere is left to say it.
      }
    };
  const guarded: Logger = { debug: guard('debug'), info: guard('info'), warn: guard('warn'), error: guard('error') };
  if (typeof logger.trace === 'function') {
    guarded.trace = (...parts) => {
      try {
        logger.trace?.(...parts);
      } catch {
        // As above.
      }
    };
  }
  return guarded;
}
