/** Data through a real server, in both directions, from memory and from disk; hostile data from a peer that is none of ours. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { BroadcastMessage, BroadcastTcpServer } from '../../src/index.js';
import { run, serve, start } from '../helpers/cli.js';
import { RawPeer } from '../helpers/raw-peer.js';
import { difference } from '../helpers/same.js';
import { connectedClient, Inbox, newClient, recordingLogger, startServer, temporaryFolder } from '../helpers/scene.js';

function everything(): Record<string, unknown> {
  const shared = { bytes: new Uint8Array([1, 2, 3]) };
  const circle: Record<string, unknown> = { shared };
  circle['self'] = circle;
  return {
    bigints: [0n, -1n, 2n ** 64n, -(2n ** 4096n)],
    dates: [new Date(0), new Date(NaN)],
    map: new Map<unknown, unknown>([[NaN, -0], [{ key: 1 }, new Set([undefined, null])]]), // prettier-ignore
    views: [new Float64Array([NaN, -0]), new DataView(new ArrayBuffer(3)), new BigInt64Array(2), new ArrayBuffer(5)],
    buffer: Buffer.from('hello'),
    holes: [, 1, , undefined],
    odd: JSON.parse('{"__proto__":{"a":1},"constructor":1}') as unknown,
    pattern: /a(?<n>b)/giu,
    boxed: [new String('x'), Object(1n)],
    text: ['\ud800', '\u0000', '日本語 🎉'],
    circle,
    shared,
    deep: Array.from({ length: 300 }).reduce<unknown>(inner => ({ inner }), 'bottom'),
  };
}

describe('data', () => {
  it('comes back equal from client to client, to the server’s observer, and from the server', async () => {
    const { server, port } = await startServer('memory');
    const observed = new Inbox();
    server.onMessage(message => observed.push(message.data));
    const received = new Inbox();
    const receiver = newClient(port, 'receiver');
    receiver.onMessage('room', message => received.push(message.data));
    await receiver.connect();
    const sender = await connectedClient(port, 'sender');
    const data = everything();
    await sender.sendMessage(BroadcastMessage.createChannelMessage('room', data));
    await server.sendMessage(BroadcastMessage.createChannelMessage('room', data));
    for (const value of [...(await received.reached(2)), ...(await observed.reached(1))])
      expect(difference(value, data)).toBeUndefined();
  });

  it('comes back equal from the disk of a server that was restarted', async () => {
    const dataDir = join(await temporaryFolder(), 'data');
    const { server, port } = await startServer('disk', { dataDir });
    const sender = await connectedClient(port, 'sender');
    const data = everything();
    const receipt = await sender.sendMessage(BroadcastMessage.createClientMessage('away', data));
    expect(receipt.status).toBe('stored');
    await sender.close();
    await server.stop();
    const again = await startServer('disk', { dataDir });
    const received = new Inbox();
    const away = newClient(again.port, 'away');
    away.onMessage(message => received.push(message.data));
    await away.connect();
    expect(difference((await received.reached(1))[0], data)).toBeUndefined();
  });

  it('is taken as it is when it is sent, whatever becomes of the object', async () => {
    const { port } = await startServer('memory');
    const received = new Inbox();
    const receiver = newClient(port, 'receiver');
    receiver.onMessage(message => received.push(message.data));
    await receiver.connect();
    const sender = newClient(port, 'sender');
    const data = { list: [1], map: new Map([['a', 1]]) };
    void sender.sendMessage(BroadcastMessage.createClientMessage('receiver', data));
    data.list.push(2);
    data.map.clear();
    await sender.connect();
    expect(await received.reached(1)).toEqual([{ list: [1], map: new Map([['a', 1]]) }]);
  });

  it('that cannot be sent is refused with its path, also when a getter or proxy throws', async () => {
    const { port } = await startServer('memory');
    const sender = await connectedClient(port, 'sender');
    const bad: [string, unknown][] = [
      ['data.user.save', { user: { save: () => 1 } }],
      ['data.now', { get now() { throw new Error('no'); } }], // prettier-ignore
      ['data.p', { p: new Proxy({}, { ownKeys: () => { throw new Error('no'); } }) }], // prettier-ignore
    ];
    for (const [path, data] of bad) {
      const sent = sender.sendMessage(BroadcastMessage.createClientMessage('x', data));
      await expect(sent).rejects.toMatchObject({
        code: 'data-not-cloneable',
        message: expect.stringContaining(path) as string,
      });
    }
    await expect(sender.sendMessage(BroadcastMessage.createClientMessage('x', 1))).resolves.toBeDefined();
  });
});

describe('hostile data', () => {
  // A table of 100 arrays that announce 2³¹ elements each; a body that is cut short; keys that collide.
  const sparse = Buffer.concat([
    Buffer.from([0xc9, 0, 0, 2, 0xbf, 1, 0xdc, 0, 100]),
    ...Array.from({ length: 100 }, () => Buffer.from([0x92, 5, 0xce, 0x80, 0, 0, 0])),
  ]);
  const cut = Buffer.from([0x92, 1]);

  it('goes to the dead letters, where the command line can show it, and `sub` lives and goes on', async () => {
    const { reach, port } = await serve();
    const subscriber = start(['sub', 'room', '--as', 'w', ...reach]);
    await subscriber.says('is listening');
    const peer = await RawPeer.open(port);
    peer.write(peer.message(1, { channels: ['room'] }, cut), peer.message(2, { channels: ['room'] }, Buffer.from([7])));
    await subscriber.prints('7\n');
    await peer.flush();
    const listed = await run(['dead', 'ls', 'w', '--json', ...reach]);
    expect(JSON.parse(listed.stdout)).toMatchObject([
      { message: { channel: 'room', data: { $undecodable: expect.stringContaining('cannot be decoded') as string } } },
    ]);
    expect((await run(['dead', 'ls', 'w', ...reach])).stdout).toContain('$undecodable');
    expect((await subscriber.signal('SIGINT')).code).toBe(0);
  });

  it('that announces lengths is printed as what is there', async () => {
    const { reach, port } = await serve();
    const peer = await RawPeer.open(port);
    peer.write(peer.message(1, { channels: ['room'] }, sparse));
    await peer.flush();
    const { stdout } = await run(['sub', 'room', '--count', '1', ...reach]);
    expect(stdout).toBe('{"$sparse":[2147483648,[]]}\n');
  });

  it('does no harm to a server that is observed', async () => {
    const server = new BroadcastTcpServer({ host: '127.0.0.1', port: 0, logger: recordingLogger() });
    await server.start();
    const seen = new Inbox();
    server.onMessage(message => {
      try {
        seen.push(message.data);
      } catch (error) {
        seen.push((error as { code: string }).code);
      }
    });
    const { port } = server.address as { port: number };
    const peer = await RawPeer.open(port);
    peer.write(peer.message(1, { channels: ['room'] }, cut), peer.message(2, { channels: ['room'] }, Buffer.from([7])));
    expect(await seen.reached(2)).toEqual(['body-invalid', 7]);
    await server.stop();
  });
});
