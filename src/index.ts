/** The package's main entry: re-exports only. */

declare global {
  // The declarations compile without the types of Node and the DOM. Where those are, these merge with theirs.
  interface SymbolConstructor {
    readonly asyncDispose: unique symbol;
  }
  // eslint-disable-next-line @typescript-eslint/no-empty-object-type -- it has what the environment gives it
  interface AbortSignal {}
}

export { BroadcastMessage, type MessageOptions } from './message.js';
export { BroadcastError, BroadcastReject, ERRORS, type ErrorCode } from './errors.js';
export type { DeliveryFailure, FailureReason, Receipt, SendOptions } from './receipts.js';
export { FAILURE_REASONS } from './receipts.js';
export {
  buildBroadcastConfig,
  DEFAULT_LIMITS,
  type ClientConfig,
  type CommonOptions,
  type ConfigVars,
  type Endpoint,
  type Limits,
  type ServerConfig,
} from './config.js';
export type { Clock, Timer } from './clock.js';
export type { Logger } from './logger.js';
export type { Engine } from './engine/engine.js';
export type { Unsubscribe } from './events.js';
export { BroadcastClient, type ClientEvents, type ConnectionState } from './client/broadcast-client.js';
export { BroadcastTcpClient } from './client/client.js';
export type { DeliveryInfo, HandlerOptions, MessageHandler } from './client/handlers.js';
export {
  BroadcastServer,
  type BroadcastPeer,
  type DeadLetter,
  type ServerEvents,
  type ServerStats,
  type SessionInfo,
} from './server/broadcast-server.js';
export { BroadcastTcpServer } from './server/server.js';
