// What every command of the benchmark does around its work: builds what is stale, says what the figures depend on, keeps
// its report, and ends what it has started when it is stopped.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, isStale } from '../scripts/build.js';
import { installPackages } from './peers/install.js';
import { environment } from './report.js';

export const RESULTS = fileURLToPath(new URL('./results/', import.meta.url));
/** The package's module, as its users load it. */
export const ENTRY = fileURLToPath(new URL('../dist/esm/index.js', import.meta.url));

export const say = text => process.stderr.write(`${text}\n`);

/** Makes ready what a run needs; tells the machine that it runs on. `versions` are those of what is compared. */
export function prepare({ dir = RESULTS, against, versions } = {}) {
  if (isStale()) build();
  for (const folder of [dir, RESULTS]) mkdirSync(folder, { recursive: true });
  const machine = environment({ dir, against });
  for (const [key, value] of Object.entries({ ...machine, ...versions })) say(`${key}: ${value}`);
  return machine;
}

/** Writes a report, and the picture that `draw` makes of it, into the folder of results. */
export async function keep(prefix, report, draw) {
  const file = join(RESULTS, `${prefix}${report.machine.date.replaceAll(':', '-')}`);
  writeFileSync(`${file}.json`, `${JSON.stringify(report, undefined, 2)}\n`);
  say(`kept in ${file}.json`);
  if (draw === undefined) return;
  try {
    installPackages();
    writeFileSync(`${file}.svg`, await draw(await import('./peers/plot.js')));
    say(`drawn in ${file}.svg`);
  } catch (error) {
    // The figures are there; an hour's run does not fail for a picture.
    say(`there is no plot: ${error.message}`);
  }
}

/** Runs a command; its failure is a line and an exit code. What it has started ends with it. */
export async function command(name, main) {
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(130));
  try {
    await main(process.argv.slice(2));
  } catch (error) {
    say(`${name}: ${error.message}`);
    process.exitCode = 1;
  }
}
