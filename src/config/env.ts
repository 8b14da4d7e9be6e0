/** Options from environment variables. */
import { BroadcastError } from '../errors.js';
import { show } from '../names.js';
import { LIMITS, OPTIONS, type OptionRow } from './table.js';
import type { ClientConfig, ServerConfig } from './types.js';

/** What `buildBroadcastConfig` reads from besides `process.env`: the old helper for environment variables. */
export interface ConfigVars {
  /**
   * The text of a variable; `undefined`, `''` or the text `undefined` for what is not set.
   * @example
   * vars.getStringEnv('BROADCAST_HOST'); // 'localhost'
   */
  getStringEnv(name: string): string;
  /**
   * The number of a variable; `NaN` for what is not set.
   * @example
   * vars.getNumberEnv('BROADCAST_PORT'); // 9000
   */
  getNumberEnv(name: string): number;
}

// `NodeJS.ProcessEnv` spelled out: the published declarations need no types of Node.
type Env = Readonly<Record<string, string | undefined>> | ConfigVars;

/**
 * Options from environment variables: `BROADCAST_HOST`, `BROADCAST_PORT`, … (docs/options.md), with an optional prefix.
 * What is not set, empty, `NaN` or the text `undefined` is left out. Throws `invalid-option`
 * for a number that is not written in decimal digits.
 * @param env default `process.env`; a `ConfigVars` object of the old package as well
 * @param prefix default none; upper-cased, and a `_` is added if there is none at its end
 * @example
 * const client = new BroadcastTcpClient(buildBroadcastConfig(process.env, 'orders')); // ORDERS_BROADCAST_HOST, …
 */
export function buildBroadcastConfig(env: Env = process.env, prefix = ''): ClientConfig & ServerConfig {
  if (typeof env !== 'object' || (env as unknown) === null || typeof prefix !== 'string')
    throw new BroadcastError('invalid-argument', 'buildBroadcastConfig takes an object of texts and a prefix');
  const lead = prefix === '' ? '' : prefix.toUpperCase().replace(/_?$/, '_');
  const config: Record<string, unknown> = {};
  const limits: Record<string, unknown> = {};
  for (const row of OPTIONS) readInto(config, env, lead, row);
  for (const row of LIMITS) readInto(limits, env, lead, row);
  if (Object.keys(limits).length > 0) config['limits'] = limits;
  return config;
}

function readInto(values: Record<string, unknown>, env: Env, lead: string, row: OptionRow): void {
  if (row.env === undefined) return;
  const name = lead + row.env;
  const text = isConfigVars(env) ? readVars(env, name, row) : textOf(env[name], name);
  if (text !== undefined && isSet(text)) values[row.name] = parse(text, name, row);
}

/** The environment holds texts; an object in its place may hold numbers. */
function textOf(value: unknown, name: string): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'string' || typeof value === 'number') return String(value);
  throw new BroadcastError('invalid-option', `${name} must be a text or a number, not ${typeof value}`);
}

function isSet(text: string): boolean {
  return text !== '' && text !== 'undefined' && text !== 'null' && text !== 'NaN';
}

function parse(text: string, name: string, row: OptionRow): unknown {
  switch (row.type) {
    case 'array':
      return text
        .split(',')
        .map(part => part.trim())
        .filter(part => part !== '');
    case 'number':
      if (!isDecimal(text))
        throw new BroadcastError(
          'invalid-option',
          `${name} must be a whole number in decimal digits, not ${show(text)}`,
        );
      return Number(text);
    default:
      return text;
  }
}

/** `Number` would also read `0x10`, `1e3` and ` 5`, which in an option are rather a slip than what they come to. */
export function isDecimal(text: string): boolean {
  return /^[0-9]+$/.test(text);
}

/** Text first: the old helper makes 0 of an empty number. What throws for what it does not know has not got it. */
function readVars(vars: ConfigVars, name: string, row: OptionRow): string | undefined {
  const text = attempt(() => vars.getStringEnv(name));
  if (text !== undefined && text !== 'undefined') return text;
  return row.type === 'number' ? attempt(() => vars.getNumberEnv(name)) : undefined;
}

function attempt(read: () => unknown): string | undefined {
  try {
    const value = read();
    return typeof value === 'string' || typeof value === 'number' ? String(value) : undefined;
  } catch {
    return undefined;
  }
}

function isConfigVars(env: Env): env is ConfigVars {
  return typeof (env as Partial<ConfigVars>).getStringEnv === 'function';
}
