/** The commands with their options; docs/command-line.md shows them, and a test keeps the page equal. */
import { Command } from 'commander';
import { version } from '../version.js';
import { addAdmin } from './commands/admin.js';
import { addPub } from './commands/pub.js';
import { addServe } from './commands/serve.js';
import { addSub } from './commands/sub.js';

/** The command line, ready to parse; it throws where it would end the process. */
export function createProgram(): Command {
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
  return program;
}
