// A server that is a program of its own: found on the path, started on a free port of the loopback, watched by what /proc says
// of its process group, and ended with all of it.
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { delimiter, isAbsolute, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

const TICKS_PER_SECOND = 100;
const PAGE = 4096;
const START_MS = 60_000;
const END_MS = 10_000;

/** The path of a command, also of one that only root has on its path. */
export function findCommand(name) {
  if (isAbsolute(name)) return existsSync(name) ? name : undefined;
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin', '/usr/lib/rabbitmq/bin'];
  return folders.map(folder => join(folder, name)).find(path => existsSync(path));
}

export async function freePort() {
  const probe = createServer();
  await new Promise(resolve => probe.listen(0, '127.0.0.1', resolve));
  const { port } = probe.address();
  await new Promise(resolve => probe.close(resolve));
  return port;
}

/** Starts it; fulfilled when it takes connections on the port. */
export async function startDaemon(name, args, { port, env = {}, cwd }) {
  const path = findCommand(name);
  if (path === undefined) throw new Error(`${name} is not installed`);
  const child = spawn(path, args, {
    cwd,
    detached: true,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  child.stderr.on('data', chunk => (said = (said + chunk).slice(-2000)));
  const exited = new Promise(resolve => child.once('exit', resolve));
  const kill = signal => {
    try {
      process.kill(-child.pid, signal);
    } catch {
      // it has ended
    }
  };
  process.once('exit', () => kill('SIGKILL'));
  const ends = Date.now() + START_MS;
  while (!(await answers(port))) {
    if (child.exitCode !== null || Date.now() > ends) {
      kill('SIGKILL');
      throw new Error(`${name} does not listen: ${said}`);
    }
    await pause(50);
  }
  return {
    port,
    group: child.pid,
    cpu: () => usage(child.pid).cpu,
    memory: () => usage(child.pid).memory,
    async stop() {
      kill('SIGTERM');
      await Promise.race([exited, pause(END_MS, undefined, { ref: false })]);
      kill('SIGKILL');
      await exited;
    },
  };
}

function answers(port) {
  return new Promise(resolve => {
    const socket = connect({ host: '127.0.0.1', port });
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

/** CPU time, as process.cpuUsage() has it, and resident bytes of a process group. */
function usage(group) {
  let [user, system, pages] = [0, 0, 0];
  for (const id of readdirSync('/proc')) {
    if (!/^\d+$/.test(id)) continue;
    let stat;
    try {
      stat = readFileSync(`/proc/${id}/stat`, 'utf8');
    } catch {
      continue; // it has ended
    }
    // The name, in parentheses, may have spaces.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (Number(fields[2]) !== group) continue;
    user += Number(fields[11]);
    system += Number(fields[12]);
    pages += Number(fields[21]);
  }
  const microseconds = ticks => (ticks * 1e6) / TICKS_PER_SECOND;
  return { cpu: { user: microseconds(user), system: microseconds(system) }, memory: pages * PAGE };
}
