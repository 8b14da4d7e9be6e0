/**
 * One connection on the server's side: the opening exchange, then a table of frames. What a frame asks for is done by
 * the broker; what the broker has for the instance leaves through the `Outlet` that this is.
 *
 *   connected ──HELLO──▶ online ──GOODBYE──▶ leaving ──▶ closed
 *       └─ handshakeMs, handshakeBytes, anything else ──▶ refused with an error, closed
 */
import type { Socket } from 'node:net';
import type { Batch } from '../batch.js';
import type { Instance } from '../broker/model.js';
import {
  PeerFault,
  SEND_WINDOW,
  type DeliveryNote,
  type DetachReason,
  type FailureMessage,
  type Outcome,
  type Outlet,
} from '../broker/ports.js';
import { BroadcastError, isErrorCode, type ErrorCode } from '../errors.js';
import { checkClientName, show } from '../names.js';
import { processHere, processIdentity, type ProcessHere } from '../process-identity.js';
import { Reader } from '../protocol/bytes.js';
import { FIRST_OPTIONAL, FRAME, FRAME_HEADER, frameName, maxFrameBytes } from '../protocol/constants.js';
import * as frames from '../protocol/frames.js';
import { decodeMessages, EnvelopeMemo, patchTimestamp } from '../protocol/messages.js';
import { FrameConnection, type ConnectionOwner } from '../transport/frame-connection.js';
import { isLocal } from './addresses.js';
import type { Hub } from './hub.js';
import { checkBatch } from './inbound.js';
import { wireAsReceived, wireOf } from './wire.js';

/** Nothing is read from a client that leaves more than this untaken, beside the window of its deliveries. */
const UNTAKEN = 4 * 1024 * 1024;
const MAX_SUBSCRIPTION_NUMBER = 2 ** 31;

type Handler = (this: Peer, reader: Reader, frame: Buffer, instance: Instance) => void;

export class Peer implements ConnectionOwner, Outlet {
  readonly #hub: Hub;
  readonly #connection: FrameConnection;
  // Made when they are needed: a connection that only waits for its introduction costs as little as it can.
  #announced: Set<number> | undefined;
  #pauses: Set<unknown> | undefined;
  #heldBack: Set<Peer> | undefined;
  #envelopes: EnvelopeMemo | undefined;
  readonly #local: boolean;
  #instance: Instance | undefined;
  #process: ProcessHere | undefined;
  #alias = 0;
  #leaving: DetachReason = 'lost';
  readonly address: string;

  constructor(hub: Hub, socket: Socket) {
    this.#hub = hub;
    const { clock, limits, logger } = hub.config;
    this.address = hub.addresses.take(socket);
    this.#local = isLocal(socket);
    this.#connection = new FrameConnection(socket, this, {
      clock,
      logger,
      heart: hub.heart,
      maxFrame: limits.handshakeBytes,
      handshakeMs: limits.handshakeMs,
      pauseAbove: limits.windowBytes + limits.messageBytes + UNTAKEN,
    });
    hub.peers.add(this);
  }

  get name(): string {
    return this.#instance?.session.name ?? '';
  }

  get instance(): Instance | undefined {
    return this.#instance;
  }

  get isLocal(): boolean {
    return this.#local;
  }

  // ---- ConnectionOwner ---------------------------------------------------------------------------------------------------

  onPreamble(): void {
    // Nothing to do: HELLO says the rest.
  }

  onFrame(type: number, frame: Buffer): void {
    const reader = new Reader(frame, FRAME_HEADER);
    try {
      if (this.#instance === undefined) {
        if (type !== FRAME.HELLO) throw new PeerFault('unexpected-frame', `${frameName(type)} came before HELLO`);
        this.#onHello(frames.decodeHello(reader));
        return;
      }
      const handler = HANDLERS.get(type);
      if (handler !== undefined) handler.call(this, reader, frame, this.#instance);
      else if (type < FIRST_OPTIONAL) {
        const known = frameName(type).startsWith('0x') ? 'unknown-frame' : 'unexpected-frame';
        throw new PeerFault(known, `${frameName(type)} is not expected from a client here`);
      }
    } catch (error) {
      if (error instanceof PeerFault) this.end(error.code, error.message);
      else throw error;
    }
  }

  onClose(error: BroadcastError | undefined): void {
    this.#hub.peers.delete(this);
    this.#hub.addresses.release(this.address);
    this.#hub.counters.bytesIn += this.#connection.bytesIn;
    this.#hub.counters.bytesOut += this.#connection.bytesOut;
    this.#letGo();
    this.#hub.gone();
    if (error !== undefined) this.#hub.complain(this.address, error.code, error.message);
    const instance = this.#instance;
    if (instance === undefined) return;
    const current = instance.outlet === this;
    this.#hub.broker.detach(instance, this, this.#leaving);
    this.#hub.left(this, error?.code ?? this.#leaving);
    if (current && this.#leaving === 'lost' && this.#process !== undefined && !this.#hub.stopping)
      this.#hub.suspect(instance.id, this.#process);
  }

  onDrain(): void {
    this.#letGo();
  }

  get traffic(): { bytesIn: number; bytesOut: number } {
    return this.#connection;
  }

  // ---- the opening exchange ------------------------------------------------------------------------------------------------

  #onHello(hello: frames.Hello): void {
    const { broker, config, aliases, boot } = this.#hub;
    const { limits } = config;
    checkClientName(hello.name, limits.nameBytes);
    for (const key of hello.extensions.keys()) {
      if (key.startsWith('!'))
        throw new PeerFault('unsupported-feature', `the feature ${show(key.slice(1))} is not available here`);
    }
    if (this.#hub.stopping) throw new PeerFault('shutting-down', 'the server is stopping');
    if (!aliases.agrees(hello.instance, hello.idPrefix))
      throw new PeerFault('protocol-error', 'this instance is known with another prefix of ids');
    const process = processIdentity(hello.host, hello.pid);
    const instance = broker.attach(
      {
        name: hello.name,
        generated: hello.generated,
        instance: hello.instance,
        connection: frames.connectionOf(hello.extensions),
        departed: frames.departedOf(hello.extensions),
        floor: hello.floor,
        process,
      },
      this,
    );
    this.#instance = instance;
    this.#process = processHere(process);
    this.#alias = aliases.addSender(instance.sender, hello.idPrefix);
    this.#connection.setMaxFrame(maxFrameBytes(limits));
    const { attached } = instance;
    this.#connection.send(
      frames.encodeWelcome({
        known: attached?.known ?? false,
        stored: attached?.stored ?? false,
        boot,
        store: broker.storeId,
        sender: this.#alias,
        durability: broker.durability,
        limits: { ...limits, sendWindow: SEND_WINDOW.messages, sendWindowBytes: SEND_WINDOW.bytes },
        pingInterval: config.pingInterval,
        deadAfter: config.deadAfter,
        address: this.address,
        taken: attached?.taken ?? [],
        extensions: new Map(),
      }),
    );
    for (const channel of attached?.subscriptions ?? []) this.subscription(channel, true);
    this.#hub.welcomed(this);
    broker.resume(instance);
  }

  // ---- frames --------------------------------------------------------------------------------------------------------------

  onMessages(reader: Reader, frame: Buffer, instance: Instance): void {
    const { broker, aliases, config } = this.#hub;
    patchTimestamp(frame, config.clock.now(), reader.offset);
    const { batch, aliased } = decodeMessages(frame, aliases, (this.#envelopes ??= new EnvelopeMemo()), reader.offset);
    if (batch.sender !== instance.sender && batch.sender.instance !== instance.id) {
      throw new PeerFault('protocol-error', 'malformed frame: the sender’s alias is another instance’s');
    }
    if (batch.first + batch.count - Math.max(batch.floor, instance.sender.floor) > SEND_WINDOW.messages)
      throw new PeerFault('protocol-error', 'malformed frame: a position lies above the window of unsettled messages');
    checkBatch(batch, config.limits);
    batch.wire = wireAsReceived(batch, frame, aliases, this.#alias, aliased);
    if (!aliased) this.#answerNames(batch);
    broker.publish(instance, batch);
  }

  /** The client has written names in full: it is told their numbers. */
  #answerNames(batch: Batch): void {
    const { aliases } = this.#hub;
    for (const channel of batch.envelope.channels) this.#announce(aliases.addChannel(channel));
    for (const client of batch.envelope.clients) this.#announce(aliases.addClient(client));
  }

  #announce(alias: number | undefined): void {
    const announced = (this.#announced ??= new Set());
    if (alias === undefined || announced.has(alias)) return;
    const announcement = this.#hub.aliases.announcement(alias);
    if (announcement === undefined) return;
    announced.add(alias);
    this.#connection.send(announcement);
  }

  onSubscribe(reader: Reader, _frame: Buffer, instance: Instance): void {
    const { request, channel, concurrency, window, maxAttempts } = frames.decodeSubscribe(reader);
    if (Math.max(concurrency, window, maxAttempts) > MAX_SUBSCRIPTION_NUMBER)
      throw new PeerFault('protocol-error', 'malformed frame: a number is out of range');
    this.#answer(request, () => this.#hub.broker.subscribe(instance, channel, { concurrency, window, maxAttempts }));
  }

  onUnhandle(reader: Reader, _frame: Buffer, instance: Instance): void {
    const { request, channel } = frames.decodeChannelRequest(reader);
    this.#answer(request, () => this.#hub.broker.unhandle(instance, channel));
  }

  onUnsubscribe(reader: Reader, _frame: Buffer, instance: Instance): void {
    const { request, channel } = frames.decodeChannelRequest(reader);
    this.#answer(request, () => this.#hub.broker.unsubscribe(instance, channel));
  }

  onFlushRequest(reader: Reader): void {
    this.#answer(frames.decodeRequest(reader), () => this.#hub.broker.flush());
  }

  onAdmin(reader: Reader): void {
    const { request, verb, args } = frames.decodeAdmin(reader);
    this.#answer(
      request,
      () => {
        if (!this.#local)
          throw new BroadcastError('not-local', 'administration is allowed from the server’s own machine only');
        return this.#hub.admin(verb, args, this.name);
      },
      answer => frames.encodeAdminReply({ request, answer: answer as string }),
    );
  }

  /** Does what was asked for and says how it ended. */
  #answer(
    request: number,
    work: () => Promise<unknown>,
    success: (value: unknown) => Buffer = () => frames.encodeOk(request),
  ): void {
    const failed = (error: unknown): void => {
      const code = error instanceof BroadcastError && isErrorCode(error.code) ? error.code : 'server-busy';
      if (code === 'server-busy') this.#hub.config.logger.error('a request failed', error);
      this.#connection.send(
        frames.encodeFailed({
          request,
          code,
          retryable: new BroadcastError(code, '').retryable,
          text: (error as Error).message,
        }),
      );
    };
    try {
      work().then(value => this.#connection.send(success(value)), failed);
    } catch (error) {
      if (error instanceof PeerFault) throw error;
      failed(error);
    }
  }

  onAck(reader: Reader, _frame: Buffer, instance: Instance): void {
    this.#hub.broker.ack(instance, frames.decodeRanges(reader));
  }

  onFail(reader: Reader, _frame: Buffer, instance: Instance): void {
    const { delivery, channel, attempt } = frames.decodeFail(reader);
    this.#hub.broker.fail(instance, delivery, channel, attempt);
  }

  onReject(reader: Reader, _frame: Buffer, instance: Instance): void {
    this.#hub.broker.reject(instance, frames.decodeReject(reader));
  }

  onRelease(reader: Reader, _frame: Buffer, instance: Instance): void {
    this.#hub.broker.release(instance, frames.decodeRanges(reader));
  }

  onNoted(reader: Reader, _frame: Buffer, instance: Instance): void {
    this.#hub.broker.noted(instance, frames.decodeRanges(reader));
  }

  onSettled(reader: Reader, _frame: Buffer, instance: Instance): void {
    this.#hub.broker.settled(instance, frames.decodeRequest(reader));
  }

  onTrack(reader: Reader, _frame: Buffer, instance: Instance): void {
    this.#hub.broker.track(instance, frames.decodeRanges(reader));
  }

  onGoodbye(reader: Reader): void {
    const { finished } = frames.decodeGoodbye(reader);
    if (this.#leaving !== 'lost') throw new PeerFault('unexpected-frame', 'GOODBYE came a second time');
    this.#leaving = finished ? 'finished' : 'goodbye';
    const done = (): void => {
      this.#connection.send(frames.encodeGoodbye({ finished: false, text: '' }));
      this.#connection.end();
    };
    this.#hub.broker.flush().then(done, done);
  }

  // ---- Outlet ----------------------------------------------------------------------------------------------------------------

  get buffered(): number {
    return this.#connection.buffered;
  }

  get lastProgress(): number {
    return this.#connection.lastProgress;
  }

  deliver(batch: Batch, offset: number, count: number, note: DeliveryNote | undefined): void {
    if (note !== undefined) this.#connection.send(frames.encodeDelivery(note));
    this.#sendBatch(batch, offset, count);
  }

  deliverTransient(batch: Batch, note: DeliveryNote | undefined): void {
    if (note !== undefined) this.#connection.send(frames.encodeDelivery(note));
    this.#sendBatch(batch, 0, batch.count);
  }

  #sendBatch(batch: Batch, offset: number, count: number): void {
    const wire = wireOf(batch, offset, count, this.#hub.aliases);
    for (const alias of wire.aliases) this.#announce(alias);
    for (const piece of wire.pieces) this.#connection.send(piece);
  }

  receipts(outcomes: readonly Outcome[]): void {
    this.#connection.send(frames.encodeReceipts(outcomes));
  }

  failure(message: FailureMessage): void {
    this.#connection.send(frames.encodeFailure(message));
  }

  retry(delivery: number, channel: string, attempt: number): void {
    this.#connection.send(frames.encodeRetry({ delivery, channel, attempt }));
  }

  subscription(channel: string, present: boolean): void {
    this.#connection.send(frames.encodeSubscription({ channel, present }));
  }

  /** A sending instance is gone for good: its number is withdrawn. */
  unalias(alias: number): void {
    if (this.#announced?.delete(alias) === true)
      this.#connection.send(frames.encodeUnalias({ alias, kind: frames.ALIAS_KIND.SENDER }));
  }

  pauseReading(paused: boolean): void {
    this.#pause(this, paused);
  }

  /** Reading goes on when nobody wants it paused any more. */
  #pause(by: unknown, paused: boolean): void {
    if (paused) (this.#pauses ??= new Set()).add(by);
    else this.#pauses?.delete(by);
    this.#connection.pauseReading((this.#pauses?.size ?? 0) > 0);
  }

  holdBack(sender: Outlet | undefined): void {
    const heldBack = (this.#heldBack ??= new Set());
    if (!(sender instanceof Peer) || heldBack.has(sender)) return;
    if (heldBack.size === 0) {
      const { clock, storeAfter } = this.#hub.config;
      clock.setTimeout(() => this.#letGo(), storeAfter * 10);
    }
    heldBack.add(sender);
    sender.#pause(this.#connection, true);
  }

  #letGo(): void {
    if (this.#heldBack === undefined) return;
    for (const sender of this.#heldBack) sender.#pause(this.#connection, false);
    this.#heldBack.clear();
  }

  end(code: ErrorCode, text: string): void {
    this.#connection.fail(code, text);
  }

  /** The server stops: the client is told and tries elsewhere or later. */
  sayGoodbye(text: string): void {
    this.#connection.send(frames.encodeGoodbye({ finished: false, text }));
    this.#connection.end();
  }

  destroy(): void {
    this.#connection.destroy();
  }
}

const HANDLERS = new Map<number, Handler>([
  [FRAME.MESSAGES, Peer.prototype.onMessages],
  [FRAME.ACK, Peer.prototype.onAck],
  [FRAME.SUBSCRIBE, Peer.prototype.onSubscribe],
  [FRAME.UNHANDLE, Peer.prototype.onUnhandle],
  [FRAME.UNSUBSCRIBE, Peer.prototype.onUnsubscribe],
  [FRAME.FLUSH, Peer.prototype.onFlushRequest],
  [FRAME.FAIL, Peer.prototype.onFail],
  [FRAME.REJECT, Peer.prototype.onReject],
  [FRAME.RELEASE, Peer.prototype.onRelease],
  [FRAME.NOTED, Peer.prototype.onNoted],
  [FRAME.SETTLED, Peer.prototype.onSettled],
  [FRAME.TRACK, Peer.prototype.onTrack],
  [FRAME.GOODBYE, Peer.prototype.onGoodbye],
  [FRAME.ADMIN, Peer.prototype.onAdmin],
]);
