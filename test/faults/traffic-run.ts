/** One run of random traffic: a server, proxies in front of it, faults, and the oracle's word on what became of it. */
import { join } from 'node:path';
import { BroadcastTcpServer, type ClientConfig, type ServerConfig } from '../../src/index.js';
import { Proxy } from '../helpers/proxy.js';
import { recordingLogger } from '../helpers/scene.js';
import { demandNothingWrong, withEvidence } from './evidence.js';
import { NetworkFaults } from './network-faults.js';
import { FaultRole } from './roles.js';
import { addUp } from './suite.js';
import { Traffic } from './traffic.js';

/** `killed`: a process with the disk engine, which is killed and started again meanwhile. */
export type ServerKind = 'memory' | 'disk' | 'killed';
export const KINDS: readonly ServerKind[] = ['memory', 'disk', 'killed'];

export interface TrafficRun {
  readonly suite: string;
  readonly kind: ServerKind;
  readonly seed: number;
  readonly messages: number;
  /** What the network does; every disturbance that there is by default. */
  readonly network?: readonly string[];
  readonly client?: ClientConfig;
}

/** Small windows and short times, so that every limit is met often. */
const TIGHT: ServerConfig = {
  storeAfter: 5,
  // An instance that closes while its connection is broken is waited for as long.
  instanceGrace: 500,
  pingInterval: 400,
  deadAfter: 1000,
  limits: { windowMessages: 24, windowBytes: 16 * 1024 },
};
/** So often a fault is one of the network, where the server is killed too. */
const NETWORK_SHARE = 0.75;

interface RunningServer {
  readonly port: number;
  /** Kills it and starts it again. */
  readonly restart?: () => Promise<void>;
  stop(): Promise<void>;
  /** What it has warned of so far. */
  warnings(): readonly string[];
}

async function startInProcess(options: ServerConfig): Promise<RunningServer> {
  const logger = recordingLogger();
  const server = new BroadcastTcpServer({ host: '127.0.0.1', port: 0, logger, ...options });
  await server.start();
  return {
    port: (server.address as { port: number }).port,
    stop: () => server.stop(),
    warnings: () => logger.warnings,
  };
}

async function startProcess(options: ServerConfig): Promise<RunningServer> {
  const start = async (port: number): Promise<{ role: FaultRole; port: number }> => {
    const role = new FaultRole('server', { port, ...options });
    return { role, port: (await role.saw('listening'))['port'] as number };
  };
  let current = await start(0);
  const { port } = current;
  const roles = [current.role];
  return {
    port,
    restart: async () => {
      await current.role.kill();
      current = await start(port);
      roles.push(current.role);
    },
    stop: () => current.role.kill(),
    warnings: () => roles.flatMap(role => role.texts('log')),
  };
}

/** Runs traffic through proxies that misbehave; throws when a promise was not kept. Returns what was seen, by what it counts. */
export async function runTraffic(run: TrafficRun): Promise<Record<string, number>> {
  const { suite, kind, seed, messages, network, client } = run;
  const played = new Play(run);
  await withEvidence(
    {
      suite,
      seed,
      part: kind,
      options: { kind, messages, network, client },
      history: () => played.history(),
    },
    folder => played.run(kind === 'memory' ? {} : { dataDir: join(folder, 'data') }),
    () => played.end(),
  );
  return played.seen;
}

class Play {
  readonly seen: Record<string, number> = {};
  readonly #run: TrafficRun;
  #server: RunningServer | undefined;
  #proxies: readonly Proxy[] = [];
  #traffic: Traffic | undefined;

  constructor(run: TrafficRun) {
    this.#run = run;
  }

  async run(store: Pick<ServerConfig, 'dataDir'>): Promise<void> {
    const { kind, seed, messages, network, client = {} } = this.#run;
    const options = { ...TIGHT, ...store };
    const server = await (kind === 'killed' ? startProcess(options) : startInProcess(options));
    this.#server = server;
    this.#proxies = [1, 2, 3, 4].map(n => new Proxy({ port: server.port, host: '127.0.0.1' }, seed * 10 + n));
    for (const proxy of this.#proxies) await proxy.listen();
    const faults = new NetworkFaults(this.#proxies, network);
    const fault = (random: () => number): Promise<void> => this.#strike(faults, random);
    const load = { seed, messages, failing: 0.03, followed: 0.3, client, fault, heal: faults.heal };
    this.#traffic = new Traffic(this.#proxies, load);
    const { wrong, figures } = await this.#traffic.run();
    demandNothingWrong(wrong);
    addUp(this.seen, { runs: 1, ...figures, ...faults.injected, framesLostAlone: faults.lostFrames });
  }

  async #strike(faults: NetworkFaults, random: () => number): Promise<void> {
    const restart = this.#server?.restart;
    if (restart !== undefined && random() > NETWORK_SHARE) {
      addUp(this.seen, { kills: 1 });
      if (faults.kinds.includes('welcomesLost') && random() < 0.5) await faults.loseFirstWords(random);
      await restart();
    } else if (faults.kinds.length > 0) {
      await faults.next(random);
    }
  }

  history(): unknown {
    return { ...this.#traffic?.history(), server: this.#server?.warnings() };
  }

  async end(): Promise<void> {
    await Promise.all(this.#proxies.map(proxy => proxy.close()));
    await this.#server?.stop();
  }
}
