// Roles that tests run in processes of their own, on the built package.
const { BroadcastTcpServer, BroadcastTcpClient } = require('../../dist/cjs/index.js');

const [, , role, json] = process.argv;
const options = JSON.parse(json);
const tell = message => process.send?.(message);

const roles = {
  async server() {
    const server = new BroadcastTcpServer({ host: '127.0.0.1', ...options });
    await server.start();
    tell({ type: 'listening', port: server.address.port });
  },
  // Handles a channel (or, without one, its own messages); dies on the message `poison`, and never ends on `hang`.
  async worker() {
    const { name, channel, die, hang, config, handler } = options;
    const client = new BroadcastTcpClient({ host: '127.0.0.1', reconnectInterval: 20, ...config }, name);
    const handle = async (message, info) => {
      tell({ type: 'got', data: message.data, attempt: info.attempt, redelivered: info.redelivered });
      if (message.data === die) process.kill(process.pid, 'SIGKILL');
      if (message.data === hang) await new Promise(() => undefined);
    };
    if (channel === undefined) client.onMessage(handle, handler);
    else client.onMessage(channel, handle, handler);
    await client.connect();
    tell({ type: 'connected' });
    setInterval(() => undefined, 1000);
  },
};

roles[role]().catch(error => {
  tell({ type: 'failed', code: error.code, message: error.message });
  process.exitCode = 1;
});
