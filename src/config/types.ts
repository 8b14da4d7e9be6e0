/** The options of clients and servers, as types. What each means, its default and its bounds are rows of table.ts. */
import type { Clock } from '../clock.js';
import type { Engine } from '../engine/engine.js';
import type { Logger } from '../logger.js';

/**
 * Where a server listens, or a client finds it: `host` and `port`, or `url`.
 * @example
 * new BroadcastTcpClient({ url: 'unix:/run/broadcast.sock' });
 */
export interface Endpoint {
  /** Host name or address. Default `localhost`, which for a server means every loopback address. */
  host?: string;
  /** Port. Default 9000; a server on port 0 finds a free one. */
  port?: number;
  /** `tcp://host:port`, `unix:/path`, or a plain path to a Unix socket; instead of `host` and `port`. Default none. */
  url?: string;
}

/**
 * Bounds on everything that a peer can make grow; each is inclusive.
 * @example
 * new BroadcastTcpServer({ limits: { messageBytes: 4 * 1024 * 1024 } });
 */
export interface Limits {
  /** Encoded data of one message, in bytes. Default 1 MiB, at most 64 MiB; beyond it `message-too-large`. */
  messageBytes: number;
  /** Headers of one message, in bytes. Default 16 KiB; beyond it `headers-too-large`. */
  headerBytes: number;
  /** Clients and channels of one message. Default 1,024; beyond it `too-many-targets`. */
  targets: number;
  /** Messages that wait for one name. Default 100,000, with a data directory 10,000,000; beyond it the notice `queue-full`. */
  queueMessages: number;
  /** Bytes that wait for one name. Default 256 MiB, with a data directory 8 GiB; beyond it the notice `queue-full`. */
  queueBytes: number;
  /** Messages that wait in the backlog of one channel. Default 10,000; beyond it the notice `queue-full`. */
  backlogMessages: number;
  /** Bytes that wait in the backlog of one channel. Default 64 MiB; beyond it the notice `queue-full`. */
  backlogBytes: number;
  /** Channels with a backlog. Default 100,000; beyond it the notice `queue-full`. */
  backlogChannels: number;
  /** Names that the server keeps. Default 100,000; beyond it `too-many-sessions`. */
  sessions: number;
  /** Dead letters of one name. Default 10,000; the oldest makes room. */
  deadLetters: number;
  /** Final notices that wait for one name. Default 10,000; beyond it they are left out, with a warning in the log. */
  notices: number;
  /** The store in all, in bytes. Default 1 GiB in memory; with a data directory what is free on the disk less a reserve. */
  storeBytes: number;
  /** Messages of a client that are not safe yet. Default 262,144; beyond it `outbox-full`. */
  outboxMessages: number;
  /** Bytes of a client that are not safe yet. Default 64 MiB; beyond it `outbox-full`. */
  outboxBytes: number;
  /** Messages that one instance has and did not acknowledge. Default 16,384; the rest stays in the queue. */
  windowMessages: number;
  /** Bytes that one instance has and did not acknowledge. Default 4 MiB; the rest stays in the queue. */
  windowBytes: number;
  /** A name, in bytes of UTF-8. Default and most 255; beyond it `invalid-name`. */
  nameBytes: number;
  /** Subscriptions of one client. Default 10,000; beyond it `too-many-subscriptions`. */
  subscriptions: number;
  /** Connections at a time. Default 16,384; beyond it `too-many-connections`. */
  connections: number;
  /** Time to introduce oneself, in milliseconds. Default 5,000; after it `handshake-timeout`. */
  handshakeMs: number;
  /** Size of the introduction, in bytes. Default 4,096; beyond it `handshake-too-large`. */
  handshakeBytes: number;
  /** How long a session lives after its last instance left, in milliseconds. Default 7 days; then the notice `session-expired`. */
  sessionTtl: number;
  /** The same for generated names after a lost connection, in milliseconds. Default 120,000. */
  anonymousSessionTtl: number;
}

/** Options that clients and servers have in common. */
export interface CommonOptions {
  /** The bounds to change. Default {@link DEFAULT_LIMITS}. */
  limits?: Partial<Limits>;
  /** Where log lines go. Default: warnings and errors, a line each, to standard error. */
  logger?: Logger;
  /** Milliseconds of silence after which a side says that it lives. Default 10,000. */
  pingInterval?: number;
  /** Milliseconds of silence after which a peer is taken for dead. Default 25,000; longer than `pingInterval`. */
  deadAfter?: number;
  /** Milliseconds between attempts to connect or to listen again, ±20 %. Default 1,000. */
  reconnectInterval?: number;
  /** The clock, for tests (`TestClock` of the testing entry). Default the machine's. */
  clock?: Clock;
}

/**
 * Options of a client. Those that are a server's alone are checked and passed over, so that one object serves both.
 * @example
 * new BroadcastTcpClient({ servers: ['tcp://a:9000', 'tcp://b:9000'], clientName: 'orders' });
 */
export interface ClientConfig extends Endpoint, CommonOptions {
  /** Several servers that share a store; the client moves on to the next when one is lost. Default the one of `host` and `port`. */
  servers?: readonly (Endpoint | string)[];
  /** The client's name; the constructor's second argument stands before it. Default: generated. */
  clientName?: string;
  /** How often a message is attempted before it goes to the dead letters. Default 5. */
  maxAttempts?: number;
}

/**
 * Options of a server. Those that are a client's alone are checked and passed over, so that one object serves both.
 * @example
 * new BroadcastTcpServer({ port: 9000, dataDir: './data' });
 */
export interface ServerConfig extends Endpoint, CommonOptions {
  /** Folder of the durable store. Default none: everything is in memory, and receipts say so. */
  dataDir?: string;
  /** Another engine than memory or disk; not together with `dataDir`. Default none. */
  engine?: Engine;
  /** Milliseconds without progress of a recipient after which its messages are stored. Default 20. */
  storeAfter?: number;
  /** Milliseconds that an instance's own deliveries wait for it after a lost connection. Default 30,000. */
  instanceGrace?: number;
}
