/** Messages of a batch as handlers get them: decoded together, and each as if it were alone. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeBodies, decodeBody, encodeBody } from '../../src/body/index.js';
import { ReceivedBatch } from '../../src/received.js';
import { batchOf } from '../helpers/batch.js';

const DAMAGED = Buffer.from([0x92, 0x01]);

describe('messages of a batch', () => {
  const values = [
    ...Array.from({ length: 200 }, (_, n) => ({ n, text: `t${String(n)}`.repeat(10) })),
    new Map([[1, 2]]),
  ];
  const bodies = [...values, undefined, 'x'.repeat(9000), 'last'].map(value => encodeBody(value));
  bodies.splice(100, 0, DAMAGED);
  const batch = batchOf('x', bodies);

  it('are what each decodes to alone; one that is damaged says so for itself only', () => {
    const messages = new ReceivedBatch(batch);
    bodies.forEach((body, i) => {
      if (body === DAMAGED)
        expect(() => messages.message(i)).toThrow(expect.objectContaining({ code: 'body-invalid' }));
      else expect(messages.message(i).data).toEqual(decodeBody(body));
    });
  });

  it('are made anew for each who asks, in any order', () => {
    const messages = new ReceivedBatch(batch);
    for (const i of [3, 3, 150, 4, 90, 3, 202]) {
      const { data } = messages.message(i);
      expect(data).toEqual(decodeBody(bodies[i] as Buffer));
      if (typeof data === 'object' && data !== null) (data as { n: unknown }).n = 'changed';
    }
  });
});

it('bodies that are decoded together are what they are alone, as far as they are taken', () => {
  const body = fc.oneof(
    { weight: 18, arbitrary: fc.jsonValue().map(value => encodeBody(value)) },
    fc.constant(encodeBody(new Set([1n]))),
    fc.uint8Array({ maxLength: 40 }).map(bytes => Buffer.from(bytes)),
  );
  // What stands between two bodies of a batch: usually five bytes.
  const between = fc.oneof(
    { weight: 19, arbitrary: fc.uint8Array({ minLength: 5, maxLength: 5 }) },
    fc.uint8Array({ maxLength: 7 }),
  );
  let taken = 0;
  fc.assert(
    fc.property(fc.array(fc.tuple(between, body), { maxLength: 40 }), items => {
      const starts: number[] = [];
      const ends: number[] = [];
      let at = 0;
      for (const [header, { length }] of items) {
        starts.push((at += header.length));
        ends.push((at += length));
      }
      const together = decodeBodies(Buffer.concat(items.flat()), starts, ends);
      expect(together.length).toBeLessThanOrEqual(items.length);
      together.forEach((value, i) => expect(value).toEqual(decodeBody((items[i] as [Uint8Array, Buffer])[1])));
      taken += together.length;
    }),
    { numRuns: 500 },
  );
  expect(taken).toBeGreaterThan(500);
});
