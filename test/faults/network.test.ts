/** A client and a server through a network that does what networks do; nothing is lost, nothing comes twice. */
import { describe, expect, it } from 'vitest';
import { BroadcastMessage, type BroadcastClient, type Receipt } from '../../src/index.js';
import { FRAME } from '../../src/protocol/constants.js';
import { Namespaces, whyNoNamespaces, type Side } from '../helpers/network-namespaces.js';
import { startProxy, type Proxy } from '../helpers/proxy.js';
import { seeded } from '../helpers/seeded.cjs';
import { connectedClient, heldReader, Inbox, newClient, recordingLogger, startServer } from '../helpers/scene.js';
import { withEvidence } from './evidence.js';
import { KINDS_OF_FAULTS } from './network-faults.js';
import { playNetwork } from './network-scenario.js';
import { playAll } from './oracle/tally.js';
import { FaultRoles, type FaultRole } from './roles.js';
import { addUp, extentOf, report, seedsOf, timeoutOf } from './suite.js';
import { KINDS, runTraffic, type ServerKind } from './traffic-run.js';

const numbers = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** A receiver behind a proxy, and a sender behind another. */
interface ProxyScene {
  readonly inbox: Inbox<number>;
  readonly near: Proxy;
  readonly far: Proxy;
  readonly sender: BroadcastClient;
  readonly send: (from: number, to: number) => void;
}

const SEED = 11;
const SCENE_MS = 40_000;

/** Plays what the network does in a scene of its own; `part` names it. */
function inScene(part: string, play: (scene: ProxyScene) => Promise<void>): Promise<void> {
  const inbox = new Inbox<number>();
  const receipts: (Receipt | string)[] = [];
  const logger = recordingLogger();
  const start = async (): Promise<ProxyScene> => {
    const { port } = await startServer('memory', { logger });
    const near = await startProxy(port, SEED);
    const far = await startProxy(port, SEED + 1);
    const receiver = newClient(far.port, 'receiver', { logger });
    receiver.onMessage('room', message => inbox.push(message.data as number));
    await receiver.connect();
    const sender = await connectedClient(near.port, 'sender', { logger });
    const sendOne = async (n: number): Promise<void> => {
      const sent = sender.sendMessage(BroadcastMessage.createChannelMessage('room', n));
      receipts[n] = await sent.catch(String);
    };
    const send = (from: number, to: number): void => {
      for (let n = from; n < to; n++) void sendOne(n);
    };
    return { inbox, near, far, send, sender };
  };
  return withEvidence(
    {
      suite: 'network',
      part,
      seed: SEED,
      options: { engine: 'memory' },
      history: () => ({ handled: inbox.items, receipts, warnings: logger.warnings }),
      limitMs: SCENE_MS,
    },
    async () => play(await start()),
    () => undefined, // all of it ends with the test
  );
}

describe('through a proxy', { timeout: SCENE_MS + 10_000 }, () => {
  it.each([
    ['one byte at a time', 1, 100],
    ['in random pieces', 0, 2000],
    ['some turns late', Infinity, 2000],
  ])('%s, everything arrives in order', (how, piece, count) =>
    inScene(how, async ({ inbox, near, far, send, sender }) => {
      for (const proxy of [near, far]) {
        proxy.slice('up', piece, piece === Infinity ? 5 : 0);
        proxy.slice('down', piece, piece === Infinity ? 5 : 0);
      }
      send(0, count);
      expect(await inbox.reached(count)).toEqual(numbers(count));
      const receipt = await sender.sendMessage(BroadcastMessage.createChannelMessage('room', -1), {
        until: 'delivered',
      });
      expect(receipt.status).toBe('delivered');
    }),
  );

  it.each<['up' | 'down', 'sender' | 'receiver']>([
    ['up', 'sender'],
    ['down', 'sender'],
    ['up', 'receiver'],
    ['down', 'receiver'],
  ])('bytes that are lost %s of the %s, and then the connection, cost nothing', (direction, who) =>
    inScene(`lost ${direction} of the ${who}`, async ({ inbox, near, far, send }) => {
      const proxy = who === 'sender' ? near : far;
      send(0, 100);
      await inbox.reached(100);
      proxy.drop(direction);
      send(100, 200);
      // Without that direction some of it still comes: wait until the rest of the way is quiet.
      for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
      proxy.release(direction);
      proxy.cut();
      send(200, 300);
      expect(await inbox.reached(300)).toEqual(numbers(300));
      expect(inbox.items).toHaveLength(300);
    }),
  );

  it('a direction that is held is waited for, and goes on where it was', () =>
    inScene('held', async ({ inbox, near, send }) => {
      near.hold('up');
      send(0, 100);
      for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
      expect(inbox.items).toEqual([]);
      near.release('up');
      expect(await inbox.reached(100)).toEqual(numbers(100));
    }));

  it('a stream that ends in one direction is a connection that is made anew', () =>
    inScene('half-closed', async ({ inbox, near, far, send }) => {
      send(0, 50);
      near.halfClose('up');
      send(50, 100);
      await inbox.reached(100);
      far.halfClose('down');
      send(100, 150);
      expect(await inbox.reached(150)).toEqual(numbers(150));
    }));

  it('a server that cannot be reached for a while is found again', () =>
    inScene('refused', async ({ inbox, near, send, sender }) => {
      near.isRefusing = true;
      near.cut();
      send(0, 10);
      await new Promise(resolve => sender.once('offline', resolve));
      near.isRefusing = false;
      expect(await inbox.reached(10)).toEqual(numbers(10));
    }));

  it('what is sent again is marked, also when the first WELCOME of a new run was lost, and it knows the sender by then', async () => {
    const { server, port } = await startServer('memory', { storeAfter: 60_000 });
    const proxy = await startProxy(port);
    const seen = new Inbox();
    server.onMessage(seen.push);
    await heldReader(port, 'x');
    const sender = await connectedClient(proxy.port, 'sender');
    void sender.sendMessage(BroadcastMessage.createChannelMessage('x', 1));
    await seen.reached(1);
    proxy.isRefusing = true;
    proxy.cut();
    await server.stop({ timeout: 0 });

    const { server: next } = await startServer('memory', { port });
    const joined = new Inbox();
    next.on('connect', joined.push);
    proxy.lose('down', FRAME.WELCOME);
    proxy.isRefusing = false;
    await joined.reached(1);
    proxy.cut();
    proxy.release('down');
    const marks = new Inbox<boolean>();
    const receiver = newClient(port, 'receiver');
    receiver.onMessage('x', (_message, { redelivered }) => marks.push(redelivered));
    await receiver.connect();
    expect(await marks.reached(1)).toEqual([true]);
  });
});

describe('random traffic through a network that does all of it', () => {
  const extent = extentOf({ runs: 1, seed: 2 });
  // A client takes its server for dead soon, or the faults would wait for it for long.
  const client = { pingInterval: 150, deadAfter: 400 };

  it(
    'keeps every promise, on both engines and while the server is killed',
    async () => {
      const totals = new Map<ServerKind, Record<string, number>>(KINDS.map(kind => [kind, {}]));
      for (const seed of seedsOf(extent)) {
        for (const [kind, total] of totals)
          addUp(total, await runTraffic({ suite: 'network', kind, seed, messages: 1200, client }));
      }
      for (const [kind, total] of totals) report('network', extent, { kind, ...total });
    },
    timeoutOf(extent),
  );
});

/** In so many scenarios each thing that can happen does. */
const MANY = 20;

describe('processes behind a network that does all of it, judged by the oracle', () => {
  const extent = extentOf({ runs: 1, seed: 5 });

  it(
    'get everything that was safe, once and in order, while the server is killed too',
    async () => {
      const tally = await playAll('network', 'judged by the oracle', extent, playNetwork);
      const seen = (what: string): number => tally.count(what);
      const wanted = [...KINDS_OF_FAULTS, 'kills', 'frames lost alone'];
      if (seen('scenarios') >= MANY) expect(wanted.filter(what => seen(what) === 0)).toEqual([]);
    },
    timeoutOf(extent),
  );
});

const NONE = whyNoNamespaces();

const HEARTBEAT = { pingInterval: 300, deadAfter: 900 };

/** A server and a receiver on the right side, a sender and a receiver on the left one, and a port that goes down between them. */
class Outages {
  readonly #net: Namespaces;
  readonly #roles: FaultRoles;
  #server!: FaultRole;
  #sender!: FaultRole;
  #far!: FaultRole;
  #near!: FaultRole;
  #sent = 0;
  #rounds = 0;

  constructor(net: Namespaces, roles: FaultRoles) {
    this.#net = net;
    this.#roles = roles;
  }

  async begin(): Promise<void> {
    const host = this.#net.address('right');
    const inside = this.#net.inside('right');
    this.#server = this.#roles.start('server', { host, ...HEARTBEAT }, inside);
    const port = (await this.#server.saw('listening'))['port'] as number;
    const start = (role: string, name: string, side: Side): FaultRole => {
      const config = { host, port, ...HEARTBEAT };
      return this.#roles.start(role, { name, channel: 'room', config }, this.#net.inside(side));
    };
    this.#far = start('receiver', 'far', 'left');
    this.#near = start('receiver', 'near', 'right');
    this.#sender = start('sender', 'sender', 'left');
    for (const role of [this.#far, this.#near, this.#sender]) await role.saw('connected');
  }

  /** Two outages of the port: one that nobody notices, as a rule, and one that both ends must. */
  async round(port: Side): Promise<void> {
    this.#send(500);
    await this.#everythingCame();
    // Shorter than deadAfter, as a rule: what was sent arrives when it heals.
    this.#net.setPort(port, false);
    this.#send(100);
    await this.#sender.saw('sent', 3 * this.#rounds + 2);
    this.#net.setPort(port, true);
    await this.#everythingCame();
    const notices = [this.#sender, this.#far].map(role => role.next('offline', { code: 'dead-peer' }));
    notices.push(...['sender', 'far'].map(name => this.#server.next('left', { name, reason: 'dead-peer' })));
    this.#net.setPort(port, false);
    this.#send(500);
    await Promise.all(notices);
    this.#net.setPort(port, true);
    await this.#everythingCame();
    this.#rounds++;
  }

  #send(count: number): void {
    this.#sender.tell({ send: { count } });
    this.#sent += count;
  }

  async #everythingCame(): Promise<void> {
    for (const receiver of [this.#far, this.#near]) await receiver.ask({ until: this.#sent }, 'reached');
  }

  async finish(): Promise<Readonly<Record<string, number>>> {
    const settled = await this.#sender.ask({ settle: true }, 'settled');
    expect(settled).toMatchObject({ ok: this.#sent, failed: 0 });
    for (const receiver of [this.#far, this.#near])
      expect(await receiver.report()).toMatchObject({ count: this.#sent, twice: [], unordered: [] });
    return { rounds: this.#rounds, messages: this.#sent, receivers: 2 };
  }
}

describe('a black hole between two network namespaces', () => {
  const extent = extentOf({ runs: 1 });
  const title = 'both ends notice it after deadAfter, and nothing is lost or comes twice';

  it.skipIf(NONE !== undefined)(
    NONE === undefined ? title : `${title} (skipped: ${NONE})`,
    async () => {
      let seen: Readonly<Record<string, number>> = {};
      const net = new Namespaces();
      const roles = new FaultRoles();
      await withEvidence(
        {
          suite: 'network',
          part: 'namespaces',
          seed: extent.seed,
          options: { ...HEARTBEAT, rounds: extent.runs },
          history: () => roles.history(),
          limitMs: timeoutOf(extent) - 10_000,
        },
        async () => {
          const outages = new Outages(net, roles);
          await outages.begin();
          const random = seeded(extent.seed);
          for (const _seed of seedsOf(extent)) await outages.round(random() < 0.5 ? 'left' : 'right');
          seen = await outages.finish();
        },
        async () => {
          await roles.end();
          net.remove();
        },
      );
      report('network', extent, { kind: 'namespaces', ...seen });
    },
    timeoutOf(extent),
  );
});
