// Takes each result exactly once. A message may come a second time, when the process that sent or handled it died between
// its work and its acknowledgement; so a result has a key that says what it is (kind and range), not which message
// brought it. Written down first, then acknowledged; a key that is written down already is passed over.
import { join } from 'node:path';
import { connect, folder, journal, KINDS, SEVERAL, toClient } from './shared.js';

const keyOf = (kind, start) => `${kind} ${start}`;
const { lines, append } = journal(join(folder, 'results.log'));
const seen = new Set(lines.map(line => line.split(' ').slice(0, 2).join(' ')));
let repeated = 0;

const client = connect('sink');

client.onMessage(async ({ data: { kind, start, end, count, sum } }) => {
  const key = keyOf(kind, start);
  if (seen.has(key)) repeated++;
  else {
    append(`${key} ${end} ${count} ${sum}`);
    seen.add(key);
  }
  // Also for a repeated one: the process may have died after it wrote and before it told.
  if (KINDS.every(other => seen.has(keyOf(other, start)))) await toClient(client, 'coordinator', { start });
  process.send?.({ results: seen.size, repeated });
}, SEVERAL);

await client.connect();
