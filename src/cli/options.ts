/** The command line's options, made from the one table of options, with the environment behind them. */
import { Option, type Command } from 'commander';
import {
  buildBroadcastConfig,
  LIMITS,
  OPTIONS,
  type ClientConfig,
  type Limits,
  type OptionRow,
  type ServerConfig,
} from '../config.js';
import { EXIT } from './exit-codes.js';
import { CliError } from './output.js';

function add(command: Command, row: OptionRow): void {
  if (row.flag === undefined) return;
  const unit = row.unit === '' ? '' : ` [${row.unit}]`;
  const standard = row.default === undefined ? '' : ` (default ${String(row.default)})`;
  const option = new Option(
    `${row.flag} <${row.type === 'number' ? 'n' : 'value'}>`,
    `${row.meaning}${unit}${standard}`,
  );
  option.attributeName = () => row.name;
  command.addOption(option);
}

/** Adds the options of a client: where the server is. */
export function addEndpointOptions(command: Command): void {
  for (const name of ['host', 'port', 'url']) add(command, OPTIONS.find(row => row.name === name) as OptionRow);
}

/** Adds every option of the server, limits included. */
export function addServerOptions(command: Command): void {
  for (const row of OPTIONS) if (row.for !== 'client' && row.name !== 'url') add(command, row);
  for (const row of LIMITS) if (row.for !== 'client') add(command, row);
}

function parse(row: OptionRow, text: string): string | number {
  if (row.type !== 'number') return text;
  const value = Number(text);
  if (text.trim() === '' || Number.isNaN(value))
    throw new CliError(EXIT.USAGE, 'invalid-option', `${String(row.flag)} takes a number, not ${JSON.stringify(text)}`);
  return value;
}

/** Options from the command line, over those of the environment. */
export function readOptions(given: Record<string, unknown>): ClientConfig & ServerConfig {
  const config: Record<string, unknown> = { ...buildBroadcastConfig() };
  const limits: Record<string, unknown> = { ...(config['limits'] as Partial<Limits> | undefined) };
  for (const row of [...OPTIONS, ...LIMITS]) {
    const text = given[row.name];
    if (typeof text !== 'string') continue;
    if (LIMITS.includes(row)) limits[row.name] = parse(row, text);
    else config[row.name] = parse(row, text);
  }
  // An address on the command line stands instead of one in the environment, however either is written.
  if (given['url'] !== undefined) {
    delete config['host'];
    delete config['port'];
    delete config['servers'];
  } else if (given['host'] !== undefined || given['port'] !== undefined) {
    delete config['url'];
    delete config['servers'];
  }
  if (Object.keys(limits).length > 0) config['limits'] = limits;
  return config;
}

/** Only what a client takes. */
export function clientOptions(config: ClientConfig & ServerConfig): ClientConfig {
  const { dataDir: _d, engine: _e, storeAfter: _s, instanceGrace: _i, ...rest } = config;
  return rest;
}
