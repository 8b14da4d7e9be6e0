// Medians and spreads of the repetitions, as tables. Ratios are taken within a repetition, before the median.
import { execFileSync } from 'node:child_process';
import { statfsSync } from 'node:fs';
import { availableParallelism, cpus, release, totalmem } from 'node:os';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { SCENARIOS } from './scenarios.js';
import { NOISY } from './work.js';

const FILE_SYSTEMS = {
  0xef53: 'ext4',
  0x01021994: 'tmpfs',
  0x58465342: 'xfs',
  0x9123683e: 'btrfs',
  0x794c7630: 'overlay',
};

/** What the figures depend on. */
export function environment({ dir, against }) {
  const root = fileURLToPath(new URL('..', import.meta.url));
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
  const type = statfsSync(dir).type;
  return {
    broadcast: `${version} (${revision(root)})`,
    ...(against === undefined ? {} : { against: revision(against) }),
    node: `${process.version}, V8 ${process.versions.v8}`,
    system: `${process.platform} ${release()} ${process.arch}`,
    processors: `${availableParallelism()} × ${cpus()[0]?.model.trim() ?? 'unknown'}`,
    memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
    'file system': FILE_SYSTEMS[type] ?? `0x${type.toString(16)}`,
    date: new Date().toISOString(),
  };
}

function revision(checkout) {
  try {
    const git = (...args) => execFileSync('git', ['-C', checkout, ...args], { encoding: 'utf8' }).trim();
    return git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', 'src') === '' ? '' : ', changed');
  } catch {
    return 'unknown revision';
  }
}

/** Median, lowest and highest. */
export function spread(values) {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  const { length } = sorted;
  if (length === 0) return undefined;
  const middle = length >> 1;
  const median = length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, low: sorted[0], high: sorted[length - 1] };
}

/** Speed: messages in a second, or trips if one followed the other. */
const speedOf = ({ rate, p50 }) => rate ?? 1e6 / p50;

/** One row for each part of each job. */
export function summarize(jobs, repetitions) {
  return jobs.flatMap(job => {
    const { title, latency = false } = SCENARIOS[job.name];
    return Object.keys(repetitions[0][job.key]).map(part => {
      const runs = repetitions.map(results => results[job.key][part]);
      // What it is compared with may have one part only.
      const faster = key =>
        key === undefined
          ? []
          : repetitions.map((results, i) => speedOf(results[key][part] ?? results[key]['']) / speedOf(runs[i]));
      const others = job.against ? repetitions.map(results => results[job.key.replace(/-against$/, '')][part]) : [];
      return {
        title: [title, part].filter(text => text !== '').join(', ') + (job.against ? ' (the other checkout)' : ''),
        size: job.size,
        latency,
        rate: spread(runs.map(run => run.rate)),
        p50: spread(runs.map(run => run.p50)),
        p99: spread(runs.map(run => run.p99)),
        ratio: spread(faster(job.limitKey).map(factor => 1 / factor)),
        bare: spread(faster(job.bareKey)),
        gain: spread(others.map((run, i) => speedOf(run) / speedOf(runs[i]))),
        thrift: spread(others.map((run, i) => cpuInAll(run) / cpuInAll(runs[i]))),
        stored: spread(runs.map(run => run.stored)),
        cpu: cpuOf(runs),
        foreign: spread(runs.map(run => run.foreign)),
      };
    });
  });
}

const cpuInAll = ({ cpu }) => Object.values(cpu).reduce((a, b) => a + b, 0);

function cpuOf(runs) {
  const roles = Object.keys(runs[0].cpu);
  return Object.fromEntries(roles.map(role => [role, spread(runs.map(run => run.cpu[role]))]));
}

const COMPARED = ['speed, this / other', 'CPU, this / other'];

// ---- text ------------------------------------------------------------------------------------------------------------

export const short = n =>
  n >= 1e6 ? `${(n / 1e6).toFixed(2)} M` : n >= 1e4 ? `${(n / 1e3).toFixed(0)} k` : n.toFixed(n < 100 ? 1 : 0);
/** A count, whole. */
export const whole = n => n.toLocaleString('en');
export const show = (value, format) =>
  value === undefined ? '' : `${format(value.median)} (${format(value.low)}–${format(value.high)})`;
const median = (value, format) => (value === undefined ? '' : format(value.median));
const hundredths = n => n.toFixed(2);
const thousandths = n => n.toFixed(3);
const percent = n => `${(n * 100).toFixed(0)} %`;

export function table(head, rows) {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map(row => row[i].length)));
  const line = row => `| ${row.map((cell, i) => cell.padEnd(widths[i])).join(' | ')} |`;
  return [line(head), `| ${widths.map(width => '-'.repeat(width)).join(' | ')} |`, ...rows.map(line)].join('\n');
}

export function printTables(summary) {
  const rates = summary.filter(row => !row.latency);
  const latencies = summary.filter(row => row.latency);
  const gain = row => [show(row.gain, thousandths), show(row.thrift, thousandths)];
  const compared = summary.some(row => row.gain !== undefined);
  if (rates.length > 0) {
    const head = ['scenario', 'bytes', 'delivered/s', '× limit', 'bare is faster by'];
    head.push('CPU s/M publisher', 'server', 'subscriber', 'stored', 'foreign CPU', ...(compared ? COMPARED : []));
    const rows = rates.map(row => [
      row.title,
      String(row.size),
      show(row.rate, short),
      show(row.ratio, thousandths),
      show(row.bare, hundredths),
      ...['publisher', 'server', 'subscriber'].map(role => median(row.cpu[role], hundredths)),
      median(row.stored, percent),
      show(row.foreign, percent),
      ...(compared ? gain(row) : []),
    ]);
    console.log(`\n${table(head, rows)}`);
  }
  if (latencies.length > 0) {
    const head = ['scenario', 'bytes', 'p50 µs', 'p99 µs', 'speed × limit', 'bare is faster by', 'foreign CPU'];
    if (compared) head.push(...COMPARED);
    const rows = latencies.map(row => [
      row.title,
      String(row.size),
      show(row.p50, short),
      show(row.p99, short),
      show(row.ratio, thousandths),
      show(row.bare, hundredths),
      show(row.foreign, percent),
      ...(compared ? gain(row) : []),
    ]);
    console.log(`\n${table(head, rows)}`);
  }
  console.log(
    '\nMedian (lowest–highest) of the repetitions; "× limit" and "bare is faster by" are taken within a repetition. "stored" is' +
      '\nthe part of the messages that the server wrote to its log.',
  );
  if (summary.some(row => row.foreign?.high > NOISY))
    console.log(
      `Others used more than ${percent(NOISY)} of the machine at times: take no figure of this run for more than a hint.`,
    );
}
