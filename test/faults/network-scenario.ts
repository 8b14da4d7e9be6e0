/**
 * A scenario of the oracle behind proxies: each sender and each receiver has a network of its own, which does to it what
 * networks do, and the server is killed now and then.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { Proxy } from '../helpers/proxy.js';
import { NetworkFaults } from './network-faults.js';
import { play, type Scenario } from './oracle/scenario.js';
import type { Tally } from './oracle/tally.js';

/** Both sides take each other for dead soon, or the faults would wait for it for long. */
const BEAT = { pingInterval: 150, deadAfter: 400 };
/** Beginnings and ends of disturbances. */
const CHANGES = 60;
const KILLED = 0.1;

export async function playNetwork(seed: number, tally: Tally): Promise<void> {
  const proxies: Proxy[] = [];
  const through = async (port: number): Promise<number> => {
    const proxy = new Proxy({ port, host: '127.0.0.1' }, seed * 100 + proxies.length);
    await proxy.listen();
    proxies.push(proxy);
    return proxy.port;
  };
  try {
    const options = { suite: 'network', seed, server: { config: BEAT }, client: BEAT, through };
    tally.addVerdict(await play(options, scenario => disturb(scenario, new NetworkFaults(proxies), tally)));
    tally.add('scenarios');
  } finally {
    await Promise.all(proxies.map(proxy => proxy.close()));
  }
}

async function disturb(scenario: Scenario, faults: NetworkFaults, tally: Tally): Promise<void> {
  const { server, random } = scenario;
  for (let change = 0; change < CHANGES; change++) {
    await faults.next(random);
    // Perhaps nobody gets anything now.
    await Promise.race([scenario.progress(20 + Math.floor(random() * 60)), delay(300)]);
    if (random() >= KILLED) continue;
    await server.kill();
    await scenario.startServer();
    tally.add('kills');
  }
  faults.heal();
  for (const [kind, count] of Object.entries(faults.injected)) tally.add(kind, count);
  tally.add('frames lost alone', faults.lostFrames);
}
