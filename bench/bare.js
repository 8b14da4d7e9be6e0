// The bare relay: the least that one would write to carry the same objects from process to process, as fast as we know
// how to. No receipts, no acknowledgements, no limits, no redelivery, no reconnecting; a handler gets the decoded data.
//
//   | length u32 | kind u8 | alias u16 | count u32 | body: a msgpack array with all messages of one turn for one channel |
//
// The relay reads the eleven bytes in front and forwards the frame as it came, to everybody who has subscribed. An alias
// stands for a channel's name and is the relay's, so that a frame means the same on each connection.
import { createServer, connect } from 'node:net';
import { Packr, RESERVE_START_SPACE } from 'msgpackr';

const HEADER = 11;
export const OPEN = 1;
export const SUBSCRIBE = 2;
export const MESSAGES = 3;
export const ACKNOWLEDGED = 4;

/** Bytes that wait in a socket before its writer is told to pause. */
const ROOM = 1024 * 1024;
/** A frame is closed when it has about so many bytes, even if the turn has more. */
const FRAME = 64 * 1024;

// The objects take as many bytes as ours.
const packr = new Packr({ useRecords: false, variableMapSize: true });

export function encodeFrame(kind, alias, count, body) {
  const frame = packr.pack(body, RESERVE_START_SPACE | HEADER);
  frame.writeUInt32LE(frame.length, 0);
  frame[4] = kind;
  frame.writeUInt16LE(alias, 5);
  frame.writeUInt32LE(count, 7);
  return frame;
}

export const headerOf = ([head]) => ({ kind: head[4], alias: head.readUInt16LE(5), count: head.readUInt32LE(7) });

function bodyOf(pieces) {
  const frame = pieces.length === 1 ? pieces[0] : Buffer.concat(pieces);
  return packr.unpack(frame.subarray(HEADER));
}

/** Takes chunks, gives each frame: as slices of the chunks, the first of which has the header whole. */
export function cutter(onFrame) {
  let pieces = [];
  let have = 0;
  let need = 0; // 0 while the header of the unfinished frame is not whole
  return chunk => {
    let at = 0;
    if (have > 0 && need === 0) {
      chunk = Buffer.concat([...pieces, chunk]);
      pieces = [];
    } else if (have > 0) {
      at = need - have;
      pieces.push(chunk.subarray(0, at));
      have += chunk.length;
      if (have < need) return;
      onFrame(pieces);
      pieces = [];
    }
    have = need = 0;
    while (chunk.length - at >= HEADER) {
      const length = chunk.readUInt32LE(at);
      if (chunk.length - at < length) {
        need = length;
        break;
      }
      onFrame([chunk.subarray(at, (at += length))]);
    }
    if (at === chunk.length) return;
    pieces.push(chunk.subarray(at));
    have = chunk.length - at;
  };
}

/** Collects what a turn has for a socket and writes it at once; tells when the socket is full, and when no more. */
function outlet(socket, onFull = () => undefined, onRoom = () => undefined) {
  let waiting = [];
  const flush = () => {
    socket.cork();
    for (const piece of waiting) socket.write(piece);
    socket.uncork();
    waiting = [];
    if (!socket.writableNeedDrain) return;
    onFull();
    socket.once('drain', onRoom);
  };
  return pieces => {
    if (waiting.length === 0) setImmediate(flush);
    for (const piece of pieces) waiting.push(piece);
  };
}

export async function listen(once, onConnection) {
  const sockets = new Set();
  const server = createServer({ noDelay: true, highWaterMark: ROOM }, socket => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => sockets.delete(socket));
    onConnection(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const close = () => {
    for (const socket of sockets) socket.destroy();
    server.close();
  };
  return { sockets, port: server.address().port, close };
}

export function bareRoles({ now, once, turn, progress, pingPong, payload, BURST, CHANNEL }) {
  function bareRelay() {
    const aliases = new Map();
    const subscribers = []; // by alias: what writes to those who have subscribed
    let full = 0;
    let running;
    const onFull = () => {
      if (full++ === 0) for (const socket of running.sockets) socket.pause();
    };
    const onRoom = () => {
      if (--full === 0) for (const socket of running.sockets) socket.resume();
    };

    function onConnection(socket) {
      const write = outlet(socket, onFull, onRoom);
      const onFrame = pieces => {
        const { kind, alias } = headerOf(pieces);
        if (kind === MESSAGES) for (const forward of subscribers[alias]) forward(pieces);
        else {
          const name = bodyOf(pieces);
          if (!aliases.has(name)) aliases.set(name, subscribers.push([]) - 1);
          const number = aliases.get(name);
          if (kind === SUBSCRIBE) subscribers[number].push(write);
          write([encodeFrame(kind, number, 0, name)]);
        }
      };
      socket.on('data', cutter(onFrame));
    }

    return {
      async start() {
        running = await listen(once, onConnection);
        return { port: running.port };
      },
      stats: () => ({ full }),
      stop: () => running.close(),
    };
  }

  /** A connection: names become aliases, and the messages of a turn one frame. */
  async function dial(port) {
    const socket = connect({ host: '127.0.0.1', port, noDelay: true, writableHighWaterMark: ROOM });
    await once(socket, 'connect');
    const write = outlet(socket);
    const opening = new Map();
    const handlers = []; // these by alias
    const turns = []; // the messages of this turn
    const perFrame = []; // so many messages are about FRAME bytes
    const client = { acknowledged: 0, onAcknowledged: () => undefined };
    const opened = (alias, name) => {
      const { handler, resolve } = opening.get(name);
      handlers[alias] = handler;
      turns[alias] = [];
      perFrame[alias] = 1;
      resolve(alias);
    };
    const onFrame = pieces => {
      const { kind, alias, count } = headerOf(pieces);
      if (kind === MESSAGES) for (const data of bodyOf(pieces)) handlers[alias](data);
      else if (kind === ACKNOWLEDGED) client.onAcknowledged((client.acknowledged += count));
      else opened(alias, bodyOf(pieces));
    };
    socket.on('data', cutter(onFrame));
    const seal = alias => {
      const messages = turns[alias];
      if (messages.length === 0) return;
      const frame = encodeFrame(MESSAGES, alias, messages.length, messages);
      perFrame[alias] = Math.ceil((FRAME * messages.length) / frame.length);
      turns[alias] = [];
      write([frame]);
    };
    return Object.assign(client, {
      /** The alias of a channel; with a handler it is subscribed to. */
      open: (name, handler) =>
        new Promise(resolve => {
          opening.set(name, { handler, resolve });
          write([encodeFrame(handler === undefined ? OPEN : SUBSCRIBE, 0, 0, name)]);
        }),
      send(alias, data) {
        const count = turns[alias].push(data);
        if (count >= perFrame[alias]) seal(alias);
        else if (count === 1) queueMicrotask(() => seal(alias));
      },
      isFull: () => socket.writableNeedDrain,
      room: () => once(socket, 'drain'),
      close: () => socket.destroy(),
    });
  }

  function barePublisher() {
    let client;
    let alias;
    let sent = 0;
    return {
      async start({ port }) {
        client = await dial(port);
        alias = await client.open(CHANNEL);
      },
      stats: () => ({ sent, acknowledged: client.acknowledged }),
      async publish({ size, seconds, messages }) {
        const { make } = payload(size);
        const first = sent;
        const began = now();
        const end = began + (seconds ?? 0) * 1000;
        const left = () => (messages === undefined ? (now() < end ? BURST : 0) : first + messages - sent);
        for (let burst = left(); burst > 0; burst = left()) {
          for (let i = Math.min(burst, BURST); i > 0; i--) client.send(alias, make(sent++));
          await turn();
          if (client.isFull()) await client.room();
        }
        return { began, first, sent };
      },
      /** A store acknowledges; the relay does not. */
      async settled({ acknowledged = false } = {}) {
        if (acknowledged && client.acknowledged < sent) {
          const arrange = resolve => {
            client.onAcknowledged = count => {
              if (count >= sent) resolve();
            };
          };
          await progress(arrange, () => client.acknowledged, sent);
        }
        if (client.acknowledged > sent) throw new Error(`${client.acknowledged} of ${sent} messages are acknowledged`);
        return { at: now() };
      },
      check: () => undefined,
      stop: () => client?.close(),
    };
  }

  function bareSubscriber() {
    let client;
    let port;
    let handler;
    let received = 0;
    let fault;
    let target = Infinity;
    let at = 0;
    let reached = () => undefined;

    async function come() {
      const began = now();
      client = await dial(port);
      await client.open(CHANNEL, handler);
      return { began };
    }

    return {
      async start({ size, late, from = 0, ...options }) {
        const { numberOf } = payload(size);
        client?.close();
        port = options.port;
        received = from;
        handler = data => {
          if (numberOf(data) !== received) fault ??= `number ${numberOf(data)} came instead of ${received}`;
          received++;
          if (received < target) return;
          at = now();
          reached();
        };
        if (!late) await come();
      },
      come,
      async reach({ count }) {
        target = count;
        const arrange = resolve => (reached = resolve);
        if (received < count) await progress(arrange, () => received, count);
        else at = now();
        await turn();
        target = Infinity;
        if (received > count) fault ??= `${received} messages came instead of ${count}`;
        if (fault !== undefined) throw new Error(fault);
        return { at };
      },
      stop: () => client?.close(),
    };
  }

  function bareEcho() {
    let client;
    return {
      async start({ port }) {
        client = await dial(port);
        const pong = await client.open('pong');
        await client.open('ping', data => client.send(pong, data));
      },
      stop: () => client?.close(),
    };
  }

  function barePinger() {
    let client;
    let ping;
    let arrived = () => undefined;
    return {
      async start({ port }) {
        client = await dial(port);
        await client.open('pong', data => arrived(data));
        ping = await client.open('ping');
      },
      run: options =>
        pingPong(
          options,
          data => client.send(ping, data),
          handler => (arrived = handler),
        ),
      stop: () => client?.close(),
    };
  }

  return { bareRelay, barePublisher, bareSubscriber, bareEcho, barePinger };
}
