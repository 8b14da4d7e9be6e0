/** `broadcast serve`: a server in the foreground, durable unless told otherwise. */
import { createServer } from 'node:net';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { resolveServerConfig, type ServerConfig } from '../../config.js';
import { BroadcastError } from '../../errors.js';
import { BroadcastTcpServer } from '../../index.js';
import { version } from '../../version.js';
import { EXIT } from '../exit-codes.js';
import { addServerOptions, readOptions } from '../options.js';
import { CliError, cliLogger, info, style, type OutputOptions } from '../output.js';

export function addServe(program: Command): void {
  const command = program.command('serve').description('run a server; durable by default, Ctrl-C drains and stops it');
  addServerOptions(command);
  command
    .option('--memory', 'keep everything in memory: what waits is lost when the server ends')
    .option('--socket <path>', 'listen on a Unix socket instead of a port')
    .option('--json', 'the banner and errors as JSON')
    .action((options: Record<string, unknown>) => serve(options));
}

function defaultDirectory(name: string): string {
  const state = process.env['XDG_STATE_HOME'];
  const base = state !== undefined && state !== '' ? state : join(homedir(), '.local', 'state');
  return join(base, 'broadcast', name);
}

function configure(options: Record<string, unknown>): ServerConfig {
  const { clientName: _c, maxAttempts: _m, servers: _s, ...config } = readOptions(options);
  const socket = options['socket'] as string | undefined;
  if (socket !== undefined) {
    if (options['host'] !== undefined || options['port'] !== undefined)
      throw new CliError(EXIT.USAGE, 'invalid-option', '--socket and --host or --port cannot be given together');
    delete config.host;
    delete config.port;
    config.url = `unix:${resolve(socket)}`;
  }
  if (options['memory'] === true) {
    if (options['dataDir'] !== undefined)
      throw new CliError(EXIT.USAGE, 'invalid-option', '--memory and --data cannot be given together');
    delete config.dataDir;
  } else {
    config.dataDir ??= defaultDirectory(
      config.url === undefined ? String(config.port ?? 9000) : config.url.replace(/[^\w.-]+/g, '_'),
    );
  }
  return { ...config, logger: cliLogger };
}

async function serve(options: Record<string, unknown>): Promise<void> {
  const config = configure(options);
  resolveServerConfig(config);
  const server = new BroadcastTcpServer(config);
  try {
    await server.start();
  } catch (error) {
    throw await explain(error, config, options);
  }
  banner(server, config, options);
  await untilSignal(server);
}

/** A port or folder that is taken: the command with the next free one. */
async function explain(error: unknown, config: ServerConfig, options: Record<string, unknown>): Promise<unknown> {
  if (!(error instanceof BroadcastError) || (error.code !== 'address-in-use' && error.code !== 'store-locked'))
    return error;
  if (config.url !== undefined) return new CliError(EXIT.IN_USE, error.code, error.message);
  const port = await freePort((config.port ?? 9000) + 1);
  const data = options['dataDir'] === undefined ? '' : ` --data ${String(options['dataDir'])}-${String(port)}`;
  const memory = options['memory'] === true ? ' --memory' : '';
  return new CliError(
    EXIT.IN_USE,
    error.code,
    error.message,
    `Run a second one beside it with:  broadcast serve --port ${String(port)}${data}${memory}`,
  );
}

async function freePort(from: number): Promise<number> {
  for (let port = from; port < 65_535; port++) {
    const free = await new Promise<boolean>(done => {
      const probe = createServer();
      probe.once('error', () => done(false));
      probe.listen(port, '127.0.0.1', () => probe.close(() => done(true)));
    });
    if (free) return port;
  }
  return 0;
}

function banner(server: BroadcastTcpServer, config: ServerConfig, { json }: OutputOptions): void {
  const { address } = server;
  const where = address === null ? '' : 'path' in address ? address.path : `${address.host}:${String(address.port)}`;
  const { queued, backlog } = server.stats();
  const durable = config.dataDir !== undefined;
  if (json === true) {
    info(
      JSON.stringify({
        version,
        address,
        dataDir: config.dataDir ?? null,
        durability: durable ? 'fsync' : 'memory',
        waiting: queued + backlog,
      }),
    );
    return;
  }
  const reach =
    address !== null && 'path' in address
      ? ` --url unix:${address.path}`
      : address?.port === 9000
        ? ''
        : ` --port ${String(address?.port)}`;
  info(`${style('bold', `Broadcast ${version}`)} listens at ${style('cyan', where)}`);
  info(`  data       ${durable ? resolve(config.dataDir as string) : 'none: everything is in memory'}`);
  info(
    `  durability ${durable ? 'fsync: what is said to be stored survives crashes and power cuts' : 'memory: what waits is lost when the server ends'}`,
  );
  info(`  waiting    ${String(queued + backlog)} messages`);
  info(`Try in two other terminals:`);
  info(`  npx broadcast sub room_1${reach}`);
  info(`  npx broadcast pub room_1 "Hello world"${reach}`);
}

/** The first signal drains, the second one ends at once. */
function untilSignal(server: BroadcastTcpServer): Promise<void> {
  return new Promise((done, fail) => {
    let stopping = false;
    const stop = (signal: string): void => {
      if (stopping) process.exit(EXIT.FAILURE);
      stopping = true;
      info(`${signal}: draining and stopping; once more ends it at once`);
      server.stop().then(done, fail);
    };
    process.on('SIGINT', () => stop('SIGINT'));
    process.on('SIGTERM', () => stop('SIGTERM'));
    server.on('engineError', error => fail(error));
  });
}
