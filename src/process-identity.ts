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

/** A process on this machine. */
export interface ProcessHere {
  readonly pid: number;
  /** When it was started, in the kernel's words; '' where that is not known. Numbers of processes are used again. */
  readonly start: string;
}

/**
 * The process of an instance that has just introduced itself, as `machine#pid` and, on this machine, `#start` behind it;
 * '' where it does not say.
 */
export function processIdentity(machine: string, pid: number): string {
  if (machine === '' || pid === 0) return '';
  const start = machine === machineIdentity() ? stateOf(pid)?.start : undefined;
  return `${machine}#${String(pid)}${start === undefined ? '' : `#${start}`}`;
}

/** The process with such an identity, if it runs or ran on this machine. */
export function processHere(identity: string): ProcessHere | undefined {
  const [machine, pid, start = ''] = identity.split('#') as [string, string?, string?];
  return pid === undefined || machine === '' || machine !== machineIdentity() ? undefined : { pid: Number(pid), start };
}

/** True unless the process is known to have ended. A zombie has ended: only its parent has not looked yet. */
export function isAlive({ pid, start }: ProcessHere): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
  const found = stateOf(pid);
  if (found === undefined) return true;
  return found.state !== 'Z' && found.state !== 'X' && (start === '' || found.start === start);
}

/** What Linux says of a process: the third and the twenty-second field, behind a name that may have anything in it. */
function stateOf(pid: number): { readonly state: string; readonly start: string } | undefined {
  try {
    const stat = readFileSync(`/proc/${String(pid)}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return { state: fields[0] as string, start: fields[19] as string };
  } catch {
    return undefined;
  }
}
