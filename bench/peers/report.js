// Medians and spreads of the repetitions, a table for each kind of work. Ratios are taken within a repetition.
import { show, short, spread, table } from '../report.js';
import { NOISY } from '../work.js';
import { WORK } from './catalogue.js';

/** Who the others are compared with, where there is one. */
const OWN = ['broadcast', 'broadcast-transient', 'broadcast-durable'];

/** More is better: a rate, trips one after the other, connections in a megabyte. */
const meritOf = ({ rate, p50, bytesEach }) => rate ?? 1e6 / (p50 ?? bytesEach);

/** A row for each part of each job that was run. */
export function summarize(jobs, repetitions) {
  const rows = [];
  for (const job of jobs) {
    // Of one that has failed there are fewer.
    const seen = repetitions.filter(results => results[job.key] !== undefined);
    if (seen.length < repetitions.length) continue;
    const isWhole = name => seen.every(results => `${job.work}-${name}-${job.size}` in results);
    const own = OWN.filter(name => name !== job.peer.name && isWhole(name));
    for (const part of Object.keys(seen[0][job.key])) {
      const runs = seen.map(results => results[job.key][part]);
      const spreadOf = key => spread(runs.map(run => run[key]));
      const ahead = name =>
        spread(seen.map((results, i) => meritOf(results[`${job.work}-${name}-${job.size}`][part]) / meritOf(runs[i])));
      rows.push({
        ...{ work: job.work, part, size: job.size, peer: job.peer.name, title: job.peer.title },
        guarantee: job.peer.guarantee,
        ...{ rate: spreadOf('rate'), p50: spreadOf('p50'), p99: spreadOf('p99'), foreign: spreadOf('foreign') },
        ...{ bytesEach: spreadOf('bytesEach'), memory: spreadOf('memory') },
        serverCpu: spread(runs.map(({ cpu }) => cpu.server)),
        ahead: Object.fromEntries(own.map(name => [name, ahead(name)])),
      });
    }
  }
  return rows;
}

const hundredths = n => n.toFixed(2);
const percent = n => `${(n * 100).toFixed(0)} %`;
const AHEAD = { broadcast: 'persistent', 'broadcast-transient': 'not persistent', 'broadcast-durable': 'with dataDir' };

/** The rows that belong into one table, in their order. */
export function groupsOf(summary) {
  const groups = new Map();
  for (const row of summary) {
    const title = [WORK[row.work].title, row.part].filter(text => text !== '').join(', ');
    const key = row.size === 0 ? title : `${title}, ${row.size} bytes`;
    groups.set(key, [...(groups.get(key) ?? []), row]);
  }
  return groups;
}

const mebibytes = n => `${(n / 2 ** 20).toFixed(0)} MiB`;

/** The columns of a table, by what its rows have: their heads, and what stands in them. */
function columnsOf([row]) {
  if (row.bytesEach !== undefined) return { 'server, bytes each': ({ bytesEach }) => show(bytesEach, short) };
  if (row.rate === undefined)
    return { 'p50 µs': ({ p50 }) => show(p50, short), 'p99 µs': ({ p99 }) => show(p99, short) };
  return {
    'messages/s': ({ rate }) => show(rate, short),
    'server, CPU s/M': ({ serverCpu }) => (serverCpu === undefined ? '' : hundredths(serverCpu.median)),
    ...(row.memory !== undefined && { 'server, memory': ({ memory }) => show(memory, mebibytes) }),
  };
}

/** All tables as text. */
export function tablesOf(summary) {
  const texts = [];
  for (const [title, rows] of groupsOf(summary)) {
    const own = OWN.filter(name => rows.some(row => row.ahead[name] !== undefined));
    const columns = columnsOf(rows);
    const head = ['', 'guarantee', ...Object.keys(columns)];
    head.push(...own.map(name => `Broadcast ${AHEAD[name]} is better by`), 'foreign CPU');
    const lines = rows.map(row => [
      row.title,
      row.guarantee,
      ...Object.values(columns).map(textOf => textOf(row)),
      ...own.map(name => show(row.ahead[name], hundredths)),
      show(row.foreign, percent),
    ]);
    texts.push(`\n${title}\n\n${table(head, lines)}`);
  }
  texts.push('\nMedian (lowest–highest) of the repetitions; "is better by" is taken within a repetition.');
  if (summary.some(({ foreign }) => foreign?.high > NOISY))
    texts.push(`Others used more than ${percent(NOISY)} of the machine in runs that were not better when made again.`);
  return texts.join('\n');
}
