// The options of a run, and what follows from them.
import { parseArgs } from 'node:util';
import { isReference, SCENARIOS } from './scenarios.js';

const NAMES = Object.keys(SCENARIOS).filter(name => !isReference(name));

const HELP = `Usage: npm run bench -- [options]

  --only NAME[,NAME]   only these scenarios, and what they are compared with:
                       ${NAMES.join(', ')}
  --reps N             repetitions, interleaved (5)
  --seconds S          time for sending in each measured phase (1.5)
  --messages N         so many messages in each phase instead
  --size N[,N]         bytes of the encoded object (128; durable queue: 128 and 1024)
  --subscribers N      subscribers of 1 → N (10)
  --max-minutes M      no further repetition is begun after so long (30)
  --dir PATH           where servers keep their data (bench/results, on this disk)
  --against PATH       another checkout, built: its runs take turns with this one's
  --profile PATH       a CPU profile of each role, and its functions by self time; one repetition
  --json               the results as JSON on standard output
  --smoke              a few messages of everything: counts and order only, no times
`;

export class UsageError extends Error {}

export function number(text, name, least) {
  const value = Number(text);
  if (!(value >= least)) throw new UsageError(`--${name} must be a number from ${least} up, not "${text}"`);
  return value;
}

export const list = text => text.split(',').filter(part => part !== '');

/** Options of what is repeated, and measured for a time. */
export const TAKING_TURNS = {
  reps: { type: 'string', default: '5' },
  seconds: { type: 'string', default: '1.5' },
};

/** Options of every command. */
const COMMON = {
  json: { type: 'boolean', default: false },
  smoke: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
};

/** What a command line gives for `options`; undefined when it only asks for help. */
export function parse(argv, options, help) {
  const { values } = parseArgs({ args: argv, options: { ...COMMON, ...options } });
  if (!values.help) return values;
  process.stdout.write(help);
  return undefined;
}

/** The options of a command line; undefined when it only asks for help. Throws UsageError. */
export function readOptions(argv) {
  const values = parse(
    argv,
    {
      ...TAKING_TURNS,
      only: { type: 'string' },
      messages: { type: 'string' },
      size: { type: 'string' },
      subscribers: { type: 'string', default: '10' },
      'max-minutes': { type: 'string', default: '30' },
      dir: { type: 'string' },
      against: { type: 'string' },
      profile: { type: 'string' },
    },
    HELP,
  );
  if (values === undefined) return undefined;
  const only = values.only === undefined ? NAMES : list(values.only);
  const unknown = only.find(name => SCENARIOS[name] === undefined);
  if (unknown !== undefined) throw new UsageError(`"${unknown}" is no scenario; there are ${NAMES.join(', ')}`);
  const single = values.smoke || values.profile !== undefined;
  const seconds = number(values.seconds, 'seconds', 0.01);
  const messages = values.messages === undefined ? undefined : number(values.messages, 'messages', 1);
  return {
    ...values,
    only,
    reps: single ? 1 : number(values.reps, 'reps', 1),
    sizes: values.size === undefined ? undefined : list(values.size).map(size => number(size, 'size', 12)),
    subscribers: values.smoke ? 3 : number(values.subscribers, 'subscribers', 1),
    maxMinutes: number(values['max-minutes'], 'max-minutes', 0),
    amounts: amounts(values.smoke, seconds, messages),
    timeout: 60_000 + seconds * 20_000,
  };
}

// Messages in a second where they are sent at a pace.
const RATE = 20_000;

/** How much is sent in each kind of phase. */
export function amounts(smoke, seconds, messages) {
  if (smoke) {
    const few = { messages: 2000 };
    const pace = { rate: 2000, seconds: 0.2, warmSeconds: 0.1 };
    const many = { connections: 40, warmConnections: 8, channels: 1000 };
    return { ...many, amount: few, warmUp: few, trips: 100, warmTrips: 10, syncs: 20, warmSyncs: 2, pace };
  }
  const amount = messages === undefined ? { seconds } : { messages };
  const warmUp = messages === undefined ? { seconds: seconds / 3 } : { messages: Math.ceil(messages / 3) };
  const trips = Math.round(seconds * 4000);
  const syncs = Math.round(seconds * 800);
  const pace = { rate: RATE, seconds: 2 * seconds, warmSeconds: seconds };
  const many = { connections: 10_000, warmConnections: 100, channels: 100_000 };
  return {
    ...many,
    amount,
    warmUp,
    trips,
    warmTrips: Math.round(trips / 3),
    syncs,
    warmSyncs: Math.round(syncs / 3),
    pace,
  };
}
