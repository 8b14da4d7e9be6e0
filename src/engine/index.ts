/** The engine entry: the seam, and the engines that come with the package. */
export type {
  AppendBatch,
  Engine,
  EngineDurability,
  EngineHost,
  EngineState,
  ExpiringRun,
  HandleRange,
  QueueState,
  QueueUsage,
  SenderState,
  StoredRun,
  TrackedMessage,
} from './engine.js';
export { isEngine } from './engine.js';
export { memoryEngine } from './memory/memory-engine.js';
export { diskEngine, type DiskEngineOptions } from './disk/disk-engine.js';
export {
  conformanceCases,
  type ConformanceCase,
  type EngineAbilities,
  type EngineMaker,
  type TestStore,
} from './conformance/index.js';
