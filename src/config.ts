/**
 * The one table of options. It feeds the defaults, the validation, the environment variables, the command line and
 * docs/options.md; a test keeps the page equal to it.
 */
import { systemClock, type Clock } from './clock.js';
import type { Engine } from './engine/engine.js';
import { BroadcastError } from './errors.js';
import { defaultLogger, guardLogger, type Logger } from './logger.js';

/** Where a server listens, or a client finds it: `host` and `port`, or `url`. */
export interface Endpoint {
  /** Default `localhost`. */
  host?: string;
  /** Default 9000. */
  port?: number;
  /** `tcp://host:port`, `unix:/path`, or a plain path to a Unix socket. */
  url?: string;
}

/** Bounds on everything that a peer can make grow; each is inclusive. */
export interface Limits {
  messageBytes: number;
  headerBytes: number;
  targets: number;
  queueMessages: number;
  queueBytes: number;
  backlogMessages: number;
  backlogBytes: number;
  backlogChannels: number;
  sessions: number;
  deadLetters: number;
  notices: number;
  storeBytes: number;
  outboxMessages: number;
  outboxBytes: number;
  windowMessages: number;
  windowBytes: number;
  nameBytes: number;
  subscriptions: number;
  connections: number;
  handshakeMs: number;
  handshakeBytes: number;
  sessionTtl: number;
  anonymousSessionTtl: number;
}

export interface CommonOptions {
  limits?: Partial<Limits>;
  logger?: Logger;
  /** Milliseconds of silence after which a side says that it lives. Default 10 000. */
  pingInterval?: number;
  /** Milliseconds of silence after which a peer is taken for dead. Default 25 000. */
  deadAfter?: number;
  /** Milliseconds between attempts to connect or to listen again, ±20 %. Default 1 000. */
  reconnectInterval?: number;
  /** The clock, for tests (`TestClock` of the testing entry). Default the machine's. */
  clock?: Clock;
}

/** Options of a client. */
export interface ClientConfig extends Endpoint, CommonOptions {
  /** Several servers that share a store; the client moves on to the next when one is lost. */
  servers?: readonly (Endpoint | string)[];
  /** The client's name; given as second argument of the constructor as well. */
  clientName?: string;
  /** How often a message is attempted before it goes to the dead letters. Default 5. */
  maxAttempts?: number;
}

/** Options of a server. */
export interface ServerConfig extends Endpoint, CommonOptions {
  /** Folder of the durable store; without it everything is in memory. */
  dataDir?: string;
  /** Another engine than memory or disk. */
  engine?: Engine;
  /** Milliseconds without progress of a recipient after which its messages are stored. Default 20. */
  storeAfter?: number;
  /** Milliseconds that an instance's own deliveries wait for it after a lost connection. Default 30 000. */
  instanceGrace?: number;
}

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
const DAY = 24 * 60 * 60 * 1000;

/** A row of the table. */
export interface OptionRow {
  readonly name: string;
  readonly type: 'number' | 'string' | 'object' | 'array';
  readonly for: 'client' | 'server' | 'both';
  readonly default: number | string | undefined;
  /** With a data directory, where that differs. */
  readonly durableDefault?: number;
  readonly min?: number;
  readonly max?: number;
  readonly unit: string;
  readonly env?: string;
  readonly flag?: string;
  readonly meaning: string;
}

type Extra = Partial<Pick<OptionRow, 'durableDefault' | 'min' | 'max' | 'env' | 'flag'>>;

function option(
  name: string,
  type: OptionRow['type'],
  scope: OptionRow['for'],
  standard: number | string | undefined,
  unit: string,
  meaning: string,
  extra: Extra = {},
): OptionRow {
  const env = `BROADCAST_${name.replace(/[A-Z]/g, letter => `_${letter}`).toUpperCase()}`;
  const flag = `--${name.replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`)}`;
  return {
    name,
    type,
    for: scope,
    default: standard,
    unit,
    meaning,
    ...(type === 'object' ? {} : { env, flag }),
    ...extra,
  };
}

const interval = { min: 1, max: 2 ** 31 - 1 };

/** Every option but the limits. */
export const OPTIONS: readonly OptionRow[] = [
  option(
    'host',
    'string',
    'both',
    'localhost',
    '',
    'Host to listen on or to connect to; `localhost` listens on every loopback address.',
  ),
  option('port', 'number', 'both', 9000, '', 'Port; a server on port 0 finds a free one.', { min: 0, max: 65535 }),
  option(
    'url',
    'string',
    'both',
    undefined,
    '',
    '`tcp://host:port`, `unix:/path` or a plain path; instead of host and port.',
  ),
  option(
    'servers',
    'array',
    'client',
    undefined,
    '',
    'Several servers that share a store, instead of host, port and url.',
  ),
  option(
    'clientName',
    'string',
    'client',
    undefined,
    '',
    'Name of the client, under which what it is sent waits for it; generated when absent, and ends with it.',
    { flag: '--as' },
  ),
  option('maxAttempts', 'number', 'client', 5, '', 'Attempts before a message goes to the dead letters.', {
    min: 1,
    max: 1000,
  }),
  option(
    'dataDir',
    'string',
    'server',
    undefined,
    '',
    'Folder of the durable store; without it everything is in memory.',
    { flag: '--data' },
  ),
  option('engine', 'object', 'server', undefined, '', 'Another engine than memory or disk.'),
  option(
    'storeAfter',
    'number',
    'server',
    20,
    'ms',
    'Time without progress of a recipient after which its messages are stored.',
    interval,
  ),
  option(
    'instanceGrace',
    'number',
    'server',
    30_000,
    'ms',
    'How long an instance’s own deliveries wait for it after a lost connection.',
    interval,
  ),
  option('pingInterval', 'number', 'both', 10_000, 'ms', 'Silence after which a side says that it lives.', interval),
  option('deadAfter', 'number', 'both', 25_000, 'ms', 'Silence after which a peer is taken for dead.', interval),
  option(
    'reconnectInterval',
    'number',
    'both',
    1_000,
    'ms',
    'Pause between attempts to connect or to listen again, ±20 %.',
    interval,
  ),
  option(
    'logger',
    'object',
    'both',
    undefined,
    '',
    'Where log lines go, in the shape of pino or console; warnings to standard error when absent.',
  ),
  option('limits', 'object', 'both', undefined, '', 'The bounds of the table below.'),
  option('clock', 'object', 'both', undefined, '', 'The clock, for tests.'),
];

const count = { min: 1, max: Number.MAX_SAFE_INTEGER };

/** Every limit. */
export const LIMITS: readonly OptionRow[] = [
  option('messageBytes', 'number', 'both', MIB, 'bytes', 'Encoded data of one message.', { min: 1, max: 64 * MIB }),
  option('headerBytes', 'number', 'both', 16 * 1024, 'bytes', 'Headers of one message.', { min: 0, max: MIB }),
  option('targets', 'number', 'both', 1024, '', 'Clients and channels of one message.', { min: 1, max: 65_536 }),
  option('queueMessages', 'number', 'server', 100_000, '', 'Messages that wait for one name.', {
    ...count,
    durableDefault: 10_000_000,
  }),
  option('queueBytes', 'number', 'server', 256 * MIB, 'bytes', 'Bytes that wait for one name.', {
    ...count,
    durableDefault: 8 * GIB,
  }),
  option('backlogMessages', 'number', 'server', 10_000, '', 'Messages that wait in the backlog of one channel.', count),
  option(
    'backlogBytes',
    'number',
    'server',
    64 * MIB,
    'bytes',
    'Bytes that wait in the backlog of one channel.',
    count,
  ),
  option('backlogChannels', 'number', 'server', 100_000, '', 'Channels with a backlog.', count),
  option('sessions', 'number', 'server', 100_000, '', 'Names that the server keeps.', count),
  option('deadLetters', 'number', 'server', 10_000, '', 'Dead letters of one name; the oldest makes room.', count),
  option('notices', 'number', 'server', 10_000, '', 'Final notices that wait for one name.', count),
  option(
    'storeBytes',
    'number',
    'server',
    GIB,
    'bytes',
    'The store in all; with a data directory what is free on the disk, less a reserve.',
    { ...count, durableDefault: 0, min: 0 },
  ),
  option('outboxMessages', 'number', 'client', 262_144, '', 'Messages that are not safe yet.', count),
  option('outboxBytes', 'number', 'client', 64 * MIB, 'bytes', 'Bytes that are not safe yet.', count),
  option(
    'windowMessages',
    'number',
    'server',
    16_384,
    '',
    'Messages that one instance has and did not acknowledge.',
    count,
  ),
  option(
    'windowBytes',
    'number',
    'server',
    4 * MIB,
    'bytes',
    'Bytes that one instance has and did not acknowledge.',
    count,
  ),
  option('nameBytes', 'number', 'both', 255, 'bytes', 'A name in UTF-8.', { min: 1, max: 255 }),
  option('subscriptions', 'number', 'server', 10_000, '', 'Subscriptions of one client.', count),
  option('connections', 'number', 'server', 16_384, '', 'Connections at a time.', count),
  option('handshakeMs', 'number', 'server', 5_000, 'ms', 'Time to introduce oneself.', interval),
  option('handshakeBytes', 'number', 'server', 4096, 'bytes', 'Size of the introduction.', { min: 64, max: MIB }),
  option(
    'sessionTtl',
    'number',
    'server',
    7 * DAY,
    'ms',
    'How long a session lives after its last instance left.',
    count,
  ),
  option(
    'anonymousSessionTtl',
    'number',
    'server',
    120_000,
    'ms',
    'The same for generated names, after a lost connection.',
    count,
  ),
];

/** The limits' defaults, in memory. */
export const DEFAULT_LIMITS: Readonly<Limits> = Object.freeze(
  Object.fromEntries(LIMITS.map(row => [row.name, row.default])) as unknown as Limits,
);

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
  return {
    logger: guardLogger(config.logger ?? defaultLogger),
    pingInterval,
    deadAfter,
    reconnectInterval: values['reconnectInterval'] as number,
    clock: config.clock ?? systemClock,
  };
}

function resolveLimits(given: Partial<Limits> | undefined, durable: boolean): Limits {
  const limits: Record<string, number> = {};
  for (const row of LIMITS) limits[row.name] = (durable ? row.durableDefault : undefined) ?? (row.default as number);
  for (const [name, value] of Object.entries(given ?? {})) {
    const row = LIMITS.find(candidate => candidate.name === name);
    if (row === undefined) throw unknown('limits.', name, LIMITS);
    if (value === undefined) continue;
    checkValue(row, value, 'limits.');
    limits[name] = value;
  }
  return Object.freeze(limits) as unknown as Limits;
}

function check(config: object, scope: 'client' | 'server'): Record<string, unknown> {
  if (typeof config !== 'object' || config === null) throw invalid('the options must be an object');
  const values: Record<string, unknown> = {};
  for (const row of OPTIONS) values[row.name] = row.default;
  for (const [name, value] of Object.entries(config)) {
    const row = OPTIONS.find(candidate => candidate.name === name);
    if (row === undefined)
      throw unknown(
        '',
        name,
        OPTIONS.filter(candidate => candidate.for !== (scope === 'client' ? 'server' : 'client')),
      );
    if (value === undefined) continue;
    checkValue(row, value, '');
    values[name] = value;
  }
  return values;
}

function checkValue(row: OptionRow, value: unknown, prefix: string): void {
  const name = prefix + row.name;
  if (row.type === 'array') {
    if (!Array.isArray(value)) throw invalid(`${name} must be an array, not ${typeof value}`);
    return;
  }
  if (typeof value !== row.type || value === null)
    throw invalid(`${name} must be a ${row.type}, not ${value === null ? 'null' : typeof value} (${String(value)})`);
  if (row.type !== 'number') return;
  const { min = 0, max = Infinity } = row;
  if (!Number.isInteger(value) || (value as number) < min || (value as number) > max) {
    throw invalid(`${name} must be a whole number from ${String(min)} to ${String(max)}, not ${String(value)}`);
  }
}

function invalid(text: string): BroadcastError {
  return new BroadcastError('invalid-option', text);
}

function unknown(prefix: string, name: string, rows: readonly OptionRow[]): BroadcastError {
  const near = nearest(
    name,
    rows.map(row => row.name),
  );
  return invalid(`there is no option ${prefix}${name}${near === undefined ? '' : `; did you mean ${prefix}${near}?`}`);
}

/** The candidate that is nearest to `word` by Levenshtein's distance, if any is near. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(word.length / 2)) + 1;
  for (const candidate of candidates) {
    const distance = levenshtein(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

function levenshtein(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substituted = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substituted, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}

// `NodeJS.ProcessEnv` spelled out: the published declarations need no types of Node.
type EnvironmentVars = Readonly<Record<string, string | undefined>>;

/** What `buildBroadcastConfig` reads from besides `process.env`. */
export interface ConfigVars {
  getStringEnv(name: string): string;
  getNumberEnv(name: string): number;
}

/**
 * Options from environment variables: `BROADCAST_HOST`, `BROADCAST_PORT`, … (docs/options.md), with an optional prefix.
 * What is not set, empty, `NaN` or the text `undefined` is left out.
 * Throws `invalid-option` for a number that is none.
 *
 * @example
 * const client = new BroadcastTcpClient(buildBroadcastConfig(process.env, 'orders')); // ORDERS_BROADCAST_HOST, …
 */
export function buildBroadcastConfig(
  env: EnvironmentVars | ConfigVars = process.env,
  prefix = '',
): ClientConfig & ServerConfig {
  const lead = prefix === '' ? '' : prefix.toUpperCase().replace(/_?$/, '_');
  const config: Record<string, unknown> = {};
  const limits: Record<string, unknown> = {};
  for (const row of [...OPTIONS, ...LIMITS]) {
    if (row.env === undefined) continue;
    const value = readVariable(env, lead + row.env, row);
    if (value === undefined) continue;
    if (LIMITS.includes(row)) limits[row.name] = value;
    else config[row.name] = value;
  }
  if (Object.keys(limits).length > 0) config['limits'] = limits;
  return config;
}

function readVariable(env: EnvironmentVars | ConfigVars, name: string, row: OptionRow): unknown {
  // Whoever is not checked by TypeScript may give anything.
  const text = (isConfigVars(env) ? env.getStringEnv(name) : env[name]) as string | number | null | undefined;
  if (text === undefined || text === null || text === '' || text === 'undefined') return undefined;
  if (row.type === 'array')
    return String(text)
      .split(',')
      .map(part => part.trim())
      .filter(part => part !== '');
  if (row.type !== 'number') return String(text);
  const value = Number(text);
  if (Number.isNaN(value)) {
    if (text === 'NaN') return undefined;
    throw invalid(`${name} must be a number, not ${JSON.stringify(text)}`);
  }
  return value;
}

function isConfigVars(env: EnvironmentVars | ConfigVars): env is ConfigVars {
  return typeof (env as Partial<ConfigVars>).getStringEnv === 'function';
}
