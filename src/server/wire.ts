/** Batches as frames: as they came whenever possible, with a header of the server's own otherwise (docs/protocol.md, 6.5). */
import { sliceBatch, type Batch } from '../batch.js';
import { encodeMessagesHeader } from '../protocol/messages.js';
import type { Aliases } from './aliases.js';

/** A batch as it is written, and the numbers that must be announced before it. */
export interface Wire {
  readonly pieces: readonly Buffer[];
  /** The sender's first. */
  readonly aliases: readonly number[];
}

/** The frame as it came from a client. `aliased`: it uses nothing but numbers. */
export function wireAsReceived(batch: Batch, frame: Buffer, aliases: Aliases, sender: number, aliased: boolean): Wire {
  const { channels, clients } = batch.envelope;
  // One of several targets may be a number beside names; of a single name nothing has to be announced.
  const used = aliased || channels.length + clients.length > 1 ? aliasesOf(batch, aliases) : [];
  return { pieces: [frame], aliases: [sender, ...used] };
}

function aliasesOf(batch: Batch, aliases: Aliases): number[] {
  const used: number[] = [];
  for (const channel of batch.envelope.channels) {
    const alias = aliases.channel(channel);
    if (alias !== undefined) used.push(alias);
  }
  for (const client of batch.envelope.clients) {
    const alias = aliases.client(client);
    if (alias !== undefined) used.push(alias);
  }
  return used;
}

/** The frame for a batch or part of one; made once and kept with the batch. */
export function wireOf(batch: Batch, offset: number, count: number, aliases: Aliases): Wire {
  const part = sliceBatch(batch, offset, count);
  const kept = part.wire as Wire | undefined;
  // The store may hand out a batch that it kept longer than its sender's number lived.
  if (kept !== undefined && aliases.sender(kept.aliases[0] as number) !== undefined) return kept;
  for (const channel of part.envelope.channels) aliases.addChannel(channel);
  const sender = aliases.addSender(part.sender, '');
  const header = encodeMessagesHeader(part, sender, aliases, aliases.sender(sender)?.idPrefix ?? '');
  const wire: Wire = { pieces: [header, part.items], aliases: [sender, ...aliasesOf(part, aliases)] };
  part.wire = wire;
  return wire;
}
