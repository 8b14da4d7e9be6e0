/** Administration over the protocol (docs/protocol.md, 10): verbs on the server's public interface, answers as JSON. */
import { stringifyTagged } from '../body/tagged.js';
import { BroadcastError } from '../errors.js';

type Args = Record<string, unknown>;
type Verb = (server: Administered, args: Args, description: Record<string, unknown>) => Promise<unknown>;

/** The part of the server's public interface that administration needs. */
interface Administered {
  stats(): object;
  sessions(): Promise<readonly object[]>;
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

const VERBS = new Map<string, Verb>([
  ['status', (server, _args, description) => Promise.resolve({ ...description, ...server.stats() })],
  ['sessions', server => server.sessions().then(sessions => ({ sessions }))],
  [
    'forget',
    async (server, args) => {
      await server.forget(text(args, 'name'));
      return {};
    },
  ],
  [
    'dead.list',
    async (server, args) => {
      const letters = await server
        .deadLetters(text(args, 'name'))
        .list(typeof args['limit'] === 'number' ? args['limit'] : 100);
      return {
        letters: letters.map(({ message, ...rest }) => ({
          ...rest,
          message: JSON.parse(stringifyTagged({ ...message })) as unknown,
        })),
      };
    },
  ],
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
  description: Record<string, unknown>,
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
  return JSON.stringify(await run(server, parsed as Args, description));
}
