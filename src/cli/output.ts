/**
 * What the command line prints: data on standard output, everything else on standard error. Whatever comes from
 * elsewhere (names, data, error texts) loses its control characters before a terminal sees it.
 */
import { styleText } from 'node:util';
import stringWidth from 'string-width';
import { BroadcastError } from '../errors.js';
import type { Logger } from '../logger.js';
import { EXIT } from './exit-codes.js';

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

export function usage(code: 'invalid-option' | 'invalid-argument', message: string, remedy?: string): CliError {
  return new CliError(EXIT.USAGE, code, message, remedy);
}

type Format = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan';

/** Colours only for a terminal, and not against the reader's wish (https://no-color.org). */
function isColoured(): boolean {
  const wish = process.env['NO_COLOR'];
  return process.stderr.isTTY && (wish === undefined || wish === '') && process.env['TERM'] !== 'dumb';
}

export function style(format: Format, text: string): string {
  return isColoured() ? styleText(format, text) : text;
}

const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** Text without anything that moves a cursor, changes a terminal or turns the direction of reading. */
export function printable(text: string): string {
  return text.replace(CONTROL, c => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

let beforeInfo: (() => void) | undefined;

/** What is done before each line on standard error: the progress bar makes room. */
export function onBeforeInfo(callback: (() => void) | undefined): void {
  beforeInfo = callback;
}

/** A line on standard error. Its parts that come from elsewhere are made `printable` by the caller. */
export function info(text: string): void {
  beforeInfo?.();
  process.stderr.write(`${text}\n`);
}

/** A line of data; fulfilled when it has been written, as far as the system says. Rejects with `output-failed`, or when its reader has gone. */
export function print(line: string): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(`${line}\n`, error => {
      if (!error) resolve();
      else reject(isReaderGone(error) ? error : outputFailed(error));
    });
  });
}

export function outputFailed({ message }: Error): CliError {
  return new CliError(
    EXIT.FAILURE,
    'output-failed',
    `standard output cannot be written (${message})`,
    'make room where it goes to, or send it elsewhere',
  );
}

/** A row for each object, a column for each key; columns as wide as what they show. */
export async function printTable(
  rows: readonly Record<string, string | number | null | undefined>[],
  columns: readonly string[],
): Promise<void> {
  const cells = rows.map(row => columns.map(column => printable(String(row[column] ?? '')).replaceAll(/[\t\n]/g, ' ')));
  const widths = columns.map((column, i) => Math.max(...[column, ...cells.map(cell => cell[i] as string)].map(width)));
  for (const cell of [columns, ...cells]) {
    const line = cell.map((text, i) => text + ' '.repeat((widths[i] as number) - width(text)));
    await print(line.join('  ').trimEnd());
  }
}

function width(text: string): number {
  return stringWidth(text);
}

/** `1 message`, `2 messages`. */
export function plural(count: number, noun: string): string {
  return `${String(count)} ${noun}${count === 1 ? '' : 's'}`;
}

function join(parts: unknown[]): string {
  return printable(parts.map(part => (part instanceof Error ? part.message : String(part))).join(' '));
}

/** A log that says what a person at a terminal wants to know, or a program that asked for JSON. */
export function cliLogger(json: boolean): Logger {
  // An error that is logged is part of the line, and follows it for those who show its stack.
  const say = (level: 'warning' | 'error', colour: Format, parts: unknown[]): void => {
    const line = join(parts.slice(0, 1));
    if (json) info(JSON.stringify({ [level]: line }));
    else info(`${style(colour, level)} ${line}`);
  };
  return {
    debug: () => undefined,
    info: () => undefined,
    warn: (...parts) => say('warning', 'yellow', parts),
    error: (...parts) => say('error', 'red', parts),
  };
}

const EXITS: Readonly<Record<string, number>> = {
  'invalid-option': EXIT.USAGE,
  'invalid-argument': EXIT.USAGE,
  'invalid-name': EXIT.USAGE,
  'connection-lost': EXIT.UNAVAILABLE,
  timeout: EXIT.UNAVAILABLE,
  'not-broadcast': EXIT.UNAVAILABLE,
  'protocol-version': EXIT.UNAVAILABLE,
  'unsupported-feature': EXIT.UNAVAILABLE,
  unauthorized: EXIT.UNAVAILABLE,
  'taken-over': EXIT.UNAVAILABLE,
  'different-store': EXIT.UNAVAILABLE,
  'too-many-connections': EXIT.UNAVAILABLE,
  'too-many-sessions': EXIT.UNAVAILABLE,
  'server-busy': EXIT.UNAVAILABLE,
  'shutting-down': EXIT.UNAVAILABLE,
  'not-local': EXIT.UNAVAILABLE,
  'address-in-use': EXIT.IN_USE,
  'store-locked': EXIT.IN_USE,
};

/** True when whoever read our output has gone: no reason to complain. */
export function isReaderGone(error: unknown): boolean {
  return (error as NodeJS.ErrnoException | undefined)?.code === 'EPIPE';
}

/** Says what went wrong; returns the exit code for it. */
export function report(error: unknown, json: boolean): number {
  if (isReaderGone(error)) return EXIT.OK;
  const code = error instanceof CliError || error instanceof BroadcastError ? error.code : 'failure';
  const remedy = error instanceof CliError ? error.remedy : undefined;
  const message = error instanceof Error ? error.message : String(error);
  if (json) info(JSON.stringify({ error: { code, message, ...(remedy === undefined ? {} : { remedy }) } }));
  else {
    info(`${style('red', 'error')} ${printable(message)} ${style('dim', `(${code})`)}`);
    if (remedy !== undefined) info(`  ${printable(remedy)}`);
  }
  return error instanceof CliError ? error.exitCode : (EXITS[code] ?? EXIT.FAILURE);
}
