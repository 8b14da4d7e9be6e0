// `npm test`: installs and builds what is missing, runs the tests (arguments go to vitest: file names, -t, --coverage)
// and ends with a line `N passed, N failed, N skipped` counted from the results. Fails when a test failed, when nothing
// ran, and when vitest itself is not content.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { uncovered } from './coverage.js';
import { external } from './external.js';
import { prepare, root } from './prepare.js';

function runVitest(args) {
  const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs');
  const child = spawn(process.execPath, [vitest, 'run', ...args], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
  return new Promise(resolve => {
    child.on('error', error => {
      console.error(error.message);
      resolve(1);
    });
    child.on('exit', (code, signal) => resolve(code ?? (signal === null ? 1 : 128)));
  });
}

function count(file) {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  for (const { assertionResults, status } of JSON.parse(readFileSync(file, 'utf8')).testResults) {
    const failedBefore = counts.failed;
    for (const { status: result } of assertionResults)
      counts[result === 'passed' || result === 'failed' ? result : 'skipped']++;
    // A file that cannot be loaded, or whose hooks fail, has no test that says so.
    if (status === 'failed' && counts.failed === failedBefore) counts.failed++;
  }
  return counts;
}

await prepare();
const folder = mkdtempSync(join(tmpdir(), 'broadcast-results-'));
const results = join(folder, 'results.json');
const untested = external();
const args = ['--reporter=default', '--reporter=json', `--outputFile.json=${results}`, ...process.argv.slice(2)];
const code = await runVitest(args);
let counts = { passed: 0, failed: 0, skipped: 0 };
try {
  counts = count(results);
} catch {
  console.error('The tests left no results: they did not start, or were ended.');
}
rmSync(folder, { recursive: true, force: true });
for (const line of untested) console.log(line);
if (process.argv.some(arg => arg.startsWith('--coverage'))) for (const line of uncovered()) console.log(line);
if (counts.passed + counts.failed === 0) console.log('No test ran.');
else if (code !== 0 && counts.failed === 0)
  console.log(
    `No test failed, but vitest ended with code ${code}: an error outside the tests, or coverage below its threshold (see above).`,
  );
console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
process.exitCode = code !== 0 || counts.failed > 0 || counts.passed === 0 ? 1 : 0;
