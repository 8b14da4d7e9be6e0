// Power cuts at random points of random work on the disk engine: `node scripts/crash-points.js [first seed] [count]`.
// The same as the test of that name, with as many seeds as one likes; a failure names its seed.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const [first = '1', count = '20000'] = process.argv.slice(2);
const root = fileURLToPath(new URL('..', import.meta.url));
const { status } = spawnSync('npx', ['vitest', 'run', 'test/unit/engine/crash-points.test.ts'], {
  cwd: root,
  stdio: 'inherit',
  env: { ...process.env, BROADCAST_CRASH_SEEDS: `${first}:${count}` },
});
process.exitCode = status ?? 1;
