// Where every branch must be covered: what a mistake in would lose messages. An exception is named where it stands, as
// `/* v8 ignore next -- why it cannot be reached */`, and counts as covered.
import { existsSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { root } from './prepare.js';

/** The parser, the log, the delivery. */
export const COVERED = [
  'src/protocol/parser.ts',
  'src/engine/disk/',
  'src/broker/delivery.ts',
  'src/broker/live.ts',
  'src/broker/takers.ts',
];

/** The same as patterns: a branch of theirs that no test takes fails the run. */
export const COMPLETE = COVERED.map(place => (place.endsWith('/') ? `${place}**` : place));

/** What the last run says of them: a line for each file with branches that no test takes, with the lines where they are. */
export function uncovered() {
  const path = join(root, 'coverage', 'coverage-final.json');
  if (!existsSync(path)) return ['there is no coverage/coverage-final.json'];
  const found = [];
  for (const [file, { branchMap, b: counts }] of Object.entries(JSON.parse(readFileSync(path, 'utf8')))) {
    const name = relative(root, file).replaceAll('\\', '/');
    if (!COVERED.some(place => name.startsWith(place))) continue;
    const lines = Object.entries(branchMap).flatMap(([id, { locations, loc }]) =>
      // An absent else has no place of its own: the place of its if stands for it.
      locations.flatMap((location, i) => (counts[id][i] > 0 ? [] : [location.start?.line ?? loc.start.line])),
    );
    if (lines.length > 0)
      found.push(`${name}: branches not taken at ${[...new Set(lines)].sort((a, b) => a - b).join(', ')}`);
  }
  return found;
}
