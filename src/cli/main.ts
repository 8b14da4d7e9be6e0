#!/usr/bin/env node
/** The command line: flags and signals only. What a command does is in commands/. */
import { CommanderError } from 'commander';
import { EXIT } from './exit-codes.js';
import { invocation } from './invocation.js';
import { isReaderGone, outputFailed, report, usage } from './output.js';
import { createProgram } from './program.js';

/** What may still be on its way when a command has ended (a socket's end, a write) gets so long. */
const LEAVE_WITHIN = 2000;

const program = createProgram();

/** Keeps the process while a command runs: the library's timers do not, and a server may be away. */
const hold = setInterval(() => undefined, 2 ** 30);

/** Ends as soon as nothing is on its way any more. */
function end(code: number): void {
  clearInterval(hold);
  process.exitCode = code;
  process.stdin.destroy();
  setTimeout(() => process.exit(code), LEAVE_WITHIN).unref();
}

/** commander's errors in the form of all others. */
function asUsage(error: CommanderError): Error {
  const [message = '', ...hints] = error.message.replace(/^error: /, '').split('\n');
  const hint = hints.map(line => line.replace(/^\((.*)\)$/, '$1')).join(' ');
  const words = process.argv.slice(2).filter(word => /^[a-z]+$/.test(word));
  const command = program.commands.find(candidate => candidate.name() === words[0])?.name() ?? '';
  const help = `"${[invocation(), command, '--help'].filter(word => word !== '').join(' ')}" shows what there is`;
  return usage('invalid-option', message, hint === '' ? help : `${hint} ${help}`);
}

/** What was printed did not arrive. */
let unwritten: Error | undefined;

process.stdout.on('error', (error: Error) => {
  // Each write says so too, to whom it may concern.
  if (!isReaderGone(error)) unwritten ??= outputFailed(error);
});
process.stderr.on('error', () => undefined);

const json = process.argv.includes('--json');

if (process.argv.length <= 2) {
  program.outputHelp();
  end(EXIT.OK);
} else {
  program.parseAsync().then(
    () => end(unwritten === undefined ? Number(process.exitCode ?? EXIT.OK) : report(unwritten, json)),
    (error: unknown) => {
      if (!(error instanceof CommanderError)) end(report(error, json));
      else if (error.exitCode === 0) end(EXIT.OK);
      else end(report(asUsage(error), json));
    },
  );
}
