// Where the time went: the functions of CPU profiles by their own time. node bench/profile.js FOLDER [COUNT]
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const IDLE = new Set(['(idle)', '(root)']);

/** Own milliseconds of each function, the longest first, and their sum without idling. */
export function selfTimes(profile) {
  const { nodes, samples, timeDeltas } = profile;
  const byId = new Map(nodes.map(node => [node.id, node.callFrame]));
  const own = new Map();
  let total = 0;
  samples.forEach((id, i) => {
    const { functionName, url, lineNumber } = byId.get(id);
    if (IDLE.has(functionName)) return;
    const place = url === '' ? '' : ` ${url.replace(/^.*\/(dist|node_modules|bench)\//, '$1/')}:${lineNumber + 1}`;
    const key = `${functionName || '(anonymous)'}${place}`;
    own.set(key, (own.get(key) ?? 0) + timeDeltas[i] / 1000);
    total += timeDeltas[i] / 1000;
  });
  return { total, functions: [...own].sort((a, b) => b[1] - a[1]) };
}

export function printProfiles(folder, count = 25) {
  for (const name of readdirSync(folder)
    .filter(file => file.endsWith('.cpuprofile'))
    .sort()) {
    const { total, functions } = selfTimes(JSON.parse(readFileSync(join(folder, name), 'utf8')));
    console.log(`\n${name.replace('.cpuprofile', '')}: ${total.toFixed(0)} ms`);
    for (const [key, ms] of functions.slice(0, count))
      console.log(`${((ms / total) * 100).toFixed(1).padStart(6)} %  ${key}`);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href)
  printProfiles(process.argv[2], Number(process.argv[3] ?? 25));
