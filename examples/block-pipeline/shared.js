// What the processes of the pipeline share: names, the connection, and a file that survives kill -9.
import { appendFileSync, existsSync, readFileSync, truncateSync } from 'node:fs';
import { BroadcastMessage, BroadcastTcpClient } from '@alien-worlds/aw-broadcast';

// When the process that started this one is gone, nobody would end it.
process.once('disconnect', () => process.exit());

/** Kinds of actions in a block; each has a channel and a processor of its own. */
export const KINDS = ['transfer', 'vote'];

/** What the process was started with. */
export const { port, folder, from, to, size } = JSON.parse(process.env.PIPELINE ?? '{}');

/** Ranges do not depend on each other, so each process works at several at a time; with 1, the default, order is kept. */
export const SEVERAL = { concurrency: 8 };

export function connect(name) {
  return new BroadcastTcpClient({ port, reconnectInterval: 50 }, name);
}

export function toChannel(client, channel, data) {
  return client.sendMessage(BroadcastMessage.createChannelMessage(channel, data));
}

export function toClient(client, name, data) {
  return client.sendMessage(BroadcastMessage.createClientMessage(name, data));
}

/** The actions of a block: what a reader would fetch from a chain. The same for everybody who asks. */
export function actionsOf(block) {
  return [
    { kind: 'transfer', amount: (block * 7n) % 1000n },
    { kind: block % 3n === 0n ? 'vote' : 'noise', amount: block % 10n },
  ];
}

/** The ranges of the work, as pairs of `bigint`s: the first block and the one after the last. */
export function ranges() {
  const all = [];
  for (let start = BigInt(from); start < BigInt(to); start += BigInt(size)) {
    const end = start + BigInt(size);
    all.push({ start, end: end < BigInt(to) ? end : BigInt(to) });
  }
  return all;
}

/**
 * Lines that were written before the process died. A line that was cut short by the kill does not count, and is cut
 * off: what it stood for was not acknowledged, so it comes again.
 */
export function journal(path) {
  const text = existsSync(path) ? readFileSync(path, 'utf8') : '';
  const whole = text.slice(0, text.lastIndexOf('\n') + 1);
  if (whole.length < text.length) truncateSync(path, Buffer.byteLength(whole));
  return {
    lines: whole.split('\n').slice(0, -1),
    append: line => appendFileSync(path, `${line}\n`),
  };
}
