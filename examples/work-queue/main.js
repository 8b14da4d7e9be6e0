// A work queue: three processes share the name `workers`, one of them is killed half-way, and every job is done.
// Run: node examples/work-queue/main.js
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { BroadcastMessage, BroadcastTcpClient, BroadcastTcpServer } from '@alien-worlds/aw-broadcast';

const JOBS = 1000;
const server = new BroadcastTcpServer({ port: Number(process.env.BROADCAST_PORT ?? 9000) });
await server.start();
const { port } = server.address;

const workers = [1, 2, 3].map(() =>
  spawn(process.execPath, [fileURLToPath(new URL('./worker.js', import.meta.url)), String(port)], { stdio: 'inherit' }),
);

const boss = new BroadcastTcpClient({ port }, 'boss');
// A worker that dies after its result left and before its job is acknowledged: the job is done again by another one,
// and the result comes twice. A map by job number takes it once.
const results = new Map();
let done;
const allDone = new Promise(resolve => (done = resolve));
boss.onMessage(({ data: result }) => {
  results.set(result.job, result);
  if (results.size === JOBS / 2) workers[0].kill('SIGKILL');
  if (results.size === JOBS) done();
});
await boss.connect();
for (let number = 1; number <= JOBS; number++) {
  boss.sendMessage(BroadcastMessage.createClientMessage('workers', { number }));
}
await allDone;

const wrong = [...results.values()].filter(({ job, square }) => square !== job ** 2);
console.log(`${results.size} of ${JOBS} jobs done, ${wrong.length} wrong, one of ${workers.length} workers killed`);

await boss.close();
for (const worker of workers) worker.kill();
await Promise.all(
  workers.filter(worker => worker.exitCode === null && worker.signalCode === null).map(worker => once(worker, 'exit')),
);
await server.stop();
