/**
 * The public interface as it was promised, written down a second time and compared with what the source exports: names,
 * parameters, results. Compiled by `npm run typecheck`; there is nothing to run.
 */
import {
  buildBroadcastConfig,
  type BroadcastClient,
  type BroadcastError,
  BroadcastMessage,
  BroadcastReject,
  type BroadcastServer,
  BroadcastTcpClient,
  BroadcastTcpServer,
  type BroadcastPeer,
  type ClientConfig,
  type ClientEvents,
  type ConnectionState,
  type DeadLetter,
  type DeliveryFailure,
  type DeliveryInfo,
  type Endpoint,
  type Engine,
  type FailureReason,
  type HandlerOptions,
  type Limits,
  type Logger,
  type MessageHandler,
  type MessageOptions,
  type Receipt,
  type SendOptions,
  type ServerConfig,
  type ServerEvents,
  type ServerStats,
  type SessionInfo,
  type Unsubscribe,
} from '../../src/index.js';

/** True for types that are the same, optional and readonly properties included. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
/** A compile error unless it is given `true`. */
declare function holds<_T extends true>(): void;
type Mutable<T> = { -readonly [K in keyof T]: T[K] };

// ---- messages -------------------------------------------------------------------------------------------------------

holds<
  Same<Mutable<MessageOptions>, { name?: string; persistent?: boolean; headers?: Record<string, string>; ttl?: number }>
>();

type Made<D> = BroadcastMessage<D>;
type Naming = string | MessageOptions;
({
  createChannelMessage: BroadcastMessage.createChannelMessage,
  createClientMessage: BroadcastMessage.createClientMessage,
  createMultiChannelMessage: BroadcastMessage.createMultiChannelMessage,
  createGroupMessage: BroadcastMessage.createGroupMessage,
  create: BroadcastMessage.create,
  createBroadcastMessage: BroadcastMessage.createBroadcastMessage,
}) satisfies {
  createChannelMessage<D = unknown>(channel: string, data: D, name?: Naming, persistent?: boolean): Made<D>;
  createClientMessage<D = unknown>(client: string, data: D, name?: Naming, persistent?: boolean): Made<D>;
  createMultiChannelMessage<D = unknown>(
    channels: readonly string[],
    data: D,
    name?: Naming,
    persistent?: boolean,
  ): Made<D>;
  createGroupMessage<D = unknown>(clients: readonly string[], data: D, name?: Naming, persistent?: boolean): Made<D>;
  create<D = unknown>(
    client: string | null | undefined,
    channel: string | null | undefined,
    data: D,
    name?: Naming,
    persistent?: boolean,
  ): Made<D>;
  createBroadcastMessage<D = unknown>(data: D, name?: Naming, persistent?: boolean): Made<D>;
};

interface MessageShape<D> {
  readonly id: string;
  readonly client: string | null;
  readonly channel: string | null;
  readonly clients: readonly string[];
  readonly channels: readonly string[];
  readonly name: string | undefined;
  readonly data: D;
  readonly persistent: boolean;
  readonly headers: Readonly<Record<string, string>>;
  readonly ttl: number | undefined;
  readonly sender: string | undefined;
  readonly timestamp: number | undefined;
}
type Fields<T> = { [K in keyof T]: T[K] };
holds<Same<Fields<BroadcastMessage<Date>>, Fields<MessageShape<Date>>>>();
// @ts-expect-error The constructor is private.
export const refused = (): unknown => new BroadcastMessage();

// ---- receipts and failures --------------------------------------------------------------------------------------------

holds<
  Same<
    FailureReason,
    | 'offline'
    | 'no-subscribers'
    | 'no-handler'
    | 'expired'
    | 'queue-full'
    | 'outbox-full'
    | 'rejected'
    | 'unauthorized'
    | 'too-large'
    | 'slow-consumer'
    | 'session-expired'
    | 'dropped'
  >
>();
interface FailureShape {
  messageId: string;
  target: { client?: string; channel?: string };
  reason: FailureReason;
  queued: boolean;
  final: boolean;
  attempts: number;
  at: number;
  count?: number;
}
holds<Same<Mutable<DeliveryFailure>, Mutable<FailureShape>>>();
interface ReceiptShape {
  id: string;
  status: 'delivered' | 'stored' | 'routed' | 'undelivered';
  durability: 'none' | 'memory' | 'fsync' | 'replicated';
  failures: readonly DeliveryFailure[];
}
holds<Same<Mutable<Receipt>, Mutable<ReceiptShape>>>();
holds<Same<Mutable<SendOptions>, { until?: 'safe' | 'delivered'; signal?: AbortSignal }>>();

// ---- handlers -----------------------------------------------------------------------------------------------------------

holds<
  Same<Mutable<DeliveryInfo>, { channel: string | null; redelivered: boolean; attempt: number; signal: AbortSignal }>
>();
holds<Same<MessageHandler<bigint>, (message: BroadcastMessage<bigint>, info: DeliveryInfo) => unknown>>();
holds<
  Same<
    Mutable<HandlerOptions>,
    { concurrency?: number; window?: number; maxAttempts?: number; handlerTimeout?: number }
  >
>();
holds<Same<Unsubscribe, () => void>>();

// ---- configuration --------------------------------------------------------------------------------------------------------

holds<Same<Mutable<Endpoint>, { host?: string; port?: number; url?: string }>>();
type LimitName =
  | 'messageBytes'
  | 'headerBytes'
  | 'targets'
  | 'queueMessages'
  | 'queueBytes'
  | 'backlogMessages'
  | 'backlogBytes'
  | 'backlogChannels'
  | 'sessions'
  | 'deadLetters'
  | 'notices'
  | 'storeBytes'
  | 'outboxMessages'
  | 'outboxBytes'
  | 'windowMessages'
  | 'windowBytes'
  | 'nameBytes'
  | 'subscriptions'
  | 'connections'
  | 'handshakeMs'
  | 'handshakeBytes'
  | 'sessionTtl'
  | 'anonymousSessionTtl';
holds<Same<LimitName extends keyof Limits ? true : false, true>>();
holds<Same<Limits[LimitName], number>>();
interface CommonShape {
  limits?: Partial<Limits>;
  logger?: Logger;
  pingInterval?: number;
  deadAfter?: number;
  reconnectInterval?: number;
}
interface ClientShape extends Endpoint, CommonShape {
  servers?: readonly (Endpoint | string)[];
  clientName?: string;
  maxAttempts?: number;
}
interface ServerShape extends Endpoint, CommonShape {
  dataDir?: string;
  engine?: Engine;
  storeAfter?: number;
  instanceGrace?: number;
}
holds<Same<Pick<ClientConfig, keyof ClientShape>, Fields<ClientShape>>>();
holds<Same<Pick<ServerConfig, keyof ServerShape>, Fields<ServerShape>>>();
interface LoggerShape {
  trace?(...a: unknown[]): void;
  debug(...a: unknown[]): void;
  info(...a: unknown[]): void;
  warn(...a: unknown[]): void;
  error(...a: unknown[]): void;
}
holds<Same<Fields<Logger>, Fields<LoggerShape>>>();
holds<Same<Engine['kind'], string>>();
buildBroadcastConfig satisfies (
  env?: NodeJS.ProcessEnv | { getStringEnv(name: string): string; getNumberEnv(name: string): number },
  prefix?: string,
) => ClientConfig & ServerConfig;

// ---- client -----------------------------------------------------------------------------------------------------------------

holds<Same<ConnectionState, 'offline' | 'connecting' | 'online' | 'closing' | 'closed'>>();
interface ClientEventsShape {
  online: [];
  offline: [reason: Error | undefined];
  refused: [error: BroadcastError];
  drain: [];
  failure: [DeliveryFailure];
  handlerError: [error: unknown, message: BroadcastMessage];
}
holds<Same<Pick<ClientEvents, keyof ClientEventsShape>, Fields<ClientEventsShape>>>();

interface ClientInterface extends AsyncDisposable {
  connect(options?: { signal?: AbortSignal; timeout?: number }): Promise<void>;
  sendMessage(message: BroadcastMessage, options?: SendOptions): Promise<Receipt>;
  onMessage<D = unknown>(channel: string, handler: MessageHandler<D>, options?: HandlerOptions): Unsubscribe;
  onMessage<D = unknown>(handler: MessageHandler<D>, options?: HandlerOptions): Unsubscribe;
  unsubscribe(channel: string): Promise<void>;
  onDeliveryFailure(handler: (failure: DeliveryFailure) => unknown): Unsubscribe;
  flush(): Promise<void>;
  ready(): Promise<void>;
  close(options?: { timeout?: number }): Promise<void>;
  readonly name: string;
  readonly subscriptions: readonly string[];
  readonly state: ConnectionState;
  readonly outbox: { readonly messages: number; readonly bytes: number; readonly full: boolean };
  on<E extends keyof ClientEvents>(event: E, listener: (...args: ClientEvents[E]) => void): BroadcastClient;
  once<E extends keyof ClientEvents>(event: E, listener: (...args: ClientEvents[E]) => void): BroadcastClient;
  off<E extends keyof ClientEvents>(event: E, listener: (...args: ClientEvents[E]) => void): BroadcastClient;
}
holds<BroadcastClient extends ClientInterface ? true : false>();
// The class adds nothing to it that a user could come to rely on.
holds<Same<keyof BroadcastTcpClient, keyof ClientInterface>>();
holds<Same<keyof BroadcastClient, keyof ClientInterface>>();
BroadcastTcpClient satisfies new (config?: ClientConfig, name?: string) => BroadcastClient;

// ---- server -------------------------------------------------------------------------------------------------------------------

holds<Same<BroadcastPeer, { readonly name: string; readonly instance: string; readonly address: string }>>();
interface ServerEventsShape {
  listening: [];
  connect: [BroadcastPeer];
  disconnect: [BroadcastPeer, reason: string];
  subscribe: [BroadcastPeer, channel: string];
  unsubscribe: [BroadcastPeer, channel: string];
  failure: [DeliveryFailure];
  engineError: [error: Error];
}
holds<Same<Pick<ServerEvents, keyof ServerEventsShape>, Fields<ServerEventsShape>>>();
interface DeadLetterShape {
  id: string;
  message: BroadcastMessage;
  reason: string;
  attempts: number;
  at: number;
}
holds<Same<Pick<Mutable<DeadLetter>, keyof DeadLetterShape>, Fields<DeadLetterShape>>>();

interface ServerInterface extends AsyncDisposable {
  start(): Promise<void>;
  stop(options?: { timeout?: number }): Promise<void>;
  onMessage(handler: (message: BroadcastMessage, peer: BroadcastPeer) => unknown): Unsubscribe;
  sendMessage(message: BroadcastMessage, options?: SendOptions): Promise<Receipt>;
  onDeliveryFailure(handler: (failure: DeliveryFailure) => unknown): Unsubscribe;
  readonly address: { host: string; port: number } | { path: string } | null;
  readonly clients: readonly BroadcastPeer[];
  readonly channels: readonly string[];
  stats(): ServerStats;
  sessions(): Promise<readonly SessionInfo[]>;
  forget(name: string): Promise<void>;
  deadLetters(name: string): {
    list(limit?: number): Promise<readonly DeadLetter[]>;
    retry(id: string): Promise<void>;
    drop(id: string): Promise<void>;
  };
  on<E extends keyof ServerEvents>(event: E, listener: (...args: ServerEvents[E]) => void): BroadcastServer;
  once<E extends keyof ServerEvents>(event: E, listener: (...args: ServerEvents[E]) => void): BroadcastServer;
  off<E extends keyof ServerEvents>(event: E, listener: (...args: ServerEvents[E]) => void): BroadcastServer;
}
holds<BroadcastServer extends ServerInterface ? true : false>();
holds<Same<keyof BroadcastTcpServer, keyof ServerInterface>>();
holds<Same<keyof BroadcastServer, keyof ServerInterface>>();
BroadcastTcpServer satisfies new (config?: ServerConfig) => BroadcastServer;

interface SessionShape {
  name: string;
  instances: number;
  subscriptions: readonly string[];
  queued: number;
  queuedBytes: number;
  deadLetters: number;
  lastSeen: number;
}
holds<Same<Pick<Mutable<SessionInfo>, keyof SessionShape>, Fields<SessionShape>>>();
type Stat =
  | 'clients'
  | 'sessions'
  | 'channels'
  | 'messagesIn'
  | 'messagesOut'
  | 'bytesIn'
  | 'bytesOut'
  | 'stored'
  | 'queued'
  | 'backlog'
  | 'failures'
  | 'deadLetters'
  | 'uptime';
holds<Same<Pick<Mutable<ServerStats>, Stat>, Record<Stat, number>>>();

// ---- errors -------------------------------------------------------------------------------------------------------------------

holds<BroadcastError extends Error & { readonly code: string; readonly retryable: boolean } ? true : false>();
BroadcastReject satisfies new (reason?: string) => Error;

// ---- the founding lines -----------------------------------------------------------------------------------------------------

export async function founding(): Promise<void> {
  const server: BroadcastServer = new BroadcastTcpServer({ host: 'localhost', port: 9000 });
  server.onMessage((message: BroadcastMessage) => message.id);
  await server.start();
  void server.sendMessage(BroadcastMessage.createChannelMessage('room_1', 'Hello world'));
  const client: BroadcastClient = new BroadcastTcpClient({ host: 'localhost', port: 9000 }, 'optional_client_name');
  client.onMessage('channel_name', (message: BroadcastMessage) => message.id);
  client.onMessage<{ amount: bigint }>('typed', async message => Promise.resolve(message.data.amount));
  void client.connect();
  await using _both = client;
}
