// npm run bench:endurance: an hour of mixed load. Is memory flat, is the disk's space given back, does each message come
// once and in order? docs/performance.md says how to read it.
import { join, resolve } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { command, ENTRY, keep, prepare, RESULTS, say } from './command.js';
import { KINDS, kindsOf, MEMBERS, SENDERS } from './mixed.js';
import { diskOf, mebibytes, restingDiskOf } from './occupied.js';
import { number, parse } from './options.js';
import { spread, table, whole } from './report.js';
import { now } from './role-channel.js';
import { OWN } from './scenarios.js';
import { runOnce } from './work.js';

/** The server is that of all benchmarks, its clients are not. */
const MIXED = { file: fileURLToPath(new URL('mixed-roles.js', import.meta.url)), sender: 'sender', member: 'member' };
const MINUTE = 60;
/** A run has so many looks at least, if it is shorter than as many minutes. */
const LOOKS = 12;
/** So many are enough for each to go away, come back and be cut off. */
const FEW_LOOKS = 4;
const QUARTERS = ['first', 'second', 'third', 'last'];
const MIB = 2 ** 20;

/**
 * What must hold of the medians of the last quarter and of the second one; in the first there is much that is done once.
 * RSS has what the allocator keeps.
 */
const FLAT = {
  heap: { title: "server's heap, collected", factor: 1.1, more: 4 * MIB },
  external: { title: "server's external memory, collected", factor: 1.1, more: 16 * MIB },
  rss: { title: "server's RSS", factor: 1.25, more: 32 * MIB },
  clients: { title: 'heap of all clients, collected', factor: 1.1, more: 12 * MIB },
};
/** The disk may have so much when nothing waits: the log tidies up when more than four segments of 32 MiB are dead. */
const EMPTY_DISK = 5 * 32 * MIB;

const HELP = `Usage: npm run bench:endurance -- [options]

  --minutes M    so long (60)
  --rate N       messages a second (5000)
  --dir PATH     where the server keeps its data (bench/results, on this disk)
  --json         the results as JSON on standard output
  --smoke        some seconds: counts and order only
`;

function readOptions(argv) {
  const options = {
    minutes: { type: 'string', default: '60' },
    rate: { type: 'string', default: '5000' },
    dir: { type: 'string' },
  };
  const values = parse(argv, options, HELP);
  if (values === undefined) return undefined;
  const minutes = values.smoke ? 0.03 : number(values.minutes, 'minutes', 0.05);
  const rate = values.smoke ? 1000 : number(values.rate, 'rate', 100);
  const interval = Math.min(MINUTE, (minutes * MINUTE) / (values.smoke ? FEW_LOOKS : LOOKS));
  const looks = Math.round((minutes * MINUTE) / interval);
  return { ...values, minutes, rate, interval, looks, dir: resolve(values.dir ?? RESULTS) };
}

async function startAll(run) {
  const dataDir = join(run.folder(), 'data');
  const server = run.role(OWN, 'store');
  const { port } = await server.ask('start', { dataDir, calm: true });
  const members = Object.fromEntries(MEMBERS.map(name => [name, run.role(MIXED, 'member', name)]));
  await Promise.all(MEMBERS.map(name => members[name].ask('start', { port, name })));
  const senders = Array.from({ length: SENDERS }, (_, i) => run.role(MIXED, 'sender', `sender-${i}`));
  await Promise.all(senders.map((role, i) => role.ask('start', { port, name: `sender-${i}`, number: i })));
  return { dataDir, server, members, senders, clients: [...senders, ...Object.values(members)] };
}

/** What happens beside the traffic: in each interval a connection breaks, and in one of three somebody is away. */
async function disturb({ members }, i, seconds) {
  if (i % 3 === 1) await members.away.ask('leave');
  if (i % 3 === 2) await members.away.ask('come');
  await pause((seconds * 1000) / 2);
  await members.broken.ask('break');
}

const sum = numbers => numbers.reduce((a, b) => a + b, 0);
const askAll = (roles, verb, args) => Promise.all(roles.map(role => role.ask(verb, args)));

async function look({ server, members, clients, dataDir }) {
  const { p99: held } = await server.ask('held');
  const own = await server.ask('memory');
  const others = await askAll(clients, 'memory');
  const handled = await askAll(Object.values(members), 'stats');
  const { queued } = await server.ask('stats');
  return {
    ...{ ...own, clients: sum(others.map(({ heap }) => heap)), disk: diskOf(dataDir) },
    ...{ held, queued, handled: sum(handled.map(({ handled }) => handled)) },
  };
}

/** The traffic, with a look at everybody after each interval. */
async function load(run, all) {
  const { rate, interval, looks } = run.settings;
  const share = rate / SENDERS;
  const samples = [];
  const began = now();
  await all.server.ask('held');
  for (let i = 0; i < looks; i++) {
    const paced = askAll(all.senders, 'pace', { rate: share, messages: Math.round(share * interval) });
    await Promise.all([paced, disturb(all, i, interval)]);
    await all.server.ask('dropDeadLetters', { name: 'failing' });
    const sample = { minutes: (now() - began) / 60_000, ...(await look(all)) };
    samples.push(sample);
    const { minutes, rss, heap, disk, held, handled, queued } = sample;
    say(
      `${minutes.toFixed(1)} min: RSS ${mebibytes(rss)}, heap ${mebibytes(heap)}, disk ${mebibytes(disk)}, ` +
        `held up ${held.toFixed(1)} ms, ${whole(handled)} handled, ${whole(queued)} wait`,
    );
  }
  if (looks % 3 === 2) await all.members.away.ask('come');
  return samples;
}

/** Waits until all is handled, and checks the counts and the order of everybody. */
async function finish({ server, members, senders, dataDir }) {
  const parts = await askAll(senders, 'settled');
  const counts = Object.fromEntries(Object.keys(KINDS).map(kind => [kind, sum(parts.map(({ sent }) => sent[kind]))]));
  const told = MEMBERS.map(name => [
    name,
    { counts: Object.fromEntries(kindsOf(name).map(kind => [kind, counts[kind]])) },
  ]);
  const reached = () => Promise.all(told.map(([name, args]) => members[name].ask('reach', args)));
  await reached();
  await server.ask('dropDeadLetters', { name: 'failing' });
  const disk = await restingDiskOf(dataDir);
  // Nothing came again meanwhile.
  const ends = await reached();
  const [handled, failed, rejected, lost] = ['handled', 'failed', 'rejected', 'lost'].map(key =>
    sum(ends.map(end => end[key])),
  );
  const noticed = sum(parts.map(({ rejected }) => rejected));
  if (noticed !== rejected) throw new Error(`${noticed} notices came of ${rejected} messages that were rejected`);
  const { queued, deadLetters } = await server.ask('stats');
  if (queued + deadLetters > 0) throw new Error(`${queued} messages wait still, and ${deadLetters} dead letters`);
  return { sent: sum(Object.values(counts)), counts, handled, failed, rejected, lost, disk };
}

async function endurance(run) {
  const all = await startAll(run);
  const samples = await load(run, all);
  return { samples, end: await finish(all) };
}

/** Medians of each quarter of the run. */
function quartersOf(samples) {
  const keys = [...Object.keys(FLAT), 'disk', 'held', 'queued'];
  return QUARTERS.map((title, i) => {
    const from = Math.floor((samples.length * i) / QUARTERS.length);
    const part = samples.slice(from, Math.floor((samples.length * (i + 1)) / QUARTERS.length));
    return { title, ...Object.fromEntries(keys.map(key => [key, spread(part.map(sample => sample[key]))?.median])) };
  });
}

/** What was to hold, and whether it did. */
function judge(quarters, end) {
  const [, second, , last] = quarters;
  const flat = Object.entries(FLAT).map(([key, { title, factor, more }]) => {
    const bound = second[key] * factor + more;
    const text = `in the last quarter at most ${factor} × the second's + ${mebibytes(more)}`;
    return { title: `${title}, ${text}`, bound, value: last[key], holds: last[key] <= bound };
  });
  const emptied = {
    title: 'disk when nothing waits',
    bound: EMPTY_DISK,
    value: end.disk,
    holds: end.disk <= EMPTY_DISK,
  };
  return [...flat, emptied];
}

function print({ quarters, verdict, end }) {
  const rows = quarters.map(({ title, rss, heap, external, clients, disk, held, queued }) => [
    ...[title, ...[rss, heap, external, clients, disk].map(mebibytes)],
    ...[held.toFixed(1), whole(queued)],
  ]);
  const head = ['quarter', "server's RSS", 'heap', 'external', "clients' heap", 'disk', 'held up, p99 ms', 'waiting'];
  console.log(`${table(head, rows)}\n\nMedians of the looks in each quarter.\n`);
  const { sent, handled, failed, rejected, lost, counts } = end;
  console.log(
    `${whole(sent)} sent, ${whole(handled)} handled, every persistent one once and in order; ${whole(failed)} failed and came again, ` +
      `${whole(rejected)} were dead letters, ${whole(counts.expiring)} expired, ${whole(lost)} of ${whole(counts.transient)} that were not persistent were lost.`,
  );
  for (const { title, bound, value, holds } of verdict)
    console.log(`${holds ? 'holds' : 'FAILS'}: ${title}: ${mebibytes(value)}, bound ${mebibytes(bound)}`);
}

const SERIES = { rss: "server's RSS", heap: 'heap', external: 'external', clients: "clients' heap", disk: 'disk' };

/** Memory and disk over time. */
function chartsOf(samples) {
  const of = keys =>
    keys.flatMap(key => samples.map(sample => ({ series: SERIES[key], x: sample.minutes, median: sample[key] / MIB })));
  return [
    { title: 'Memory', x: 'minutes', y: 'MiB', points: of(['rss', 'heap', 'external', 'clients']) },
    { title: 'Disk', x: 'minutes', y: 'MiB', points: of(['disk']) },
  ];
}

async function main(argv) {
  const options = readOptions(argv);
  if (options === undefined) return;
  const machine = prepare(options);
  const { minutes, rate, interval, looks, dir, smoke, json } = options;
  const settings = { minutes, rate, interval, looks };
  const timeout = 60_000 + interval * 2000;
  const { samples, end } = await runOnce(endurance, 0, { key: 'endurance', entry: ENTRY, dir, timeout, ...settings });
  if (smoke) {
    console.log(`${end.sent} messages of mixed load: every count is right, and every order.`);
    return;
  }
  const quarters = quartersOf(samples);
  const verdict = judge(quarters, end);
  const report = { machine, settings, quarters, verdict, end, samples };
  await keep('endurance-', report, ({ lines }) => lines(chartsOf(samples)));
  if (json) console.log(JSON.stringify(report, undefined, 2));
  else print(report);
  if (verdict.some(({ holds }) => !holds)) process.exitCode = 1;
}

await command('bench:endurance', main);
