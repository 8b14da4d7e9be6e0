// A server on the built package whose store the fault suites harm from outside, with the store's own options, which
// the role `server` of test/helpers/process.cjs has not. What happens in it is told to the parent; `stop` ends it.
const { BroadcastTcpServer } = require('../../dist/cjs/index.js');
const { diskEngine } = require('../../dist/cjs/engine/index.js');

const { store, ...options } = JSON.parse(process.argv[2]);
const tell = message => process.connected && process.send(message);

// What is said on the way down must be on its way before the end.
const end = (message, code) => process.send(message, () => process.exit(code));

const text = parts => parts.map(part => (part instanceof Error ? part.message : String(part))).join(' ');
const log =
  level =>
  (...parts) =>
    tell({ type: 'log', level, text: text(parts) });

async function main() {
  const logger = { debug: () => undefined, info: () => undefined, warn: log('warn'), error: log('error') };
  const server = new BroadcastTcpServer({
    host: '127.0.0.1',
    logger,
    ...(store !== undefined && { engine: diskEngine(store) }),
    ...options,
  });
  server.on('engineError', error => tell({ type: 'engineError', code: error.code, message: error.message }));
  process.on('message', message => {
    if (message === 'stop') void server.stop().then(() => end({ type: 'stopped' }, 0));
    if (message === 'look') {
      const alive = { type: 'alive', clock: Date.now(), address: server.address, stats: server.stats() };
      tell(alive);
    }
  });
  await server.start();
  tell({ type: 'listening', port: server.address.port });
}

tell({ type: 'begun', pid: process.pid });
// A tool that was killed leaves what it ran behind; without a parent there is nothing to do here.
process.on('disconnect', () => process.exit(1));

main().catch(error => end({ type: 'failed', code: error.code, message: error.message }, 1));
