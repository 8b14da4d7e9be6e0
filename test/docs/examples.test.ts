/**
 * The examples of README.md and docs/ that are marked to be run: blocks whose fence says `js run` or `ts run`. Each runs
 * as it stands, in a process and an empty folder of its own, against the packed package as npm would install it; ports
 * 9000 to 9009 become free ones, in what it prints as well. What it prints is what the `text` block behind it shows, where there is one
 * before the next heading or block; `…` there stands for anything within a line. TypeScript is checked, strictly, before it runs.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { text } from 'node:stream/consumers';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { root } from '../../scripts/prepare.js';

interface Example {
  readonly page: string;
  readonly line: number;
  readonly language: 'js' | 'ts';
  readonly source: string;
  readonly output: string | undefined;
}

function pages(): string[] {
  const docs = existsSync(join(root, 'docs')) ? readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' }) : [];
  return ['README.md', ...docs.filter(path => path.endsWith('.md')).map(path => join('docs', path))].filter(page =>
    existsSync(join(root, page)),
  );
}

/** The blocks of a page that are to be run, each with the output that follows it. */
function examplesOf(page: string, markdown: string): Example[] {
  const found: Example[] = [];
  const blocks = [...markdown.matchAll(/^```(.*)\n([^]*?)^```$/gm)];
  blocks.forEach((block, i) => {
    const [language, mark] = block[1]!.trim().split(/\s+/);
    if (mark !== 'run' || (language !== 'js' && language !== 'ts')) return;
    const next = blocks[i + 1];
    const between = markdown.slice(block.index + block[0].length, next?.index);
    const follows = next !== undefined && next[1]!.trim().split(/\s+/)[0] === 'text' && !/^#/m.test(between);
    found.push({
      page,
      line: markdown.slice(0, block.index).split('\n').length,
      language,
      source: block[2]!,
      output: follows ? next[2] : undefined,
    });
  });
  return found;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, 'localhost');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** The text with ports of its own, and a function that undoes it in what is printed. */
async function withFreePorts(source: string): Promise<{ source: string; undo: (output: string) => string }> {
  const ports = new Map<string, string>();
  for (const [port] of source.matchAll(/\b900\d\b/g)) if (!ports.has(port)) ports.set(port, String(await freePort()));
  const undo = (output: string): string =>
    [...ports].reduce((result, [port, free]) => result.replaceAll(free, port), output);
  return { source: source.replace(/\b900\d\b/g, port => ports.get(port)!), undo };
}

function pattern(output: string): RegExp {
  const parts = output.trimEnd().split('…');
  return new RegExp(`^${parts.map(part => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('.*')}$`);
}

let folder = '';

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'broadcast-docs-'));
  const [packed] = JSON.parse(
    execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], {
      cwd: root,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }),
  ) as [{ filename: string }];
  // As npm installs it: unpacked, beside its dependencies.
  const place = join(folder, 'node_modules', '@alien-worlds', 'aw-broadcast');
  mkdirSync(place, { recursive: true });
  execFileSync('tar', ['-xzf', join(folder, packed.filename), '-C', place, '--strip-components=1']);
  const { dependencies } = JSON.parse(readFileSync(join(place, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>;
  };
  for (const name of [...Object.keys(dependencies), '@types'])
    symlinkSync(join(root, 'node_modules', name), join(folder, 'node_modules', name));
  mkdirSync(join(folder, 'node_modules', '.bin'));
  symlinkSync(join(place, 'dist', 'cjs', 'cli', 'main.js'), join(folder, 'node_modules', '.bin', 'broadcast'));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

function compile(path: string, source: string): string {
  writeFileSync(path, source);
  const options: ts.CompilerOptions = {
    strict: true,
    target: ts.ScriptTarget.ES2022,
    lib: ['lib.es2022.d.ts', 'lib.esnext.disposable.d.ts'],
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    types: ['node'],
    skipLibCheck: true,
    noEmit: true,
  };
  const found = ts.getPreEmitDiagnostics(ts.createProgram([path], options));
  expect(found.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'))).toEqual([]);
  return ts.transpileModule(source, { compilerOptions: options }).outputText;
}

async function run(example: Example): Promise<{ stdout: string; stderr: string; code: unknown }> {
  const place = mkdtempSync(join(folder, 'example-'));
  symlinkSync(join(folder, 'node_modules'), join(place, 'node_modules'));
  const { source, undo } = await withFreePorts(example.source);
  const file = join(place, 'example.mjs');
  writeFileSync(file, example.language === 'ts' ? compile(join(place, 'example.mts'), source) : source);
  const child = spawn(process.execPath, [file], {
    cwd: place,
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  onTestFinished(() => {
    try {
      process.kill(-child.pid!, 'SIGKILL');
    } catch {
      // All of its processes have ended.
    }
  });
  // What it prints ends when all processes that it started have ended, too.
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
  return { stdout: undo(stdout), stderr: undo(stderr), code: child.exitCode };
}

describe('the examples of the documentation', () => {
  const examples = pages().flatMap(page => examplesOf(page, readFileSync(join(root, page), 'utf8')));

  it('are taken from every page', () => {
    const marked = pages().map(page => readFileSync(join(root, page), 'utf8').match(/^```(js|ts) run/gm)?.length ?? 0);
    expect(examples.length).toBe(marked.reduce((sum, count) => sum + count, 0));
  });

  for (const example of examples) {
    it(`${relative('.', example.page)}:${String(example.line)} does what it says`, async () => {
      const { stdout, stderr, code } = await run(example);
      expect({ code, stderr }).toEqual({ code: 0, stderr });
      if (example.output !== undefined && !pattern(example.output).test(stdout.trimEnd()))
        expect(stdout + stderr).toBe(example.output);
    });
  }
});

describe('an example', () => {
  it('is taken with the output behind it, unless a heading or another block is between', () => {
    const page = '```js run\n1\n```\nprints\n\n```text\none\n```\n```js run\n2\n```\n# next\n```text\ntwo\n```\n```ts\n3\n```\n';
    expect(examplesOf('x.md', page)).toEqual([
      { page: 'x.md', line: 1, language: 'js', source: '1\n', output: 'one\n' },
      { page: 'x.md', line: 9, language: 'js', source: '2\n', output: undefined },
    ]);
  });

  it('may leave open a part of a line', () => {
    expect(pattern('took … ms\n').test('took 17 ms')).toBe(true);
    expect(pattern('took … ms\n').test('took 17\nms')).toBe(false);
  });
});
