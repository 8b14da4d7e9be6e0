/**
 * Clients of this process that were closed while no server heard of it: a server would wait for each as long as for one
 * whose connection is lost. The next client of the same name that connects to the same store tells (docs/protocol.md, 3.8).
 */

/** So many of a name are remembered, and so many told in one introduction, which has a longest length; the oldest go first. */
const MOST_OF_A_NAME = 64;
const MOST_AT_ONCE = 8;
const MOST_NAMES = 1000;

/** By store and name. */
const departed = new Map<string, Set<string>>();

const keyOf = (store: string, name: string): string => `${store}\0${name}`;

/** An instance was closed that a server of this store knows. */
export function noteDeparture(store: string, name: string, instance: string): void {
  const key = keyOf(store, name);
  const instances = departed.get(key) ?? new Set();
  departed.delete(key);
  departed.set(key, instances.add(instance));
  if (instances.size > MOST_OF_A_NAME) dropFirst(instances);
  if (departed.size > MOST_NAMES) dropFirst(departed);
}

/** What is to be told of a name; to which store it is told is not known before its answer. */
export function departuresOf(name: string): string[] {
  const all: string[] = [];
  for (const [key, instances] of departed) if (key.endsWith(`\0${name}`)) all.push(...instances);
  // The newest: a store that is gone for good hears of none.
  return all.slice(-MOST_AT_ONCE);
}

/** A server of this store has heard of these. */
export function forgetDepartures(store: string, name: string, instances: readonly string[]): void {
  const key = keyOf(store, name);
  const left = departed.get(key);
  for (const instance of instances) left?.delete(instance);
  if (left?.size === 0) departed.delete(key);
}

function dropFirst(collection: Set<string> | Map<string, unknown>): void {
  for (const key of collection.keys()) {
    collection.delete(key);
    return;
  }
}
