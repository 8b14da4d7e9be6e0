/** `broadcast pub`: sends one message, or a line of standard input each, as fast as the server takes them. */
import { createInterface } from 'node:readline';
import type { Command } from 'commander';
import { fromTagged } from '../../body/tagged.js';
import { BroadcastMessage, BroadcastTcpClient, type MessageOptions, type Receipt } from '../../index.js';
import { EXIT } from '../exit-codes.js';
import { addEndpointOptions, clientOptions, readOptions } from '../options.js';
import { CliError, cliLogger, info, style } from '../output.js';

interface PubOptions {
  readonly to?: string;
  readonly name?: string;
  readonly as?: string;
  readonly persistent: boolean;
  readonly until?: string;
  readonly jsonData?: boolean;
  readonly format: string;
  readonly json?: boolean;
}

export function addPub(program: Command): void {
  const command = program
    .command('pub')
    .description('send messages to a channel, or with --to to a client; without data a line of standard input each')
    .argument('[channel]', 'the channel')
    .argument('[data]', 'the message: text, or JSON with --json-data');
  addEndpointOptions(command);
  command
    .option('--to <client>', 'send to a client instead of a channel')
    .option('--name <name>', 'name of the messages')
    .option('--as <client>', 'name of this client')
    .option('--no-persistent', 'at most once: who is away does not get it')
    .option('--until <what>', '"safe", or "delivered": wait until every recipient has handled it', 'safe')
    .option('--json-data', 'the argument is JSON (or its tagged form)')
    .option('--format <format>', 'of standard input: ndjson or text', 'ndjson')
    .option('--json', 'the closing report and errors as JSON')
    .action((channel: string | undefined, data: string | undefined, options: PubOptions & Record<string, unknown>) =>
      pub(channel, data, options),
    );
}

class Tally {
  sent = 0;
  delivered = 0;
  stored = 0;
  failed = 0;
  firstError: string | undefined;

  count(receipt: Receipt): void {
    if (receipt.status === 'stored') this.stored++;
    else if (receipt.status === 'undelivered') this.failed++;
    else this.delivered++;
    if (receipt.status === 'undelivered')
      this.firstError ??= `undelivered: ${receipt.failures[0]?.reason ?? 'nobody is there'}`;
  }

  fail(error: unknown): void {
    this.failed++;
    this.firstError ??= error instanceof Error ? error.message : String(error);
  }

  get settled(): number {
    return this.delivered + this.stored + this.failed;
  }
}

async function pub(
  channel: string | undefined,
  data: string | undefined,
  options: PubOptions & Record<string, unknown>,
): Promise<void> {
  if (options.to !== undefined && data === undefined) [channel, data] = [undefined, channel];
  if (options.to === undefined && channel === undefined)
    throw new CliError(
      EXIT.USAGE,
      'invalid-argument',
      'give a channel, or a client with --to',
      'broadcast pub room_1 "Hello world"',
    );
  if (!['ndjson', 'text'].includes(options.format))
    throw new CliError(
      EXIT.USAGE,
      'invalid-option',
      `--format is ndjson or text, not ${JSON.stringify(options.format)}`,
    );
  if (options.until !== 'safe' && options.until !== 'delivered')
    throw new CliError(
      EXIT.USAGE,
      'invalid-option',
      `--until is safe or delivered, not ${JSON.stringify(options.until)}`,
    );
  const client = new BroadcastTcpClient({ ...clientOptions(readOptions(options)), logger: cliLogger }, options.as);
  const refused = client.connect();
  const tally = new Tally();
  const settings: MessageOptions = {
    persistent: options.persistent,
    ...(options.name === undefined ? {} : { name: options.name }),
  };
  const make = (body: unknown): BroadcastMessage => BroadcastMessage.create(options.to, channel, body, settings);
  const send = (body: unknown): void => {
    tally.sent++;
    client.sendMessage(make(body), { until: options.until as 'safe' | 'delivered' }).then(
      receipt => tally.count(receipt),
      error => tally.fail(error),
    );
  };
  // A pipe alone does not keep the process while the server is away; a timer does.
  const keepAlive = setInterval(() => undefined, 1000);
  const progress = showProgress(tally);
  try {
    if (data !== undefined) send(options.jsonData === true ? parseJson(data, 'the data') : data);
    else await sendInput(client, options.format, send);
    await Promise.race([settled(tally), refused.then(() => new Promise<never>(() => undefined))]);
  } finally {
    progress();
    clearInterval(keepAlive);
    await client.close();
  }
  conclude(tally, options.json === true);
}

function parseJson(text: string, what: string): unknown {
  try {
    return fromTagged(JSON.parse(text));
  } catch (error) {
    throw new CliError(
      EXIT.USAGE,
      'invalid-argument',
      `${what} is not valid JSON: ${(error as Error).message}`,
      'leave --json-data out to send it as text, or --format text for lines of text',
    );
  }
}

async function sendInput(client: BroadcastTcpClient, format: string, send: (body: unknown) => void): Promise<void> {
  let number = 0;
  for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    number++;
    if (format === 'ndjson') {
      if (line.trim() === '') continue;
      send(parseJson(line, `line ${String(number)}`));
    } else send(line);
    if (client.outbox.full) await client.ready();
  }
}

/** Looks until every message has its receipt. */
function settled(tally: Tally): Promise<void> {
  return new Promise(resolve => {
    const look = (): void => {
      if (tally.settled >= tally.sent) resolve();
      else setTimeout(look, 5);
    };
    look();
  });
}

const BAR = 24;

/** A bar on standard error, when that is a terminal. */
function showProgress(tally: Tally): () => void {
  if (!process.stderr.isTTY) return () => undefined;
  let drawn = false;
  const draw = (): void => {
    drawn = true;
    const done = tally.sent === 0 ? 0 : tally.settled / tally.sent;
    const filled = Math.round(done * BAR);
    process.stderr.write(
      `\r${'█'.repeat(filled)}${'░'.repeat(BAR - filled)} ${String(tally.settled)} of ${String(tally.sent)} safe `,
    );
  };
  const timer = setInterval(draw, 100);
  return () => {
    clearInterval(timer);
    if (drawn) process.stderr.write('\r\u001b[K');
  };
}

function conclude({ sent, delivered, stored, failed, firstError }: Tally, json: boolean): void {
  if (json) info(JSON.stringify({ sent, delivered, stored, failed }));
  else
    info(
      `${style(failed === 0 ? 'green' : 'red', `${String(sent)} sent`)}: ${String(delivered)} delivered, ${String(stored)} stored, ${String(failed)} failed`,
    );
  if (failed > 0)
    throw new CliError(
      EXIT.NOT_SAFE,
      'not-safe',
      `${String(failed)} of ${String(sent)} messages are not safe (${firstError ?? 'unknown'})`,
    );
}
