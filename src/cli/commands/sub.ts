/** `broadcast sub`: prints messages as they come, acknowledged only when the line has been written. */
import type { Command } from 'commander';
import { stringifyTagged } from '../../body/tagged.js';
import { BroadcastTcpClient, type BroadcastMessage } from '../../index.js';
import { EXIT } from '../exit-codes.js';
import { addEndpointOptions, clientOptions, readOptions } from '../options.js';
import { CliError, cliLogger, print } from '../output.js';

interface SubOptions {
  readonly as?: string;
  readonly count?: string;
  readonly timeout?: string;
  readonly envelope?: boolean;
  readonly format: string;
}

export function addSub(program: Command): void {
  const command = program
    .command('sub')
    .description('print the messages of channels, or without one those that are addressed to this client')
    .argument('[channel...]', 'the channels');
  addEndpointOptions(command);
  command
    .option('--as <client>', 'name of this client; makes the subscription durable')
    .option('--count <n>', 'take exactly so many messages, then end')
    .option('--timeout <ms>', 'end after this time')
    .option('--envelope', 'print the whole message, not its data alone')
    .option('--format <format>', 'ndjson, or text: strings as they are', 'ndjson')
    .option('--json', 'errors as JSON')
    .action((channels: string[], options: SubOptions & Record<string, unknown>) => sub(channels, options));
}

function wholeNumber(text: string | undefined, flag: string): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1)
    throw new CliError(
      EXIT.USAGE,
      'invalid-option',
      `${flag} takes a whole number from 1, not ${JSON.stringify(text)}`,
    );
  return value;
}

async function sub(channels: string[], options: SubOptions & Record<string, unknown>): Promise<void> {
  if (!['ndjson', 'text'].includes(options.format))
    throw new CliError(
      EXIT.USAGE,
      'invalid-option',
      `--format is ndjson or text, not ${JSON.stringify(options.format)}`,
    );
  const count = wholeNumber(options.count, '--count');
  const timeout = wholeNumber(options.timeout, '--timeout');
  const client = new BroadcastTcpClient({ ...clientOptions(readOptions(options)), logger: cliLogger }, options.as);
  const keepAlive = setInterval(() => undefined, 1000);
  let end!: (error?: unknown) => void;
  const ended = new Promise<void>((resolve, reject) => {
    end = error => (error === undefined ? resolve() : reject(error));
  });
  let left = count ?? Infinity;
  const handle = async (message: BroadcastMessage): Promise<void> => {
    if (left <= 0) return new Promise(() => undefined); // not ours any more: it stays for the next one
    left--;
    await print(format(message, options));
    // The acknowledgement leaves when this handler has ended, so the end is decided a turn later.
    if (left === 0) setImmediate(() => end());
  };
  // With a count nothing is taken beyond it: one message at a time.
  const settings = count === undefined ? {} : { window: 1 };
  for (const channel of channels) client.onMessage(channel, handle, settings);
  if (channels.length === 0) client.onMessage(handle, settings);
  process.stdout.on('error', (error: NodeJS.ErrnoException) => end(error.code === 'EPIPE' ? undefined : error));
  process.once('SIGINT', () => end());
  process.once('SIGTERM', () => end());
  const timer =
    timeout === undefined
      ? undefined
      : setTimeout(
          () =>
            end(
              count === undefined
                ? undefined
                : new CliError(
                    EXIT.TIMEOUT,
                    'timeout',
                    `${String(count - left)} of ${String(count)} messages came within ${String(timeout)} ms`,
                  ),
            ),
          timeout,
        );
  client.connect().catch(end);
  try {
    await ended;
  } finally {
    clearTimeout(timer);
    clearInterval(keepAlive);
    await client.close({ timeout: 1000 });
  }
}

function format(message: BroadcastMessage, { envelope, format: form }: SubOptions): string {
  if (envelope === true) return stringifyTagged({ ...message });
  if (form === 'text' && typeof message.data === 'string') return message.data;
  return stringifyTagged(message.data);
}
