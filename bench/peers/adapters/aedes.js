// Aedes, in a process of its own.
import { once } from 'node:events';
import { createServer } from 'node:net';
import { Aedes } from 'aedes';
import { connectMqtt } from './mqtt.js';

export async function serve() {
  const broker = await Aedes.createBroker();
  const server = createServer({ noDelay: true }, broker.handle);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: server.address().port,
    stop() {
      server.close();
      broker.close();
    },
  };
}

export const connect = connectMqtt;
