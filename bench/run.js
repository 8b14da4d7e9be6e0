// npm run bench: measures Broadcast, and beside it what the machine can do at all. docs/performance.md says how to read it.
import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { command, ENTRY, keep, prepare, RESULTS, say } from './command.js';
import { readOptions } from './options.js';
import { printProfiles } from './profile.js';
import { printTables, summarize } from './report.js';
import { isReference, SCENARIOS } from './scenarios.js';
import { runOnce } from './work.js';

const entryOf = checkout => (checkout === undefined ? ENTRY : join(checkout, 'dist', 'esm', 'index.js'));

/** What is run in each repetition: first what others are compared with; each of these once for every checkout. */
function jobsOf({ only, sizes, against }) {
  const jobs = new Map();
  const add = (name, size, checkout) => {
    const key = [name, size, ...(checkout === undefined ? [] : ['against'])].join('-');
    if (jobs.has(key)) return key;
    const { limit, bare } = SCENARIOS[name];
    const limitKey = limit === undefined ? undefined : add(limit, size);
    const bareKey = bare === undefined ? undefined : add(bare, size);
    const entry = entryOf(checkout);
    jobs.set(key, { key, name, size, entry, against: checkout !== undefined, limitKey, bareKey });
    return key;
  };
  for (const name of only) {
    const { sizes: usual = [128] } = SCENARIOS[name];
    for (const size of sizes ?? usual) {
      add(name, size);
      if (against !== undefined && !isReference(name)) add(name, size, resolve(against));
    }
  }
  return [...jobs.values()];
}

/** All repetitions, one job after the other, every second time in the opposite order. */
async function runAll(jobs, options) {
  const repetitions = [];
  const ends = Date.now() + options.maxMinutes * 60_000;
  for (let rep = 0; rep < options.reps && (rep === 0 || Date.now() < ends); rep++) {
    const results = {};
    repetitions.push(results);
    for (const job of rep % 2 === 0 ? jobs : [...jobs].reverse()) {
      say(`repetition ${rep + 1} of ${options.reps}: ${job.key}`);
      results[job.key] = await runOnce(SCENARIOS[job.name].run, job.size, {
        ...options.amounts,
        ...job,
        dir: options.dir,
        timeout: options.timeout,
        subscribers: options.subscribers,
        profile: options.profile,
      });
    }
  }
  return repetitions;
}

async function main(argv) {
  const options = readOptions(argv);
  if (options === undefined) return;
  options.dir = resolve(options.dir ?? RESULTS);
  if (options.profile !== undefined) mkdirSync((options.profile = resolve(options.profile)), { recursive: true });
  const machine = prepare(options);

  const jobs = jobsOf(options);
  const repetitions = await runAll(jobs, options);
  if (options.smoke) {
    console.log(`${jobs.length} scenarios: every count is right, and every order.`);
    return;
  }
  const summary = summarize(jobs, repetitions);
  const { only, reps, amounts, subscribers } = options;
  const report = { machine, settings: { only, reps, subscribers, ...amounts }, summary, repetitions };
  await keep('', report);
  if (options.json) console.log(JSON.stringify(report, undefined, 2));
  else printTables(summary);
  if (options.profile !== undefined) printProfiles(options.profile);
}

await command('bench', main);
