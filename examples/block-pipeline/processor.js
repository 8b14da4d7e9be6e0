// Processes the actions of one kind: here it adds up their amounts. Started with the kind as argument.
import { connect, SEVERAL, toClient } from './shared.js';

const kind = process.argv[2];
const client = connect(`${kind}-processor`);

client.onMessage(
  kind,
  async ({ data: { start, end, actions } }) => {
    const sum = actions.reduce((total, { amount }) => total + amount, 0n);
    await toClient(client, 'sink', { kind, start, end, count: actions.length, sum });
  },
  SEVERAL,
);

await client.connect();
