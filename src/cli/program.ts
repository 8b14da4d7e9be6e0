/** The commands with their options; docs/command-line.md shows them, and a test keeps the page equal. */
import { Command } from 'commander';
import { version } from '../version.js';
import { addAdmin } from './commands/admin.js';
import { addPub } from './commands/pub.js';
import { addServe } from './commands/serve.js';
import { addSub } from './commands/sub.js';

const NOTES = `
Every option can be given in the environment too: --port as BROADCAST_PORT, --message-bytes as BROADCAST_MESSAGE_BYTES.
Data goes to standard output, everything else to standard error. Exit codes and recipes: docs/command-line.md.`;

/** The command line, ready to parse; it throws where it would end the process, and leaves the words to main.ts. */
export function createProgram(): Command {
  const program = new Command('broadcast')
    .description('Durable messages between processes, without a broker to run.')
    .version(version, '-V, --version', 'print the version')
    .addHelpText('after', NOTES);
  addServe(program);
  addPub(program);
  addSub(program);
  addAdmin(program);
  for (const command of [program, ...program.commands, ...program.commands.flatMap(({ commands }) => commands)]) {
    command
      .helpOption('-h, --help', 'print this help')
      .helpCommand(false)
      .exitOverride()
      .showSuggestionAfterError()
      .configureOutput({ outputError: () => undefined });
  }
  return program.helpCommand('help [command]', 'print the help of a command');
}
