/** What a sender learns of its messages: receipts and failure notices. Depends on nothing. */

/** Why a message does not reach a recipient now, or never will; docs/failures.md says what each means. */
export const FAILURE_REASONS = [
  'offline',
  'no-subscribers',
  'no-handler',
  'expired',
  'queue-full',
  'outbox-full',
  'rejected',
  'unauthorized',
  'too-large',
  'slow-consumer',
  'session-expired',
  'dropped',
] as const;

/** One of {@link FAILURE_REASONS}. */
export type FailureReason = (typeof FAILURE_REASONS)[number];

/**
 * What the sender is told when a message does not reach a recipient now, or never will.
 * @example
 * client.onDeliveryFailure(({ final, reason, messageId }) => final && console.warn(messageId, reason));
 */
export interface DeliveryFailure {
  /** Id of the message; of the first one when aggregated. */
  messageId: string;
  /** The recipient; empty when there is none. */
  target: {
    /** The name of a client, or the address that the message was sent to. */
    client?: string;
    /** The channel that the message was for. */
    channel?: string;
  };
  /** Why; docs/failures.md says what each reason means. */
  reason: FailureReason;
  /** It still waits for its recipient. */
  queued: boolean;
  /** It will not arrive. With `attempts` 0 it never did, with more it may have. */
  final: boolean;
  /** How often it was handed to a recipient. */
  attempts: number;
  /** When, in epoch milliseconds. */
  at: number;
  /** Present when this notice stands for so many alike. */
  count?: number;
}

/**
 * What the sender learns about one message.
 * @example
 * const { status, failures } = await client.sendMessage(message);
 */
export interface Receipt {
  /** Id of the message. */
  id: string;
  /** `delivered`: every recipient acknowledged it. `stored`: it waits for some. `routed`: not persistent, handed to connections. `undelivered`: no recipient has or will get it. */
  status: 'delivered' | 'stored' | 'routed' | 'undelivered';
  /** What stands behind `stored`. */
  durability: 'none' | 'memory' | 'fsync' | 'replicated';
  /** Recipients who wait because they are away, as long as it is `stored`, and those who will not get it. */
  failures: readonly DeliveryFailure[];
}

/**
 * How long `sendMessage` waits, and how to stop it.
 * @example
 * client.sendMessage(message, { until: 'delivered', signal: AbortSignal.timeout(60_000) });
 */
export interface SendOptions {
  /** `safe` (default): acknowledged or stored by all recipients. `delivered`: every recipient has handled it or never will. */
  until?: 'safe' | 'delivered';
  /** Stops the waiting, and the sending when the message has not left. */
  signal?: AbortSignal;
}
