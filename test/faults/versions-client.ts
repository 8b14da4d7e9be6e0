/**
 * A client of this version, recorded and played: for the fixtures of versions.test.ts. What it says is kept in bytes,
 * each piece with what it had heard before; what it was told is kept by meaning. Beside it on the stage are the server and
 * another client, which are always of the version that is tested.
 */
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import {
  BroadcastMessage,
  BroadcastReject,
  BroadcastTcpClient,
  type BroadcastClient,
  type BroadcastServer,
} from '../../src/index.js';
import { Reader } from '../../src/protocol/bytes.js';
import { FRAME_HEADER, PREAMBLE_BYTES } from '../../src/protocol/constants.js';
import { decodeHello, encodeHello } from '../../src/protocol/frames.js';
import { TestClock } from '../../src/testing/index.js';
import { connectedClient, recordingLogger, startServer } from '../helpers/scene.js';
import { Answers, plainData, type Progress } from './versions-answers.js';

/** What happens on the stage, in order. */
type Event =
  /** The client says something, having heard so much. */
  | { readonly says: string; readonly heard: Progress }
  /** The server itself sends a message. */
  | { readonly sends: unknown; readonly channel?: string; readonly client?: string }
  /** When so much was heard, the connection is cut, and a new one begins. */
  | { readonly cut: true; readonly heard: Progress }
  /** A client of this name comes, and handles what waits for it. */
  | { readonly comes: string };

/** A recorded client: what it says, what it is told on each connection, and what the other client gets of it. */
export interface Recording {
  readonly events: readonly Event[];
  readonly answers: readonly unknown[];
  readonly friend: readonly unknown[];
}

const NAME = 'recorded';

/** The server and the other client. */
class Stage {
  readonly friend: unknown[] = [];
  #server!: BroadcastServer;
  port = 0;

  async open(): Promise<this> {
    // Nothing happens by time, so that all happens in one order.
    const { server, port } = await startServer('memory', { clock: new TestClock() });
    this.#server = server;
    this.port = port;
    const friend = await connectedClient(port, 'friend');
    const handle = (message: BroadcastMessage): void => {
      const { channels, clients, name = null, headers, sender = null } = message;
      // The ids of the server itself are made anew.
      const id = sender === null ? null : message.id;
      this.friend.push({ id, channels, clients, name, headers, data: plainData(message.data), sender });
    };
    friend.onMessage('chat', handle);
    friend.onMessage(handle);
    await friend.flush();
    return this;
  }

  /** Plays what is not the recorded client's. */
  async play(event: Event): Promise<void> {
    if ('sends' in event) {
      const { channel, client, sends } = event;
      void this.#server.sendMessage(
        channel === undefined
          ? client === undefined
            ? BroadcastMessage.createBroadcastMessage(sends)
            : BroadcastMessage.createClientMessage(client, sends)
          : BroadcastMessage.createChannelMessage(channel, sends),
      );
    } else if ('comes' in event) {
      const client = await connectedClient(this.port, event.comes);
      client.onMessage(() => undefined);
      await client.flush();
    }
  }

  /** The server has seen the recorded client's connection end. */
  async seesCut(cut: () => void): Promise<void> {
    const gone = new Promise<void>(resolve => {
      this.#server.on('disconnect', ({ name }) => name === NAME && resolve());
    });
    cut();
    await gone;
  }
}

// ---- playing ------------------------------------------------------------------------------------------------------------

function hasHeard(has: Progress, wanted: Progress): boolean {
  return Object.entries(wanted).every(([key, count]) => has[key as keyof Progress] >= (count as number));
}

/** The recorded client's side of a connection. */
class Player {
  readonly answers = new Answers();
  readonly socket: Socket;
  readonly #waiters = new Set<() => void>();

  constructor(port: number) {
    this.socket = connect({ port, host: '127.0.0.1', noDelay: true });
    const look = (): void => this.#waiters.forEach(waiter => waiter());
    this.socket.on('data', chunk => {
      this.answers.push(chunk);
      look();
    });
    this.socket.on('error', () => undefined).on('close', look);
  }

  async heard(wanted: Progress): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const waiter = (): void => {
        if (hasHeard(this.answers.progress, wanted)) resolve();
        else if (this.socket.destroyed)
          reject(
            new Error(
              `the connection ended; the client waits for ${JSON.stringify(wanted)}: ${JSON.stringify(this.answers.meaning())}`,
            ),
          );
        else return;
        this.#waiters.delete(waiter);
      };
      this.#waiters.add(waiter);
      waiter();
    });
  }
}

/** Plays a recording; returns what is then said and got. */
export async function play({ events }: Recording): Promise<Omit<Recording, 'events'>> {
  const stage = await new Stage().open();
  const players = [new Player(stage.port)];
  for (const event of events) {
    const player = players.at(-1) as Player;
    if ('heard' in event) await player.heard(event.heard);
    if ('says' in event) {
      player.socket.write(Buffer.from(event.says, 'hex'));
    } else if ('cut' in event) {
      await stage.seesCut(() => player.socket.destroy());
      players.push(new Player(stage.port));
    } else await stage.play(event);
  }
  const { socket } = players.at(-1) as Player;
  // It has said goodbye, and reads until the end of the stream.
  if (!socket.readableEnded) await once(socket, 'end');
  return { answers: players.map(({ answers }) => answers.meaning()), friend: stage.friend };
}

// ---- recording ----------------------------------------------------------------------------------------------------------

/** Between the client and the server: keeps what the one says, and what it had heard. */
class Recorder {
  readonly events: Event[] = [];
  readonly answers: Answers[] = [];
  port = 0;
  #target = 0;
  #socket: Socket | undefined;
  /** Bytes went by since it was last asked. */
  #isBusy = false;
  readonly #server = createServer({ noDelay: true }, socket => this.#join(socket));

  async listen(target: number): Promise<this> {
    this.#target = target;
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    this.port = (this.#server.address() as AddressInfo).port;
    return this;
  }

  #join(client: Socket): void {
    const server = connect({ port: this.#target, host: '127.0.0.1', noDelay: true });
    const answers = new Answers();
    this.answers.push(answers);
    this.#socket = client;
    let opening: Buffer | undefined = Buffer.alloc(0);
    client.on('data', chunk => {
      this.#isBusy = true;
      let said: Buffer = chunk;
      if (opening !== undefined) {
        const whole = withoutMachine(Buffer.concat([opening, chunk]));
        opening = whole === undefined ? Buffer.concat([opening, chunk]) : undefined;
        if (whole === undefined) return;
        said = whole;
      }
      this.events.push({ says: said.toString('hex'), heard: { ...answers.progress } });
      server.write(said);
    });
    server.on('data', chunk => {
      this.#isBusy = true;
      answers.push(chunk);
      client.write(chunk);
    });
    for (const [one, other] of [
      [client, server],
      [server, client],
    ] as const)
      one
        .on('error', () => undefined)
        .on('end', () => other.end())
        .on('close', () => other.destroy());
  }

  /** Nothing has been said by either side for some turns. */
  async quiet(): Promise<void> {
    for (let turns = 0; turns < 200; turns++) {
      await new Promise(setImmediate);
      if (this.#isBusy) turns = 0;
      this.#isBusy = false;
    }
  }

  cut(): void {
    this.events.push({ cut: true, heard: { ...(this.answers.at(-1) as Answers).progress } });
    this.#socket?.destroy();
  }

  close(): void {
    this.#server.close();
  }
}

/** The opening without what it says of the machine and the process; undefined while it is not whole. */
function withoutMachine(bytes: Buffer): Buffer | undefined {
  if (bytes.length < PREAMBLE_BYTES + FRAME_HEADER) return undefined;
  const end = PREAMBLE_BYTES + 4 + bytes.readUInt32LE(PREAMBLE_BYTES);
  if (bytes.length < end) return undefined;
  const hello = decodeHello(new Reader(bytes.subarray(0, end), PREAMBLE_BYTES + FRAME_HEADER));
  const anonymous = encodeHello({ ...hello, host: '', pid: 0 });
  return Buffer.concat([bytes.subarray(0, PREAMBLE_BYTES), anonymous, bytes.subarray(end)]);
}

/** Records a client of this version that does everything that a client can do. */
export async function record(): Promise<Recording> {
  const stage = await new Stage().open();
  const recorder = await new Recorder().listen(stage.port);
  const clock = new TestClock();
  const config = { host: '127.0.0.1', port: recorder.port, clock, logger: recordingLogger() };
  const client = new BroadcastTcpClient(config, NAME);
  const act = async (event: Event): Promise<void> => {
    recorder.events.push(event);
    await stage.play(event);
    await recorder.quiet();
  };
  const handlers = prepare(client);
  await client.connect();
  await recorder.quiet();
  await act({ sends: 'one', channel: 'room' });
  await act({ sends: { nested: [1, 2, 3], text: 'ü' }, channel: 'room' });
  await act({ sends: 'for it alone', client: NAME });
  await act({ sends: 'for everyone' });
  await act({ sends: 'fails once', channel: 'picky' });
  clock.tick(5000);
  await recorder.quiet();
  await act({ sends: 'rejected', channel: 'picky' });
  for (const message of messages()) {
    client.sendMessage(message);
    await recorder.quiet();
  }
  client.sendMessage(BroadcastMessage.createGroupMessage(['friend', 'later'], 'followed'), { until: 'delivered' });
  await recorder.quiet();
  handlers.removePicky();
  const unsubscribed = client.unsubscribe('room');
  await unsubscribed;
  await client.flush();
  clock.tick(10_000);
  await recorder.quiet();
  // It comes back as the same instance, still waits for the last of its messages, and leaves.
  const back = new Promise<void>(resolve => client.once('online', resolve));
  await stage.seesCut(() => recorder.cut());
  clock.tick(5000);
  await back;
  await recorder.quiet();
  await act({ comes: 'later' });
  client.sendMessage(BroadcastMessage.createChannelMessage('chat', 'on the second connection'));
  await recorder.quiet();
  await client.close();
  await recorder.quiet();
  recorder.close();
  return {
    events: recorder.events,
    answers: recorder.answers.map(answers => answers.meaning()),
    friend: stage.friend,
  };
}

function prepare(client: BroadcastClient): { removePicky: () => void } {
  let failures = 0;
  client.onMessage('room', () => undefined);
  client.onMessage(() => undefined);
  const removePicky = client.onMessage(
    'picky',
    ({ data }) => {
      if (data === 'rejected') throw new BroadcastReject('not for me');
      if (failures++ === 0) throw new Error('once');
    },
    { concurrency: 2, maxAttempts: 3 },
  );
  return { removePicky };
}

/** Every way to address a message, and everything that can be said with one. */
function messages(): BroadcastMessage[] {
  return [
    BroadcastMessage.createChannelMessage('chat', 'plain'),
    BroadcastMessage.createChannelMessage('chat', { when: new Date(0), big: 1n, bytes: Buffer.from('xyz') }),
    BroadcastMessage.createClientMessage('friend', 'to a client', { headers: { trace: 'ü', b: '' }, name: 'event' }),
    BroadcastMessage.createMultiChannelMessage(['chat', 'nobody-listens'], 'two channels', { ttl: 3_600_000 }),
    BroadcastMessage.create('friend', 'chat', 'both'),
    BroadcastMessage.createClientMessage('never-seen', 'waits'),
    BroadcastMessage.createBroadcastMessage('to everyone'),
    BroadcastMessage.createChannelMessage('chat', 'light', { persistent: false }),
    BroadcastMessage.createClientMessage('never-seen', 'light and lost', { persistent: false }),
    BroadcastMessage.createClientMessage(NAME, 'to itself'),
  ];
}
