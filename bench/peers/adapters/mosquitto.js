// Mosquitto, without its bounds for what waits and what is on its way.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePort, startDaemon } from '../daemon.js';
import { connectMqtt } from './mqtt.js';

const SETTINGS = [
  'allow_anonymous true',
  'max_queued_messages 0',
  'max_inflight_messages 0',
  'set_tcp_nodelay true',
  'persistence false',
  'log_type error',
];

export async function serve({ folder }) {
  const port = await freePort();
  const file = join(folder, 'mosquitto.conf');
  // It becomes another user otherwise, who may not read its configuration.
  const user = process.getuid?.() === 0 ? ['user root'] : [];
  writeFileSync(file, [`listener ${port} 127.0.0.1`, ...user, ...SETTINGS, ''].join('\n'));
  return startDaemon('mosquitto', ['-c', file], { port });
}

export const connect = connectMqtt;
