/**
 * The golden vectors, which other implementations of the protocol are tested with. They were written once and are frozen:
 * a change of the encoders that changes a byte of them breaks every client that was built from the document.
 *
 * A frame that is new gets its vectors by `WRITE_VECTORS=1 npx vitest run test/protocol/vectors.test.ts`; those that
 * are there are never changed by it.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { frameName } from '../../src/protocol/constants.js';
import { lookup, plainOf, ROWS, SENDER_ALIAS } from './frame-table.js';

interface Vector {
  readonly frame: string;
  readonly clause: string;
  readonly value: unknown;
  readonly hex: string;
}
interface Vectors {
  readonly about: string;
  readonly aliases: unknown;
  readonly vectors: readonly Vector[];
}

const PATH = fileURLToPath(new URL('./vectors.json', import.meta.url));

/** JSON for what has none: maps as pairs, bytes as hexadecimal digits. */
function plainJson(value: unknown): unknown {
  const text = JSON.stringify(value, (_key, inner: unknown) => {
    if (inner instanceof Map)
      return [...inner].map(([key, bytes]) => [key as string, (bytes as Buffer).toString('hex')]);
    return inner;
  });
  return JSON.parse(text);
}

const made: Vector[] = ROWS.flatMap(row => {
  const { type, clause, examples, encode } = row;
  return examples.map(example => ({
    frame: frameName(type),
    clause,
    value: plainJson(plainOf(row, example)),
    hex: encode(example as never).toString('hex'),
  }));
});

function read(): Vectors | undefined {
  return existsSync(PATH) ? (JSON.parse(readFileSync(PATH, 'utf8')) as Vectors) : undefined;
}

if (process.env['WRITE_VECTORS'] !== undefined) {
  const frozen = read()?.vectors ?? [];
  const added = made.filter(vector => !frozen.some(({ hex }) => hex === vector.hex));
  const file: Vectors = {
    about: 'Whole frames of version 1 of the protocol (docs/protocol.md), with their length; see test/protocol.',
    aliases: {
      channels: [
        [1, 'orders'],
        [200, 'blöcke.🧱'],
      ],
      clients: [[2, 'audit']],
      senders: [[SENDER_ALIAS, lookup.sender(SENDER_ALIAS)]],
    },
    vectors: [...frozen, ...added],
  };
  writeFileSync(PATH, `${JSON.stringify(file, null, 2)}\n`);
}

const frozen = read()?.vectors ?? [];

describe('the golden vectors', () => {
  it('hold every example of every frame, byte for byte', () => {
    expect(made.filter(({ hex }) => !frozen.some(vector => vector.hex === hex))).toEqual([]);
    expect(new Set(frozen.map(({ frame }) => frame))).toEqual(new Set(ROWS.map(({ type }) => frameName(type))));
  });

  it.each(frozen.map((vector, i) => [`${vector.frame} ${String(i)}`, vector] as const))(
    '%s is read as it says',
    (_name, { frame, value, hex }) => {
      const row = ROWS.find(({ type }) => frameName(type) === frame)!;
      const bytes = Buffer.from(hex, 'hex');
      const decoded = row.decode(bytes);
      expect(plainJson(plainOf(row, decoded))).toEqual(value);
      expect(row.encode(decoded as never).toString('hex')).toBe(hex);
    },
  );
});
