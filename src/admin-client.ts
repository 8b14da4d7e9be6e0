/** One administrative question to a server (docs/protocol.md, 10): connects, introduces itself, asks, leaves. */
import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import { systemClock } from './clock.js';
import type { Endpoint } from './config.js';
import { BroadcastError, isErrorCode } from './errors.js';
import { defaultLogger } from './logger.js';
import { processIdPrefix } from './message.js';
import { Reader } from './protocol/bytes.js';
import { FRAME, FRAME_HEADER } from './protocol/constants.js';
import { decodeAdminReply, decodeFailed, encodeAdmin, encodeGoodbye, encodeHello } from './protocol/frames.js';
import { formatAddress, parseEndpoint } from './transport/endpoint.js';
import { FrameConnection } from './transport/frame-connection.js';
import { Heart } from './transport/heart.js';

const MAX_ANSWER = 256 * 1024 * 1024;

/** Asks and returns the answer. Rejects with `connection-lost` when no server is there, or with the server's error. */
export function askAdmin(endpoint: Endpoint, verb: string, args: object, timeout = 10_000): Promise<unknown> {
  const address = parseEndpoint(endpoint);
  return new Promise((resolve, reject) => {
    const socket = connect(address);
    const timer = systemClock.setTimeout(
      () => socket.destroy(new Error(`no answer within ${String(timeout)} ms`)),
      timeout,
    );
    const fail = (error: Error): void => {
      timer.cancel();
      const text = `no server answers at ${formatAddress(address)} (${error.message}); start one with "broadcast serve", or give --host and --port`;
      reject(error instanceof BroadcastError ? error : new BroadcastError('connection-lost', text, { cause: error }));
    };
    socket.once('error', fail);
    socket.once('connect', () => {
      const heart = new Heart(systemClock, timeout, 2 * timeout);
      const connection = new FrameConnection(
        socket,
        {
          onPreamble: () => undefined,
          onFrame: (type, frame) => {
            const reader = new Reader(frame, FRAME_HEADER);
            if (type === FRAME.ADMIN_REPLY) resolve(JSON.parse(decodeAdminReply(reader).answer));
            else if (type === FRAME.FAILED) {
              const { code, text } = decodeFailed(reader);
              fail(new BroadcastError(isErrorCode(code) ? code : 'protocol-error', text));
            } else return;
            timer.cancel();
            connection.send(encodeGoodbye({ finished: true, text: '' }));
            connection.end();
          },
          onClose: error => fail(error ?? new Error('the connection ended')),
        },
        { clock: systemClock, logger: defaultLogger, heart, maxFrame: MAX_ANSWER },
      );
      connection.send(
        encodeHello({
          generated: true,
          name: `admin-${randomBytes(9).toString('base64url')}`,
          instance: randomBytes(16).toString('hex'),
          idPrefix: processIdPrefix,
          floor: 1,
          next: 1,
          store: '',
          host: '',
          pid: 0,
          pingInterval: timeout,
          deadAfter: 2 * timeout,
          extensions: new Map(),
        }),
      );
      connection.send(encodeAdmin({ request: 1, verb, args: JSON.stringify(args) }));
    });
  });
}
