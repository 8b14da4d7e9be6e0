/**
 * 10,000 connections that never finish introducing themselves, on a server in a process of its own: its memory stays
 * bounded, a good client gets in at once, and none of them is there when the deadline has passed.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { expect, it, onTestFinished } from 'vitest';
import { BroadcastMessage } from '../../src/index.js';
import { encodeHello } from '../../src/protocol/frames.js';
import { PREAMBLE } from '../../src/protocol/constants.js';
import { plainHello } from '../helpers/raw-peer.js';
import { connectedClient, newClient, Role } from '../helpers/scene.js';

const CROWD = 10_000;
/** Connections that are opened at the same time. */
const AT_ONCE = 200;

function residentBytes(pid: number): number {
  const [, kib] = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${String(pid)}/status`, 'utf8')) as RegExpExecArray;
  return Number(kib) * 1024;
}

it('10,000 openings that never finish cost less than 64 MiB, and a good client gets in within a second', async () => {
  const role = new Role('server', { port: 0, limits: { handshakeMs: 60_000 } });
  const port = (await role.saw('listening'))['port'] as number;
  const pid = role.child.pid as number;
  const witness = await connectedClient(port, 'witness');
  await witness.sendMessage(BroadcastMessage.createChannelMessage('warm', 1));
  const before = residentBytes(pid);

  const sockets: Socket[] = [];
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
  });
  const hello = encodeHello(plainHello());
  // Nothing; half a preamble; half an introduction.
  const beginnings = [Buffer.alloc(0), PREAMBLE.subarray(0, 3), Buffer.concat([PREAMBLE, hello.subarray(0, 40)])];
  const open = async (i: number): Promise<void> => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true });
    sockets.push(socket);
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    socket.write(beginnings[i % beginnings.length] as Buffer);
  };
  for (let i = 0; i < CROWD; i += AT_ONCE) {
    await Promise.all(Array.from({ length: AT_ONCE }, (_, j) => open(i + j)));
  }

  const late = newClient(port, 'late');
  await late.connect({ timeout: 1000 });
  expect((await late.sendMessage(BroadcastMessage.createChannelMessage('warm', 2))).status).toBe('stored');
  await witness.flush();
  expect(sockets.filter(socket => socket.destroyed)).toHaveLength(0);
  const grown = residentBytes(pid) - before;
  console.log(`the server grew by ${(grown / 1024 / 1024).toFixed(1)} MiB`);
  expect(grown).toBeLessThan(64 * 1024 * 1024);
}, 120_000);
