// One of several workers: all have the name `workers`, so each job goes to one of them.
import { BroadcastMessage, BroadcastTcpClient } from '@alien-worlds/aw-broadcast';

const port = Number(process.argv[2]);
const worker = new BroadcastTcpClient({ port, reconnectInterval: 100 }, 'workers');

worker.onMessage(async ({ data: job }) => {
  const result = { job: job.number, square: job.number ** 2, by: process.pid };
  // The job is acknowledged when this handler ends, and so the result must be safe before that.
  await worker.sendMessage(BroadcastMessage.createClientMessage('boss', result));
});

await worker.connect();
