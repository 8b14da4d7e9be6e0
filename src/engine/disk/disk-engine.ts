import type { Engine } from '../engine.js';
export function diskEngine(_options: { directory: string }): Engine { throw new Error('not yet'); }
