/** How this command line is called from here, so that commands it prints can be copied and work. */
import { accessSync, constants, readFileSync, realpathSync } from 'node:fs';
import { delimiter, dirname, join, relative } from 'node:path';

const PACKAGE = '@alien-worlds/aw-broadcast';
const COMMAND = 'broadcast';

function real(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

/** True when `folder`/broadcast is this very program. */
function holdsUs(folder: string, self: string): boolean {
  const path = join(folder, COMMAND);
  if (real(path) !== self) return false;
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** npx runs the command of the package whose folder it is called in, or of one that is installed there or above. */
function npxFindsUs(self: string): boolean {
  for (let folder = process.cwd(); ; folder = dirname(folder)) {
    if (holdsUs(join(folder, 'node_modules', '.bin'), self)) return true;
    try {
      const { name } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { name?: string };
      return name === PACKAGE && self.startsWith(`${folder}/`);
    } catch {
      // no package here: look above
    }
    if (dirname(folder) === folder) return false;
  }
}

let found: string | undefined;

/** `broadcast` where that is on the path, else by npx, else the file itself. */
export function invocation(): string {
  return (found ??= find());
}

function find(): string {
  const self = real(process.argv[1] ?? '') ?? '';
  // npm and npx put folders of their own on the path of what they run; another terminal does not have them.
  const folders = (process.env['PATH'] ?? '').split(delimiter).filter(folder => !folder.includes('node_modules'));
  if (folders.some(folder => holdsUs(folder, self))) return COMMAND;
  if (npxFindsUs(self)) return `npx ${COMMAND}`;
  if (self.includes('/_npx/')) return `npx ${PACKAGE}`;
  const path = relative(process.cwd(), self);
  return `node ${quote(path.startsWith('..') ? self : path)}`;
}

/** A word as a POSIX shell takes it. */
export function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
