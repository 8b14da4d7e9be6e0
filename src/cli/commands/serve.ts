/** `broadcast serve`: a server in the foreground, durable unless told otherwise. */
import { createServer } from 'node:net';
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import type { ServerConfig } from '../../config.js';
import { BroadcastError } from '../../errors.js';
import { BroadcastTcpServer, type Logger } from '../../index.js';
import { version } from '../../version.js';
import { EXIT } from '../exit-codes.js';
import { invocation, quote } from '../invocation.js';
import { addDataOption, addServerOptions, readOptions, type Given } from '../options.js';
import { CliError, cliLogger, info, plural, printable, style, usage } from '../output.js';

export function addServe(program: Command): void {
  const command = program.command('serve').description('run a server; durable by default, Ctrl-C drains and stops it');
  addDataOption(command);
  command
    .option('--memory', 'keep everything in memory: what waits is lost when the server ends')
    .option('--json', 'the banner, warnings and errors as JSON')
    .addHelpText(
      'after',
      `
Examples:
  $ broadcast serve
  $ broadcast serve --port 9100 --data ./data
  $ broadcast serve --socket /run/app/broadcast.sock --memory`,
    )
    .action((options: Given) => serve(options));
  addServerOptions(command);
}

function defaultDirectory(name: string): string {
  const state = process.env['XDG_STATE_HOME'];
  const base = state !== undefined && state !== '' ? state : join(homedir(), '.local', 'state');
  return join(base, 'broadcast', name);
}

function configure(options: Given): ServerConfig {
  const { clientName: _c, maxAttempts: _m, servers: _s, ...config } = readOptions(options);
  if (options['memory'] === true) {
    if (options['dataDir'] !== undefined)
      throw usage('invalid-option', '--memory and --data cannot be given together; choose one');
    delete config.dataDir;
  } else {
    const name = config.url?.replace(/^(?:unix|tcp):\/*/, '') ?? String(config.port ?? 9000);
    config.dataDir = resolve(config.dataDir ?? defaultDirectory(name.replace(/[^\w.-]+/g, '_')));
  }
  return { ...config, logger: cliLogger(options['json'] === true) };
}

async function serve(options: Given): Promise<void> {
  const config = configure(options);
  const logger = config.logger as Logger;
  // Why it could not be started is said once, with what to do; what else is found on the way is said as usual.
  let held: unknown[][] | undefined = [];
  const error = (...parts: unknown[]): void => (held === undefined ? logger.error(...parts) : void held.push(parts));
  const release = (except?: unknown): void => {
    const lines = held?.filter(parts => except === undefined || !parts.includes(except)) ?? [];
    held = undefined;
    for (const parts of lines) logger.error(...parts);
  };
  const server = new BroadcastTcpServer({ ...config, logger: { ...logger, error } });
  const ended = untilSignal(server, options['json'] === true);
  try {
    await server.start();
  } catch (error) {
    release(error);
    throw await explain(error, config);
  }
  release();
  banner(server, config, options['json'] === true);
  process.exitCode = await ended;
}

// ---- taken ------------------------------------------------------------------------------------------------------------

/** A port or folder that is taken: the command with the next free one. */
async function explain(error: unknown, config: ServerConfig): Promise<unknown> {
  if (!(error instanceof BroadcastError) || (error.code !== 'address-in-use' && error.code !== 'store-locked'))
    return error;
  const path = /^(?:unix:|\.{0,2}\/)/.test(config.url ?? '') ? config.url?.replace(/^unix:/, '') : undefined;
  const { host, port } = tcpAddress(config);
  const words = path === undefined ? await nextPort(host, port, config) : nextPath(path, config);
  const command = [invocation(), 'serve', ...otherWords(), ...words].map((word, i) => (i === 0 ? word : quote(word)));
  return new CliError(EXIT.IN_USE, error.code, error.message, `Run one beside it with:  ${command.join(' ')}`);
}

function tcpAddress({ url, host = 'localhost', port = 9000 }: ServerConfig): { host: string; port: number } {
  const parts = /^(?:tcp:\/*)?(.*?)(?::(\d+))?\/?$/.exec(url ?? '');
  if (url === undefined || parts === null) return { host, port };
  return { host: parts[1] as string, port: Number(parts[2] ?? 9000) };
}

const REPLACED = ['--port', '--host', '--url', '--socket', '--data'];

/** What was given, but for where the server is and keeps its data. */
function otherWords(): string[] {
  const words = process.argv.slice(process.argv.indexOf('serve') + 1);
  return words.filter(
    (word, i) => !REPLACED.includes(word.replace(/=.*$/s, '')) && !REPLACED.includes(words[i - 1] ?? ''),
  );
}

async function nextPort(host: string, taken: number, { dataDir }: ServerConfig): Promise<string[]> {
  const port = await freePort(host, taken + 1, dataDir);
  const words = host === 'localhost' ? ['--port', String(port)] : ['--host', host, '--port', String(port)];
  if (dataDir === undefined || isDefault(dataDir, String(taken))) return words;
  return [...words, '--data', `${dataDir}-${String(port)}`];
}

function isDefault(dataDir: string, name: string): boolean {
  return dataDir === resolve(defaultDirectory(name)) && (process.env['BROADCAST_DATA_DIR'] ?? '') === '';
}

function nextPath(taken: string, { dataDir }: ServerConfig): string[] {
  for (let n = 2; ; n++) {
    const path = `${taken}-${String(n)}`;
    if (existsSync(path)) continue;
    const words = ['--socket', path];
    return dataDir === undefined ? words : [...words, '--data', `${dataDir}-${String(n)}`];
  }
}

/** The first port that nobody listens on, on any of the addresses that the server would take. */
async function freePort(host: string, from: number, dataDir: string | undefined): Promise<number> {
  const hosts = host === 'localhost' ? ['127.0.0.1', '::1'] : [host];
  for (let port = from; port <= 65_535; port++) {
    const results = await Promise.all(hosts.map(each => isFree(each, port)));
    if (results.every(Boolean) && (dataDir === undefined || !existsSync(`${dataDir}-${String(port)}`))) return port;
  }
  return 0;
}

function isFree(host: string, port: number): Promise<boolean> {
  return new Promise(done => {
    const probe = createServer();
    probe.once('error', ({ code }: NodeJS.ErrnoException) => done(code === 'EADDRNOTAVAIL' || code === 'EAFNOSUPPORT'));
    probe.listen({ host, port, exclusive: true }, () => probe.close(() => done(true)));
  });
}

// ---- running ----------------------------------------------------------------------------------------------------------

function banner(server: BroadcastTcpServer, { dataDir }: ServerConfig, json: boolean): void {
  const { address } = server;
  if (address === null) return;
  const { queued, backlog } = server.stats();
  const waiting = queued + backlog;
  if (json) {
    const durability = dataDir === undefined ? 'memory' : 'fsync';
    info(JSON.stringify({ version, address, dataDir: dataDir ?? null, durability, waiting, pid: process.pid }));
    return;
  }
  const where = 'path' in address ? address.path : `${bracket(address.host)}:${String(address.port)}`;
  const durability =
    dataDir === undefined
      ? 'memory: what waits is lost when the server ends'
      : 'fsync: what is said to be stored survives crashes and power cuts';
  info(`${style('bold', `Broadcast ${version}`)} listens at ${style('cyan', printable(where))}`);
  info(`  data        ${dataDir === undefined ? 'none: everything is in memory' : printable(dataDir)}`);
  info(`  durability  ${durability}`);
  info(`  waiting     ${plural(waiting, 'message')}`);
  info('Try in two other terminals:');
  info(`  ${printable(`${invocation()} sub room_1${reachOf(address)}`)}`);
  info(`  ${printable(`${invocation()} pub room_1 "Hello world"${reachOf(address)}`)}`);
}

function bracket(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}

/** The options with which a client finds the server from this machine. */
function reachOf(address: { host: string; port: number } | { path: string }): string {
  if ('path' in address) return ` --socket ${quote(resolve(address.path))}`;
  const { host, port } = address;
  const words = ['localhost', '0.0.0.0', '::'].includes(host) ? [] : ['--host', host];
  if (port !== 9000) words.push('--port', String(port));
  return words.map(word => ` ${quote(word)}`).join('');
}

/** The first signal drains, the second one ends at once. Fulfilled with the exit code. */
function untilSignal(server: BroadcastTcpServer, json: boolean): Promise<number> {
  return new Promise((done, fail) => {
    let stopping = false;
    const stop = (signal: string): void => {
      if (stopping) process.exit(EXIT.INTERRUPTED);
      stopping = true;
      if (json) info(JSON.stringify({ stopping: signal }));
      else info(`${signal}: draining and stopping; once more ends it at once`);
      server.stop().then(() => done(EXIT.OK), fail);
    };
    process.on('SIGINT', () => stop('SIGINT'));
    process.on('SIGTERM', () => stop('SIGTERM'));
    server.on('engineError', fail);
  });
}
