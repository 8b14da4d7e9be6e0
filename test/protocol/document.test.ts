/**
 * The document against the code: its session is what a real server answers, and a decoder that was written from its
 * words alone (here, and using nothing of src/protocol) reads the frames of the vectors.
 */
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { once } from 'node:events';
import { describe, expect, it, onTestFinished } from 'vitest';
import { Reader } from '../../src/protocol/bytes.js';
import { FRAME, FRAME_HEADER, frameName } from '../../src/protocol/constants.js';
import { decodeWelcome, encodeWelcome } from '../../src/protocol/frames.js';
import { TestClock } from '../../src/testing/test-clock.js';
import { startServer } from '../helpers/scene.js';

const DOCUMENT = readFileSync(new URL('../../docs/protocol.md', import.meta.url), 'utf8');

// ---- a decoder from the document's words ---------------------------------------------------------------------------------

class Bytes {
  readonly #bytes: Uint8Array;
  #at = 0;
  constructor(hex: string) {
    this.#bytes = Uint8Array.from(hex.match(/../g) ?? [], pair => parseInt(pair, 16));
  }
  get left(): number {
    return this.#bytes.length - this.#at;
  }
  /** 1.1 */
  fixed(bytes: number): number {
    let value = 0;
    for (let i = 0; i < bytes; i++) value += (this.#bytes[this.#at++] as number) * 256 ** i;
    return value;
  }
  /** 1.2 */
  varint(): number {
    let value = 0;
    for (let i = 0; ; i++) {
      const byte = this.fixed(1);
      value += (byte % 128) * 128 ** i;
      if (byte < 128) return value;
    }
  }
  zigzag(): number {
    const value = this.varint();
    return value % 2 === 1 ? -(value + 1) / 2 : value / 2;
  }
  hex(bytes: number): string {
    return Array.from({ length: bytes }, () => this.fixed(1).toString(16).padStart(2, '0')).join('');
  }
  text(bytes: number): string {
    return decodeURIComponent(this.hex(bytes).replace(/../g, '%$&'));
  }
  /** 1.3 */
  str(): string {
    return this.text(this.varint());
  }
  /** 1.5 */
  ranges(): [first: number, count: number][] {
    let end = -1;
    return Array.from({ length: this.varint() }, () => {
      const first = end + 1 + this.varint();
      const count = this.varint() + 1;
      end = first + count;
      return [first, count];
    });
  }
  list<T>(read: () => T): T[] {
    return Array.from({ length: this.varint() }, read);
  }
}

interface Names {
  channels: Map<number, string>;
  clients: Map<number, string>;
}

const byHand: Record<string, (bytes: Bytes, names: Names) => Record<string, unknown>> = {
  HELLO: b => ({
    generated: b.varint() % 2 === 1,
    name: b.str(),
    instance: b.hex(16),
    idPrefix: b.str(),
    floor: b.varint(),
    next: b.varint(),
    store: b.str(),
    host: b.str(),
    pid: b.varint(),
    pingInterval: b.varint(),
    deadAfter: b.varint(),
    extensions: b.list(() => [b.str(), b.hex(b.varint())]),
  }),
  ACK: b => ({ ranges: b.ranges() }),
  RECEIPT: b => {
    let end = 0;
    return {
      receipts: b.list(() => {
        const first = end + b.zigzag();
        const count = b.varint() + 1;
        end = first + count;
        const outcome = b.fixed(1);
        return {
          first,
          count,
          status: ['stored', 'delivered', 'routed', 'undelivered'][outcome % 16],
          durability: ['none', 'memory', 'fsync', 'replicated'][Math.floor(outcome / 16) % 8],
          final: outcome >= 128,
        };
      }),
    };
  },
  MESSAGES: (b, names) => {
    const flags = b.fixed(1);
    const has = (bit: number): boolean => Math.floor(flags / bit) % 2 === 1;
    const target = (known: Map<number, string>) => (): string => {
      const t = b.varint();
      return t % 2 === 0 ? (known.get(t / 2) as string) : b.text((t - 1) / 2);
    };
    const [timestamp, sender, first, floor, idBase, count] = [
      b.fixed(6),
      b.varint(),
      b.varint(),
      b.varint(),
      b.varint(),
      b.varint(),
    ];
    const channels = b.list(target(names.channels));
    const clients = b.list(target(names.clients));
    const name = has(4) ? b.str() : undefined;
    const headers = has(8) ? b.list(() => [b.str(), b.str()]) : undefined;
    const ttl = has(16) ? b.varint() : undefined;
    const idPrefix = has(64) ? b.str() : 'AbCdEfGh01234-_z';
    const ids: number[] = [];
    const bodies: string[] = [];
    for (let i = 0; i < count; i++) {
      const size = b.fixed(4);
      const before = b.left;
      ids.push((ids[i - 1] ?? idBase - 1) + 1 + b.zigzag());
      bodies.push(b.hex(size - (before - b.left)));
    }
    return {
      persistent: has(1),
      everyone: has(2),
      tracked: has(32),
      resent: has(128),
      timestamp,
      sender,
      first,
      floor,
      channels,
      clients,
      name,
      headers,
      ttl,
      idPrefix,
      ids,
      bodies,
    };
  },
};

describe('the document', () => {
  interface Vector {
    frame: string;
    hex: string;
    value: Record<string, unknown> & { envelope: Record<string, unknown>; ids: number[] };
  }
  const { vectors, aliases } = JSON.parse(readFileSync(new URL('./vectors.json', import.meta.url), 'utf8')) as {
    vectors: Vector[];
    aliases: { channels: [number, string][]; clients: [number, string][] };
  };
  const names = { channels: new Map(aliases.channels), clients: new Map(aliases.clients) };

  it.each(vectors.filter(({ frame }) => frame in byHand).map(vector => [vector.frame, vector] as const))(
    'is enough to read %s',
    (_name, { frame, hex, value }) => {
      const bytes = new Bytes(hex);
      expect(bytes.fixed(4)).toBe(hex.length / 2 - 4);
      expect(frameName(bytes.fixed(1))).toBe(frame);
      const read = (byHand[frame] as (typeof byHand)[string])(bytes, names);
      expect(bytes.left).toBe(0);
      if (frame === 'HELLO') expect(read).toEqual(value);
      else if (frame === 'ACK')
        expect(read['ranges']).toEqual(
          Object.values(value).map(range => Object.values(range as Record<string, number>)),
        );
      else if (frame === 'RECEIPT') expect(read['receipts']).toEqual(value);
      else {
        const { envelope } = value;
        for (const key of [
          'persistent',
          'everyone',
          'tracked',
          'resent',
          'channels',
          'clients',
          'idPrefix',
          'name',
          'headers',
          'ttl',
        ])
          expect(read[key], key).toEqual(envelope[key]);
        for (const key of ['first', 'floor', 'timestamp', 'ids']) expect(read[key], key).toEqual(value[key]);
        expect((read['bodies'] as string[]).every(body => (value['items'] as string).includes(body))).toBe(true);
      }
    },
  );

  it('names every frame with its number, and every number of a clause once', () => {
    for (const [name, type] of Object.entries(FRAME)) {
      expect(DOCUMENT).toContain(`${name} (0x${type.toString(16).padStart(2, '0').toUpperCase()})`);
    }
    const clauses = [...DOCUMENT.matchAll(/^(\d+\.\d+) /gm)].map(([, clause]) => clause);
    expect(new Set(clauses).size).toBe(clauses.length);
    expect(clauses.length).toBeGreaterThan(40);
  });
});

// ---- the session -----------------------------------------------------------------------------------------------------------

interface Line {
  readonly from: 'C' | 'S';
  readonly name: string;
  readonly hex: string;
}

/** The lines of the session in the document; what is indented goes on with the line before. */
function sessionOf(document: string): Line[] {
  const block = /<!-- session -->\n+```\n([\s\S]*?)\n```/.exec(document)?.[1] ?? '';
  return [...block.matchAll(/^([CS]) (\w+) +((?:[0-9a-f ]+\n?)+)/gm)].map(([, from, name, hex]) => ({
    from: from as 'C' | 'S',
    name: name as string,
    hex: (hex as string).replace(/\s/g, ''),
  }));
}

/** Plays the client's lines to a server whose time stands still, and returns its answers, with what is random made equal. */
async function play(lines: readonly Line[]): Promise<Line[]> {
  const clock = new TestClock();
  const { port } = await startServer('memory', { clock });
  const socket = connect(port, '127.0.0.1');
  onTestFinished(() => void socket.destroy());
  await once(socket, 'connect');
  let bytes = Buffer.alloc(0);
  let played: Line[] = [];
  socket.on('data', (chunk: Buffer) => {
    bytes = Buffer.concat([bytes, chunk]);
    played = split(bytes);
    socket.emit('line');
  });
  let expected = 0;
  for (const { from, hex } of lines) {
    if (from === 'C') socket.write(Buffer.from(hex, 'hex'));
    else {
      expected++;
      while (played.length < expected) await once(socket, 'line');
    }
  }
  return played;
}

function split(bytes: Buffer): Line[] {
  if (bytes.length < 8) return [];
  const lines: Line[] = [{ from: 'S', name: 'preamble', hex: bytes.toString('hex', 0, 8) }];
  for (let at = 8; at + 4 <= bytes.length;) {
    const end = at + 4 + bytes.readUInt32LE(at);
    if (end > bytes.length) break;
    const frame = bytes.subarray(at, end);
    const type = frame[4] as number;
    lines.push({
      from: 'S',
      name: frameName(type),
      hex: (type === FRAME.WELCOME ? example(frame) : frame).toString('hex'),
    });
    at = end;
  }
  return lines;
}

/** A welcome with the run, the store and the address of the document's. */
function example(frame: Buffer): Buffer {
  const welcome = decodeWelcome(new Reader(frame, FRAME_HEADER));
  return encodeWelcome({
    ...welcome,
    boot: 'f0e0d0c0b0a090807060504030201000',
    store: '7d3c6a9e51b24f08a1c2e3d4f5061728',
    address: '127.0.0.1:50123',
  });
}

describe('the session in the document', () => {
  const lines = sessionOf(DOCUMENT);

  it('is what a real server answers, byte for byte', async () => {
    expect(lines.length).toBeGreaterThan(12);
    const answers = await play(lines);
    expect(answers).toEqual(lines.filter(({ from }) => from === 'S'));
  });

  it('gives every frame the name of its type and its whole length', () => {
    for (const { name, hex } of lines) {
      if (name === 'preamble') continue;
      const bytes = Buffer.from(hex, 'hex');
      expect(bytes.readUInt32LE(0)).toBe(bytes.length - 4);
      expect(frameName(bytes[4] as number)).toBe(name);
    }
  });
});
