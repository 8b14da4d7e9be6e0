// Runs the pipeline, every role a process of its own, each started again when it dies.
//   node examples/block-pipeline/run.js                  200 ranges
//   node examples/block-pipeline/run.js --kill --seed 7  the same, and kills every process twice with kill -9
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { actionsOf, KINDS } from './shared.js';

const { values: options } = parseArgs({
  options: {
    kill: { type: 'boolean', default: false },
    seed: { type: 'string', default: '1' },
    ranges: { type: 'string', default: '200' },
  },
});

const SIZE = 100n;
const FIRST = 300_000_000_000_000_000n; // beyond what a number can count exactly
const COUNT = Number(options.ranges);
const KILLS_EACH = options.kill ? 2 : 0;

async function freePort() {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  await new Promise(resolve => probe.close(resolve));
  return port;
}

/** Numbers from 0 to 1 that a seed decides (mulberry32). */
function randomFrom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const folder = mkdtempSync(join(tmpdir(), 'block-pipeline-'));
const settings = {
  port: await freePort(),
  folder,
  from: String(FIRST),
  to: String(FIRST + SIZE * BigInt(COUNT)),
  size: String(SIZE),
};

const ROLES = {
  server: ['server.js'],
  coordinator: ['coordinator.js'],
  'reader 1': ['reader.js'],
  'reader 2': ['reader.js'],
  'reader 3': ['reader.js'],
  filter: ['filter.js'],
  ...Object.fromEntries(KINDS.map(kind => [`${kind} processor`, ['processor.js', kind]])),
  sink: ['sink.js'],
};

const running = new Map();
const killed = {};
let ending = false;
let finish;
const finished = new Promise(resolve => (finish = resolve));

function start(role) {
  const [file, ...rest] = ROLES[role];
  const path = fileURLToPath(new URL(file, import.meta.url));
  const child = spawn(process.execPath, [path, ...rest], {
    env: { ...process.env, PIPELINE: JSON.stringify(settings) },
    // The clients warn while the server is dead; here that is on purpose.
    stdio: ['ignore', 'inherit', options.kill ? 'ignore' : 'inherit', 'ipc'],
  });
  running.set(role, child);
  child.on('message', message => heard(message));
  child.once('exit', () => {
    running.delete(role);
    if (!ending) start(role);
  });
}

// Each kill is due at a number of results, so that it falls into the middle of the work.
const random = randomFrom(Number(options.seed));
const due = Object.keys(ROLES)
  .flatMap(role =>
    Array.from({ length: KILLS_EACH }, () => ({ role, at: Math.ceil(random() * COUNT * KINDS.length * 0.9) })),
  )
  .sort((a, b) => a.at - b.at);

function heard({ results, done, of }) {
  while (results !== undefined && due.length > 0 && due[0].at <= results) {
    const { role } = due.shift();
    if (running.get(role)?.kill('SIGKILL') === true) killed[role] = (killed[role] ?? 0) + 1;
  }
  if (done !== undefined && done === of) finish();
}

for (const role of Object.keys(ROLES)) start(role);
await finished;
ending = true;
const children = [...running.values()];
for (const child of children) child.kill('SIGKILL');
await Promise.all(children.map(child => once(child, 'exit')));

// Every result once, and right: computed again here from the blocks themselves.
const results = readFileSync(join(folder, 'results.log'), 'utf8').trimEnd().split('\n').sort();
const expected = [];
for (let start = FIRST; start < FIRST + SIZE * BigInt(COUNT); start += SIZE) {
  for (const kind of KINDS) {
    let [count, sum] = [0, 0n];
    for (let block = start; block < start + SIZE; block++) {
      for (const action of actionsOf(block)) if (action.kind === kind) [count, sum] = [count + 1, sum + action.amount];
    }
    expected.push(`${kind} ${start} ${start + SIZE} ${count} ${sum}`);
  }
}
const exact = JSON.stringify(results) === JSON.stringify(expected.sort());
rmSync(folder, { recursive: true, force: true });
console.log(JSON.stringify({ ranges: COUNT, results: results.length, exact, killed }));
process.exitCode = exact ? 0 : 1;
