// Which part of src may import which: the rules as data, and the graph as the TypeScript parser sees it, type imports
// included. test/house/imports.test.ts asserts it; docs/architecture.md shows the table.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const src = join(dirname(dirname(fileURLToPath(import.meta.url))), 'src');

const BASE = ['base'];
const ENGINE = ['base', 'engine seam', 'engine shared'];

/**
 * The layers from the bottom up. `modules` are files or folders (with a slash at the end) of src; the longest match
 * counts. `imports` are the layers that a layer may import besides itself, `node` the modules of Node, `packages` those of npm.
 *
 * @type {readonly { name: string, modules: readonly string[], imports: readonly string[], node?: readonly string[], packages?: readonly string[], holds: string }[]}
 */
export const LAYERS = [
  {
    name: 'base',
    modules: [
      'errors.ts',
      'clock.ts',
      'message.ts',
      'names.ts',
      'receipts.ts',
      'logger.ts',
      'batch.ts',
      'deque.ts',
      'range-set.ts',
      'small-set.ts',
      'lazy-receipt.ts',
      'process-identity.ts',
      'version.ts',
      'nearest.ts',
      'events.ts',
      'waiters.ts',
      'abort-watch.ts',
    ],
    imports: [],
    node: ['events', 'fs'],
    holds: 'messages, errors, receipts, clock; small structures that everybody needs',
  },
  {
    name: 'body',
    modules: ['body/'],
    imports: BASE,
    node: ['util'],
    packages: ['msgpackr'],
    holds: 'data to bytes and back',
  },
  {
    name: 'tagged form',
    modules: ['body/tagged.ts'],
    imports: BASE,
    node: ['util'],
    holds: 'data to JSON for people and back',
  },
  {
    name: 'both ends',
    modules: ['outgoing.ts', 'received.ts'],
    imports: ['base', 'body'],
    holds: 'what every sender asks of a message, what every receiver makes of a batch',
  },
  { name: 'engine seam', modules: ['engine/engine.ts'], imports: BASE, holds: 'all that the broker knows of storage' },
  {
    name: 'options',
    modules: ['config.ts', 'config/'],
    imports: ['base', 'engine seam'],
    holds: 'the one table of options and limits',
  },
  {
    name: 'protocol',
    modules: ['protocol/'],
    imports: BASE,
    node: ['buffer'],
    holds: 'frames to bytes and back; knows no sockets',
  },
  {
    name: 'transport',
    modules: ['transport/'],
    imports: ['base', 'options', 'protocol'],
    node: ['net', 'stream'],
    holds: 'bytes in and out of a socket, heartbeat',
  },
  {
    name: 'engine shared',
    modules: ['engine/queue-index.ts', 'engine/item-sizes.ts'],
    imports: ['base', 'engine seam'],
    holds: 'what the engines have in common',
  },
  {
    name: 'engine memory',
    modules: ['engine/memory/'],
    imports: ENGINE,
    node: ['crypto'],
    holds: 'the engine without files',
  },
  {
    name: 'engine disk',
    modules: ['engine/disk/'],
    imports: ENGINE,
    node: ['crypto', 'fs/promises', 'net', 'path', 'zlib'],
    holds: 'the segmented log',
  },
  { name: 'test clock', modules: ['testing/test-clock.ts'], imports: BASE, holds: 'time that tests tick by hand' },
  {
    name: 'engine conformance',
    modules: ['engine/conformance/'],
    imports: ['base', 'engine seam', 'test clock'],
    node: ['assert/strict', 'crypto'],
    holds: 'what every engine must do, as a suite for any test runner',
  },
  {
    name: 'broker',
    modules: ['broker/'],
    imports: ['base', 'options', 'engine seam'],
    holds: 'sessions, routing, queues, receipts; knows neither bytes nor sockets nor files',
  },
  {
    name: 'client',
    modules: ['client/'],
    imports: ['base', 'both ends', 'options', 'protocol', 'transport'],
    node: ['crypto', 'net'],
    holds: 'the public client: connector, outbox, handlers',
  },
  {
    name: 'server',
    modules: ['server/'],
    imports: [
      'base',
      'both ends',
      'tagged form',
      'options',
      'protocol',
      'transport',
      'broker',
      'engine seam',
      'engine memory',
      'engine disk',
    ],
    node: ['crypto', 'fs', 'fs/promises', 'net'],
    holds: 'the public server: listener, connections',
  },
  {
    name: 'public interface',
    modules: ['index.ts'],
    imports: ['base', 'options', 'engine seam', 'client', 'server'],
    holds: 'the main entry: re-exports only',
  },
  {
    name: 'engine entry',
    modules: ['engine/index.ts'],
    imports: ['engine seam', 'engine memory', 'engine disk', 'engine conformance'],
    holds: 'the entry for those who choose or write an engine',
  },
  {
    name: 'testing entry',
    modules: ['testing/'],
    imports: ['base', 'options', 'public interface', 'test clock'],
    holds: 'the entry for users’ own tests',
  },
  {
    name: 'administration',
    modules: ['admin-client.ts'],
    imports: ['base', 'options', 'protocol', 'transport'],
    node: ['crypto', 'net'],
    holds: 'one question to a server',
  },
  {
    name: 'command line',
    modules: ['cli/'],
    imports: ['public interface', 'base', 'options', 'tagged form', 'administration'],
    node: ['buffer', 'fs', 'net', 'os', 'path', 'util'],
    packages: ['cli-progress', 'commander', 'string-width'],
    holds: 'broadcast: serve, pub, sub, sessions, dead, status',
  },
];

/**
 * The layer of a module, given as path below src.
 *
 * @param {string} module
 */
export function layerOf(module) {
  let found;
  let length = -1;
  for (const layer of LAYERS) {
    for (const place of layer.modules) {
      if (!(place.endsWith('/') ? module.startsWith(place) : module === place) || place.length <= length) continue;
      found = layer;
      length = place.length;
    }
  }
  return found;
}

function sources(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap(entry => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? sources(path) : /\.[cm]?ts$/.test(entry.name) ? [path] : [];
  });
}

// Everything that names another module: import and export … from, import(), require(), import x = require(), import('…') in types.
function specifiers(file) {
  /** @type {string[]} */
  const found = [];
  const visit = node => {
    const named =
      ts.isImportDeclaration(node) || ts.isExportDeclaration(node)
        ? node.moduleSpecifier
        : ts.isExternalModuleReference(node)
          ? node.expression
          : ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)
            ? node.argument.literal
            : ts.isCallExpression(node) &&
                (node.expression.kind === ts.SyntaxKind.ImportKeyword ||
                  (ts.isIdentifier(node.expression) && node.expression.text === 'require'))
              ? node.arguments[0]
              : undefined;
    if (named !== undefined && ts.isStringLiteralLike(named)) found.push(named.text);
    ts.forEachChild(node, visit);
  };
  visit(file);
  return found;
}

/**
 * Every module of src (path below src) and what it imports: modules of src, of Node (`node:` in front) and of npm.
 *
 * @returns {Map<string, { internal: string[], external: string[], file: ts.SourceFile }>}
 */
export function importGraph() {
  const graph = new Map();
  for (const path of sources(src).sort()) {
    const module = relative(src, path).split(sep).join('/');
    const file = ts.createSourceFile(path, readFileSync(path, 'utf8'), ts.ScriptTarget.Latest, true);
    const names = specifiers(file);
    graph.set(module, {
      file,
      internal: names
        .filter(name => name.startsWith('.'))
        .map(name => posix.join(posix.dirname(module), name.replace(/\.js$/, '.ts'))),
      external: names.filter(name => !name.startsWith('.')),
    });
  }
  return graph;
}

/**
 * The cycles of the graph: strongly connected sets of more than one module.
 *
 * @param {ReturnType<typeof importGraph>} graph
 * @returns {string[][]}
 */
export function cycles(graph) {
  const index = new Map();
  const low = new Map();
  const stack = [];
  const found = [];
  const visit = module => {
    index.set(module, index.size);
    low.set(module, index.get(module));
    stack.push(module);
    for (const next of graph.get(module)?.internal ?? []) {
      if (!index.has(next)) visit(next);
      if (stack.includes(next)) low.set(module, Math.min(low.get(module), low.get(next)));
    }
    if (low.get(module) !== index.get(module)) return;
    const set = stack.splice(stack.indexOf(module));
    if (set.length > 1 || graph.get(module)?.internal.includes(module)) found.push(set.sort());
  };
  for (const module of graph.keys()) if (!index.has(module)) visit(module);
  return found;
}

/**
 * What breaks the rules, a line each.
 *
 * @param {ReturnType<typeof importGraph>} graph
 * @returns {string[]}
 */
export function violations(graph) {
  /** @type {string[]} */
  const found = [];
  for (const [module, { internal, external }] of graph) {
    const layer = layerOf(module);
    if (layer === undefined) {
      found.push(`${module} belongs to no layer`);
      continue;
    }
    for (const target of internal) {
      const other = layerOf(target);
      if (!graph.has(target)) found.push(`${module} imports ${target}, which does not exist`);
      else if (other !== undefined && other !== layer && !layer.imports.includes(other.name))
        found.push(`${module} (${layer.name}) imports ${target} (${other.name})`);
    }
    for (const name of external) {
      const [list, bare] = name.startsWith('node:')
        ? [layer.node, name.slice(5)]
        : [layer.packages, name.split('/')[0]];
      if (!list?.includes(bare)) found.push(`${module} (${layer.name}) imports ${name}`);
    }
  }
  return found;
}

// Timers and clocks of the machine that only clock.ts touches; setImmediate, the end of a turn, is none.
const TIME = new Set([
  'setTimeout',
  'setInterval',
  'Date.now',
  'performance.now',
  'process.hrtime',
  'process.hrtime.bigint',
]);

/**
 * Where time is taken past the `Clock`, a line each; the command line, which people run by hand, may.
 *
 * @param {ReturnType<typeof importGraph>} graph
 * @returns {string[]}
 */
export function clockViolations(graph) {
  /** @type {string[]} */
  const found = [];
  for (const [module, { file }] of graph) {
    if (module === 'clock.ts' || module.startsWith('cli/')) continue;
    const visit = node => {
      const called = ts.isCallExpression(node) ? node.expression.getText(file) : '';
      const isNow = ts.isNewExpression(node) && node.expression.getText(file) === 'Date' && !node.arguments?.length;
      if (TIME.has(called.replace(/^globalThis\./, '')) || isNow)
        found.push(
          `${module}:${file.getLineAndCharacterOfPosition(node.getStart(file)).line + 1} ${node.getText(file).split('\n')[0]}`,
        );
      ts.forEachChild(node, visit);
    };
    visit(file);
  }
  return found;
}

/** The table of layers in Markdown, for docs/architecture.md. */
export function layersTable() {
  const code = list => list.map(name => `\`${name}\``).join(', ');
  const rows = LAYERS.map(({ name, modules, imports, node = [], packages = [], holds }) => [
    name,
    code(modules),
    imports.join(', ') || 'nothing',
    code([...node.map(module => `node:${module}`), ...packages]) || 'none',
    holds,
  ]);
  return [['layer', 'modules', 'may import', 'from outside', 'what it is'], ...rows];
}
