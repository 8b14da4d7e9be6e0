/** Administration over the protocol (docs/protocol.md, 10): verbs on the server's public interface, answers as JSON. */
import { taggedMessage } from '../body/tagged.js';
import { BroadcastError } from '../errors.js';

type Args = Record<string, unknown>;
type Verb = (server: Administered, args: Args, question: Question) => Promise<unknown>;

interface Question {
  /** What is said of the server beside its counters. */
  readonly description: Record<string, unknown>;
  /** The name under which the question was asked; it does not show in the answers. */
  readonly asker: string;
}

/** The part of the server's public interface that administration needs. */
interface Administered {
  stats(): { readonly clients: number; readonly sessions: number };
  sessions(): Promise<readonly { readonly name: string }[]>;
  forget(name: string): Promise<void>;
  deadLetters(name: string): {
    list(limit?: number): Promise<readonly { readonly message: object }[]>;
    retry(id: string): Promise<void>;
    drop(id: string): Promise<void>;
  };
}

function text(args: Args, key: string): string {
  const value = args[key];
  if (typeof value !== 'string') throw new BroadcastError('invalid-argument', `${key} must be given as a text`);
  return value;
}

/** An answer has no more dead letters, and no more characters, than this. */
const MOST_LETTERS = 1000;
const MOST_ANSWER = 64 * 1024 * 1024;

function whole(args: Args, key: string, standard: number): number {
  const value = args[key] ?? standard;
  if (!Number.isSafeInteger(value) || (value as number) < 0)
    throw new BroadcastError('invalid-argument', `${key} must be a whole number`);
  return value as number;
}

function status(server: Administered, _args: Args, { description }: Question): Promise<unknown> {
  const stats = server.stats();
  return Promise.resolve({ ...description, ...stats, clients: stats.clients - 1, sessions: stats.sessions - 1 });
}

async function listSessions(server: Administered, _args: Args, { asker }: Question): Promise<unknown> {
  return { sessions: (await server.sessions()).filter(session => session.name !== asker) };
}

/** Data in the tagged form, or with `preview` the first so many characters of it. */
async function listDead(server: Administered, args: Args): Promise<unknown> {
  const name = text(args, 'name');
  const limit = Math.min(whole(args, 'limit', 100), MOST_LETTERS);
  const preview = args['preview'] === undefined ? undefined : whole(args, 'preview', 0);
  const found = await server.deadLetters(name).list(limit + 1);
  const letters: unknown[] = [];
  let size = 0;
  for (const { message, ...rest } of found.slice(0, limit)) {
    const form = taggedMessage(message);
    const data = JSON.stringify(form['data']);
    size += data.length;
    if (size > MOST_ANSWER && letters.length > 0) break;
    if (preview !== undefined) form['data'] = data.length > preview ? `${data.slice(0, preview)}…` : data;
    letters.push({ ...rest, message: form });
  }
  return { letters, more: letters.length < found.length };
}

const VERBS = new Map<string, Verb>([
  ['status', status],
  ['sessions', listSessions],
  [
    'forget',
    async (server, args) => {
      await server.forget(text(args, 'name'));
      return {};
    },
  ],
  ['dead.list', listDead],
  [
    'dead.retry',
    async (server, args) => {
      await server.deadLetters(text(args, 'name')).retry(text(args, 'id'));
      return {};
    },
  ],
  [
    'dead.drop',
    async (server, args) => {
      await server.deadLetters(text(args, 'name')).drop(text(args, 'id'));
      return {};
    },
  ],
]);

/** Does what a verb asks. Throws `not-found`, `invalid-argument`. */
export async function administrate(
  server: Administered,
  verb: string,
  args: string,
  question: Question,
): Promise<string> {
  const run = VERBS.get(verb);
  if (run === undefined)
    throw new BroadcastError(
      'not-found',
      `there is no verb ${JSON.stringify(verb)}; there are ${[...VERBS.keys()].join(', ')}`,
    );
  let parsed: unknown;
  try {
    parsed = JSON.parse(args === '' ? '{}' : args);
  } catch (error) {
    throw new BroadcastError('invalid-argument', 'the arguments are not JSON', { cause: error });
  }
  if (typeof parsed !== 'object' || parsed === null)
    throw new BroadcastError('invalid-argument', 'the arguments must be a JSON object');
  return JSON.stringify(await run(server, parsed as Args, question));
}
