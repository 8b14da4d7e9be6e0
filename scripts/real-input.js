// Real input, real processes, real kills: the machine's own package index goes through `broadcast pub` to three
// `broadcast sub`, two present and one away until the end, while the server is killed three times on the way. Each must
// end with exactly the input, in order. Needs apt or dpkg.
//
//   npm run real-input -- [--records N] [--kills N] [--seed N] [--keep] [--without-away]
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream, createWriteStream, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const CLI = fileURLToPath(new URL('../dist/cjs/cli/main.js', import.meta.url));
const CHANNEL = 'packages';
/** A subscriber that gets nothing for so long has lost something. */
const STALLED_AFTER = 60_000;
const FEWEST = 1000;

const { values } = parseArgs({
  options: {
    records: { type: 'string' },
    kills: { type: 'string', default: '3' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
    keep: { type: 'boolean', default: false },
    // Nobody is away: most messages are delivered without ever being stored, and sent again after a kill.
    'without-away': { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  console.log('npm run real-input -- [--records N] [--kills N] [--seed N] [--keep] [--without-away]');
  process.exit(0);
}
const seed = Number(values.seed);
const folder = mkdtempSync(join(tmpdir(), 'broadcast-real-input-'));
const say = text => console.log(text);

// ---- input ------------------------------------------------------------------------------------------------------------

function output(command, args) {
  try {
    return execFileSync(command, args, { encoding: 'utf8', maxBuffer: 2 ** 30, stdio: ['ignore', 'pipe', 'ignore'] });
  } catch {
    return '';
  }
}

/** The paragraphs of a package index as objects, with all fields. */
function parse(text) {
  return text
    .split(/\n\n+/)
    .filter(paragraph => paragraph.trim() !== '')
    .map(paragraph => {
      const record = {};
      let field;
      for (const line of paragraph.split('\n')) {
        const match = /^([^\s:]+):\s?(.*)$/.exec(line);
        if (match === null) record[field] += `\n${line}`;
        else record[(field = match[1])] = match[2];
      }
      return record;
    });
}

function records() {
  const sources = [
    () => output('apt-cache', ['dumpavail']),
    () => output('apt-get', ['update', '-qq']) + output('apt-cache', ['dumpavail']),
    () => output('dpkg-query', ['--status']),
  ];
  for (const source of sources) {
    const found = parse(source());
    if (found.length >= FEWEST || (source === sources.at(-1) && found.length > 0)) return found;
  }
  throw new Error('there is no package index on this machine: neither apt-cache nor dpkg-query gives one');
}

// ---- chance -----------------------------------------------------------------------------------------------------------

/** Numbers from 0 to 1 that follow from the seed (mulberry32). */
function generator(state) {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

// ---- processes --------------------------------------------------------------------------------------------------------

const children = new Set();
const env = { ...process.env, BROADCAST_RECONNECT_INTERVAL: '50' };

function run(args, stdio) {
  const child = spawn(process.execPath, [CLI, ...args], { stdio, env });
  children.add(child);
  child.once('exit', () => children.delete(child));
  return child;
}

/** Fulfilled with the first line on standard error that is JSON and has the key. */
function said(child, key) {
  return new Promise((resolve, reject) => {
    let text = '';
    child.stderr.setEncoding('utf8').on('data', chunk => {
      text += chunk;
      for (const line of text.split('\n').slice(0, -1)) {
        const answer = line.startsWith('{') ? JSON.parse(line) : {};
        if (key in answer) resolve(answer);
      }
    });
    child.once('exit', code => reject(new Error(`${child.spawnargs.slice(2).join(' ')} ended with ${code}: ${text}`)));
  });
}

async function ended(child) {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  return child.exitCode ?? child.signalCode;
}

let port = 0;

async function startServer() {
  const args = ['serve', '--host', '127.0.0.1', '--port', String(port), '--data', join(folder, 'data'), '--json'];
  const child = run(args, ['ignore', 'ignore', 'pipe']);
  const { address } = await said(child, 'address');
  port = address.port;
  return child;
}

const reach = () => ['--host', '127.0.0.1', '--port', String(port), '--json'];

/** A subscriber whose output is counted, summed and kept. */
class Subscriber {
  lines = 0;
  #hash = createHash('sha256');
  #watchers = [];
  #lastLine = performance.now();

  constructor(name, more = []) {
    this.name = name;
    this.file = join(folder, `${name}.ndjson`);
    this.child = run(['sub', CHANNEL, '--as', name, ...more, ...reach()], ['ignore', 'pipe', 'pipe']);
    this.subscribed = said(this.child, 'subscribed');
    const copy = createWriteStream(this.file, { flags: 'a' });
    this.child.stdout.pipe(copy);
    this.child.stdout.on('data', chunk => {
      this.#hash.update(chunk);
      for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, at + 1)) this.lines++;
      this.#lastLine = performance.now();
      this.#watchers = this.#watchers.filter(watcher => !watcher());
    });
    this.finished = Promise.all([once(copy, 'finish'), ended(this.child)]).then(([, code]) => code);
  }

  /** Fulfilled when so many lines have come. */
  reached(count) {
    return new Promise((resolve, reject) => {
      const watcher = () => {
        if (this.lines < count) return false;
        clearInterval(timer);
        resolve();
        return true;
      };
      const timer = setInterval(() => {
        if (performance.now() - this.#lastLine > STALLED_AFTER)
          reject(new Error(`${this.name} has ${this.lines} of ${count} and gets nothing more`));
      }, 1000);
      if (!watcher()) this.#watchers.push(watcher);
    });
  }

  async stop() {
    this.child.kill('SIGINT');
    return this.finished;
  }

  get sum() {
    return this.#hash.digest('hex');
  }
}

// ---- the run ----------------------------------------------------------------------------------------------------------

function check(condition, text) {
  if (!condition) throw new Error(text);
}

/** Where a subscriber's file leaves the input. */
function difference(expected, file) {
  const got = readFileSync(file, 'utf8').split('\n');
  const index = expected.findIndex((line, i) => line !== got[i]);
  const at = index < 0 ? expected.length : index;
  const nameOf = line => (line === undefined || line === '' ? 'nothing' : `#${expected.indexOf(line) + 1}`);
  return `line ${at + 1} is ${nameOf(got[at])}, followed by ${nameOf(got[at + 1])}, instead of #${at + 1}; ${got.length - 1} of ${expected.length} lines`;
}

async function whoWasAway(total) {
  const away = new Subscriber('away', ['--count', String(total)]);
  await away.reached(total);
  check((await away.finished) === 0, 'the subscriber that was away did not end well');
  return away;
}

async function main() {
  const all = records();
  const lines = all
    .slice(0, values.records === undefined ? all.length : Number(values.records))
    .map(r => JSON.stringify(r));
  const total = lines.length;
  const input = join(folder, 'input.ndjson');
  const bytes = Buffer.from(lines.map(line => `${line}\n`).join(''));
  writeFileSync(input, bytes);
  const expected = createHash('sha256').update(bytes).digest('hex');
  say(`seed ${seed}: ${total} records, ${bytes.length} bytes, sha256 ${expected}`);

  let server = await startServer();
  if (!values['without-away']) {
    const later = new Subscriber('away');
    await later.subscribed;
    check((await later.stop()) === 0, 'the subscriber that goes away did not end well');
  }
  const present = [new Subscriber('present-1'), new Subscriber('present-2')];
  for (const subscriber of present) await subscriber.subscribed;

  const started = performance.now();
  const publisher = run(['pub', CHANNEL, ...reach()], ['pipe', 'ignore', 'pipe']);
  const closing = said(publisher, 'sent');
  publisher.stdin.on('error', () => undefined); // its end is noticed, and says why
  createReadStream(input).pipe(publisher.stdin);
  const chance = generator(seed);
  const kills = Array.from({ length: Number(values.kills) }, () => Math.floor((0.02 + 0.93 * chance()) * total));
  for (const [i, count] of kills.sort((a, b) => a - b).entries()) {
    const watched = present[i % 2];
    await watched.reached(count);
    server.kill('SIGKILL');
    await ended(server);
    say(`killed when ${watched.name} had ${watched.lines}${publisher.exitCode === null ? '' : ' and all was sent'}`);
    server = await startServer();
  }
  const counts = await closing;
  check((await ended(publisher)) === 0, `pub ended with ${publisher.exitCode}: ${JSON.stringify(counts)}`);
  check(counts.sent === total && counts.failed === 0, `pub says ${JSON.stringify(counts)}`);
  for (const subscriber of present) await subscriber.reached(total);
  say(`sent: ${counts.delivered} delivered, ${counts.stored} stored; ${Math.round(performance.now() - started)} ms`);

  const subscribers = values['without-away'] ? present : [...present, await whoWasAway(total)];
  const sessions = JSON.parse(execFileSync(process.execPath, [CLI, 'sessions', ...reach()], { encoding: 'utf8', env }));
  for (const subscriber of present) check((await subscriber.stop()) === 0, `${subscriber.name} did not end well`);
  const wrong = subscribers.filter(subscriber => subscriber.sum !== expected);
  check(wrong.length === 0, wrong.map(({ name, file }) => `${name}: ${difference(lines, file)}`).join('\n'));
  const waiting = sessions.filter(session => session.queued > 0).map(({ name, queued }) => `${name} ${queued}`);
  check(waiting.length === 0, `all was handled, and still waits: ${waiting.join(', ')}`);
  say(`${subscribers.map(({ name }) => name).join(', ')}: exactly the input, in order`);
  server.kill('SIGTERM');
  check((await ended(server)) === 0, 'the server did not stop well');
}

process.once('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

main().then(
  () => {
    if (!values.keep) rmSync(folder, { recursive: true, force: true });
  },
  error => {
    console.error(`${error.stack}\nseed ${seed}; everything is kept in ${folder}`);
    process.exit(1);
  },
);
