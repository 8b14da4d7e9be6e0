// Hands out ranges of blocks, at most AHEAD at a time, and hears from the sink which are done. Both are written down, so
// that its next life goes on where this one ended. A range that was handed out and not yet written down is handed out
// twice; the sink takes it once.
import { join } from 'node:path';
import { connect, folder, journal, ranges, SEVERAL, toClient } from './shared.js';

const AHEAD = 32;
const { lines, append } = journal(join(folder, 'coordinator.log'));
const done = new Set(lines.filter(line => line.startsWith('done ')).map(line => line.slice(5)));
const out = new Set([...done, ...lines.filter(line => line.startsWith('out ')).map(line => line.slice(4))]);
const todo = ranges().filter(({ start }) => !out.has(String(start)));
const total = ranges().length;

const client = connect('coordinator');

async function handOut() {
  while (todo.length > 0 && out.size - done.size < AHEAD) {
    const range = todo.shift();
    out.add(String(range.start));
    await toClient(client, 'readers', range);
    append(`out ${range.start}`);
  }
}

function tell() {
  process.send?.({ done: done.size, of: total });
}

client.onMessage(async ({ data: { start } }) => {
  if (!done.has(String(start))) {
    append(`done ${start}`);
    done.add(String(start));
    out.add(String(start));
    tell();
  }
  await handOut();
}, SEVERAL);

await client.connect();
await handOut();
tell();
