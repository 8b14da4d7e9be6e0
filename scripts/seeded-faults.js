// npm run seeded-faults: is the proof worth anything? Each patch of test/faults/seeded puts one fault into the source; in
// a copy of this checkout its suite is run until it fails, ten minutes at most. Prints a table; a fault that no suite
// finds is a defect of the suites. A patch begins with a line for this program:
//   # suite: NAME; what: what it breaks[; runs: N][; test: TEXT]
//
// Found is what a test says in words of its own, in time. A run that has to be ended, a test that only times out, and a
// runner that breaks down find nothing: they do not say which promise was broken, and a busy machine does the same.
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, utimesSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { prepare, root } from './prepare.js';

const FOLDER = join(root, 'test', 'faults', 'seeded');
const HELP = `Usage: npm run seeded-faults -- [NAME …] [options]

  --minutes M     for each fault (10)
  --no-control    do not see first that each suite passes without the fault
  --json          the table as JSON

Faults: ${patches().join(', ')}
`;

/** A test ends by itself two minutes after its time: what still runs then does not end. */
const GRACE_MINUTES = 2.5;
const TIMED_OUT = /^Error: ((Test|Hook) timed out|the run has not ended after)/;
/** A suite is seen to pass without the fault for so long, and for longer than any fault of it took to be found. */
const CONTROL_MINUTES = 2;

function patches() {
  return readdirSync(FOLDER)
    .filter(file => file.endsWith('.patch'))
    .map(file => file.replace('.patch', ''))
    .sort();
}

/** What the first line of a patch says. */
function headerOf(name) {
  const [line] = readFileSync(join(FOLDER, `${name}.patch`), 'utf8').split('\n');
  const fields = Object.fromEntries(
    line
      .replace(/^#\s*/, '')
      .split(';')
      .map(part => part.split(/:(.*)/s, 2).map(text => text.trim())),
  );
  if (fields.suite === undefined || fields.what === undefined)
    throw new Error(`${name}.patch does not begin with "# suite: NAME; what: …"`);
  return fields;
}

function run(command, args, cwd) {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stdout}${stderr}`);
}

/** A copy of what is committed, with the dependencies of this checkout. */
function copy() {
  const folder = mkdtempSync(join(tmpdir(), 'broadcast-seeded-'));
  run('git', ['clone', '-q', '--local', root, folder], root);
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  // Older than what is installed, or it would be installed anew.
  utimesSync(join(folder, 'package-lock.json'), 0, 0);
  return folder;
}

// ---- a run of a suite ------------------------------------------------------------------------------------------------------

/** Runs a command until it ends, or its time is over. Its process group ends with it. */
function runInTime(args, folder, ms) {
  const child = spawn(process.execPath, args, { cwd: folder, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  let isLate = false;
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => (output += chunk));
  const kill = signal => {
    try {
      process.kill(-child.pid, signal);
    } catch {
      // it has ended
    }
  };
  const late = setTimeout(() => {
    isLate = true;
    kill('SIGKILL');
  }, ms);
  return new Promise((resolve, reject) => {
    const interrupted = () => {
      kill('SIGTERM');
      reject(new Error('interrupted'));
    };
    process.once('SIGINT', interrupted);
    child.on('close', code => {
      clearTimeout(late);
      process.off('SIGINT', interrupted);
      kill('SIGKILL');
      resolve({ code, output, isLate });
    });
  });
}

/** Builds what is in the copy and runs a suite on it; what became of it, by `outcomeOf`. */
async function runSuite(folder, { suite, runs, test }, minutes) {
  const build = spawnSync(process.execPath, [join(folder, 'scripts', 'build.js')], { cwd: folder, encoding: 'utf8' });
  if (build.status !== 0) return { outcome: 'does not build', by: firstLine(build.stdout + build.stderr), seconds: 0 };
  const results = join(folder, '.cache', 'results.json');
  rmSync(results, { force: true });
  const args = [join(folder, 'scripts', 'faults.js'), suite, '--minutes', String(minutes), '--results', results];
  if (runs !== undefined) args.push('--runs', String(runs));
  if (test !== undefined) args.push('-t', test);
  const start = performance.now();
  const ended = await runInTime(args, folder, (minutes + GRACE_MINUTES) * 60_000);
  const seconds = Math.round((performance.now() - start) / 1000);
  return { ...outcomeOf(ended, read(results), seconds > minutes * 60), seconds };
}

function read(results) {
  try {
    return JSON.parse(readFileSync(results, 'utf8'));
  } catch {
    return undefined; // the runner did not come to write it
  }
}

/** What became of a run, and the line that says why. */
function outcomeOf({ code, output, isLate }, results, isOver) {
  if (isLate) return { outcome: 'does not end', by: '' };
  if (results === undefined) return { outcome: 'the runner broke down', by: lastLine(output) };
  const tests = results.testResults.flatMap(({ assertionResults }) => assertionResults);
  const messages = tests.flatMap(({ status, failureMessages }) => (status === 'failed' ? failureMessages : []));
  const said = messages.find(text => !TIMED_OUT.test(text));
  if (said !== undefined) return { outcome: isOver ? 'failed too late' : 'failed', by: firstLine(said) };
  if (messages.length > 0) return { outcome: 'hangs', by: firstLine(messages[0]) };
  if (code !== 0) return { outcome: 'the runner broke down', by: lastLine(output) };
  return { outcome: results.numPassedTests > 0 ? 'passed' : 'nothing was run', by: '' };
}

function firstLine(text) {
  return lines(text)[0]?.slice(0, 160) ?? '';
}

function lastLine(output) {
  return (lines(output).findLast(text => /error/i.test(text)) ?? lines(output).at(-1) ?? '').slice(0, 160);
}

function lines(text) {
  return text
    .replace(/\u001b\[[0-9;]*m/g, '')
    .split('\n')
    .map(line => line.trim())
    .filter(line => line !== '');
}

// ---- the faults ------------------------------------------------------------------------------------------------------------

const keyOf = ({ suite, test }) => (test === undefined ? suite : `${suite} -t ${test}`);

/** The suites without a fault, with the most runs that one of its faults is given, as far as the time goes. */
class Controls {
  #known = new Map();
  #folder;
  #minutes;
  #headers;

  constructor(folder, { names, minutes }) {
    this.#folder = folder;
    this.#minutes = minutes;
    this.#headers = names.map(headerOf);
  }

  /** What became of a suite that had at least so many minutes, unless its runs took less. */
  async of(header, minutes = Math.min(this.#minutes, CONTROL_MINUTES)) {
    const key = keyOf(header);
    const known = this.#known.get(key);
    if (known === undefined || (known.outcome === 'passed' && known.minutes < minutes)) {
      const runs = this.#headers.filter(one => keyOf(one) === key).map(one => Number(one.runs ?? 0));
      const most = Math.max(...runs);
      const control = await runSuite(this.#folder, { ...header, runs: most > 0 ? most : undefined }, minutes);
      // One that ended before its time has had all of its runs.
      const isWhole = control.seconds < minutes * 60;
      this.#known.set(key, { ...control, minutes: isWhole ? Infinity : minutes });
      console.error(`control: ${key} ${control.outcome}, ${control.seconds} s ${control.by}`);
    }
    return this.#known.get(key);
  }
}

async function seed(name, folder, controls, minutes) {
  const header = headerOf(name);
  const row = { name, suite: header.suite, what: header.what, found: false };
  const refused = ({ outcome, by }) => ({ ...row, seconds: 0, outcome: `without the fault: ${outcome}`, by });
  const control = await controls?.of(header);
  if (control !== undefined && control.outcome !== 'passed') return refused(control);
  const patch = join(FOLDER, `${name}.patch`);
  try {
    run('git', ['apply', patch], folder);
  } catch (error) {
    return { ...row, seconds: 0, outcome: 'does not apply', by: lastLine(error.message) };
  }
  const result = await runSuite(folder, header, minutes);
  run('git', ['apply', '-R', patch], folder);
  // What it took longer to find than the suite was seen to pass may be no fault of the patch.
  const longer = result.outcome === 'failed' ? await controls?.of(header, result.seconds / 60) : undefined;
  if (longer !== undefined && longer.outcome !== 'passed') return refused(longer);
  return { ...row, ...result, found: result.outcome === 'failed', control: control !== undefined };
}

function readOptions() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      minutes: { type: 'string', default: '10' },
      'no-control': { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  const unknown = positionals.find(name => !patches().includes(name));
  if (unknown !== undefined) throw new Error(`"${unknown}" is no seeded fault; there are ${patches().join(', ')}`);
  if (!(Number(values.minutes) > 0)) throw new Error(`--minutes must be a number above 0, not "${values.minutes}"`);
  return {
    ...values,
    names: positionals.length > 0 ? positionals : patches(),
    minutes: Number(values.minutes),
    controlled: !values['no-control'],
  };
}

function table(rows, controlled) {
  const head = '| fault | what it breaks | suite | found after | by |\n| --- | --- | --- | --- | --- |';
  const body = rows.map(({ name, what, suite, found, outcome, seconds, by }) => {
    const after = found ? `${seconds} s` : `NOT FOUND: ${outcome}`;
    return `| ${name} | ${what} | ${suite} | ${after} | ${by.replaceAll('|', '\\|')} |`;
  });
  const control = controlled
    ? 'Each suite was run without a fault first, and passed unless the table says so.'
    : 'No control was run: nothing says that these suites pass without a fault.';
  return ['', head, ...body, '', control].join('\n');
}

async function main() {
  const options = readOptions();
  if (options.help) {
    process.stdout.write(HELP);
    return 0;
  }
  await prepare();
  const folder = copy();
  const rows = [];
  try {
    const controls = options.controlled ? new Controls(folder, options) : undefined;
    for (const name of options.names) {
      const row = await seed(name, folder, controls, options.minutes);
      rows.push(row);
      console.error(
        `${row.found ? 'found' : `NOT FOUND (${row.outcome})`} in ${row.seconds} s: ${name} (${row.suite})`,
      );
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  console.log(options.json ? JSON.stringify(rows, undefined, 2) : table(rows, options.controlled));
  return rows.every(({ found }) => found) ? 0 : 1;
}

main().then(
  code => (process.exitCode = code),
  error => {
    console.error(error.message);
    process.exitCode = 2;
  },
);
