/** Checks options and fills in the defaults. Unknown and impossible ones are refused, naming the nearest known one. */
import { systemClock, type Clock } from '../clock.js';
import type { Engine } from '../engine/engine.js';
import { BroadcastError } from '../errors.js';
import { defaultLogger, guardLogger, type Logger } from '../logger.js';
import { show } from '../names.js';
import { hintAt } from '../nearest.js';
import { LIMITS, OPTIONS, type OptionRow } from './table.js';
import type { ClientConfig, CommonOptions, Endpoint, Limits, ServerConfig } from './types.js';

/** Options of a client with everything filled in. */
export interface ResolvedClientConfig {
  readonly endpoints: readonly (Endpoint | string)[];
  readonly clientName: string | undefined;
  readonly maxAttempts: number;
  readonly limits: Limits;
  readonly logger: Logger;
  readonly pingInterval: number;
  readonly deadAfter: number;
  readonly reconnectInterval: number;
  readonly clock: Clock;
}

/** Options of a server with everything filled in. */
export interface ResolvedServerConfig {
  readonly endpoint: Endpoint;
  readonly dataDir: string | undefined;
  readonly engine: Engine | undefined;
  readonly storeAfter: number;
  readonly instanceGrace: number;
  readonly limits: Limits;
  readonly logger: Logger;
  readonly pingInterval: number;
  readonly deadAfter: number;
  readonly reconnectInterval: number;
  readonly clock: Clock;
}

/** Checks a client's options and fills in the defaults. Throws `invalid-option`. */
export function resolveClientConfig(config: ClientConfig = {}): ResolvedClientConfig {
  // What is a server's alone is allowed and passed over: buildBroadcastConfig gives one object for both.
  const values = check(config, 'client');
  if (config.servers !== undefined) {
    for (const other of ['host', 'port', 'url'] as const) {
      if (config[other] !== undefined)
        throw invalid(`servers and ${other} cannot be given together; put every address into servers`);
    }
    if (config.servers.length === 0) throw invalid('servers is empty; give at least one address');
    config.servers.forEach(checkServer);
  }
  return Object.freeze({
    endpoints: config.servers ?? [endpointOf(config)],
    clientName: config.clientName,
    maxAttempts: values['maxAttempts'] as number,
    limits: resolveLimits(config.limits, false),
    ...common(config, values),
  });
}

/** Checks a server's options and fills in the defaults. Throws `invalid-option`. */
export function resolveServerConfig(config: ServerConfig = {}): ResolvedServerConfig {
  const values = check(config, 'server');
  if (config.dataDir !== undefined && config.engine !== undefined) {
    throw invalid('dataDir and engine cannot be given together: dataDir chooses the disk engine');
  }
  if (config.dataDir === '')
    throw invalid('dataDir is empty; give a folder, or leave it out to keep everything in memory');
  return Object.freeze({
    endpoint: endpointOf(config),
    dataDir: config.dataDir,
    engine: config.engine,
    storeAfter: values['storeAfter'] as number,
    instanceGrace: values['instanceGrace'] as number,
    limits: resolveLimits(config.limits, config.dataDir !== undefined),
    ...common(config, values),
  });
}

function endpointOf(config: Endpoint): Endpoint {
  const { url, host, port } = config;
  if (url !== undefined) {
    if (host !== undefined || port !== undefined)
      throw invalid('url and host or port cannot be given together; choose one way');
    return { url };
  }
  return { host: host ?? 'localhost', port: port ?? 9000 };
}

function common(
  config: CommonOptions,
  values: Record<string, unknown>,
): Pick<ResolvedServerConfig, 'logger' | 'pingInterval' | 'deadAfter' | 'reconnectInterval' | 'clock'> {
  const pingInterval = values['pingInterval'] as number;
  const deadAfter = values['deadAfter'] as number;
  if (deadAfter <= pingInterval) {
    throw invalid(`deadAfter (${String(deadAfter)} ms) must be longer than pingInterval (${String(pingInterval)} ms)`);
  }
  if (config.logger !== undefined) checkMethods(config.logger, 'logger', ['debug', 'info', 'warn', 'error']);
  if (config.clock !== undefined)
    checkMethods(config.clock, 'clock', ['now', 'monotonic', 'setTimeout', 'setInterval']);
  return {
    logger: guardLogger(config.logger ?? defaultLogger),
    pingInterval,
    deadAfter,
    reconnectInterval: values['reconnectInterval'] as number,
    clock: config.clock ?? systemClock,
  };
}

function checkServer(server: unknown, index: number): void {
  const name = `servers[${String(index)}]`;
  if (typeof server === 'string') return;
  if (typeof server !== 'object' || server === null)
    throw invalid(`${name} must be an object or a url, not ${show(server)}`);
  readValues(server, ENDPOINT, ENDPOINT, `${name}.`);
}

function checkMethods(value: object, option: string, methods: readonly string[]): void {
  for (const method of methods) {
    if (typeof (value as Record<string, unknown>)[method] !== 'function')
      throw invalid(`${option} has no method ${method}`);
  }
}

function resolveLimits(given: Partial<Limits> | undefined, durable: boolean): Limits {
  const limits: Record<string, number> = {};
  for (const row of LIMITS) limits[row.name] = (durable ? row.durableDefault : undefined) ?? (row.default as number);
  return Object.freeze(Object.assign(limits, readValues(given ?? {}, LIMITS, LIMITS, 'limits.'))) as unknown as Limits;
}

const ENDPOINT: readonly OptionRow[] = OPTIONS.filter(row => ['host', 'port', 'url'].includes(row.name));

function check(config: unknown, scope: 'client' | 'server'): Record<string, unknown> {
  if (typeof config !== 'object' || config === null)
    throw invalid(`the options must be an object, not ${show(config)}`);
  const own = OPTIONS.filter(row => row.for === scope || row.for === 'both');
  const values: Record<string, unknown> = {};
  for (const row of OPTIONS) values[row.name] = row.default;
  return Object.assign(values, readValues(config, OPTIONS, own, ''));
}

/** The values that are given, each checked. `own`: those that a mistyped name can have meant. */
function readValues(
  given: object,
  rows: readonly OptionRow[],
  own: readonly OptionRow[],
  prefix: string,
): Record<string, unknown> {
  const values: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(given)) {
    const row = rows.find(candidate => candidate.name === name);
    if (row === undefined) throw unknown(prefix, name, own);
    if (value === undefined) continue;
    checkValue(row, value, prefix);
    values[name] = value;
  }
  return values;
}

function checkValue(row: OptionRow, value: unknown, prefix: string): void {
  const name = prefix + row.name;
  const type = Array.isArray(value) ? 'array' : value === null ? 'null' : typeof value;
  if (type !== row.type)
    throw invalid(`${name} must be ${/^[ao]/.test(row.type) ? 'an' : 'a'} ${row.type}, not ${type}`);
  if (typeof value !== 'number') return;
  const { min = 0, max = Infinity } = row;
  if (!Number.isInteger(value) || value < min || value > max)
    throw invalid(`${name} must be a whole number from ${String(min)} to ${String(max)}, not ${String(value)}`);
}

function invalid(text: string): BroadcastError {
  return new BroadcastError('invalid-option', text);
}

function unknown(prefix: string, name: string, rows: readonly OptionRow[]): BroadcastError {
  const names = rows.map(row => row.name);
  return invalid(`there is no option ${prefix}${name}; ${hintAt(name, names, prefix)}`);
}
