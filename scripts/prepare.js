// Makes a clone ready to run: installs the dependencies when they are absent or older than the lock file, and builds
// what is stale. What is there is left alone, so a second start is quick.
import { spawnSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

const OLDEST_NODE = [20, 19];
const LOCK = join(root, 'package-lock.json');
// npm writes this file at the end of an installation.
const INSTALLED = join(root, 'node_modules', '.package-lock.json');

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1])) return;
  console.error(`Node ${OLDEST_NODE.join('.')} or newer is needed; this is ${process.versions.node}.`);
  process.exit(1);
}

function isInstalled() {
  return existsSync(INSTALLED) && statSync(INSTALLED).mtimeMs >= statSync(LOCK).mtimeMs;
}

function install() {
  console.error('Installing the dependencies (npm ci) …');
  // npm names its own script when it started this process; that one is of the right version.
  const { npm_execpath: npm } = process.env;
  const parts = ['ci', '--no-audit', '--no-fund'];
  const [command, args] = npm?.endsWith('.js') ? [process.execPath, [npm, ...parts]] : ['npm', parts];
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2] });
  if (status === 0) return;
  console.error(`npm ci did not succeed${error ? ` (${error.message})` : ''}; run it by hand in ${root}`);
  process.exit(1);
}

/** Installs and builds what is missing or stale; ends the process with a clear text when it cannot. */
export async function prepare() {
  checkNode();
  if (!isInstalled()) install();
  const { build, isStale } = await import('./build.js');
  if (!isStale()) return;
  console.error('Building …');
  try {
    build();
  } catch {
    console.error('The build failed; what the compiler says stands above.');
    process.exit(1);
  }
}
