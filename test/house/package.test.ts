/** What the repository's own files promise: the lock file, the manifest, what git ignores. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { root } from '../../scripts/prepare.js';
import { version } from '../../src/version.js';

interface Manifest {
  version: string;
  scripts: Record<string, string>;
  dependencies: Record<string, string>;
  devDependencies: Record<string, string>;
}
interface Lock {
  packages: Record<string, { version: string; resolved?: string; dependencies?: Record<string, string> }>;
}

const read = (path: string) => readFileSync(join(root, path), 'utf8');
const manifest = JSON.parse(read('package.json')) as Manifest;
const lock = JSON.parse(read('package-lock.json')) as Lock;

describe('the lock file', () => {
  it('names no host of a registry, so that npm ci works with any', () => {
    const resolved = Object.entries(lock.packages).filter(([, entry]) => entry.resolved !== undefined);
    expect(resolved).toEqual([]);
    expect(read('package-lock.json')).not.toMatch(/https?:\/\/[^"]*\.tgz/);
  });

  it('is of the dependencies that package.json has', () => {
    const { dependencies, devDependencies } = lock.packages[''] as Record<string, unknown>;
    expect(dependencies).toEqual(manifest.dependencies);
    expect(devDependencies).toEqual(manifest.devDependencies);
  });
});

describe('the manifest', () => {
  it('has the version that the code and its lock file have', () => {
    expect(version).toBe(manifest.version);
    expect(lock.packages['']?.version).toBe(manifest.version);
  });

  it('runs nothing when the package is installed', () => {
    expect(Object.keys(manifest.scripts)).not.toEqual(
      expect.arrayContaining([expect.stringMatching(/^(pre|post)?install$/)]),
    );
  });

  it('has scripts that exist', () => {
    for (const command of Object.values(manifest.scripts)) {
      const [, file] = /^node (\S+\.js)/.exec(command) ?? [];
      if (file !== undefined) expect(() => read(file), command).not.toThrow();
    }
  });
});

describe('git', () => {
  it('ignores what is built, installed, stored and measured', () => {
    const paths = [
      'node_modules/x',
      'dist/x',
      'data/x',
      'coverage/x',
      '.cache/x',
      'engine/package.json',
      'testing/x',
      'a.tgz',
    ];
    const ignored = execFileSync('git', ['check-ignore', '--no-index', ...paths], { cwd: root, encoding: 'utf8' });
    expect(ignored.trim().split('\n')).toEqual(paths);
  });

  it('does not ignore the source of the same names', () => {
    const paths = ['src/engine/index.ts', 'src/testing/index.ts', 'test/x.ts'];
    expect(() => execFileSync('git', ['check-ignore', '--no-index', ...paths], { cwd: root, stdio: 'pipe' })).toThrow();
  });
});
