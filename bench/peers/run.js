// npm run bench:peers: Broadcast and its peers at the same work, taking turns. docs/performance.md says how to read it.
import { installDebian } from '../../scripts/external.js';
import { command, ENTRY, keep, prepare, RESULTS, say } from '../command.js';
import { runOnce, runQuietly } from '../work.js';
import { PEERS, SERVERS, versionsOf, WORK } from './catalogue.js';
import { findCommand } from './daemon.js';
import { installPackages } from './install.js';
import { readOptions } from './options.js';
import { summarize, tablesOf } from './report.js';

/** Those that can be run here; the others are named. */
function available(names) {
  const wanted = PEERS.filter(({ name, kind }) => names.includes(name) || kind.start === undefined);
  const needs = [...new Set(wanted.map(({ needs }) => needs).filter(needs => needs !== undefined))];
  installDebian(needs.filter(needs => findCommand(needs) === undefined).map(needs => SERVERS[needs].debian));
  const absent = new Set(needs.filter(needs => findCommand(needs) === undefined));
  for (const needs of absent) say(`${SERVERS[needs].debian} is not installed: what needs it is not measured`);
  return wanted.filter(({ needs }) => !absent.has(needs));
}

function jobsOf({ work, sizes }, peers) {
  return work.flatMap(name =>
    (WORK[name].sizes ?? sizes.filter(size => size >= (WORK[name].leastSize ?? 0))).flatMap(size =>
      peers
        .filter(peer => peer.work.includes(name))
        .map(peer => ({ key: `${name}-${peer.name}-${size}`, work: name, size, peer })),
    ),
  );
}

function runJob({ key, work, size, peer }, { amounts, timeout, smoke }) {
  const settings = { ...amounts, key, entry: ENTRY, dir: RESULTS, timeout };
  return (smoke ? runOnce : runQuietly)(WORK[work].run(peer), size, settings);
}

/**
 * All repetitions, one job after the other, every second time in the opposite order. One that fails once is named, and not
 * measured further.
 */
async function runAll(jobs, options) {
  const repetitions = [];
  const failed = new Map();
  const ends = Date.now() + options.maxMinutes * 60_000;
  const total = jobs.length * options.reps;
  let done = 0;
  for (let rep = 0; rep < options.reps && (rep === 0 || Date.now() < ends); rep++) {
    const results = {};
    repetitions.push(results);
    for (const job of rep % 2 === 0 ? jobs : [...jobs].reverse()) {
      say(
        `${++done} of ${total}: repetition ${rep + 1}, ${WORK[job.work].title}, ${job.size} bytes, ${job.peer.title}`,
      );
      if (failed.has(job.key)) continue;
      try {
        results[job.key] = await runJob(job, options);
      } catch (error) {
        failed.set(job.key, error.message.split('\n')[0]);
        say(`  failed: ${error.message}`);
      }
    }
  }
  return { repetitions, failed };
}

async function main(argv) {
  const options = readOptions(argv);
  if (options === undefined) return;
  installPackages();
  const peers = available(options.peers);
  const versions = versionsOf(peers);
  const machine = prepare({ versions });

  const jobs = jobsOf(options, peers);
  const { repetitions, failed } = await runAll(jobs, options);
  for (const [key, why] of failed) say(`${key} failed, and has no row: ${why}`);
  if (options.smoke) {
    console.log(`${jobs.length - failed.size} of ${jobs.length} runs: every count is right, and every order.`);
    process.exitCode = failed.size > 0 ? 1 : 0;
    return;
  }
  const summary = summarize(jobs, repetitions);
  const { reps, seconds, amounts } = options;
  const settings = { reps, seconds, ...amounts };
  const report = { machine, versions, settings, failed: Object.fromEntries(failed), summary, repetitions };
  await keep('peers-', report, ({ bars }) => bars(summary));
  console.log(options.json ? JSON.stringify(report, undefined, 2) : tablesOf(summary));
}

await command('bench:peers', main);
