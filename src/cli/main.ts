#!/usr/bin/env node
/** The command line: flags and signals only. What a command does is in commands/. */
import { Command, CommanderError } from 'commander';
import { version } from '../version.js';
import { addAdmin } from './commands/admin.js';
import { addPub } from './commands/pub.js';
import { addServe } from './commands/serve.js';
import { addSub } from './commands/sub.js';
import { EXIT } from './exit-codes.js';
import { report } from './output.js';

const program = new Command('broadcast')
  .description('Durable messages between processes, without a broker to run.')
  .version(version)
  .showSuggestionAfterError()
  .showHelpAfterError('(add --help for what there is)')
  .exitOverride();

addServe(program);
addPub(program);
addSub(program);
addAdmin(program);
for (const command of program.commands) {
  command.exitOverride();
  for (const sub of command.commands) sub.exitOverride();
}

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
