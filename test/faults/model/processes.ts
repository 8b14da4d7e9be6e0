/**
 * Clients of this process that appear to the server as processes of their own: each has a process id that no process of
 * the system has, and lives until it is said to have died. The server asks the system about them as about any other.
 */
import { vi } from 'vitest';

/** Above the highest id that Linux gives. */
const FIRST = 2 ** 22 + 1;

export class Processes {
  readonly #living = new Set<number>();
  #next = FIRST;
  /** The process that introduces itself next. */
  speaking = 0;

  /** Until `restore`, the system knows these processes. */
  install(): () => void {
    const { pid } = process;
    const kill = process.kill.bind(process);
    const spy = vi.spyOn(process, 'kill').mockImplementation((id, signal) => {
      if (signal === 0 && this.#living.has(id)) return true;
      return kill(id, signal);
    });
    Object.defineProperty(process, 'pid', { configurable: true, get: () => this.speaking || pid });
    return () => {
      spy.mockRestore();
      Object.defineProperty(process, 'pid', { configurable: true, enumerable: true, writable: false, value: pid });
    };
  }

  start(): number {
    this.#living.add(this.#next);
    return this.#next++;
  }

  lives(pid: number): boolean {
    return this.#living.has(pid);
  }

  end(pid: number): void {
    this.#living.delete(pid);
  }
}
