// The options of a run against the peers.
import { amounts, list, number, parse, TAKING_TURNS, UsageError } from '../options.js';
import { PEERS, WORK } from './catalogue.js';

const HELP = `Usage: npm run bench:peers -- [options]

  --work NAME[,NAME]   only this work: ${Object.keys(WORK).join(', ')}
  --peers NAME[,NAME]  Broadcast, and only these:
                       ${PEERS.map(({ name }) => name).join(', ')}
  --reps N             repetitions, interleaved (5)
  --seconds S          time for sending in each measured phase (1.5)
  --size N[,N]         bytes of the encoded object, by msgpack (128)
  --max-minutes M      no further repetition is begun after so long (60)
  --json               the results as JSON on standard output
  --smoke              a few messages of everything: counts and order only, no times
`;

/** Undefined when only help was wanted. Throws UsageError. */
export function readOptions(argv) {
  const values = parse(
    argv,
    {
      ...TAKING_TURNS,
      work: { type: 'string' },
      peers: { type: 'string' },
      size: { type: 'string', default: '128' },
      'max-minutes': { type: 'string', default: '60' },
    },
    HELP,
  );
  if (values === undefined) return undefined;
  const seconds = number(values.seconds, 'seconds', 0.01);
  return {
    work: known(values.work, Object.keys(WORK), 'work'),
    peers: known(
      values.peers,
      PEERS.map(({ name }) => name),
      'peers',
    ),
    reps: values.smoke ? 1 : number(values.reps, 'reps', 1),
    sizes: list(values.size).map(size => number(size, 'size', 12)),
    seconds,
    maxMinutes: number(values['max-minutes'], 'max-minutes', 0),
    amounts: amounts(values.smoke, seconds),
    timeout: 60_000 + seconds * 20_000,
    json: values.json,
    smoke: values.smoke,
  };
}

function known(text, names, option) {
  const wanted = text === undefined ? names : list(text);
  const unknown = wanted.find(name => !names.includes(name));
  if (unknown !== undefined) throw new UsageError(`--${option}: "${unknown}" is not among ${names.join(', ')}`);
  return wanted;
}
