/** `broadcast sub`: prints messages as they come, acknowledged only when the line has been written. */
import type { Command } from 'commander';
import { stringifyTagged, taggedMessage } from '../../body/tagged.js';
import {
  BroadcastReject,
  BroadcastTcpClient,
  type BroadcastMessage,
  type DeliveryInfo,
  type HandlerOptions,
} from '../../index.js';
import { checkName } from '../../names.js';
import { EXIT } from '../exit-codes.js';
import {
  addClientOptions,
  addNameOption,
  choice,
  clientOptions,
  timeoutOf,
  wholeNumber,
  type Given,
} from '../options.js';
import { CliError, cliLogger, info, isReaderGone, print, printable, style } from '../output.js';

interface SubOptions extends Given {
  readonly count?: string;
  readonly timeout?: string;
  readonly envelope?: boolean;
  readonly format?: string;
  readonly json?: boolean;
}

/** With a count no more than this is fetched ahead. */
const MOST_AHEAD = 1000;
/** A line that is being written when a signal comes gets so long. */
const LAST_WRITE = 1000;

export function addSub(program: Command): void {
  const command = program
    .command('sub')
    .description('print the messages of channels, or without one those that are addressed to this client')
    .argument('[channel...]', 'the channels');
  addNameOption(command);
  command
    .option('--count <n>', 'take exactly so many messages, then end')
    .option('--timeout <ms>', 'end after this time; with --count that is a failure if not all have come')
    .option('--envelope', 'print the whole message, not its data alone')
    .option('--format <format>', 'ndjson, or text: strings as they are (default ndjson)')
    .option('--json', 'warnings and errors as JSON')
    .addHelpText(
      'after',
      `
With --as the subscription is durable: what comes while nobody is here waits for the name, and is printed next time.
Without it, subscription and what waits end with this command. A message is acknowledged when its line is written.

Examples:
  $ broadcast sub room_1
  $ broadcast sub orders payments --as archive >> archive.ndjson
  $ broadcast sub --as user1 --envelope
  $ broadcast sub jobs --as worker --count 1 --timeout 5000`,
    )
    .action((channels: string[], options: SubOptions) => sub(channels, options));
  addClientOptions(command, 'receiver');
}

/** Prints one message at a time, whatever the channel, and knows when it is enough. */
class Printer {
  readonly ended: Promise<void>;
  readonly #options: SubOptions;
  readonly #count: number;
  #end!: (error?: Error) => void;
  #over = false;
  #taken = 0;
  #printed = 0;

  constructor(options: SubOptions, count: number) {
    this.#options = options;
    this.#count = count;
    this.ended = new Promise((resolve, reject) => {
      this.#end = error => (error === undefined ? resolve() : reject(error));
    });
  }

  get printed(): number {
    return this.#printed;
  }

  /** Nothing is taken any more. */
  end(error?: Error): void {
    this.#over = true;
    this.#end(error);
  }

  handle = async (message: BroadcastMessage, delivery: DeliveryInfo): Promise<void> => {
    // What comes beyond the count, or cannot be written, is not acknowledged: it stays for the next one.
    if (this.#over || this.#taken >= this.#count) return NEVER;
    this.#taken++;
    const line = lineOf(message, delivery, this.#options);
    try {
      await print(line);
    } catch (error) {
      this.end(isReaderGone(error) ? undefined : (error as Error));
      return NEVER;
    }
    this.#printed++;
    if (this.#printed === this.#count) this.end();
  };
}

const NEVER = new Promise<never>(() => undefined);

async function sub(channels: string[], options: SubOptions): Promise<void> {
  choice(options.format ?? 'ndjson', '--format', ['ndjson', 'text']);
  for (const channel of channels) checkName(channel, 'the channel');
  const count = options.count === undefined ? Infinity : wholeNumber(options.count, '--count', 1);
  const timeout = timeoutOf(options.timeout);
  const client = new BroadcastTcpClient({ ...clientOptions(options), logger: cliLogger(options.json === true) });
  const printer = new Printer(options, count);
  const settings: HandlerOptions = count === Infinity ? {} : { window: Math.min(count, MOST_AHEAD) };
  for (const channel of new Set(channels)) client.onMessage(channel, printer.handle, settings);
  if (channels.length === 0) client.onMessage(printer.handle, settings);
  const release = watch(printer, count, timeout);
  client.connect().then(
    () => announce(client.name, channels, options),
    (error: unknown) => printer.end(error as Error),
  );
  try {
    await printer.ended;
  } finally {
    release();
    await client.close({ timeout: LAST_WRITE });
  }
}

/** Listens to signals and the time. */
function watch(printer: Printer, count: number, timeout: number | undefined): () => void {
  const short = (exitCode: number, code: string, why: string): CliError | undefined =>
    count === Infinity
      ? undefined
      : new CliError(exitCode, code, `${String(printer.printed)} of ${String(count)} messages came ${why}`);
  const onSignal = (signal: string): void => printer.end(short(EXIT.INTERRUPTED, 'interrupted', `before ${signal}`));
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  const timer =
    timeout === undefined
      ? undefined
      : setTimeout(() => printer.end(short(EXIT.TIMEOUT, 'timeout', `within ${String(timeout)} ms`)), timeout);
  return () => {
    clearTimeout(timer);
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  };
}

/** Says that the subscriptions are in force. */
function announce(name: string, channels: string[], options: SubOptions): void {
  if (options.json === true) info(JSON.stringify({ subscribed: channels, client: name }));
  else {
    const what = channels.length === 0 ? 'messages to itself' : channels.join(', ');
    info(style('dim', printable(`${name} is listening to ${what}`)));
  }
}

const C1 = /[\u007f-\u009f]/g;

function lineOf(
  message: BroadcastMessage,
  { channel, redelivered, attempt }: DeliveryInfo,
  options: SubOptions,
): string {
  if (options.format === 'text' && options.envelope !== true && typeof message.data === 'string')
    return process.stdout.isTTY ? printable(message.data) : message.data;
  try {
    const json =
      options.envelope === true
        ? JSON.stringify({ ...taggedMessage(message), subscription: channel, redelivered, attempt })
        : stringifyTagged(message.data);
    // JSON escapes what a terminal obeys, but for these.
    return process.stdout.isTTY ? json.replace(C1, c => `\\u00${c.charCodeAt(0).toString(16)}`) : json;
  } catch (error) {
    if (error instanceof RangeError) throw new BroadcastReject('its data is nested too deep to be printed as JSON');
    throw error;
  }
}
