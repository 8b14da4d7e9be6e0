#!/usr/bin/env node
/** The command line: flags and signals only. What a command does is in commands/. */
import { CommanderError } from 'commander';
import { EXIT } from './exit-codes.js';
import { report } from './output.js';
import { createProgram } from './program.js';

const program = createProgram();

if (process.argv.length <= 2) program.outputHelp();
else {
  program.parseAsync().then(
    () => process.exit(process.exitCode ?? EXIT.OK),
    (error: unknown) => {
      if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? EXIT.OK : EXIT.USAGE);
      process.exit(report(error, process.argv.includes('--json')));
    },
  );
}
