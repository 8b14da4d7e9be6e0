/** Random traffic while connections break, or the server is killed: nothing is lost, nothing comes twice or out of order. */
import { expect, it } from 'vitest';
import { addUp, extentOf, report, seedsOf, timeoutOf } from './suite.js';
import { KINDS, runTraffic, type ServerKind } from './traffic-run.js';

const extent = extentOf({ runs: 3 });

it(
  'keeps every promise through broken connections, and while the server is killed and restarted',
  async () => {
    const totals = new Map<ServerKind, Record<string, number>>(KINDS.map(kind => [kind, {}]));
    for (const seed of seedsOf(extent)) {
      for (const [kind, total] of totals) {
        const network = kind === 'killed' ? [] : ['reset'];
        addUp(total, await runTraffic({ suite: 'traffic', kind, seed, messages: 2000, network }));
      }
    }
    for (const [kind, total] of totals) report('traffic', extent, { kind, ...total });
    expect(totals.get('disk')?.['reset']).toBeGreaterThan(0);
    expect(totals.get('killed')?.['kills']).toBeGreaterThan(0);
  },
  timeoutOf(extent),
);
