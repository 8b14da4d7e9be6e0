/**
 * Two machines and a switch between them, as network namespaces of this one: processes on either side, and a port of the
 * switch that can be taken down without a word to either end. Needs root on Linux.
 *
 *   left ──veth──[port  switch  port]──veth── right
 */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';

const MOST_ADDRESSES = 250;

export type Side = 'left' | 'right';

/** Why there can be none here; undefined when there can. */
export function whyNoNamespaces(): string | undefined {
  if (process.platform !== 'linux') return 'only Linux has network namespaces';
  if (process.getuid?.() !== 0) return 'only root makes network namespaces';
  try {
    const trial = `bc-try-${String(process.pid)}`;
    ip('netns', 'add', trial);
    ip('netns', 'del', trial);
    return undefined;
  } catch (error) {
    return `network namespaces cannot be made here: ${(error as Error).message.split('\n').join(' ')}`;
  }
}

function ip(...args: string[]): void {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] });
}

export class Namespaces {
  readonly #id = `bc-${String(process.pid)}`;
  readonly #made: string[] = [];

  constructor() {
    try {
      const net = this.#make('switch');
      ip('-n', net, 'link', 'add', 'bridge', 'type', 'bridge');
      ip('-n', net, 'link', 'set', 'bridge', 'up');
      for (const side of ['left', 'right'] as const) {
        const name = this.#make(side);
        ip('-n', net, 'link', 'add', side, 'type', 'veth', 'peer', 'name', 'eth', 'netns', name);
        ip('-n', net, 'link', 'set', side, 'master', 'bridge');
        ip('-n', net, 'link', 'set', side, 'up');
        ip('-n', name, 'addr', 'add', `${this.address(side)}/24`, 'dev', 'eth');
        ip('-n', name, 'link', 'set', 'eth', 'up');
        ip('-n', name, 'link', 'set', 'lo', 'up');
      }
    } catch (error) {
      this.remove();
      throw error;
    }
  }

  #make(what: string): string {
    const name = `${this.#id}-${what}`;
    ip('netns', 'add', name);
    this.#made.push(name);
    return name;
  }

  address(side: Side): string {
    return `10.99.${String(process.pid % MOST_ADDRESSES)}.${side === 'left' ? '1' : '2'}`;
  }

  /** What runs a command there. */
  inside(side: Side): readonly string[] {
    return ['ip', 'netns', 'exec', `${this.#id}-${side}`];
  }

  /** The switch's port to one side goes down, or comes up: what is sent meanwhile is lost, and nobody is told. */
  setPort(side: Side, isUp: boolean): void {
    ip('-n', `${this.#id}-switch`, 'link', 'set', side, isUp ? 'up' : 'down');
  }

  /** With every device in them. */
  remove(): void {
    for (const name of this.#made.splice(0)) {
      if (existsSync(`/run/netns/${name}`)) ip('netns', 'del', name);
    }
  }
}
