/** Messages of a batch as handlers get them: each as if it were alone. */
import { describe, expect, it } from 'vitest';
import { decodeBody, encodeBody } from '../../src/body/index.js';
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
