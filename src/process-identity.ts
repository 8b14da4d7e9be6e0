/** Which machine and process this is, so that a server on the same machine can see that a client's process has died. */
import { readFileSync, readlinkSync } from 'node:fs';

let machine: string | undefined;

/** Identifies the machine since its boot and the space of process ids; '' where that is not known. */
export function machineIdentity(): string {
  if (machine === undefined) {
    try {
      machine = `${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()}/${readlinkSync('/proc/self/ns/pid')}`;
    } catch {
      machine = '';
    }
  }
  return machine;
}

/** True unless the process is known to have ended. A zombie has ended: only its parent has not looked yet. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
  try {
    const stat = readFileSync(`/proc/${String(pid)}/stat`, 'utf8');
    const state = stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3);
    return state !== 'Z' && state !== 'X';
  } catch {
    return true;
  }
}
