// `npm start`: a durable server on port 9000 with its data in the git-ignored folder data/. Installs and builds what is
// missing first. Further arguments go to `broadcast serve`: npm start -- --port 9001
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { prepare, root } from './prepare.js';

await prepare();

const args = process.argv.slice(2);
const given = flag => args.some(arg => arg === flag || arg.startsWith(`${flag}=`));
const placed = given('--data') || given('--memory') || process.env.BROADCAST_DATA_DIR;
const main = join(root, 'dist', 'cjs', 'cli', 'main.js');

// npm passes a signal on to the shell that it starts, and the shell dies of it without telling us: then we are told here.
if (process.env.npm_lifecycle_event === 'start') {
  const parent = process.ppid;
  const watch = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(watch);
    process.kill(process.pid, 'SIGTERM');
  }, 200);
  watch.unref();
}

// The command runs in this process, so that signals reach it as they come.
process.argv = [process.execPath, main, 'serve', ...(placed ? [] : ['--data', join(root, 'data')]), ...args];
createRequire(import.meta.url)(main);
