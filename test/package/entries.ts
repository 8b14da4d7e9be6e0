// Every entry of the package, with the types that a user meets; compiled only.
import { BroadcastTcpServer, buildBroadcastConfig, type Limits, type ServerConfig } from '@alien-worlds/aw-broadcast';
import { diskEngine, memoryEngine, type Engine } from '@alien-worlds/aw-broadcast/engine';
import { startTestServer, TestClock, type TestServer } from '@alien-worlds/aw-broadcast/testing';

const vars = { getStringEnv: (name: string) => name, getNumberEnv: () => NaN };
const config: ServerConfig = buildBroadcastConfig(vars, 'orders');
const limits: Partial<Limits> = { messageBytes: 1024 };
const engines: Engine[] = [memoryEngine(), diskEngine({ directory: './data' })];

export const server = new BroadcastTcpServer({ ...config, limits });
export const dispose = (): Promise<void> => server[Symbol.asyncDispose]();
export async function start(): Promise<TestServer> {
  return startTestServer({ clock: new TestClock(), engine: engines[0] as Engine });
}
