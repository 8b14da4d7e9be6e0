/** Options: their types, the one table of them, how they are checked, and where they come from. Re-exports only. */
export { buildBroadcastConfig, isDecimal, type ConfigVars } from './config/env.js';
export {
  resolveClientConfig,
  resolveServerConfig,
  type ResolvedClientConfig,
  type ResolvedServerConfig,
} from './config/resolve.js';
export { DEFAULT_LIMITS, LIMITS, OPTIONS, type OptionRow } from './config/table.js';
export type { ClientConfig, CommonOptions, Endpoint, Limits, ServerConfig } from './config/types.js';
