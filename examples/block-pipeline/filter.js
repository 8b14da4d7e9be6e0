// Sorts the actions of blocks by their kind and passes them on, each kind to its own channel; the rest is left out.
import { connect, KINDS, SEVERAL, toChannel } from './shared.js';

const client = connect('filter');

client.onMessage(
  'blocks',
  async ({ data: { start, end, blocks } }) => {
    const actions = blocks.flatMap(block => block.actions);
    await Promise.all(
      KINDS.map(kind =>
        toChannel(client, kind, { start, end, actions: actions.filter(action => action.kind === kind) }),
      ),
    );
  },
  SEVERAL,
);

await client.connect();
