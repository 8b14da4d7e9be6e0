/**
 * What older versions left behind: data directories and the bytes of clients, kept as fixtures in test/fixtures. A store
 * of each format that was ever released is opened, and holds exactly what was recorded; a client of each protocol version
 * is played against a server, and is answered as it was.
 *
 * When the store's format or the protocol's version changes, `WRITE_FIXTURES=1 npx vitest run
 * test/faults/versions.test.ts` adds a fixture for the new one; those that are there are never changed by it.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { encodeSegmentHeader } from '../../src/engine/disk/header.js';
import { stringifyTagged } from '../../src/body/tagged.js';
import type { BroadcastMessage, DeliveryInfo } from '../../src/index.js';
import { Reader } from '../../src/protocol/bytes.js';
import { FRAME, FRAME_HEADER, VERSION } from '../../src/protocol/constants.js';
import { decodeFailure } from '../../src/protocol/frames.js';
import { TestClock } from '../../src/testing/index.js';
import { RawPeer } from '../helpers/raw-peer.js';
import { Inbox, newClient, startServer, temporaryFolder } from '../helpers/scene.js';
import { extentOf, report } from './suite.js';
import { play, record, type Recording } from './versions-client.js';
import { copyStore, countRecords, LEFT_AT, PROMISED, readStore, writeStore } from './versions-store.js';

const FIXTURES = fileURLToPath(new URL('../fixtures/', import.meta.url));

/** There is one run of each: nothing is left to chance. */
const extent = extentOf({ runs: 1 });

const names = (): string[] => (existsSync(FIXTURES) ? readdirSync(FIXTURES).sort() : []);
const writes = process.env['WRITE_FIXTURES'] !== undefined;

function json(...path: string[]): unknown {
  return JSON.parse(readFileSync(join(FIXTURES, ...path), 'utf8'));
}

function save(value: unknown, ...path: string[]): void {
  writeFileSync(join(FIXTURES, ...path), `${JSON.stringify(value, undefined, 1)}\n`);
}

const header = encodeSegmentHeader({
  number: 1,
  storeId: '',
  salt: 0,
  nextHandle: 1,
  capacity: 0,
  followed: false,
});
const current = `store-v${String(header.readUInt32LE(8))}`;

it.runIf(writes && !names().includes(current))(
  'writes a store of the format of now',
  async () => {
    const folder = await temporaryFolder();
    const data = join(FIXTURES, current, 'log');
    mkdirSync(data, { recursive: true });
    await writeStore(folder, data);
    save(await readStore(copyStore(join(FIXTURES, current), folder, 'copy')), current, 'found.json');
    save(PROMISED, current, 'promised.json');
  },
  120_000,
);

const client = `client-v${String(VERSION)}.json`;

it.runIf(writes && !names().includes(client))('writes a client of the protocol of now', async () => {
  mkdirSync(FIXTURES, { recursive: true });
  save(await record(), client);
});

it('has a fixture of the format and of the protocol of now', () => {
  expect(names()).toEqual(expect.arrayContaining([current, client]));
});

it.each(names().filter(name => name.startsWith('client-')))('%s is answered as it was', async name => {
  const recording = json(name) as Recording;
  const { answers, friend } = await play(recording);
  const pieces = recording.events.length;
  report('versions', extent, { fixture: name, pieces, connections: answers.length, delivered: friend.length });
  for (const [connection, answer] of answers.entries()) expect(answer).toEqual(recording.answers[connection]);
  expect(friend).toEqual(recording.friend);
});

describe.each(names().filter(name => name.startsWith('store-')))('%s', name => {
  const fixture = join(FIXTURES, name);

  it('has records of every kind', () => {
    const counts = countRecords(join(fixture, 'log'));
    for (const [kind, count] of counts) expect(count, kind).toBeGreaterThan(0);
    const records = [...counts.values()].reduce((sum, count) => sum + count, 0);
    report('versions', extent, { fixture: name, kinds: counts.size, records });
  });

  it('holds exactly what was recorded', async () => {
    const copy = copyStore(fixture, await temporaryFolder(), 'data');
    expect(await readStore(copy)).toEqual(json(name, 'found.json'));
  });

  it('keeps what was promised to those who come for it', async () => {
    const dataDir = copyStore(fixture, await temporaryFolder(), 'data');
    const promised = json(name, 'promised.json') as typeof PROMISED;
    const clock = new TestClock(LEFT_AT + 60_000);
    const { server, port } = await startServer('disk', { dataDir, clock });
    const subscriptions = (await server.sessions()).map(session => [session.name, session.subscriptions] as const);
    expect(Object.fromEntries(subscriptions.filter(([, channels]) => channels.length > 0))).toEqual(
      promised.subscriptions,
    );
    for (const [owner, letters] of Object.entries(promised.deadLetters)) {
      const found = await server.deadLetters(owner).list();
      expect(found.map(({ message, reason, attempts }) => ({ data: message.data, reason, attempts }))).toEqual(letters);
    }
    const notices = new Map<number, string>();
    for (const [owner, { instance, taken }] of Object.entries(promised.senders)) {
      const peer = await RawPeer.open(port, {
        name: owner,
        instance,
        next: 100,
        idPrefix: `prefix-of-${instance.slice(0, 6)}`,
      });
      expect(peer.welcome).toMatchObject({ stored: true, taken });
      await peer.flush();
      for (const { type, frame } of peer.frames) {
        if (type !== FRAME.FAILURE) continue;
        const { position, failure } = decodeFailure(new Reader(frame, FRAME_HEADER));
        notices.set(position, failure.reason);
      }
    }
    expect(Object.fromEntries(notices)).toEqual(promised.notices);
    // What waited for an instance that has not come back waits for its name from now on.
    clock.tick(31_000);
    for (const [owner, bySubscription] of Object.entries(promised.waiting)) {
      const client = newClient(port, owner);
      const inboxes = Object.entries(bySubscription).map(([subscription, expected]) => {
        const inbox = new Inbox();
        const handle = (message: BroadcastMessage, { attempt, redelivered }: DeliveryInfo): void => {
          const data = JSON.parse(stringifyTagged(message.data)) as unknown;
          inbox.push({ data, name: message.name, headers: message.headers, attempt, redelivered });
        };
        if (subscription === '') client.onMessage(handle);
        else client.onMessage(subscription, handle);
        return { inbox, expected: expected as object[] };
      });
      await client.connect();
      for (const { inbox, expected } of inboxes) {
        expect(await inbox.reached(expected.length), owner).toMatchObject(expected);
        await client.flush();
        expect(inbox.items).toHaveLength(expected.length);
      }
    }
  });
});
