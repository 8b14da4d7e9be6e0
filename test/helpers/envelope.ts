/** The envelope that tests begin with: persistent, for nobody yet, with nothing that is optional. */
import type { Envelope } from '../../src/batch.js';

export const ENVELOPE: Envelope = {
  channels: [],
  clients: [],
  everyone: false,
  name: undefined,
  headers: undefined,
  persistent: true,
  tracked: false,
  resent: false,
  ttl: undefined,
  idPrefix: 'prefix0123456789',
};
