// Roles of the fault suites, in processes of their own on the built package. Each says what happens to it, and does what it is
// asked: `{ until: n }` is answered once so many messages came, `{ report: true }` at once with how it is.
const { writeSync, openSync } = require('node:fs');
const { setFlagsFromString } = require('node:v8');
const { runInNewContext } = require('node:vm');
const {
  BroadcastMessage,
  BroadcastReject,
  BroadcastTcpClient,
  BroadcastTcpServer,
} = require('../../dist/cjs/index.js');

const [, , role, json] = process.argv;
const options = JSON.parse(json);
const tell = message => process.connected && process.send(message);
const silent = () => undefined;
const logger = { debug: silent, info: silent, warn: silent, error: silent };
const say = (...parts) => tell({ type: 'log', text: parts.map(String).join(' ') });

function newClient({ config, name }) {
  const client = new BroadcastTcpClient({ reconnectInterval: 20, logger, ...config }, name);
  client.on('online', () => tell({ type: 'online', name }));
  client.on('offline', error => tell({ type: 'offline', name, code: error?.code }));
  client.on('refused', error => tell({ type: 'refused', name, code: error.code }));
  return client;
}

/** Memory that is in use, when everything has been collected that can be. */
function usedBytes() {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc');
  // What the first one has freed of the heap lets go of buffers outside of it.
  collect();
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** A clock on which so much more time passes, so that pauses and time-outs are short. */
function fastClock(factor) {
  const timer = (start, stop) => (callback, ms) => {
    const handle = start(callback, ms / factor);
    handle.unref();
    return { cancel: () => stop(handle) };
  };
  return {
    now: () => Date.now(),
    monotonic: () => performance.now() * factor,
    setTimeout: timer(setTimeout, clearTimeout),
    setInterval: timer(setInterval, clearInterval),
  };
}

/** What a handler does with a message that says so; those that are not here succeed. */
const BEHAVIORS = {
  throw: () => {
    throw new Error('no');
  },
  reject: () => {
    throw new BroadcastReject('never');
  },
  hang: () => new Promise(silent),
  exit: () => process.exit(3),
  kill: () => process.kill(process.pid, 'SIGKILL'),
  // It runs beside others for a while, and then takes them with it.
  killLater: () => new Promise(() => setTimeout(() => process.kill(process.pid, 'SIGKILL'), 20)),
  uncaught: () =>
    new Promise(() => {
      setTimeout(() => {
        throw new Error('nobody catches this, which is what is tried here');
      }, 20);
    }),
  async: () => new Promise(resolve => setTimeout(resolve, 1)),
};

const roles = {
  async server() {
    const server = new BroadcastTcpServer({
      host: '127.0.0.1',
      port: 0,
      logger: { ...logger, warn: say, error: say },
      ...options,
    });
    server.on('connect', ({ name }) => tell({ type: 'came', name }));
    server.on('disconnect', ({ name }, reason) => tell({ type: 'left', name, reason }));
    process.on('message', async ({ letters, report, memory }) => {
      if (memory) tell({ type: 'memory', bytes: usedBytes() });
      if (report) tell({ type: 'report', stats: server.stats() });
      if (letters !== undefined) {
        const list = await server.deadLetters(letters).list();
        const told = list.map(({ message, reason, attempts }) => ({ data: message.data, reason, attempts }));
        tell({ type: 'letters', list: told });
      }
    });
    await server.start();
    tell({ type: 'listening', port: server.address.port });
  },

  // Messages carry numbers that grow by one. What comes twice, or out of order, is noted.
  async receiver() {
    const { name, channel, work = 0 } = options;
    const client = newClient(options);
    const seen = { count: 0, last: 0, twice: [], unordered: [], redelivered: 0 };
    const known = new Set();
    let until = Infinity;
    const look = () => {
      if (seen.count < until) return;
      tell({ type: 'reached', name, count: until });
      until = Infinity;
    };
    const missing = () => {
      const found = [];
      for (let n = 1; n <= seen.last && found.length < 100; n++) if (!known.has(n)) found.push(n);
      return found;
    };
    const handle = async (message, info) => {
      const [n] = message.data;
      if (known.has(n)) seen.twice.push(n);
      else if (n < seen.last) seen.unordered.push(n);
      known.add(n);
      seen.last = Math.max(seen.last, n);
      seen.count++;
      if (info.redelivered) seen.redelivered++;
      look();
      if (work > 0) await new Promise(resolve => setTimeout(resolve, work));
    };
    client.onMessage(channel, handle);
    process.on('message', request => {
      if (request.until !== undefined) {
        until = request.until;
        look();
      }
      if (request.report) tell({ type: 'report', name, ...seen, missing: missing() });
    });
    await client.connect();
    tell({ type: 'connected', name });
  },

  // Does what each message says, and writes down when a handler begins and ends, so that its death hides nothing.
  async worker() {
    const { config, file, handler, factor } = options;
    const history = openSync(file, 'a');
    const client = newClient({ ...options, config: { ...config, clock: fastClock(factor) } });
    process.on('uncaughtException', () => process.exit(4));
    client.onMessage(async (message, info) => {
      const { n, does } = message.data;
      const note = what => {
        const { attempt, redelivered } = info;
        writeSync(history, `${JSON.stringify({ what, n, attempt, redelivered, pid: process.pid, t: Date.now() })}\n`);
      };
      note('begin');
      await BEHAVIORS[does]?.();
      note('end');
    }, handler);
    // The channel to the test keeps the process while the server is away: the client's timers do not.
    process.on('message', silent);
    await client.connect();
    tell({ type: 'connected' });
  },

  // Sends numbers, so many in a second, and says how it ended for each.
  async sender() {
    const { name, channel, bytes = 0 } = options;
    const client = newClient(options);
    const padding = 'x'.repeat(bytes);
    const settled = { ok: 0, failed: 0, statuses: {} };
    let next = 1;
    const receipts = [];
    const sendOne = () => {
      const receipt = client.sendMessage(BroadcastMessage.createChannelMessage(channel, [next++, padding])).then(
        ({ status }) => {
          settled.ok++;
          settled.statuses[status] = (settled.statuses[status] ?? 0) + 1;
        },
        () => settled.failed++,
      );
      receipts.push(receipt);
    };
    const send = async ({ count, rate }) => {
      const from = performance.now();
      for (let sent = 0; sent < count;) {
        const due = rate === undefined ? count : Math.min(count, Math.ceil(((performance.now() - from) * rate) / 1000));
        while (sent < due) {
          if (client.outbox.full) break;
          sendOne();
          sent++;
        }
        if (client.outbox.full) await client.ready();
        else if (sent < count) await new Promise(resolve => setTimeout(resolve, 5));
      }
      tell({ type: 'sent', upTo: next - 1, ms: performance.now() - from });
    };
    process.on('message', async request => {
      if (request.report) tell({ type: 'report', name, sent: next - 1, ...settled, outbox: client.outbox.messages });
      if (request.send !== undefined) await send(request.send);
      if (request.settle) {
        // That the server has everything does not say that its receipts are here.
        await Promise.all(receipts.splice(0));
        tell({ type: 'settled', name, ...settled });
      }
    });
    await client.connect();
    tell({ type: 'connected', name });
  },
};

roles[role]().catch(error => {
  tell({ type: 'failed', code: error.code, message: error.message });
  process.exitCode = 1;
});
