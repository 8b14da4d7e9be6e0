/** What the command line prints: data on standard output, everything else on standard error. */
import { styleText } from 'node:util';
import { BroadcastError } from '../errors.js';
import type { Logger } from '../logger.js';
import { EXIT } from './exit-codes.js';

/** Options that every command has. */
export interface OutputOptions {
  readonly json?: boolean;
}

/** An error that names the mistake and the remedy, with its exit code. */
export class CliError extends Error {
  readonly exitCode: number;
  readonly code: string;
  readonly remedy: string | undefined;

  constructor(exitCode: number, code: string, message: string, remedy?: string) {
    super(message);
    this.exitCode = exitCode;
    this.code = code;
    this.remedy = remedy;
  }
}

const coloured = process.stderr.isTTY && process.env['NO_COLOR'] === undefined;

export function style(format: 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan', text: string): string {
  return coloured ? styleText(format, text) : text;
}

export function info(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** A line of data; fulfilled when it has been written. */
export function print(line: string): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(`${line}\n`, error => (error ? reject(error) : resolve()));
  });
}

/** A log that says what a person at a terminal wants to know. */
export const cliLogger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: (...parts) => info(`${style('yellow', 'warning')} ${line(parts)}`),
  error: (...parts) => info(`${style('red', 'error')} ${line(parts)}`),
};

function line(parts: unknown[]): string {
  return parts.map(part => (part instanceof Error ? part.message : String(part))).join(' ');
}

const EXITS: Record<string, number> = {
  'invalid-option': EXIT.USAGE,
  'invalid-argument': EXIT.USAGE,
  'invalid-name': EXIT.USAGE,
  'connection-lost': EXIT.UNAVAILABLE,
  timeout: EXIT.UNAVAILABLE,
  'not-broadcast': EXIT.UNAVAILABLE,
  'address-in-use': EXIT.IN_USE,
  'store-locked': EXIT.IN_USE,
};

/** Says what went wrong and ends with the code for it. */
export function report(error: unknown, json: boolean): number {
  const code = error instanceof CliError || error instanceof BroadcastError ? error.code : 'failure';
  const remedy = error instanceof CliError ? error.remedy : undefined;
  const message = error instanceof Error ? error.message : String(error);
  if (json) info(JSON.stringify({ error: { code, message, ...(remedy === undefined ? {} : { remedy }) } }));
  else {
    info(`${style('red', 'error')} ${message} ${style('dim', `(${code})`)}`);
    if (remedy !== undefined) info(`  ${remedy}`);
  }
  return error instanceof CliError ? error.exitCode : (EXITS[code] ?? EXIT.FAILURE);
}
