// A process that receives: it notes each message when its handler starts, and when it ends. It keeps nothing else, so that
// what it knows is what its history says.
const { setImmediate: turn } = require('node:timers/promises');
const { BroadcastTcpClient } = require('../../../dist/cjs/index.js');
const { History, checksum, fileLogger, now, play, seeded, tell } = require('./common.cjs');

/** The parent is told of the progress each time so many have been handled. */
const STEP = 25;

const options = JSON.parse(process.argv[2]);
const { name, id, port, channels, own, failing } = options;
const history = new History(options.history);
const random = seeded(options.seed);
const client = new BroadcastTcpClient(
  {
    host: '127.0.0.1',
    port,
    reconnectInterval: 20,
    logger: fileLogger(`${options.history}.log`),
    maxAttempts: 1000,
    ...options.config,
  },
  name,
);
let handled = 0;

async function handle({ data }, { channel, attempt, redelivered }) {
  const { key, text } = Object(data);
  const about = { key: String(key), sub: channel ?? '' };
  history.write({ k: 'got', ...about, attempt, redelivered, crc: checksum(text), t: now() });
  for (let turns = Math.floor(random() * 3); turns > 0; turns--) await turn();
  if (attempt === 1 && random() < failing) {
    history.write({ k: 'threw', ...about, t: now() });
    throw new Error('once');
  }
  history.write({ k: 'done', ...about, t: now() });
  if (++handled % STEP === 0) tell({ type: 'handled', count: STEP });
}

async function run() {
  history.write({ k: 'receiver', name, process: id, t: now() });
  for (const channel of channels) client.onMessage(channel, handle, options.handlers[channel] ?? {});
  if (own) client.onMessage(handle);
  await client.connect();
  history.write({ k: 'online', t: now() });
  tell({ type: 'online' });
}

play(run, {
  async close() {
    await client.close();
    history.write({ k: 'closed', t: now() });
    process.exit();
  },
});
