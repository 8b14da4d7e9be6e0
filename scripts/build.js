// Builds the package: CommonJS by tsc, and thin ESM wrappers that import it, so that a process has one copy of the
// package however it is loaded. Does nothing when the build is newer than every source.
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const at = (...parts) => join(root, ...parts);
const STAMP = at('dist', '.built');
const ENTRIES = { index: 'index', engine: 'engine/index', testing: 'testing/index' };

function newest(path) {
  const stat = statSync(path);
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(stat.mtimeMs, ...readdirSync(path).map(name => newest(join(path, name))));
}

export function isStale() {
  if (!existsSync(STAMP)) return true;
  const inputs = ['src', 'tsconfig.json', 'tsconfig.build.json', 'package.json', 'scripts/build.js'].map(name =>
    newest(at(name)),
  );
  return Math.max(...inputs) > statSync(STAMP).mtimeMs;
}

export function build() {
  rmSync(at('dist'), { recursive: true, force: true });
  execFileSync(process.execPath, [at('node_modules/typescript/bin/tsc'), '-p', at('tsconfig.build.json')], {
    stdio: 'inherit',
  });
  writeFileSync(at('dist/cjs/package.json'), '{"type":"commonjs"}\n');
  mkdirSync(at('dist/esm'), { recursive: true });
  const require = createRequire(import.meta.url);
  for (const [name, path] of Object.entries(ENTRIES)) {
    const names = Object.keys(require(at('dist/cjs', `${path}.js`))).sort();
    const source = `import cjs from '../cjs/${path}.js';\nexport const {\n${names.map(n => `  ${n},`).join('\n')}\n} = cjs;\n`;
    writeFileSync(at('dist/esm', `${name}.js`), source);
    writeFileSync(at('dist/esm', `${name}.d.ts`), `export * from '../cjs/${path}.js';\n`);
  }
  writeFileSync(at('dist/esm/package.json'), '{"type":"module"}\n');
  // Resolvers that ignore `exports` find the other entries by folders.
  for (const name of ['engine', 'testing']) {
    mkdirSync(at(name), { recursive: true });
    writeFileSync(
      at(name, 'package.json'),
      `${JSON.stringify({ main: `../dist/cjs/${name}/index.js`, types: `../dist/cjs/${name}/index.d.ts` })}\n`,
    );
  }
  if (existsSync(at('dist/cjs/cli/main.js'))) chmodSync(at('dist/cjs/cli/main.js'), 0o755);
  writeFileSync(STAMP, '');
}

if (process.argv[1] === fileURLToPath(import.meta.url) && (process.argv.includes('--force') || isStale())) build();
