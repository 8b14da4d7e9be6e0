// A process that serves, and that can be told to kill itself in the middle of a file operation: a kill from outside hits
// the moments that matter too seldom. The kill is a SIGKILL, as any other.
const fs = require('node:fs/promises');
const { BroadcastTcpServer } = require('../../../dist/cjs/index.js');
const { diskEngine } = require('../../../dist/cjs/engine/index.js');
const { fileLogger, play, tell } = require('./common.cjs');

const options = JSON.parse(process.argv[2]);

/** The limits that a server with a data directory has. */
const DURABLE = { queueMessages: 10_000_000, queueBytes: 8 * 2 ** 30, storeBytes: 0 };

/** What it is waiting for: the n-th operation of a kind from now on. */
let trap = options.trap;

const die = () => process.kill(process.pid, 'SIGKILL');

/** Wraps a function that makes file operations of a kind. */
function guard(object, method, kindOf) {
  const original = object[method];
  object[method] = function (...args) {
    if (trap === undefined || trap.kind !== kindOf(args)) return original.apply(this, args);
    if (trap.passing-- > 0) return original.apply(this, args);
    const { moment } = trap;
    trap = undefined;
    if (moment === 'before') die();
    const result = original.apply(this, args);
    if (moment === 'during') die();
    return result.finally(die);
  };
}

async function guardFiles() {
  const file = await fs.open('/dev/null', 'r');
  const prototype = Object.getPrototypeOf(file);
  await file.close();
  guard(prototype, 'datasync', () => 'sync');
  guard(prototype, 'write', () => 'write');
  guard(prototype, 'sync', () => 'sync-directory');
  guard(prototype, 'truncate', () => 'truncate');
  guard(fs, 'unlink', () => 'unlink');
  guard(fs, 'rename', () => 'rename');
  guard(fs, 'open', ([, flags]) => (flags === 'wx+' ? 'create' : 'open'));
}

let server;

async function run() {
  await guardFiles();
  const { dataDir, segmentBytes, reserveBytes } = options;
  const disk = {
    directory: dataDir,
    ...(segmentBytes && { segmentBytes }),
    ...(reserveBytes !== undefined && { reserveBytes }),
  };
  const stored = dataDir === undefined ? {} : { engine: diskEngine(disk) };
  const limits = { ...(dataDir !== undefined && DURABLE), ...options.config?.limits };
  const logger = fileLogger(options.log);
  server = new BroadcastTcpServer({
    host: '127.0.0.1',
    port: options.port,
    logger,
    ...stored,
    ...options.config,
    limits,
  });
  server.on('engineError', error => tell({ type: 'engine-failed', text: error.message }));
  tell({ type: 'opening' });
  await server.start();
  tell({ type: 'listening' });
}

play(run, {
  trap: message => (trap = message.trap),
  stats: () => tell({ type: 'stats', stats: server.stats() }),
  async close() {
    await server.stop();
    process.exit();
  },
});
