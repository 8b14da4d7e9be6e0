/** Which known word somebody meant. Depends on nothing. */

/** The candidate that is nearest to `word` by Levenshtein's distance, if any is near. */
function nearest(word: string, candidates: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(word.length / 2)) + 1;
  for (const candidate of candidates) {
    const distance = levenshtein(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** What to say of an option that there is not: which one was meant, or which there are. `prefix` stands before the names. */
export function hintAt(word: string, known: readonly string[], prefix = ''): string {
  const near = nearest(word, known);
  return near === undefined
    ? `there ${known.length === 1 ? 'is' : 'are'} ${known.join(', ')}`
    : `did you mean ${prefix}${near}?`;
}

function levenshtein(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substituted = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substituted, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}
