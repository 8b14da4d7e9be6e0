/** Every engine that comes with the package keeps to every obligation of the seam. */
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'vitest';
import { conformanceCases, diskEngine, memoryEngine, type EngineMaker } from '../../src/engine/index.js';
import { SimulatedDisk } from '../helpers/simulated-files.js';

const memory: EngineMaker = {
  abilities: { durable: false },
  create: () => ({ engine: memoryEngine }),
};

/** On the real disk; a killed process leaves a copy of its folder as it was. */
function disk(segmentBytes?: number): EngineMaker {
  const size = segmentBytes === undefined ? {} : { segmentBytes };
  return {
    abilities: { durable: true },
    async create() {
      const root = await mkdtemp(join(tmpdir(), 'broadcast-engine-'));
      let directory = join(root, '1');
      let kills = 1;
      return {
        engine: () => diskEngine({ directory, ...size }),
        async kill() {
          const copy = join(root, String(++kills));
          // What is being made may have its own name before it is copied; there is nothing in it.
          await cp(directory, copy, { recursive: true, filter: path => !path.endsWith('.new') });
          directory = copy;
        },
        remove: () => rm(root, { recursive: true, force: true }),
      };
    },
  };
}

const simulated: EngineMaker = {
  abilities: { durable: true },
  create() {
    let files = new SimulatedDisk();
    return {
      engine: () => diskEngine({ directory: '/data', files, segmentBytes: 64 * 1024, reserveBytes: 0 }),
      kill: () => void (files = files.afterKill()),
    };
  },
};

describe.each([
  ['the memory engine', memory],
  ['the disk engine', disk()],
  ['the disk engine with segments of 8 KiB', disk(8 * 1024)],
  ['the disk engine on a simulated disk', simulated],
])('%s', (_, maker) => {
  for (const { name, run } of conformanceCases(maker.abilities)) it(name, () => run(maker));
});
