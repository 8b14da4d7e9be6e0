// Roles of the crowd, in processes of their own, on the built package: a server that says how it is, and many clients.
const { createHistogram, monitorEventLoopDelay, performance } = require('node:perf_hooks');
const { BroadcastTcpServer, BroadcastTcpClient, BroadcastMessage } = require('../../dist/cjs/index.js');

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

// Clients with the names NAME-FROM and so on; each counts what it is sent, which must come as 1, 2, 3 …
async function clients() {
  const { port, name, from, count } = options;
  const ends = {};
  const note = text => (ends[text] = (ends[text] ?? 0) + 1); // few different ones
  const crowd = Array.from({ length: count }, (_, i) => {
    const member = { id: from + i, next: 1, duplicated: 0, disordered: 0, receipts: 0, refused: 0 };
    const config = { host: '127.0.0.1', port, logger: silent, pingInterval: 60_000, deadAfter: 120_000 };
    member.client = new BroadcastTcpClient(config, `${name}-${member.id}`);
    member.client.onMessage(({ data }) => {
      if (data < member.next) member.duplicated++;
      else if (data > member.next) member.disordered++;
      member.next = Math.max(member.next, data + 1);
    });
    member.client.on('offline', reason => note(`offline: ${reason?.code}: ${reason?.message}`));
    member.client.on('refused', error => note(`refused: ${error.code}: ${error.message}`));
    return member;
  });
  const sum = key => crowd.reduce((total, member) => total + member[key], 0);
  const online = () => crowd.filter(({ client }) => client.state === 'online').length;
  for (const { client } of crowd) client.connect().catch(() => undefined);
  return {
    ready: {},
    figures: () => ({
      online: online(),
      count,
      got: sum('next') - count,
      duplicated: sum('duplicated'),
      disordered: sum('disordered'),
      receipts: sum('receipts'),
      refused: sum('refused'),
      ends,
    }),
    // Each says something to the channel; what becomes of it is counted.
    send(data) {
      for (const member of crowd) {
        member.client
          .sendMessage(BroadcastMessage.createChannelMessage('home', [member.id, data]))
          .then(({ status }) => (status === 'undelivered' ? member.refused++ : member.receipts++))
          .catch(() => member.refused++);
      }
      return {};
    },
    async close() {
      await Promise.all(crowd.map(({ client }) => client.close()));
      return {};
    },
  };
}

const roles = { server, clients };

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
