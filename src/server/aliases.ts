/** The server's numbers for channels, clients and sending instances, the same for every connection (docs/protocol.md, 5). */
import type { SenderIdentity } from '../batch.js';
import type { AliasLookup, AliasSource } from '../protocol/messages.js';
import { ALIAS_KIND, encodeAlias, encodeSender } from '../protocol/frames.js';

/** Names that get a number; further ones are written in full, which always works. */
const MAX_ALIASES = 262_144;

interface Known {
  readonly kind: number;
  readonly name: string;
  readonly identity?: SenderIdentity;
  readonly idPrefix?: string;
}

export class Aliases implements AliasSource, AliasLookup {
  readonly #known: (Known | undefined)[] = [undefined];
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

  /** The number of a sending instance. Messages from the store come with an unknown prefix of ids: ''. */
  addSender(identity: SenderIdentity, idPrefix: string): number {
    const key = `${identity.instance}${idPrefix}`;
    let alias = this.#senders.get(key) ?? (idPrefix === '' ? this.#senders.get(identity.instance) : undefined);
    if (alias === undefined) {
      alias = this.#known.push({ kind: ALIAS_KIND.SENDER, name: identity.name ?? '', identity, idPrefix }) - 1;
      this.#senders.set(key, alias);
      if (idPrefix !== '') this.#senders.set(identity.instance, alias);
    }
    return alias;
  }

  sender(alias: number): { identity: SenderIdentity; idPrefix: string } | undefined {
    const known = this.#known[alias];
    return known?.identity === undefined ? undefined : { identity: known.identity, idPrefix: known.idPrefix ?? '' };
  }

  /** Forgets a sending instance; its number is not given again. */
  removeSender(instance: string): number | undefined {
    const alias = this.#senders.get(instance);
    if (alias === undefined) return undefined;
    const known = this.#known[alias];
    this.#senders.delete(instance);
    this.#senders.delete(instance + (known?.idPrefix ?? ''));
    this.#known[alias] = undefined;
    return alias;
  }

  /** The frame that announces a number. */
  announcement(alias: number): Buffer | undefined {
    const known = this.#known[alias];
    if (known === undefined) return undefined;
    const { identity, kind, name } = known;
    if (identity === undefined) return encodeAlias({ alias, kind, name });
    return encodeSender({ alias, instance: identity.instance, name, idPrefix: known.idPrefix ?? '' });
  }
}
