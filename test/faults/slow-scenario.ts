/**
 * A scenario of the oracle in which processes are stopped by SIGSTOP, clients and server, for some moments or for longer
 * than they are waited for, and go on where they were.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Part } from './oracle/part.js';
import { play, type Scenario } from './oracle/scenario.js';
import type { Tally } from './oracle/tally.js';

/** A peer is taken for dead soon. */
const BEAT = { pingInterval: 300, deadAfter: 1000 };
const STOPS = 15;
/** A third of the stops is longer than `deadAfter`. */
const LONGEST_MS = 1500;
/** This receiver and this sender are never stopped. */
const SPARED = ['steady', 'first'];

export async function playStops(seed: number, tally: Tally): Promise<void> {
  const options = { suite: 'slow-peers', seed, server: { config: BEAT }, client: BEAT };
  tally.addVerdict(await play(options, scenario => stopSome(scenario, tally)));
  tally.add('scenarios');
}

async function stopSome(scenario: Scenario, tally: Tally): Promise<void> {
  const { server, present, senders, random } = scenario;
  const clients = [...present, ...senders].filter(({ label }) => !SPARED.includes(label));
  for (let stop = 0; stop < STOPS; stop++) {
    await scenario.progress(50);
    const isServer = random() < 0.25;
    const victims = isServer ? [server] : clients.filter(() => random() < 0.3);
    const ms = random() * LONGEST_MS;
    await stopped(victims, ms);
    tally.add(isServer ? 'stops of the server' : 'stops of clients', victims.length);
    if (ms > BEAT.deadAfter) tally.add('of them for longer than deadAfter', victims.length);
  }
}

async function stopped(parts: readonly Part[], ms: number): Promise<void> {
  for (const part of parts) part.signal('SIGSTOP');
  await delay(ms);
  for (const part of parts) part.signal('SIGCONT');
}
