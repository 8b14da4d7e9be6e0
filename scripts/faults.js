// npm run faults: the long form of a fault suite. Each suite is a test file in test/faults with a short form that is part
// of `npm test`; here it gets a seed, a number of runs and a bound in time. What it has seen is printed, and appended to
// the report.
import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { external } from './external.js';
import { prepare, root } from './prepare.js';

const FOLDER = join(root, 'test', 'faults');
const REPORT = join(root, '.cache', 'faults', 'report.jsonl');
/** Those that have runs; the others say what they do once. */
const SUITES = readdirSync(FOLDER)
  .filter(file => file.endsWith('.test.ts') && readFileSync(join(FOLDER, file), 'utf8').includes('extentOf('))
  .map(file => file.replace('.test.ts', ''));

const HELP = `Usage: npm run faults -- SUITE [options]

  --seed N      seed of the first run (1)
  --runs N      so many runs; what one is, the suite says (its short form)
  --minutes M   no test of the suite begins a run after so long (30)
  -t TEXT       only tests with this in their name
  --results F   what became of each test goes to this file, as JSON, and the first one that fails is the last

Suites: ${SUITES.join(', ')}
`;

function readOptions() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      seed: { type: 'string', default: '1' },
      runs: { type: 'string' },
      minutes: { type: 'string', default: '30' },
      'test-name': { type: 'string', short: 't' },
      results: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return undefined;
  const [suite] = positionals;
  if (positionals.length !== 1 || !SUITES.includes(suite))
    throw new Error(`name one suite: ${SUITES.join(', ')}; you named ${positionals.join(', ') || 'none'}`);
  for (const name of ['seed', 'runs', 'minutes']) {
    if (values[name] !== undefined && !(Number(values[name]) > 0))
      throw new Error(`--${name} must be a number above 0, not "${values[name]}"`);
  }
  return { suite, ...values };
}

async function main() {
  const options = readOptions();
  if (options === undefined) {
    process.stdout.write(HELP);
    return 0;
  }
  await prepare();
  for (const line of external()) console.error(line);
  mkdirSync(join(REPORT, '..'), { recursive: true });
  const args = ['run', '--silent=false', join(FOLDER, `${options.suite}.test.ts`)];
  if (options['test-name'] !== undefined) args.push('-t', options['test-name']);
  if (options.results !== undefined)
    args.push('--bail=1', '--reporter=default', '--reporter=json', `--outputFile.json=${resolve(options.results)}`);
  const child = spawn(process.execPath, [join(root, 'node_modules', 'vitest', 'vitest.mjs'), ...args], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: {
      ...process.env,
      FAULTS_SEED: options.seed,
      FAULTS_MINUTES: options.minutes,
      FAULTS_REPORT: REPORT,
      ...(options.runs !== undefined && { FAULTS_RUNS: options.runs }),
    },
  });
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
  const code = await new Promise(resolve => child.on('exit', (status, signal) => resolve(status ?? (signal ? 1 : 0))));
  console.log(`what was seen is in ${REPORT}`);
  return code;
}

main().then(
  code => (process.exitCode = code),
  error => {
    console.error(error.message);
    process.exitCode = 2;
  },
);
