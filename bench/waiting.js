// npm run bench:waiting: what a million waiting messages occupy, and how soon the first of them comes after a crash of the
// server. docs/performance.md says how to read it.
import { join, resolve } from 'node:path';
import { command, ENTRY, keep, prepare, RESULTS, say } from './command.js';
import { diskOf, mebibytes, restingDiskOf } from './occupied.js';
import { number, parse } from './options.js';
import { short, table, whole } from './report.js';
import { now } from './role-channel.js';
import { OWN } from './scenarios.js';
import { runOnce } from './work.js';

const SIZE = 128;
const RECIPIENT = 'recipient';
/** The recipient tries again so often, in milliseconds, that it adds little to what is measured. */
const RETRY = 20;
/** A look at the server after so many messages. */
const STEP = 100_000;
/** What is asked for: milliseconds from the start of the server's process to the first delivery. */
const GOAL = 2000;

const HELP = `Usage: npm run bench:waiting -- [options]

  --messages N   so many wait (1000000; with --single 200000)
  --single       each message is a batch of its own, one in a turn of the event loop
  --dir PATH     where the server keeps its data (bench/results, on this disk)
  --json         the results as JSON on standard output
  --smoke        few messages: counts and order only
`;

function readOptions(argv) {
  const options = {
    messages: { type: 'string' },
    single: { type: 'boolean', default: false },
    dir: { type: 'string' },
  };
  const values = parse(argv, options, HELP);
  if (values === undefined) return undefined;
  const usual = values.smoke ? 4000 : values.single ? 200_000 : 1_000_000;
  const messages = values.messages === undefined ? usual : number(values.messages, 'messages', 1);
  return { ...values, messages, step: Math.min(STEP, Math.ceil(messages / 2)), dir: resolve(values.dir ?? RESULTS) };
}

/** Stores messages for who is away, and looks at the server after each step. */
async function store(run, server, port, dataDir) {
  const { messages, step, single } = run.settings;
  const sender = run.role(OWN, 'sender');
  await sender.ask('start', { port, name: 'publisher' });
  const told = { target: RECIPIENT, size: SIZE, persistent: true, keep: true, ...(single && { burst: 1 }) };
  const look = async (waiting, rate) => ({ waiting, rate, ...(await server.ask('memory')), disk: diskOf(dataDir) });
  const steps = [await look(0)];
  for (let stored = 0; stored < messages;) {
    const amount = Math.min(step, messages - stored);
    const { began, sent } = await sender.ask('publish', { ...told, messages: amount });
    const { at } = await sender.ask('settled');
    stored = sent;
    steps.push(await look(stored, (amount / (at - began)) * 1000));
    say(`${whole(stored)} of ${whole(messages)} wait`);
  }
  await sender.ask('check', { status: 'stored', durability: 'fsync' });
  await sender.stop();
  return steps;
}

/** Starts a server in the place and on the folder of one that was killed; tells how long it took until it listened. */
async function startAgain(run, killed, place) {
  const began = now();
  const server = run.again(killed, OWN, 'store');
  const { at } = await server.ask('start', place);
  return { server, began, listening: at - began };
}

async function waiting(run) {
  const { messages } = run.settings;
  const dataDir = join(run.folder(), 'data');
  const first = run.role(OWN, 'store');
  const { port } = await first.ask('start', { dataDir });
  const steps = await store(run, first, port, dataDir);

  // Once without the recipient, to see what a server needs that has only read its log.
  const place = { dataDir, port };
  await first.crash();
  const { server: second, listening } = await startAgain(run, first, place);
  const started = { listening, ...(await second.ask('memory')), disk: diskOf(dataDir) };

  const receiver = run.role(OWN, 'receiver');
  const told = { port, size: SIZE, name: RECIPIENT, own: true, late: true, retry: RETRY };
  await receiver.ask('start', told);
  await second.crash();
  const [, { at, marks }, last] = await Promise.all([
    receiver.ask('come'),
    receiver.ask('reach', { count: messages, marks: [1] }),
    startAgain(run, second, place),
  ]);
  const disk = await restingDiskOf(dataDir);
  // Nothing came again meanwhile.
  await receiver.ask('reach', { count: messages });
  const { queued } = await last.server.ask('stats');
  if (queued > 0) throw new Error(`${queued} messages wait still`);
  const [delivered] = marks;
  return {
    steps,
    started,
    served: {
      listening: last.listening,
      delivered: delivered - last.began,
      rate: (messages / (at - delivered)) * 1000,
    },
    drained: { ...(await last.server.ask('memory')), disk },
  };
}

function print({ steps, started, served, drained }) {
  const occupied = ({ rss, heap, external, disk }) => [rss, heap, external, disk].map(mebibytes);
  const rows = steps.map(({ waiting, rate, ...seen }) => [
    whole(waiting),
    rate === undefined ? '' : short(rate),
    ...occupied(seen),
  ]);
  rows.push(['killed and started', '', ...occupied(started)], ['drained', short(served.rate), ...occupied(drained)]);
  console.log(table(['waiting', 'messages/s', "server's RSS", 'heap', 'external', 'disk'], rows));
  const milliseconds = n => `${n.toFixed(0)} ms`;
  console.log(
    `\nFrom the start of the process until it listens: ${milliseconds(started.listening)} without the recipient,` +
      ` ${milliseconds(served.listening)} with it.` +
      `\nUntil the first delivery: ${milliseconds(served.delivered)}` +
      ` (asked for: at most ${milliseconds(GOAL)}${served.delivered > GOAL ? '; it took longer' : ''}).`,
  );
}

async function main(argv) {
  const options = readOptions(argv);
  if (options === undefined) return;
  const machine = prepare(options);
  const { messages, single, step, dir, smoke, json } = options;
  const timeout = 60_000 + messages;
  const results = await runOnce(waiting, SIZE, { key: 'waiting', entry: ENTRY, timeout, messages, single, step, dir });
  if (smoke) {
    console.log(`${messages} messages waited: every one came once, in order.`);
    return;
  }
  const report = { machine, settings: { messages, single, size: SIZE }, ...results };
  await keep('waiting-', report);
  if (json) console.log(JSON.stringify(report, undefined, 2));
  else print(results);
}

await command('bench:waiting', main);
