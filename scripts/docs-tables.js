// The tables that the documentation shows of the code. Rewrites what stands between `<!-- table:NAME -->` and
// `<!-- /table -->`; with --check it only says which blocks differ. Reads the build. test/docs/tables.test.ts checks the same.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { layersTable } from './layers.js';
import { prepare, root } from './prepare.js';

const built = path => createRequire(import.meta.url)(join(root, 'dist', 'cjs', path));

/** Where each table stands. */
const PAGES = {
  errors: 'docs/errors.md',
  options: 'docs/options.md',
  limits: 'docs/options.md',
  commands: 'docs/command-line.md',
  'exit-codes': 'docs/command-line.md',
  layers: 'docs/architecture.md',
};

/** The page whose table people write, with a row for each reason; only that it is complete is checked. */
export const FAILURES_PAGE = 'docs/failures.md';

const code = text => (text ? `\`${text}\`` : '');

function markdown(rows) {
  const lines = rows.map(cells => `| ${cells.map(cell => String(cell).replaceAll('|', '\\|')).join(' | ')} |`);
  return [lines[0], `|${' --- |'.repeat(rows[0].length)}`, ...lines.slice(1)].join('\n');
}

const UNITS = {
  bytes: [
    [1024 ** 3, 'GiB'],
    [1024 ** 2, 'MiB'],
    [1024, 'KiB'],
    [1, 'bytes'],
  ],
  ms: [
    [86_400_000, 'd'],
    [60_000, 'min'],
    [1000, 's'],
    [1, 'ms'],
  ],
};

function quantity(value, unit) {
  if (value === undefined) return '';
  if (typeof value !== 'number') return code(value);
  const [size, name] = (UNITS[unit] ?? []).find(([size]) => value >= size && value % size === 0) ?? [
    1,
    unit === '' ? '' : unit,
  ];
  return `${(value / size).toLocaleString('en-US', { useGrouping: value / size >= 10_000 })} ${name}`.trim();
}

function errors() {
  const { ERRORS } = built('errors.js');
  const yes = value => (value ? 'yes' : 'no');
  const rows = Object.entries(ERRORS).map(([name, { meaning, fatal, retryable }]) => [
    code(name),
    meaning,
    yes(fatal),
    yes(retryable),
  ]);
  return [['code', 'meaning', 'ends the connection', 'again'], ...rows];
}

// The flag of an option, where the command line has it.
function flagOf(row, program) {
  const has = program.commands.some(command => command.options.some(option => option.long === row.flag));
  return has ? code(row.flag) : '';
}

function options(table, limits) {
  const { createProgram } = built('cli/program.js');
  const program = createProgram();
  const rows = table.map(row => {
    const range = row.type === 'number' && (row.min !== undefined || row.max !== undefined) ? rangeOf(row) : '';
    const own =
      row.durableDefault === undefined
        ? ''
        : `; with a data directory ${row.durableDefault === 0 ? 'what is free' : quantity(row.durableDefault, row.unit)}`;
    return [
      code(row.name),
      row.for,
      quantity(row.default, row.unit) + own,
      range,
      row.meaning,
      code(row.env),
      flagOf(row, program),
    ];
  });
  return [[limits ? 'limit' : 'option', 'for', 'default', 'from, to', 'meaning', 'variable', 'flag'], ...rows];
}

function rangeOf({ min = 0, max = Infinity, unit }) {
  const open = max >= 2 ** 31 - 1;
  if (open) return min <= 1 ? '' : `from ${quantity(min, unit)}`;
  return `${min < 1024 ? min : quantity(min, unit)} to ${quantity(max, unit)}`;
}

// How the commands of a client find the server.
const REACH = ['--host', '--port', '--url', '--socket'];

/** Every command with its arguments and options; those that the server's table has are shown there. */
function commands() {
  const { OPTIONS, LIMITS } = built('config.js');
  const { createProgram } = built('cli/program.js');
  const shown = new Set(['host', 'port', 'url', 'dataDir', 'clientName']);
  const elsewhere = new Set([...OPTIONS, ...LIMITS].filter(row => !shown.has(row.name)).map(row => row.flag));
  const rows = [];
  const add = (command, path) => {
    for (const child of command.commands) add(child, `${path} ${child.name()}`);
    if (command.commands.length > 0) return;
    const args = command.registeredArguments.map(arg => {
      const name = `${arg.name()}${arg.variadic ? '…' : ''}`;
      return arg.required ? `<${name}>` : `[${name}]`;
    });
    rows.push([`**${code([path, ...args].join(' '))}**`, sentence(command.description())]);
    for (const argument of command.registeredArguments)
      if (argument.description) rows.push([code(argument.name()), sentence(argument.description)]);
    const flags = new Set(command.options.map(option => option.long));
    const reach = path === 'broadcast serve' ? [] : REACH.filter(flag => flags.has(flag));
    for (const option of command.options) {
      if (!elsewhere.has(option.long) && !reach.includes(option.long))
        rows.push([code(option.flags), sentence(described(option))]);
    }
    if (reach.length > 0)
      rows.push([reach.map(code).join(', '), 'Where the server is; as in [options.md](options.md).']);
    if ([...flags].some(flag => elsewhere.has(flag)))
      rows.push(['further options', 'Each flag of [options.md](options.md).']);
  };
  for (const command of createProgram().commands) add(command, `broadcast ${command.name()}`);
  return [['command, argument, option', 'meaning'], ...rows];
}

function described({ description, defaultValue }) {
  const standard =
    defaultValue === undefined || typeof defaultValue === 'boolean' ? '' : `; default ${code(String(defaultValue))}`;
  const [, text, inText] = /^(.*?)\.?(?: \(default (.*)\))?$/.exec(description);
  return text + (inText === undefined ? standard : `; default ${code(inText)}`);
}

function sentence(text) {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?)]$/.test(text) ? '' : '.'}`;
}

/** The exit codes with the comments of their source. */
function exitCodes() {
  const path = join(root, 'src', 'cli', 'exit-codes.ts');
  const file = ts.createSourceFile(path, readFileSync(path, 'utf8'), ts.ScriptTarget.Latest, true);
  const rows = [];
  const visit = node => {
    if (ts.isPropertyAssignment(node)) {
      const [doc] = ts.getJSDocCommentsAndTags(node);
      rows.push([node.initializer.getText(file), ts.getTextOfJSDocComment(doc?.comment) ?? '']);
    }
    ts.forEachChild(node, visit);
  };
  visit(file);
  return [['exit code', 'when'], ...rows.map(row => [code(row[0]), row[1]])];
}

/**
 * Every table in Markdown, from the build and the source.
 *
 * @returns {Record<string, string>}
 */
export function tables() {
  const { OPTIONS, LIMITS } = built('config.js');
  const all = {
    errors: errors(),
    options: options(OPTIONS, false),
    limits: options(LIMITS, true),
    commands: commands(),
    'exit-codes': exitCodes(),
    layers: layersTable(),
  };
  return Object.fromEntries(Object.entries(all).map(([name, rows]) => [name, markdown(rows)]));
}

/**
 * A page with its blocks as they should be. Throws for a block that has no end, and for a table that does not exist.
 *
 * @param {string} text
 * @param {Record<string, string>} all
 */
export function withTables(text, all) {
  return text.replace(/^<!-- table:(\S+) -->\n([^]*?)(^<!-- \/table -->$|(?![^]))/gm, (block, name, _old, end) => {
    if (name === 'failures') return block;
    if (end === '') throw new Error(`the block table:${name} has no end`);
    if (!Object.hasOwn(all, name))
      throw new Error(`there is no table ${name}; there are ${Object.keys(all).join(', ')}`);
    return `<!-- table:${name} -->\n${all[name]}\n${end}`;
  });
}

/**
 * The pages with the tables that each must have.
 *
 * @returns {[string, string[]][]}
 */
export function pages() {
  const byPage = new Map();
  for (const [name, page] of Object.entries(PAGES)) byPage.set(page, [...(byPage.get(page) ?? []), name]);
  return [...byPage];
}

async function main(check) {
  await prepare();
  const all = tables();
  for (const [page, names] of pages()) {
    const path = join(root, page);
    const text = readFileSync(path, 'utf8');
    for (const name of names)
      if (!text.includes(`<!-- table:${name} -->`)) console.error(`${page} has no block table:${name}`);
    const next = withTables(text, all);
    if (next === text) continue;
    if (!check) writeFileSync(path, next);
    console.log(`${page} ${check ? 'differs from the code; run node scripts/docs-tables.js' : 'is written'}`);
    if (check) process.exitCode = 1;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(process.argv.includes('--check'));
