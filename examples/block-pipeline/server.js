// The server, durable: what waits survives its death.
import { join } from 'node:path';
import { BroadcastTcpServer } from '@alien-worlds/aw-broadcast';
import { folder, port } from './shared.js';

// A process that dies while the server is down cannot be seen to die: its messages wait this long for it, then go to
// the next process of its name.
const server = new BroadcastTcpServer({ port, dataDir: join(folder, 'server'), instanceGrace: 1000 });
await server.start();
process.send?.({ ready: true });
