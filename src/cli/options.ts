/** The command line's options, made from the one table of options, with the environment behind them. */
import { resolve } from 'node:path';
import { Option, type Command } from 'commander';
import {
  buildBroadcastConfig,
  isDecimal,
  LIMITS,
  OPTIONS,
  type ClientConfig,
  type Limits,
  type OptionRow,
  type ServerConfig,
} from '../config.js';
import { usage } from './output.js';

/** Options as commander has gathered them, by the names of the table. */
export type Given = Record<string, unknown>;

const ENDPOINT = ['host', 'port', 'url'];

/** Where the command line differs from what code gets. */
const MEANINGS: Readonly<Record<string, string>> = {
  dataDir: 'folder of the durable store (default ${XDG_STATE_HOME:-~/.local/state}/broadcast/<port>)',
};

function add(command: Command, row: OptionRow, durable: boolean, group: string): void {
  if (row.flag === undefined) return;
  const meaning = MEANINGS[row.name] ?? `${phrase(row.meaning)}${defaultOf(row, durable)}`;
  const option = new Option(`${row.flag} <${argumentOf(row)}>`, meaning);
  option.attributeName = () => row.name;
  command.addOption(option.helpGroup(group));
}

/** A sentence of the table as the phrases of a help page are written. */
function phrase(sentence: string): string {
  return `${sentence.charAt(0).toLowerCase()}${sentence.slice(1).replace(/\.$/, '')}`;
}

function argumentOf(row: OptionRow): string {
  if (row.type === 'array') return 'urls';
  if (row.type === 'number') return row.unit === '' ? 'n' : row.unit;
  return row.name === 'url' ? 'url' : row.name === 'dataDir' ? 'folder' : 'name';
}

function defaultOf(row: OptionRow, durable: boolean): string {
  if (row.default === undefined) return '';
  if (!durable || row.durableDefault === undefined) return ` (default ${String(row.default)})`;
  const inMemory = `with --memory ${String(row.default)}`;
  return row.durableDefault === 0 ? ` (${inMemory})` : ` (default ${String(row.durableDefault)}, ${inMemory})`;
}

/** Where the server is. */
export function addEndpointOptions(command: Command): void {
  for (const row of OPTIONS) if (ENDPOINT.includes(row.name)) add(command, row, false, 'Server:');
  command.addOption(new Option('--socket <path>', 'Unix socket, short for --url unix:<path>').helpGroup('Server:'));
}

/** What a client takes; behind the command's own options. */
export function addClientOptions(command: Command, role: 'sender' | 'receiver'): void {
  addEndpointOptions(command);
  for (const row of OPTIONS) {
    if (row.for === 'server' || ENDPOINT.includes(row.name) || row.name === 'clientName') continue;
    if (row.name === 'maxAttempts' && role === 'sender') continue;
    add(command, row, false, 'Connection:');
  }
  if (role === 'sender') for (const row of LIMITS) if (row.for !== 'server') add(command, row, false, 'Limits:');
}

/** The client's name, among the command's own options. */
export function addNameOption(command: Command): void {
  add(command, OPTIONS.find(row => row.name === 'clientName') as OptionRow, false, 'Options:');
}

/** The folder of the store, among the command's own options. */
export function addDataOption(command: Command): void {
  add(command, OPTIONS.find(row => row.name === 'dataDir') as OptionRow, true, 'Options:');
}

/** What a server takes; behind the command's own options. */
export function addServerOptions(command: Command): void {
  addEndpointOptions(command);
  for (const row of OPTIONS) {
    if (row.for === 'client' || ENDPOINT.includes(row.name) || row.name === 'dataDir') continue;
    add(command, row, true, 'Timing:');
  }
  for (const row of LIMITS) if (row.for !== 'client') add(command, row, true, 'Limits:');
}

function parse(row: OptionRow, text: string): unknown {
  if (row.type === 'array') return text.split(',').map(part => part.trim());
  if (row.type !== 'number') return text;
  return wholeNumber(text, row.flag as string, row.min, row.max);
}

/** Throws `invalid-option` with the flag's name. */
export function wholeNumber(text: string, flag: string, min = 0, max = Number.MAX_SAFE_INTEGER, unit = ''): number {
  const value = Number(text);
  if (isDecimal(text) && Number.isInteger(value) && value >= min && value <= max) return value;
  const upTo = max === Number.MAX_SAFE_INTEGER ? `${String(min)} on` : `${String(min)} to ${String(max)}`;
  throw usage('invalid-option', `${flag} takes a whole number${unit} from ${upTo}, not ${JSON.stringify(text)}`);
}

/** A time that a command may take; undefined when none was given. */
export function timeoutOf(text: string | undefined): number | undefined {
  return text === undefined ? undefined : wholeNumber(text, '--timeout', 1, 2 ** 31 - 1, ' of milliseconds');
}

/** Throws `invalid-option` unless `value` is one of `choices`. */
export function choice<C extends string>(value: unknown, flag: string, choices: readonly C[]): C {
  if (choices.includes(value as C)) return value as C;
  throw usage('invalid-option', `${flag} is ${choices.join(' or ')}, not ${JSON.stringify(value)}`);
}

/** Options from the command line, over those of the environment. */
export function readOptions(given: Given): ClientConfig & ServerConfig {
  const config: Record<string, unknown> = { ...buildBroadcastConfig() };
  const limits: Record<string, unknown> = { ...(config['limits'] as Partial<Limits> | undefined) };
  for (const row of [...OPTIONS, ...LIMITS]) {
    const text = given[row.name];
    if (typeof text !== 'string') continue;
    if (LIMITS.includes(row)) limits[row.name] = parse(row, text);
    else config[row.name] = parse(row, text);
  }
  chooseAddress(given, config);
  if (Object.keys(limits).length > 0) config['limits'] = limits;
  return config;
}

/** An address on the command line stands instead of one in the environment, however either is written. */
function chooseAddress(given: Given, config: Record<string, unknown>): void {
  const ways: [string, boolean][] = [
    ['--host or --port', given['host'] !== undefined || given['port'] !== undefined],
    ['--url', given['url'] !== undefined],
    ['--socket', given['socket'] !== undefined],
    ['--servers', given['servers'] !== undefined],
  ];
  const chosen = ways.filter(([, isGiven]) => isGiven).map(([flag]) => flag);
  if (chosen.length > 1) throw usage('invalid-option', `${chosen.join(' and ')} cannot be given together; choose one`);
  const [way] = chosen;
  if (way === undefined) return;
  if (way !== '--host or --port') {
    delete config['host'];
    delete config['port'];
  }
  if (way !== '--url') delete config['url'];
  if (way !== '--servers') delete config['servers'];
  if (way === '--socket') config['url'] = `unix:${resolve(given['socket'] as string)}`;
}

/** Only what a client takes. */
export function clientOptions(given: Given): ClientConfig {
  const { dataDir: _d, engine: _e, storeAfter: _s, instanceGrace: _i, ...rest } = readOptions(given);
  return rest;
}
