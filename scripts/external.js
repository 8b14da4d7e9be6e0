// What the tests need besides Node and the npm packages: found, or installed where that goes without asking (Debian and its
// like, as root). Tests look for these themselves and skip what cannot be done; what that is, is said at the end.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';

const EXTERNAL = [
  {
    name: 'libfaketime',
    debian: 'libfaketime',
    isThere: () => isBelow('/usr/lib', join('faketime', 'libfaketimeMT.so.1')),
    untested: 'a server whose clock is set',
  },
  { name: 'strace', debian: 'strace', isThere: () => isCommand('strace'), untested: 'system calls that fail' },
  {
    name: 'mkfs.ext4',
    debian: 'e2fsprogs',
    isThere: () => isCommand('mkfs.ext4'),
    untested: 'power cuts of a real disk',
  },
  {
    name: 'ip',
    debian: 'iproute2',
    isThere: () => isCommand('ip'),
    untested: 'a black hole between network namespaces',
  },
];

/** Seconds for one call of apt-get, which waits long for a registry that does not answer. */
const BOUND = 300;

function isCommand(name) {
  // What only root uses is not on the path of others.
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return folders.some(folder => existsSync(join(folder, name)));
}

function isBelow(folder, path) {
  return existsSync(folder) && readdirSync(folder).some(name => existsSync(join(folder, name, path)));
}

function aptGet(...args) {
  // In runlevel 1 no service is started by its installation.
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
  const { status } = spawnSync('apt-get', ['-qq', ...args], { env, stdio: 'ignore', timeout: BOUND * 1000 });
  return status === 0;
}

/** Why nothing can be installed here, or undefined. */
function hindrance() {
  if (process.platform !== 'linux' || !isCommand('apt-get')) return 'it is installed only where there is apt-get';
  return process.getuid() === 0 ? undefined : 'it is installed only as root';
}

/** Installs packages of Debian's; false when that cannot be, with a word why. */
export function installDebian(packages) {
  if (packages.length === 0) return true;
  const why = hindrance();
  if (why === undefined) return install(packages);
  console.error(`${packages.join(', ')}: ${why}`);
  return false;
}

function install(packages) {
  console.error(`Installing ${packages.join(', ')} …`);
  const words = ['install', '-y', '--no-install-recommends', ...packages];
  // The lists of packages may be absent or old.
  return aptGet(...words) || (aptGet('update') && aptGet(...words));
}

/** Finds or installs them; a line for each that is not there then, with what is not tested without it. */
export function external() {
  if (process.platform !== 'linux')
    return EXTERNAL.map(({ name, untested }) => `${untested}: not tested, ${name} is for Linux`);
  const absent = EXTERNAL.filter(({ isThere }) => !isThere());
  if (absent.length === 0) return [];
  const why =
    hindrance() ??
    (install(absent.map(({ debian }) => debian)) ? 'its package does not have it' : 'apt-get could not install it');
  return absent
    .filter(({ isThere }) => !isThere())
    .map(({ name, untested }) => `${untested}: not tested, ${name} was not found; ${why}`);
}
