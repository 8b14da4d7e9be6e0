/** Clocks that are set, by an hour, a day, a year, either way: nothing expires wrongly, ids stay unique, order stays. */
import { describe, expect, it } from 'vitest';
import { TestClock } from '../../src/testing/index.js';
import { startProxy } from '../helpers/proxy.js';
import { RawPeer } from '../helpers/raw-peer.js';
import { connectedClient, startServer } from '../helpers/scene.js';
import { findFaketime, runFaketime, type FaketimeFigures } from './faketime.js';
import { extentOf, report, seedsOf, timeoutOf } from './suite.js';
import { runTime, type TimeFigures } from './time-model.js';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const lives = extentOf({ runs: 6 });
const processes = extentOf({ runs: 1 });

const turns = async (): Promise<void> => {
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
};

/** Lets time pass in steps between which both ends hear each other. */
async function live(clock: TestClock, ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 2 * SECOND) {
    clock.tick(2 * SECOND);
    await turns();
  }
}

describe.each([
  ['an hour ahead', HOUR],
  ['an hour back', -HOUR],
  ['a day ahead', DAY],
  ['a day back', -DAY],
])('a wall clock that is set %s', (_how, jump) => {
  it('is felt by no connection that lives, and saves none that is dead', async () => {
    const clock = new TestClock();
    const { port } = await startServer('memory', { clock });
    const client = await connectedClient(port, 'lives', { clock });
    let lost = 0;
    client.on('offline', () => lost++);
    const silent = await RawPeer.open(port);
    await live(clock, 10 * SECOND);
    clock.jump(jump);
    await live(clock, 10 * SECOND);
    expect([lost, silent.hasEnded]).toEqual([0, false]);
    await live(clock, 40 * SECOND);
    await silent.until(() => silent.hasEnded || silent.isClosed);
    expect(lost).toBe(0);
  });

  it('neither ends a session nor keeps one', async () => {
    const clock = new TestClock();
    const limits = { sessionTtl: 30 * MINUTE };
    const { port, server } = await startServer('memory', { clock, limits, pingInterval: 2 * DAY, deadAfter: 4 * DAY });
    const client = await connectedClient(port, 'gone', { clock });
    const left = new Promise(resolve => server.on('disconnect', resolve));
    await client.close();
    await left;
    const names = async (): Promise<string[]> => (await server.sessions()).map(({ name }) => name);
    clock.jump(jump);
    clock.tick(20 * MINUTE);
    await turns();
    expect(await names()).toEqual(['gone']);
    clock.jump(-jump);
    clock.tick(20 * MINUTE);
    await turns();
    expect(await names()).toEqual([]);
  });

  it('does not keep a client from coming back', async () => {
    const clock = new TestClock();
    const { port } = await startServer('memory');
    const proxy = await startProxy(port, 1);
    const client = await connectedClient(proxy.port, 'comes-back', { clock, reconnectInterval: 1000 });
    const back: string[] = [];
    const isBack = (): boolean => back.length > 0;
    const lost = new Promise(resolve => client.once('offline', resolve));
    proxy.isRefusing = true;
    proxy.cut();
    await lost;
    client.once('online', () => back.push('online'));
    clock.jump(jump);
    // Some attempts that fail, and then one that does not.
    await live(clock, 10 * SECOND);
    proxy.isRefusing = false;
    for (let seconds = 0; seconds < 60 && !isBack(); seconds++) {
      clock.tick(SECOND);
      // An attempt to connect takes real time, which does not pass on this clock.
      for (let turn = 0; turn < 1000 && !isBack(); turn++) await new Promise(setImmediate);
    }
    expect(back).toEqual(['online']);
  });
});

it(
  'a server in a process whose clock is set by an hour, a day, a year lets nothing expire wrongly',
  async context => {
    const library = findFaketime();
    if (library === undefined)
      context.skip('libfaketime is not here (Linux, apt-get install faketime): no process has its clock set');
    const seen: FaketimeFigures[] = [];
    for (const seed of seedsOf(processes)) seen.push(await runFaketime(seed, library as string));
    const sum = (key: keyof FaketimeFigures): number => seen.reduce((total, run) => total + run[key], 0);
    const figures = { messages: sum('messages'), jumps: sum('jumps'), expiredWithNotice: sum('expired') };
    report('time', processes, { part: 'faketime', runs: seen.length, ...figures });
  },
  timeoutOf(processes),
);

it(
  'random lives with clocks that jump and restarts keep to the model',
  async () => {
    const seen: TimeFigures[] = [];
    for (const seed of seedsOf(lives)) seen.push(await runTime(seed));
    const sum = (key: keyof TimeFigures): number => seen.reduce((total, life) => total + life[key], 0);
    report('time', lives, {
      part: 'model',
      runs: seen.length,
      jumps: sum('jumps'),
      restarts: sum('restarts'),
      messages: sum('messages'),
      delivered: sum('delivered'),
      expiredWithNotice: sum('expired'),
    });
    expect(sum('messages')).toBe(sum('delivered') + sum('expired'));
  },
  timeoutOf(lives),
);
