// Reads the blocks of a range. Several processes have the name `readers`, so each range goes to one of them.
import { actionsOf, connect, SEVERAL, toChannel } from './shared.js';

const client = connect('readers');

client.onMessage(async ({ data: { start, end } }) => {
  const blocks = [];
  for (let number = start; number < end; number++) blocks.push({ number, actions: actionsOf(number) });
  // Acknowledged when the handler ends: so first what follows from the range is safe.
  await toChannel(client, 'blocks', { start, end, blocks });
}, SEVERAL);

await client.connect();
