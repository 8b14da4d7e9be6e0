import { defineConfig } from 'vitest/config';
import { COMPLETE } from './scripts/coverage.js';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/helpers/build.ts'],
    testTimeout: 20_000,
    hookTimeout: 20_000,
    maxWorkers: 2,
    coverage: {
      provider: 'v8',
      include: ['src/**'],
      // The command line runs in processes of its own, where nothing is counted.
      exclude: ['src/cli/**'],
      reporter: ['text-summary', 'json-summary', 'json'],
      reportOnFailure: true,
      thresholds: Object.fromEntries(COMPLETE.map(files => [files, { branches: 100 }])),
    },
  },
});
