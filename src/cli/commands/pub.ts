/** `broadcast pub`: sends one message, or a line of standard input each, as fast as the server takes them. */
import type { Command } from 'commander';
import { fromTagged } from '../../body/tagged.js';
import { BroadcastMessage, BroadcastTcpClient, DEFAULT_LIMITS, type MessageOptions } from '../../index.js';
import { checkName } from '../../names.js';
import { EXIT } from '../exit-codes.js';
import { linesOf, type Line } from '../lines.js';
import { addClientOptions, addNameOption, choice, clientOptions, timeoutOf, type Given } from '../options.js';
import { CliError, cliLogger, info, style, usage } from '../output.js';
import { showProgress } from '../progress.js';
import { Tally } from '../tally.js';

/** When a signal has come, what is on its way gets so long to become safe. */
const LAST_RECEIPTS = 1000;

interface PubOptions extends Given {
  readonly to?: string;
  readonly name?: string;
  readonly persistent: boolean;
  readonly until?: string;
  readonly jsonData?: boolean;
  readonly format?: string;
  readonly timeout?: string;
  readonly json?: boolean;
}

export function addPub(program: Command): void {
  const command = program
    .command('pub')
    .description('send messages to a channel, or with --to to a client; without data a line of standard input each')
    .argument('[channel]', 'the channel; left out with --to')
    .argument('[data]', 'the message: text, or JSON with --json-data');
  command.option('--to <client>', 'send to a client instead of a channel');
  addNameOption(command);
  command
    .option('--name <name>', 'name of the messages')
    .option('--no-persistent', 'at most once: who is away does not get it')
    .option('--until <what>', 'safe, or delivered: wait until every recipient has handled it (default safe)')
    .option('--json-data', 'the data on the command line is JSON (or its tagged form)')
    .option('--format <format>', 'of standard input: ndjson or text (default ndjson)')
    .option('--timeout <ms>', 'give up after this time; what became of the rest is unknown')
    .option('--json', 'the closing report, warnings and errors as JSON')
    .addHelpText(
      'after',
      `
Examples:
  $ broadcast pub room_1 "Hello world"
  $ broadcast pub --to user1 --json-data '{"total":{"$bigint":"12345678901234567890"}}'
  $ broadcast pub orders < orders.ndjson
  $ tail -f app.log | broadcast pub logs --format text --no-persistent`,
    )
    .action((channel: string | undefined, data: string | undefined, options: PubOptions) =>
      pub(channel, data, options),
    );
  addClientOptions(command, 'sender');
}

/** What is sent, and where to; checked before anything is. */
interface Job {
  readonly to: string | undefined;
  readonly channel: string | undefined;
  readonly data: string | undefined;
  readonly until: 'safe' | 'delivered';
  readonly format: 'ndjson' | 'text';
  readonly timeout: number | undefined;
  readonly settings: MessageOptions;
}

function jobOf(first: string | undefined, second: string | undefined, options: PubOptions): Job {
  const { to, name } = options;
  if (to !== undefined && second !== undefined)
    throw usage(
      'invalid-argument',
      'give a channel or --to, not both',
      `broadcast pub --to ${to} ${JSON.stringify(second)}`,
    );
  const [channel, data] = to === undefined ? [first, second] : [undefined, first];
  if (to === undefined && channel === undefined)
    throw usage(
      'invalid-argument',
      'give a channel, or a client with --to',
      'for example: broadcast pub room_1 "Hello world"',
    );
  if (channel !== undefined) checkName(channel, 'the channel');
  if (to !== undefined) checkName(to, 'the client');
  if (name !== undefined) checkName(name, 'the message name');
  if (options.jsonData === true && data === undefined)
    throw usage('invalid-option', '--json-data is for data on the command line', 'standard input has --format');
  return {
    to,
    channel,
    data,
    until: choice(options.until ?? 'safe', '--until', ['safe', 'delivered']),
    format: choice(options.format ?? 'ndjson', '--format', ['ndjson', 'text']),
    timeout: timeoutOf(options.timeout),
    settings: { persistent: options.persistent, ...(name === undefined ? {} : { name }) },
  };
}

/** Why no more is sent: a line that is wrong, a signal, or the time. */
class Stop {
  readonly promise: Promise<void>;
  error: CliError | undefined;
  #stop!: () => void;

  constructor() {
    this.promise = new Promise(resolve => {
      this.#stop = resolve;
    });
  }

  now(error: CliError): void {
    this.error ??= error;
    this.#stop();
  }
}

async function pub(first: string | undefined, second: string | undefined, options: PubOptions): Promise<void> {
  const job = jobOf(first, second, options);
  const json = options.json === true;
  const argument = job.data === undefined || options.jsonData !== true ? job.data : parseJson(job.data, 'the data');
  const config = clientOptions(options);
  const client = new BroadcastTcpClient({ ...config, logger: cliLogger(json) });
  const tally = new Tally({ ...DEFAULT_LIMITS, ...config.limits });
  const hideProgress = job.data === undefined ? showProgress(tally) : () => undefined;
  const send = (body: unknown, bytes: number, where: string): void => {
    const message = BroadcastMessage.create(job.to, job.channel, body, job.settings);
    tally.add(client.sendMessage(message, { until: job.until }), bytes, where);
  };
  const stop = new Stop();
  const release = watch(stop, job);
  const refused = client.connect().then(() => new Promise<never>(() => undefined));
  try {
    const work = async (): Promise<void> => {
      if (job.data !== undefined) send(argument, 0, '');
      else await sendInput(job, tally, send, stop);
      await Promise.race([tally.done(), stopped(stop)]);
    };
    await Promise.race([work(), refused, stopped(stop)]);
  } finally {
    release();
    hideProgress();
    // What is not safe by then is given up: its receipts say so, and are counted.
    await client.close({ timeout: stop.error?.exitCode === EXIT.NOT_SAFE ? 1 : LAST_RECEIPTS });
    await tally.done();
  }
  conclude(tally, json, stop.error);
}

/** A wrong line does not keep those before it from becoming safe; time and signals do. */
function stopped(stop: Stop): Promise<void> {
  return stop.promise.then(() =>
    stop.error?.exitCode === EXIT.BAD_INPUT ? new Promise<never>(() => undefined) : undefined,
  );
}

/** Listens to signals and the time. */
function watch(stop: Stop, { timeout, until }: Job): () => void {
  const done = until === 'safe' ? 'safe' : 'handled';
  const onSignal = (signal: string): void => {
    if (stop.error?.exitCode === EXIT.INTERRUPTED) process.exit(EXIT.INTERRUPTED);
    stop.error = undefined;
    stop.now(new CliError(EXIT.INTERRUPTED, 'interrupted', `${signal} came before everything was sent and ${done}`));
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  const timer =
    timeout === undefined
      ? undefined
      : setTimeout(() => {
          stop.now(new CliError(EXIT.NOT_SAFE, 'timeout', `not everything was ${done} within ${String(timeout)} ms`));
        }, timeout);
  return () => {
    clearTimeout(timer);
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  };
}

function parseJson(text: string, what: string): unknown {
  try {
    return fromTagged(JSON.parse(text));
  } catch (error) {
    throw usage(
      'invalid-argument',
      `${what} is not valid JSON: ${faultOf(error)}`,
      'leave --json-data out to send it as text',
    );
  }
}

function faultOf(error: unknown): string {
  return error instanceof RangeError ? 'it is nested too deep' : (error as Error).message;
}

/** The data of a line. Throws when it has none. */
function bodyOf(line: Line, format: Job['format']): unknown {
  const where = `line ${String(line.number)}`;
  if (line.text === undefined) throw badLine(`${where} ${String(line.fault)}`, 'the input must be UTF-8, in lines');
  if (format === 'text') return line.text;
  try {
    return fromTagged(JSON.parse(line.text));
  } catch (error) {
    throw badLine(`${where} is not valid JSON: ${faultOf(error)}`, 'mend the line, or send lines as --format text');
  }
}

function badLine(message: string, remedy: string): CliError {
  return new CliError(EXIT.BAD_INPUT, 'bad-input', message, `${remedy}; the lines before it were sent, none after it`);
}

async function sendInput(
  { format }: Job,
  tally: Tally,
  send: (body: unknown, bytes: number, where: string) => void,
  stop: Stop,
): Promise<void> {
  if (process.stdin.isTTY && process.stderr.isTTY)
    info(
      style('dim', `reading ${format === 'text' ? 'lines of text' : 'lines of JSON'} from the terminal; Ctrl-D ends`),
    );
  for await (const line of linesOf(process.stdin)) {
    if (stop.error !== undefined) return;
    if (format === 'ndjson' && line.text?.trim() === '') continue;
    try {
      const body = bodyOf(line, format);
      await tally.room(line.bytes);
      send(body, line.bytes, `line ${String(line.number)}: `);
    } catch (error) {
      if (!(error instanceof CliError)) throw error;
      stop.now(error);
      return;
    }
  }
}

function conclude(tally: Tally, json: boolean, stop: CliError | undefined): void {
  const { sent, delivered, stored, routed, failed, unknown, durability } = tally;
  if (json) info(JSON.stringify({ sent, delivered, stored, routed, failed, unknown, durability }));
  else {
    const parts = [
      `${String(delivered)} delivered`,
      `${String(stored)} stored${stored > 0 ? ` (${durability})` : ''}`,
      ...(routed > 0 ? [`${String(routed)} routed`] : []),
      `${String(failed)} failed`,
      ...(unknown > 0 ? [`${String(unknown)} unknown`] : []),
    ];
    info(`${style(failed + unknown === 0 ? 'green' : 'red', `${String(sent)} sent`)}: ${parts.join(', ')}`);
  }
  if (stop !== undefined) throw stop;
  if (failed + unknown === 0) return;
  throw new CliError(
    EXIT.NOT_SAFE,
    'not-safe',
    `${String(failed + unknown)} of ${String(sent)} messages are not safe; the first: ${tally.firstFailure ?? 'no reason is known'}`,
  );
}
