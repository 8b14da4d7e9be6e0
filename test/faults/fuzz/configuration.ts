/**
 * Configuration: options of clients and servers, environment variables, addresses, and the words of the command line up to
 * the options that come of them. Each is a valid one with some parts changed; what comes of it is an object or a named
 * refusal.
 */
import { CommanderError } from 'commander';
import { buildBroadcastConfig, LIMITS, OPTIONS, type ClientConfig, type ServerConfig } from '../../../src/config.js';
import { readOptions, type Given } from '../../../src/cli/options.js';
import { CliError } from '../../../src/cli/output.js';
import { createProgram } from '../../../src/cli/program.js';
import { memoryEngine } from '../../../src/engine/index.js';
import { BroadcastTcpClient, BroadcastTcpServer } from '../../../src/index.js';
import { TestClock } from '../../../src/testing/test-clock.js';
import type { Target } from './fuzz.js';
import type { Mutator } from './mutator.js';

/** A setting by its path, and the name of an odd value or a text. */
type Edit = readonly [
  path: string,
  value: { readonly odd: string } | { readonly text: string } | { readonly number: number },
];

export type Configuration =
  | { readonly kind: 'client' | 'server'; readonly edits: readonly Edit[]; readonly name: string }
  | { readonly kind: 'environment' | 'variables'; readonly edits: readonly Edit[]; readonly prefix: string }
  | { readonly kind: 'address'; readonly text: string }
  | { readonly kind: 'words'; readonly words: readonly string[] };

// ---- the parts -----------------------------------------------------------------------------------------------------------

const ODD: Readonly<Record<string, () => unknown>> = {
  undefined: () => undefined,
  null: () => null,
  NaN: () => NaN,
  infinity: () => Infinity,
  bigint: () => 5n,
  symbol: () => Symbol('odd'),
  function: () => () => 'odd',
  'empty list': () => [],
  'list of odd things': () => [null, 5, [], { port: 1n }],
  'list with a hole': () => new Array<unknown>(2),
  'empty object': () => ({}),
  'object without a prototype': () => Object.create(null) as object,
  'object that is no text': () => ({ toString: 5, valueOf: null }),
  date: () => new Date(NaN),
  true: () => true,
  'own __proto__': () => JSON.parse('{"__proto__":{"polluted":true}}') as object,
};
const ODD_NAMES = Object.keys(ODD);
const TEXTS = [
  ...['', 'localhost', '127.0.0.1', '::1', '[::1]', 'tcp://127.0.0.1:9000', 'tcp://[::1]:9000/', 'unix:/tmp/b.sock'],
  ...[
    './b.sock',
    '/tmp/b.sock',
    'tls://h:1',
    'http://h',
    'tcp://',
    '9000',
    '1e3',
    '0x10',
    '-1',
    ' 7 ',
    'NaN',
    'undefined',
  ],
  ...[
    'tcp://a:1,tcp://b:2',
    'name',
    'x'.repeat(300),
    '__proto__',
    'constructor',
    'a.*',
    'h:99999',
    '\ud800',
    '127.0.0.1:5',
  ],
];
const NUMBERS = [0, 1, -1, 1.5, 9000, 65_535, 65_536, 2 ** 31 - 1, 2 ** 31, 2 ** 53, 1e300];
const NAMES = [...OPTIONS, ...LIMITS].map(({ name }) => name);
const PATHS = [
  ...OPTIONS.map(({ name }) => name),
  ...LIMITS.map(({ name }) => `limits.${name}`),
  ...['limits', 'logger', 'clock', 'engine', 'limits.__proto__', '__proto__', 'constructor', 'hots', 'servers'],
];
const VARIABLES = [...OPTIONS, ...LIMITS].flatMap(({ env }) => (env === undefined ? [] : [env]));
const FLAGS = [...OPTIONS, ...LIMITS].flatMap(({ flag }) => (flag === undefined ? [] : [flag]));
const COMMANDS = ['serve', 'pub', 'sub', 'sessions', 'stats', 'dead', 'help'];
const WORDS = [
  ...FLAGS,
  '--memory',
  '--json',
  '--socket',
  '--timeout',
  '--help',
  '-V',
  '--',
  '-',
  'room_1',
  '--to',
  '--name',
];

function editsOf(mutator: Mutator, paths: readonly string[], most: number): Edit[] {
  return Array.from({ length: mutator.below(most + 1) }, (): Edit => {
    const path = mutator.pick(paths);
    const kind = mutator.below(4);
    const changed = mutator.onceIn(16) ? mutator.text(path, NAMES) : path;
    if (kind === 0) return [changed, { odd: mutator.pick(ODD_NAMES) }];
    if (kind === 1) return [changed, { number: mutator.pick(NUMBERS) }];
    const text = mutator.pick(TEXTS);
    return [changed, { text: mutator.onceIn(2) ? mutator.text(text, TEXTS) : text }];
  });
}

function make(mutator: Mutator): Configuration {
  const kind = mutator.below(20);
  const name = mutator.onceIn(2) ? mutator.text('billing', TEXTS) : 'billing';
  if (kind < 6) return { kind: 'client', edits: editsOf(mutator, PATHS, 3), name };
  if (kind < 10) return { kind: 'server', edits: editsOf(mutator, PATHS, 3), name };
  if (kind < 13) {
    const prefix = mutator.onceIn(2) ? '' : mutator.text('orders', NAMES);
    return { kind: mutator.onceIn(2) ? 'environment' : 'variables', edits: editsOf(mutator, VARIABLES, 4), prefix };
  }
  if (kind < 19) return { kind: 'address', text: mutator.text(mutator.pick(TEXTS), TEXTS) };
  const word = (): string => (mutator.onceIn(2) ? mutator.pick(WORDS) : mutator.pick(TEXTS));
  const words = Array.from({ length: mutator.below(6) }, () =>
    mutator.onceIn(4) ? mutator.text(word(), TEXTS) : word(),
  );
  return { kind: 'words', words: [mutator.pick(COMMANDS), ...words] };
}

// ---- what comes of them --------------------------------------------------------------------------------------------------

function valueOf(value: Edit[1]): unknown {
  if ('odd' in value) return (ODD[value.odd] as () => unknown)();
  return 'text' in value ? value.text : value.number;
}

/** An object with its edits, `limits.…` one deeper. */
function edited(base: Record<string, unknown>, edits: readonly Edit[]): Record<string, unknown> {
  const put = (target: object, key: string, value: unknown): void =>
    void Object.defineProperty(target, key, { value, enumerable: true, writable: true, configurable: true });
  for (const [path, value] of edits) {
    const [, limit] = /^limits\.(.*)$/s.exec(path) ?? [];
    if (limit === undefined) put(base, path, valueOf(value));
    else {
      if (typeof base['limits'] !== 'object' || base['limits'] === null) put(base, 'limits', {});
      put(base['limits'] as object, limit, valueOf(value));
    }
  }
  return base;
}

function run(input: Configuration): string {
  switch (input.kind) {
    case 'client':
      return describe(new BroadcastTcpClient(edited({ clock: new TestClock() }, input.edits), input.name));
    case 'server':
      return describe(new BroadcastTcpServer(edited({ clock: new TestClock(), engine: memoryEngine() }, input.edits)));
    case 'environment':
      return both(buildBroadcastConfig(edited({}, input.edits) as Record<string, string>, input.prefix));
    case 'variables': {
      const values = edited({}, input.edits);
      const read = (name: string): never => values[name] as never;
      return both(buildBroadcastConfig({ getStringEnv: read, getNumberEnv: read }, input.prefix));
    }
    case 'address':
      return describe(new BroadcastTcpClient({ url: input.text, clock: new TestClock() }));
    case 'words':
      return parseWords(input.words);
  }
}

function describe(made: BroadcastTcpClient | BroadcastTcpServer): string {
  return made instanceof BroadcastTcpClient ? 'a client' : 'a server';
}

function both(config: ClientConfig & ServerConfig): string {
  const clock = new TestClock();
  describe(new BroadcastTcpServer({ ...config, clock }));
  return describe(new BroadcastTcpClient({ ...config, clock }));
}

/** The commands are parsed and their options read; nothing is run. */
const program = createProgram();
let gathered = '';
for (const command of [program, ...program.commands, ...program.commands.flatMap(({ commands }) => commands)]) {
  command.configureOutput({ writeOut: () => undefined, writeErr: () => undefined });
  if (command.commands.length === 0) command.action(() => void (gathered = both(readOptions(command.opts<Given>()))));
}

function parseWords(words: readonly string[]): string {
  gathered = 'nothing to do';
  try {
    program.parse([...words], { from: 'user' });
    return `${gathered} by words`;
  } catch (error) {
    if (error instanceof CommanderError || error instanceof CliError) return 'usage';
    throw error;
  }
}

export const configurationTarget: Target<Configuration> = {
  name: 'configuration',
  codes: ['invalid-option', 'invalid-argument', 'invalid-name', 'engine-invalid'],
  make,
  run,
  sizeOf: input => JSON.stringify(input).length,
  toText: input => JSON.stringify(input),
  fromText: text => JSON.parse(text) as Configuration,
};
