/** `broadcast status`, `sessions` and `dead`: questions to a server on this machine. */
import type { Command } from 'commander';
import { askAdmin } from '../../admin-client.js';
import type { Endpoint } from '../../config.js';
import type { SessionInfo } from '../../index.js';
import { addEndpointOptions, readOptions, wholeNumber, type Given } from '../options.js';
import { info, plural, print, printable, printTable, usage } from '../output.js';

type Row = Record<string, unknown>;

export function addAdmin(program: Command): void {
  add(program.command('status').description('what the server has done since its start, and holds now'), status);

  const sessions = program.command('sessions').description('the names that the server keeps; without a command: ls');
  add(sessions.command('ls', { isDefault: true }).description('list the names'), listSessions);
  add(
    sessions
      .command('forget')
      .argument('<name>', 'the client')
      .description('end a session: its queue, subscriptions and dead letters; the senders hear of it'),
    async (name: string, options: Given) => {
      await ask(options, 'forget', { name });
      say(options, { forgotten: name }, `${printable(JSON.stringify(name))} is forgotten`);
    },
  );

  const dead = program.command('dead').description('messages that no handler would take; without a command: ls');
  add(
    dead
      .command('ls', { isDefault: true })
      .argument('[name]', 'the client whose dead letters are listed; without it, how many each has')
      .option('--limit <n>', 'at most so many (default 100)')
      .description('list dead letters'),
    listDead,
  );
  const letter = (verb: string, description: string): Command =>
    dead
      .command(verb)
      .argument('<name>', 'the client')
      .argument('[id]', 'of the dead letter, as ls shows it')
      .option('--all', 'every one that the client has')
      .description(description);
  add(
    letter('retry', 'give a dead letter to the client again, as if it were new'),
    (name: string, id: string | undefined, options: Given) => each(name, id, options, 'dead.retry', 'sent again'),
  );
  add(letter('drop', 'drop a dead letter for good'), (name: string, id: string | undefined, options: Given) =>
    each(name, id, options, 'dead.drop', 'dropped'),
  );
}

// commander hands the command itself to the action as its last argument, which nobody here needs.
function add(command: Command, action: (...args: never[]) => Promise<void>): void {
  command.option('--json', 'the answer and errors as JSON').action(action as (...args: unknown[]) => Promise<void>);
  addEndpointOptions(command);
}

function ask(options: Given, verb: string, args: object = {}): Promise<unknown> {
  const { host, port, url, servers } = readOptions(options);
  const [first] = servers ?? [];
  const endpoint: Endpoint =
    first !== undefined
      ? typeof first === 'string'
        ? { url: first }
        : first
      : url === undefined
        ? { host: host ?? 'localhost', port: port ?? 9000 }
        : { url };
  return askAdmin(endpoint, verb, args);
}

async function status(options: Given): Promise<void> {
  const answer = (await ask(options, 'status')) as Row;
  if (options['json'] === true) return print(JSON.stringify(answer));
  const entries = Object.entries(answer).map(([key, value]) => [key, valueOf(key, value)] as const);
  const width = Math.max(...entries.map(([key]) => key.length));
  for (const [key, value] of entries) await print(`${key.padEnd(width)}  ${printable(value)}`);
}

function valueOf(key: string, value: unknown): string {
  if (key === 'uptime') return `${String(Math.round(Number(value) / 1000))} s`;
  if (key !== 'address' || typeof value !== 'object' || value === null) return String(value);
  const { host, port, path } = value as { host?: string; port?: number; path?: string };
  return path ?? `${String(host)}:${String(port)}`;
}

async function sessionsOf(options: Given): Promise<SessionInfo[]> {
  return ((await ask(options, 'sessions')) as { sessions: SessionInfo[] }).sessions;
}

async function listSessions(options: Given): Promise<void> {
  const sessions = await sessionsOf(options);
  if (options['json'] === true) return print(JSON.stringify(sessions));
  await printTable(
    sessions.map(({ subscriptions, lastSeen, ...rest }) => ({
      ...rest,
      lastSeen: timeOf(lastSeen),
      subscriptions: subscriptions.map(channel => (channel === '' ? '(itself)' : channel)).join(', '),
    })),
    ['name', 'instances', 'queued', 'queuedBytes', 'deadLetters', 'lastSeen', 'subscriptions'],
  );
}

function timeOf(at: number): string {
  return new Date(at).toISOString().replace(/\.\d+Z$/, 'Z');
}

interface Letter {
  readonly id: string;
  readonly attempts: number;
  readonly at: number;
  readonly reason: string;
  readonly message: { readonly channel?: string | null; readonly sender?: string; readonly data: unknown };
}

async function lettersOf(options: Given, args: object): Promise<{ letters: Letter[]; more: boolean }> {
  return (await ask(options, 'dead.list', args)) as { letters: Letter[]; more: boolean };
}

/** Longer previews of data are cut. */
const PREVIEW = 60;

async function listDead(name: string | undefined, options: Given): Promise<void> {
  const limit = wholeNumber((options['limit'] ?? '100') as string, '--limit', 1);
  const json = options['json'] === true;
  if (name === undefined) {
    const rows = (await sessionsOf(options)).filter(session => session.deadLetters > 0);
    if (json) return print(JSON.stringify(rows.map(row => ({ name: row.name, deadLetters: row.deadLetters }))));
    await printTable(
      rows.map(({ name: client, deadLetters }) => ({ name: client, deadLetters })),
      ['name', 'deadLetters'],
    );
    return;
  }
  const { letters, more } = await lettersOf(options, { name, limit, ...(json ? {} : { preview: PREVIEW }) });
  if (json) await print(JSON.stringify(letters));
  else
    await printTable(
      letters.map(({ id, attempts, at, reason, message }) => {
        const { channel, sender, data } = message;
        return { id, attempts, at: timeOf(at), channel, sender, reason: reason.slice(0, 80), data: String(data) };
      }),
      ['id', 'attempts', 'at', 'channel', 'sender', 'reason', 'data'],
    );
  if (more && !json) info(`there are more; --limit shows more than ${String(letters.length)}`);
}

async function each(name: string, id: string | undefined, options: Given, verb: string, done: string): Promise<void> {
  const all = options['all'] === true;
  if (all === (id !== undefined))
    throw usage(
      'invalid-argument',
      'give the id of one dead letter, or --all',
      `broadcast dead ls ${name} shows their ids`,
    );
  const count = id === undefined ? await everyOne(name, options, verb) : 1;
  if (id !== undefined) await ask(options, verb, { name, id });
  say(options, { name, count }, `${plural(count, 'message')} ${done}`);
}

/** As many as there are now: what is sent again may come back meanwhile, and stays. */
async function everyOne(name: string, options: Given, verb: string): Promise<number> {
  const total = (await sessionsOf(options)).find(session => session.name === name)?.deadLetters ?? 0;
  let count = 0;
  while (count < total) {
    const { letters } = await lettersOf(options, { name, limit: Math.min(100, total - count), preview: 0 });
    if (letters.length === 0) break;
    for (const letter of letters) await ask(options, verb, { name, id: letter.id });
    count += letters.length;
  }
  return count;
}

function say(options: Given, answer: object, text: string): void {
  info(options['json'] === true ? JSON.stringify(answer) : text);
}
