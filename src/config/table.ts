/**
 * The one table of options. It feeds the defaults, the validation, the environment variables, the command line and
 * docs/options.md; a test keeps the page equal to it.
 */
import type { Limits } from './types.js';

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
  option(
    'queueMessages',
    'number',
    'server',
    100_000,
    '',
    'Messages that wait for one name, or are on their way to it: several instances of it count each what they get.',
    {
      ...count,
      durableDefault: 10_000_000,
    },
  ),
  option('queueBytes', 'number', 'server', 256 * MIB, 'bytes', 'Bytes of those.', {
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
