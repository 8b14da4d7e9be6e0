// npm run bench:growth: does a message cost the same with many channels, many clients, many that wait? docs/performance.md
// says how to read it.
import { resolve } from 'node:path';
import { command, ENTRY, keep, prepare, RESULTS, say } from './command.js';
import { amounts, list, number, parse, TAKING_TURNS, UsageError } from './options.js';
import { show, short, spread, table, whole } from './report.js';
import { OWN } from './scenarios.js';
import { manyChannels, NOISY, runOnce, runQuietly, storeInSteps } from './work.js';

const SIZE = 128;
/** Before the clock starts: enough for the code of ten subscribers to be compiled, which costs more than the messages do. */
const WARM_UP = { messages: 300_000 };
/** So many messages to one channel are a turn of the event loop, and a batch, also where there is but one channel. */
const BURST = 64;

const bursts = options => manyChannels(OWN, { order: { inTurn: true, run: BURST, burst: BURST }, ...options });
/** Each message to another channel than the one before it, and so a batch of its own. */
const scattered = () => manyChannels(OWN, { order: { inTurn: true } });
const one = (series, count) => results => [{ series, x: count, ...results[''] }];
const points = (series, parts) => parts.map(({ waiting, ...part }) => ({ series, x: waiting, ...part }));

/** What grows: the jobs of one repetition, each of which gives points of the panel. */
const PANELS = {
  channels: {
    title: 'Channels, 10 subscribers',
    x: 'channels',
    log: true,
    jobs: ({ smoke }) =>
      (smoke ? [100] : [1, 10, 100, 1000, 10_000]).flatMap(channels => [
        { channels, run: bursts(), pointsOf: one(`bursts of ${BURST}`, channels) },
        // One channel alone has nothing to be scattered over.
        ...(channels > 1 ? [{ channels, run: scattered(), pointsOf: one('scattered', channels) }] : []),
      ]),
  },
  clients: {
    title: `Clients, bursts of ${BURST} to one after the other`,
    x: 'clients',
    log: true,
    jobs: ({ smoke }) =>
      (smoke ? [20] : [1, 10, 100, 1000]).map(clients => ({
        ...{ channels: clients, run: bursts({ subscribers: 1, apart: true }) },
        pointsOf: one(`bursts of ${BURST}`, clients),
      })),
  },
  queued: {
    title: 'Waiting messages',
    x: 'messages that wait',
    jobs: ({ smoke }) => [
      {
        ...(smoke ? { steps: 2, step: 2000 } : { steps: 10, step: 100_000 }),
        run: storeInSteps(OWN),
        pointsOf: ({ store, drain }) => [...points('store', store), ...points('drain', drain)],
      },
    ],
  },
};

const HELP = `Usage: npm run bench:growth -- [options]

  --only NAME[,NAME]   only what grows so: ${Object.keys(PANELS).join(', ')}
  --reps N             repetitions, interleaved (5)
  --seconds S          time for sending in each measured phase (1.5)
  --max-minutes M      no further repetition is begun after so long (30)
  --dir PATH           where the server keeps its data (bench/results, on this disk)
  --json               the results as JSON on standard output
  --smoke              few messages: counts and order only
`;

function readOptions(argv) {
  const options = {
    only: { type: 'string' },
    'max-minutes': { type: 'string', default: '30' },
    dir: { type: 'string' },
  };
  const values = parse(argv, { ...TAKING_TURNS, ...options }, HELP);
  if (values === undefined) return undefined;
  const only = values.only === undefined ? Object.keys(PANELS) : list(values.only);
  const unknown = only.find(name => PANELS[name] === undefined);
  if (unknown !== undefined) throw new UsageError(`"${unknown}" does not grow; ${Object.keys(PANELS).join(', ')} do`);
  const seconds = number(values.seconds, 'seconds', 0.01);
  return {
    ...{ ...values, only, seconds, dir: resolve(values.dir ?? RESULTS) },
    reps: values.smoke ? 1 : number(values.reps, 'reps', 1),
    maxMinutes: number(values['max-minutes'], 'max-minutes', 0),
    amounts: { ...amounts(values.smoke, seconds), ...(!values.smoke && { warmUp: WARM_UP }) },
    timeout: 60_000 + seconds * 20_000,
  };
}

function jobsOf(options) {
  return options.only.flatMap(panel =>
    PANELS[panel].jobs(options).map((job, i) => ({ panel, key: `${panel}-${i}`, ...job })),
  );
}

/** All repetitions, every second one in the opposite order: the points of each. */
async function runAll(jobs, { reps, maxMinutes, amounts, dir, timeout, smoke }) {
  const runJob = smoke ? runOnce : runQuietly;
  const repetitions = [];
  const ends = Date.now() + maxMinutes * 60_000;
  for (let rep = 0; rep < reps && (rep === 0 || Date.now() < ends); rep++) {
    const seen = [];
    for (const job of rep % 2 === 0 ? jobs : [...jobs].reverse()) {
      const { panel, key, run, pointsOf, ...own } = job;
      say(`repetition ${rep + 1} of ${reps}: ${key}`);
      const results = await runJob(run, SIZE, { ...amounts, ...own, key, entry: ENTRY, dir, timeout });
      for (const point of pointsOf(results)) seen.push({ panel, ...point });
    }
    repetitions.push(seen);
  }
  return repetitions;
}

/** A row for each point; its rate is compared with that of the first point of its line, in the same repetition. */
function summarize(repetitions) {
  const find = (seen, { panel, series, x }) =>
    seen.find(point => point.panel === panel && point.series === series && point.x === x);
  const all = [...repetitions[0]].sort((a, b) => a.x - b.x);
  const firstOf = ({ panel, series }) => all.find(point => point.panel === panel && point.series === series);
  return all.map(({ panel, series, x }) => {
    const runs = repetitions.map(seen => find(seen, { panel, series, x }));
    const firsts = repetitions.map(seen => find(seen, firstOf({ panel, series })));
    return {
      ...{ panel, series, x },
      rate: spread(runs.map(({ rate }) => rate)),
      ratio: spread(runs.map(({ rate }, i) => rate / firsts[i].rate)),
      serverCpu: spread(runs.map(({ cpu }) => cpu.server)),
      foreign: spread(runs.map(({ foreign }) => foreign)),
    };
  });
}

/** The rows of a panel, line by line. */
function linesOf(summary, name) {
  const rows = summary.filter(({ panel }) => panel === name);
  return [...new Set(rows.map(({ series }) => series))].flatMap(line => rows.filter(({ series }) => series === line));
}

const hundredths = n => n.toFixed(2);
const percent = n => `${(n * 100).toFixed(0)} %`;

function print(summary, only) {
  for (const name of only) {
    const { title, x } = PANELS[name];
    const rows = linesOf(summary, name).map(row => [
      ...[row.series, whole(row.x), show(row.rate, short), show(row.ratio, hundredths)],
      ...[show(row.serverCpu, hundredths), show(row.foreign, percent)],
    ]);
    console.log(`\n${title}\n`);
    console.log(table(['', x, 'messages/s', '× the first', 'server, CPU s/M', 'foreign CPU'], rows));
  }
  console.log('\nMedian (lowest–highest) of the repetitions; "× the first" is taken within a repetition.');
  if (only.includes('queued')) console.log("The server's CPU in each step of the drain is that of the whole drain.");
  if (summary.some(({ foreign }) => foreign?.high > NOISY))
    console.log(`Others used more than ${percent(NOISY)} of the machine in runs that were not better when made again.`);
}

const chartsOf = (summary, only) =>
  only.map(name => ({
    ...{ title: PANELS[name].title, x: PANELS[name].x, y: 'messages a second', log: PANELS[name].log },
    points: linesOf(summary, name).map(({ series, x, rate }) => ({ series, x, ...rate })),
  }));

async function main(argv) {
  const options = readOptions(argv);
  if (options === undefined) return;
  const machine = prepare(options);
  const jobs = jobsOf(options);
  const repetitions = await runAll(jobs, options);
  if (options.smoke) {
    console.log(`${jobs.length} runs: every count is right, and every order.`);
    return;
  }
  const summary = summarize(repetitions);
  const { only, reps, seconds, json } = options;
  const report = { machine, settings: { only, reps, seconds, size: SIZE }, summary, repetitions };
  await keep('growth-', report, ({ lines }) => lines(chartsOf(summary, only)));
  if (json) console.log(JSON.stringify(report, undefined, 2));
  else print(summary, only);
}

await command('bench:growth', main);
