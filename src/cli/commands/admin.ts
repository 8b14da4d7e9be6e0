/** `broadcast status`, `sessions` and `dead`: questions to a server on this machine. */
import type { Command } from 'commander';
import { askAdmin } from '../../admin-client.js';
import { addEndpointOptions, readOptions } from '../options.js';
import { info, print } from '../output.js';

type Options = Record<string, unknown>;
type Row = Record<string, unknown>;

export function addAdmin(program: Command): void {
  add(program.command('status').description('what the server has done and holds'), (options: Options) =>
    status(options),
  );
  const sessions = program.command('sessions').description('the names that the server keeps');
  add(sessions.command('ls', { isDefault: true }).description('list them'), (options: Options) =>
    listSessions(options),
  );
  add(
    sessions
      .command('forget')
      .argument('<name>')
      .description('end a session: its queue, subscriptions and dead letters'),
    (name: string, options: Options) => act(options, 'forget', { name }, `"${name}" is forgotten`),
  );
  const dead = program.command('dead').description('messages that no handler would take');
  add(
    dead
      .command('ls', { isDefault: true })
      .argument('<name>')
      .option('--limit <n>', 'at most so many', '100')
      .description('list those of a name'),
    (name: string, options: Options) => listDead(name, options),
  );
  add(
    dead
      .command('retry')
      .argument('<name>')
      .argument('[id]')
      .option('--all', 'every one of them')
      .description('send one again'),
    (name: string, id: string | undefined, options: Options) => each(name, id, options, 'dead.retry', 'sent again'),
  );
  add(
    dead
      .command('drop')
      .argument('<name>')
      .argument('[id]')
      .option('--all', 'every one of them')
      .description('drop one'),
    (name: string, id: string | undefined, options: Options) => each(name, id, options, 'dead.drop', 'dropped'),
  );
}

// commander hands the command itself to the action as its last argument, which nobody here needs.
function add(command: Command, action: (...args: never[]) => Promise<void>): void {
  addEndpointOptions(command);
  command.option('--json', 'the answer and errors as JSON').action(action as (...args: unknown[]) => Promise<void>);
}

function ask(options: Options, verb: string, args: object = {}): Promise<unknown> {
  const { host, port, url } = readOptions(options);
  return askAdmin(url === undefined ? { host: host ?? 'localhost', port: port ?? 9000 } : { url }, verb, args);
}

async function status(options: Options): Promise<void> {
  const answer = (await ask(options, 'status')) as Row;
  if (options['json'] === true) return print(JSON.stringify(answer));
  for (const [key, value] of Object.entries(answer))
    await print(`${key.padEnd(12)} ${typeof value === 'object' ? JSON.stringify(value) : String(value)}`);
}

async function table(rows: readonly Row[], columns: readonly string[]): Promise<void> {
  const cells = rows.map(row =>
    columns.map(column => (Array.isArray(row[column]) ? row[column].join(',') : String(row[column]))),
  );
  const widths = columns.map((column, i) => Math.max(column.length, ...cells.map(cell => (cell[i] as string).length)));
  const line = (cell: readonly string[]): string =>
    cell
      .map((text, i) => text.padEnd(widths[i] as number))
      .join('  ')
      .trimEnd();
  await print(line(columns));
  for (const cell of cells) await print(line(cell));
}

async function listSessions(options: Options): Promise<void> {
  const { sessions } = (await ask(options, 'sessions')) as { sessions: Row[] };
  if (options['json'] === true) return print(JSON.stringify(sessions));
  await table(
    sessions.map(session => ({ ...session, lastSeen: new Date(session['lastSeen'] as number).toISOString() })),
    ['name', 'instances', 'queued', 'queuedBytes', 'deadLetters', 'lastSeen', 'subscriptions'],
  );
}

interface Letter extends Row {
  readonly id: string;
}

async function lettersOf(name: string, options: Options, limit: number): Promise<Letter[]> {
  return ((await ask(options, 'dead.list', { name, limit })) as { letters: Letter[] }).letters;
}

async function listDead(name: string, options: Options): Promise<void> {
  const letters = await lettersOf(name, options, Number(options['limit']));
  if (options['json'] === true) return print(JSON.stringify(letters));
  await table(
    letters.map(letter => ({
      ...letter,
      at: new Date(letter['at'] as number).toISOString(),
      message: JSON.stringify(letter['message']).slice(0, 80),
    })),
    ['id', 'attempts', 'at', 'reason', 'message'],
  );
}

async function each(name: string, id: string | undefined, options: Options, verb: string, done: string): Promise<void> {
  const ids = options['all'] === true ? (await lettersOf(name, options, 1_000_000)).map(letter => letter.id) : [id];
  for (const one of ids) await ask(options, verb, { name, id: one });
  say(options, { count: ids.length }, `${String(ids.length)} ${done}`);
}

async function act(options: Options, verb: string, args: object, text: string): Promise<void> {
  await ask(options, verb, args);
  say(options, args, text);
}

function say(options: Options, report: object, text: string): void {
  info(options['json'] === true ? JSON.stringify(report) : text);
}
