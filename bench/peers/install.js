// The packages of the peers and of the plots, which have a lock file of their own: users of the library install none of them.
import { spawnSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const HERE = fileURLToPath(new URL('.', import.meta.url));

/** Installs them when they are not there, or older than the lock file. */
export function installPackages() {
  const installed = join(HERE, 'node_modules', '.package-lock.json');
  if (existsSync(installed) && statSync(installed).mtimeMs >= statSync(join(HERE, 'package-lock.json')).mtimeMs) return;
  process.stderr.write(`Installing the packages of ${HERE} …\n`);
  const { status } = spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--ignore-scripts'], {
    cwd: HERE,
    stdio: ['ignore', 2, 2],
  });
  if (status !== 0) throw new Error(`npm ci did not succeed; run it by hand in ${HERE}`);
}
