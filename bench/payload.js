// What is sent: plain objects whose encoded body has exactly the wanted size, each with its number, by which the other
// side checks that none is missing, repeated or out of place.
import { Packr } from 'msgpackr';

const packr = new Packr({ useRecords: false, variableMapSize: true });
// Numbers from here on are encoded in five bytes, so that the size does not change on the way.
const FIRST = 2 ** 24;

const small = (n, text) => ({ n: FIRST + n, t: text });
const usual = (n, text) => ({
  n: FIRST + n,
  kind: 'transfer',
  from: 'alice.account',
  to: 'bob.account',
  amount: 1234.5,
  memo: text,
});

/** A function that makes the object with a number, and one that gives the number of an object. */
export function payload(size) {
  const make = size < 100 ? small : usual;
  let text = '';
  const length = () => packr.pack(make(0, text)).length;
  if (length() > size) throw new RangeError(`no object has ${size} bytes; the smallest has ${length()}`);
  // A length of 32, 256 or 65536 takes one byte more of its own: the last object may come out a byte short of it.
  text = 'x'.repeat(Math.max(0, size - length() - 4));
  while (length() < size) text += 'x';
  return { bytes: length(), make: n => make(n, text), numberOf: data => data.n - FIRST };
}
