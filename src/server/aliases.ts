/** The server's numbers for channels, clients and sending instances, the same for every connection (docs/protocol.md, 5). */
import type { SenderIdentity } from '../batch.js';
import type { AliasLookup, AliasSource, KnownSender } from '../protocol/messages.js';
import { ALIAS_KIND, encodeAlias, encodeSender } from '../protocol/frames.js';

/** Names that get a number; further ones are written in full, which always works. */
const MAX_ALIASES = 262_144;

interface Known {
  readonly kind: number;
  readonly name: string;
}

interface Sender extends Known, KnownSender {
  /** The number that it had before its prefix was known. */
  readonly older: number | undefined;
}

export class Aliases implements AliasSource, AliasLookup {
  readonly #known: (Known | Sender | undefined)[] = [undefined];
  readonly #channels = new Map<string, number>();
  readonly #clients = new Map<string, number>();
  readonly #senders = new Map<string, number>();

  channel(name: string): number | undefined;
  channel(alias: number): string | undefined;
  channel(value: string | number): number | string | undefined {
    return this.#lookup(value, this.#channels, ALIAS_KIND.CHANNEL);
  }

  client(name: string): number | undefined;
  client(alias: number): string | undefined;
  client(value: string | number): number | string | undefined {
    return this.#lookup(value, this.#clients, ALIAS_KIND.CLIENT);
  }

  #lookup(value: string | number, names: Map<string, number>, kind: number): number | string | undefined {
    if (typeof value === 'string') return names.get(value);
    const known = this.#known[value];
    return known?.kind === kind ? known.name : undefined;
  }

  /** Gives a channel a number, while there are any left. */
  addChannel(name: string): number | undefined {
    return this.#add(name, this.#channels, ALIAS_KIND.CHANNEL);
  }

  /** Gives a client a number, while there are any left. */
  addClient(name: string): number | undefined {
    return this.#add(name, this.#clients, ALIAS_KIND.CLIENT);
  }

  #add(name: string, names: Map<string, number>, kind: number): number | undefined {
    const known = names.get(name);
    if (known !== undefined) return known;
    if (names.size >= MAX_ALIASES) return undefined;
    const alias = this.#known.push({ kind, name }) - 1;
    names.set(name, alias);
    return alias;
  }

  /**
   * The number of a sending instance. Messages from the store come with an unknown prefix of ids, ''; the number that
   * the instance gets then is replaced when it introduces itself.
   */
  addSender(identity: SenderIdentity, idPrefix: string): number {
    const alias = this.#senders.get(identity.instance);
    if (alias !== undefined) {
      const known = this.#known[alias] as Sender;
      if (known.idPrefix === idPrefix || idPrefix === '') return alias;
    }
    const sender: Sender = { kind: ALIAS_KIND.SENDER, name: identity.name ?? '', identity, idPrefix, older: alias };
    const added = this.#known.push(sender) - 1;
    this.#senders.set(identity.instance, added);
    return added;
  }

  /** An instance keeps the prefix of its ids for life. */
  agrees(instance: string, idPrefix: string): boolean {
    const known = this.#known[this.#senders.get(instance) ?? 0] as Sender | undefined;
    return known === undefined || known.idPrefix === '' || known.idPrefix === idPrefix;
  }

  sender(alias: number): KnownSender | undefined {
    const known = this.#known[alias];
    return known?.kind === ALIAS_KIND.SENDER ? (known as Sender) : undefined;
  }

  /** Forgets a sending instance; its numbers are not given again. */
  removeSender(instance: string): readonly number[] {
    const gone: number[] = [];
    let alias = this.#senders.get(instance);
    this.#senders.delete(instance);
    while (alias !== undefined) {
      const { older } = this.#known[alias] as Sender;
      gone.push(alias);
      this.#known[alias] = undefined;
      alias = older;
    }
    return gone;
  }

  /** The frame that announces a number. */
  announcement(alias: number): Buffer | undefined {
    const known = this.#known[alias];
    if (known === undefined) return undefined;
    if (known.kind !== ALIAS_KIND.SENDER) return encodeAlias({ alias, kind: known.kind, name: known.name });
    const { identity, name, idPrefix } = known as Sender;
    return encodeSender({ alias, instance: identity.instance, name, idPrefix });
  }
}
