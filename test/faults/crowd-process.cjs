// Roles of the crowd, in processes of their own, on the built package: a server that says how it is, and many clients.
const { join } = require('node:path');
const { createHistogram, monitorEventLoopDelay, performance } = require('node:perf_hooks');
const { BroadcastTcpServer, BroadcastTcpClient, BroadcastMessage } = require('../../dist/cjs/index.js');
const { ClosedHistory, checksum, now } = require('./oracle/common.cjs');

const [, , role, json] = process.argv;
const options = JSON.parse(json);
const tell = message => process.send?.(message);
const silent = { debug() {}, info() {}, warn() {}, error() {} };

// What this process itself has done between two turns of a timer, in microseconds: on a machine that does something else
// too, a delay alone does not say who has caused it.
function watchWork() {
  const work = createHistogram();
  let [cpu, at] = [process.cpuUsage(), performance.now()];
  setInterval(() => {
    const [{ user, system }, now] = [process.cpuUsage(cpu), performance.now()];
    work.record(Math.max(1, Math.round(Math.min(user + system, (now - at) * 1000))));
    [cpu, at] = [process.cpuUsage(), now];
  }, 5);
  return work;
}

async function server() {
  const work = watchWork();
  const delays = monitorEventLoopDelay({ resolution: 5 });
  delays.enable();
  const server = new BroadcastTcpServer({ host: '127.0.0.1', ...options });
  await server.start();
  let loop = performance.eventLoopUtilization();
  return {
    ready: { port: server.address.port },
    // From here on the loop is watched anew.
    watch() {
      delays.reset();
      work.reset();
      loop = performance.eventLoopUtilization();
      return {};
    },
    collect() {
      globalThis.gc();
      return {};
    },
    figures() {
      const { user, system } = process.cpuUsage();
      return {
        clients: server.stats().clients,
        rss: process.memoryUsage().rss,
        heap: process.memoryUsage().heapUsed,
        cpuMs: (user + system) / 1000,
        utilization: performance.eventLoopUtilization(loop).utilization,
        delayP99: delays.percentile(99) / 1e6,
        delayMax: delays.max / 1e6,
        workP99: work.percentile(99) / 1e3,
        workMax: work.max / 1e3,
      };
    },
  };
}

// Crowds that are only to be there say little; those that the oracle judges have the heartbeat that everybody has.
const PATIENT = { pingInterval: 60_000, deadAfter: 120_000 };

// A client that notes for the oracle what it sends and is told, and what it handles: a history of each.
class Member {
  got = 0;
  receipts = 0;
  #sent = 0;
  #waiting;

  constructor(port, name, beat) {
    const config = { host: '127.0.0.1', port, logger: silent, ...beat };
    this.name = name;
    this.client = new BroadcastTcpClient(config, name);
  }

  /** Before it connects. `channel` is undefined for what is sent to its name. */
  note(histories, channel) {
    const [receiver, sender] = [`${this.name}.1`, `${this.name}-sender.1`];
    this.received = new ClosedHistory(join(histories, `${receiver}.jsonl`));
    this.outgoing = new ClosedHistory(join(histories, `${sender}.jsonl`));
    this.sender = sender;
    this.received.write({ k: 'receiver', name: this.name, process: receiver, t: now() });
    this.outgoing.write({ k: 'sender', name: this.name, process: sender, t: now() });
    this.client.onDeliveryFailure(failure => this.outgoing.write({ k: 'notice', ...failure, t: now() }));
    const handle = (message, info) => this.#handle(message, info);
    if (channel === undefined) this.client.onMessage(handle);
    else this.client.onMessage(channel, handle);
  }

  #handle({ data: { key, text } }, { channel, attempt, redelivered }) {
    const about = { key, sub: channel ?? '' };
    const got = { k: 'got', ...about, attempt, redelivered, crc: checksum(text), t: now() };
    this.received.write(got, { k: 'done', ...about, t: now() });
    if (++this.got === this.#waiting?.count) this.#waiting.resolve();
  }

  /** Fulfilled when so many messages have come. */
  async reached(count) {
    if (this.got < count) await new Promise(resolve => (this.#waiting = { count, resolve }));
    return {};
  }

  /** `to` is the recipient, as the oracle calls it; `make` makes the message with a body. */
  send(to, text, make) {
    const n = ++this.#sent;
    const message = make({ key: `${this.sender}:${n}`, text });
    const about = { id: message.id, to: [to], persistent: true, until: 'safe', crc: checksum(text) };
    this.outgoing.write({ k: 'intent', n, ...about, t: now() });
    this.client.sendMessage(message).then(
      ({ status, durability, failures }) => {
        this.receipts++;
        this.outgoing.write({ k: 'receipt', n, status, durability, failures, t: now() });
      },
      ({ code }) => this.outgoing.write({ k: 'refused', n, code, t: now() }),
    );
  }

  async close() {
    await this.client.close();
    this.received?.write({ k: 'closed', t: now() });
    this.outgoing?.write({ k: 'closed', t: now() });
  }
}

// Clients with the names NAME-FROM and so on; with a folder for histories they are judged by them.
async function clients() {
  const { port, name, from, count, histories } = options;
  const ends = {};
  const note = text => (ends[text] = (ends[text] ?? 0) + 1); // few different ones
  const crowd = Array.from({ length: count }, (_, i) => {
    const member = new Member(port, `${name}-${from + i}`, histories === undefined ? PATIENT : {});
    if (histories !== undefined) member.note(histories);
    member.client.on('offline', reason => note(`offline: ${reason?.code}: ${reason?.message}`));
    member.client.on('refused', error => note(`refused: ${error.code}: ${error.message}`));
    return member;
  });
  const sum = key => crowd.reduce((total, member) => total + member[key], 0);
  const online = () => crowd.filter(({ client }) => client.state === 'online').length;
  for (const { client } of crowd) client.connect().catch(() => undefined);
  return {
    ready: {},
    figures: () => ({ online: online(), count, got: sum('got'), receipts: sum('receipts'), ends }),
    // Each says something to the channel.
    send(text) {
      for (const member of crowd)
        member.send('home/home', text, body => BroadcastMessage.createChannelMessage('home', body));
      return {};
    },
    async close() {
      await Promise.all(crowd.map(member => member.close()));
      return {};
    },
  };
}

// The one that the others speak to, and that speaks to each of them.
async function home() {
  const { port, histories, crowd } = options;
  const member = new Member(port, 'home');
  member.note(histories, 'home');
  await member.client.connect();
  return {
    ready: {},
    figures: () => {
      const { client, got, receipts } = member;
      return { online: Number(client.state === 'online'), count: crowd, got, receipts, ends: {} };
    },
    send(text) {
      for (let i = 0; i < crowd; i++)
        member.send(`member-${i}/`, text, body => BroadcastMessage.createClientMessage(`member-${i}`, body));
      return {};
    },
    reached: count => member.reached(count),
    async close() {
      await member.close();
      return {};
    },
  };
}

const roles = { server, clients, home };

roles[role]().then(
  ({ ready, ...commands }) => {
    process.on('message', async ({ number, command, argument }) =>
      tell({ number, answer: await commands[command](argument) }),
    );
    tell({ number: 0, answer: ready });
  },
  error => {
    tell({ number: 0, failed: `${error.code}: ${error.message}` });
    process.exitCode = 1;
  },
);
