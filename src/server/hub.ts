/** What the connections of one server share. */
import type { ProcessHere } from '../process-identity.js';
import type { Broker } from '../broker/broker.js';
import type { Instance } from '../broker/model.js';
import type { ResolvedServerConfig } from '../config.js';
import type { ErrorCode } from '../errors.js';
import type { Heart } from '../transport/heart.js';
import type { Addresses } from './addresses.js';
import type { Aliases } from './aliases.js';

/** A connection, as the hub and the server see it. */
export interface HubPeer {
  readonly name: string;
  /** Absent until it has introduced itself. */
  readonly instance: Instance | undefined;
  readonly address: string;
  readonly traffic: { bytesIn: number; bytesOut: number };
  unalias(alias: number): void;
  end(code: ErrorCode, text: string): void;
  sayGoodbye(text: string): void;
  destroy(): void;
}

export interface Hub {
  readonly config: ResolvedServerConfig;
  readonly broker: Broker;
  readonly aliases: Aliases;
  readonly addresses: Addresses;
  readonly heart: Heart;
  /** Random for each start. */
  readonly boot: string;
  /** Connections that have not introduced themselves, and those that have. */
  readonly peers: Set<HubPeer>;
  readonly counters: { bytesIn: number; bytesOut: number };
  stopping: boolean;
  /** A connection has ended, whether it had introduced itself or not. */
  gone(): void;
  /** A client is online; its connection has ended. */
  welcomed(peer: HubPeer): void;
  left(peer: HubPeer, reason: string): void;
  /** A lost instance's process may have died: look. */
  suspect(instance: string, process: ProcessHere): void;
  /** At most one line a second for each address and code. */
  complain(address: string, code: string, text: string): void;
  admin(verb: string, args: string, asker: string): Promise<string>;
}
