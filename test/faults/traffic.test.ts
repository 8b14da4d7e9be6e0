/** Random traffic under random faults. `TRAFFIC_SEED` and `TRAFFIC_RUNS` repeat a run or make many. */
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { BroadcastTcpServer, type ServerConfig } from '../../src/index.js';
import { startProxy } from '../helpers/proxy.js';
import { recordingLogger, Role, temporaryFolder } from '../helpers/scene.js';
import { Traffic } from './traffic.js';

const RUNS = Number(process.env['TRAFFIC_RUNS'] ?? 3);
const FIRST = Number(process.env['TRAFFIC_SEED'] ?? 1);
const SEEDS = Array.from({ length: RUNS }, (_, i) => FIRST + i);
const TIGHT: ServerConfig = {
  storeAfter: 5,
  // An instance that closes while its connection is broken is waited for as long.
  instanceGrace: 500,
  pingInterval: 400,
  deadAfter: 1000,
  limits: { windowMessages: 24, windowBytes: 16 * 1024 },
};

describe.each(SEEDS)(
  'traffic with seed %i',
  seed => {
    it.each(['memory', 'disk'] as const)(
      'keeps every promise on the %s engine through broken connections',
      async kind => {
        const dataDir = kind === 'disk' ? { dataDir: join(await temporaryFolder(), 'data') } : {};
        const server = new BroadcastTcpServer({
          host: '127.0.0.1',
          port: 0,
          logger: recordingLogger(),
          ...TIGHT,
          ...dataDir,
        });
        await server.start();
        onTestFinished(() => server.stop());
        const { port } = server.address as { port: number };
        const proxies = await Promise.all([1, 2, 3].map(() => startProxy(port, seed)));
        const fault = (random: () => number): void => proxies[Math.floor(random() * 3)]?.cut();
        const wrong = await new Traffic(proxies, { seed, messages: 2000, failing: 0.03, followed: 0.3, fault }).run();
        expect(wrong).toEqual([]);
      },
    );

    it('keeps every promise while the server is killed and restarted', async () => {
      const dataDir = join(await temporaryFolder(), 'data');
      const start = async (port: number): Promise<Role> => {
        const role = new Role('server', { port, dataDir, ...TIGHT });
        await role.saw('listening');
        return role;
      };
      let role = await start(0);
      const port = (await role.saw('listening'))['port'] as number;
      const proxies = await Promise.all([1, 2, 3].map(() => startProxy(port, seed)));
      const fault = async (random: () => number): Promise<void> => {
        if (random() < 0.9) return;
        await role.kill();
        role = await start(port);
      };
      const wrong = await new Traffic(proxies, { seed, messages: 2000, failing: 0.03, followed: 0.3, fault }).run();
      expect(wrong).toEqual([]);
    });
  },
  60_000,
);
