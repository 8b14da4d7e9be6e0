// A process that sends: it notes what it means to send before it does, and what it is told afterwards. Whom a message is
// for it knows from the cast of the scenario; it never asks the server.
const { BroadcastMessage, BroadcastTcpClient } = require('../../../dist/cjs/index.js');
const { History, checksum, fileLogger, now, play, seeded, tell } = require('./common.cjs');

const options = JSON.parse(process.argv[2]);
const { name, id, port, cast, load } = options;
const history = new History(options.history);
const random = seeded(options.seed);
const client = new BroadcastTcpClient(
  { host: '127.0.0.1', port, reconnectInterval: 20, logger: fileLogger(`${options.history}.log`), ...options.config },
  name,
);
const CHANNELS = [...new Set(cast.flatMap(({ channels }) => channels))].sort();
const NAMES = cast.filter(({ own }) => own).map(one => one.name);
/** Receipts that are waited for; those that come only when a recipient is back do not count as a load. */
const waiting = new Set();
let open = 0;
let sent = 0;
let isStopping = false;

const one = all => all[Math.floor(random() * all.length)];
const some = all => [...new Set([one(all), ...all.filter(() => random() < 0.4)])];
const subscribers = channels =>
  channels.flatMap(channel => cast.filter(one => one.channels.includes(channel)).map(one => `${one.name}/${channel}`));

/** A message and everyone who is to get it, as `name/subscription`; with its time to live, if it has one. */
function make(data) {
  const luck = random();
  if (luck < load.expiring) {
    const target = one(cast.filter(({ isAway }) => isAway).map(one => one.name));
    const ttl = 1 + Math.floor(random() * 100);
    return { to: [`${target}/`], ttl, message: BroadcastMessage.createClientMessage(target, data, { ttl }) };
  }
  const settings = { persistent: luck > load.expiring + load.transient, ...(luck > 0.95 && { ttl: 3_600_000 }) };
  return { ttl: settings.ttl, ...address(data, settings) };
}

function address(data, settings) {
  const kind = random();
  if (kind < 0.4) {
    const channel = one(CHANNELS);
    return { to: subscribers([channel]), message: BroadcastMessage.createChannelMessage(channel, data, settings) };
  }
  if (kind < 0.65) {
    const target = one(NAMES);
    return { to: [`${target}/`], message: BroadcastMessage.createClientMessage(target, data, settings) };
  }
  if (kind < 0.8) {
    const channels = some(CHANNELS);
    return { to: subscribers(channels), message: BroadcastMessage.createMultiChannelMessage(channels, data, settings) };
  }
  if (kind < 0.9) {
    const names = some(NAMES);
    const message = BroadcastMessage.createGroupMessage(names, data, settings);
    return { to: names.map(target => `${target}/`), message };
  }
  const [target, channel] = [one(NAMES), one(CHANNELS)];
  const message = BroadcastMessage.create(target, channel, data, settings);
  return { to: [`${target}/`, ...subscribers([channel])], message };
}

function body() {
  const length = random() < 0.02 ? random() * load.largeBody : random() * load.body;
  return `${random()}`.repeat(Math.ceil(length / 18)).slice(0, length);
}

function burst() {
  const outgoing = [];
  for (let left = 1 + Math.floor(random() * load.burst); left > 0; left--) {
    const n = ++sent;
    const text = body();
    const { message, to, ttl } = make({ key: `${id}:${n}`, text });
    const until = message.persistent && random() < load.followed ? 'delivered' : 'safe';
    outgoing.push({ n, id: message.id, to, persistent: message.persistent, until, ttl, crc: checksum(text), message });
  }
  const t = now();
  history.write(...outgoing.map(({ message: _, ...intent }) => ({ k: 'intent', ...intent, t })));
  for (const { n, until, message } of outgoing) send(n, message, until);
}

function send(n, message, until) {
  if (until === 'safe') open++;
  const receipt = client.sendMessage(message, { until }).then(
    ({ status, durability, failures }) => history.write({ k: 'receipt', n, status, durability, failures, t: now() }),
    ({ code, retryable }) => history.write({ k: 'refused', n, code, retryable, t: now() }),
  );
  waiting.add(receipt);
  void receipt.then(() => {
    waiting.delete(receipt);
    if (until === 'safe') open--;
  });
}

async function run() {
  history.write({ k: 'sender', name, process: id, t: now() });
  client.onDeliveryFailure(failure => history.write({ k: 'notice', ...failure, t: now() }));
  client.connect().then(
    () => tell({ type: 'online' }),
    error => tell({ type: 'failed', code: error.code, text: error.message }),
  );
  while (!isStopping) {
    if (open < load.window) burst();
    await new Promise(resolve => setTimeout(resolve, random() * 2 * load.pause));
  }
}

play(run, {
  // Sends nothing further, and waits for every receipt.
  async stop() {
    isStopping = true;
    while (waiting.size > 0) await Promise.all(waiting);
    tell({ type: 'settled' });
  },
  async close() {
    await client.flush();
    await client.close();
    history.write({ k: 'closed', t: now() });
    process.exit();
  },
});
