/**
 * The conformance suite: what every engine owes the server, as cases for any test runner. An engine is right when it
 * passes all that apply to it (docs/engines.md).
 */
import { durableCases } from './durable-cases.js';
import type { ConformanceCase, EngineAbilities } from './harness.js';
import { liveCases } from './live-cases.js';

export type { ConformanceCase, EngineAbilities, EngineMaker, TestStore } from './harness.js';

/**
 * The cases that apply to an engine with these abilities.
 *
 * @example
 * for (const { name, run } of conformanceCases({ durable: true })) it(name, () => run(maker));
 */
export function conformanceCases(abilities: EngineAbilities): readonly ConformanceCase[] {
  return [...liveCases, ...durableCases].filter(({ needs }) => needs.durable !== true || abilities.durable);
}
