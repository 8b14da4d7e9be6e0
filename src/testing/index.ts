/** The testing entry: a server in the test's own process, and a clock that the test moves. */
import { BroadcastTcpServer, type BroadcastServer, type ServerConfig } from '../index.js';

export { TestClock } from './test-clock.js';

/** A server that runs, with what clients need to reach it. */
export interface TestServer {
  /** The server itself. */
  readonly server: BroadcastServer;
  /** The host that it listens on. */
  readonly host: string;
  /** The port that it found. */
  readonly port: number;
  /** `tcp://host:port`. */
  readonly url: string;
  /**
   * Stops the server; so does `await using`.
   * @example
   * afterAll(() => testServer.stop());
   */
  stop(): Promise<void>;
  /**
   * Stops the server at the end of an `await using` block.
   * @example
   * await using testServer = await startTestServer();
   * const client = new BroadcastTcpClient({ url: testServer.url });
   */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Starts a server in this process on a free port, in memory unless options say otherwise.
 *
 * @example
 * const { url, stop } = await startTestServer();
 * const client = new BroadcastTcpClient({ url });
 * // …
 * await stop();
 */
export async function startTestServer(options: Omit<ServerConfig, 'url'> = {}): Promise<TestServer> {
  const server = new BroadcastTcpServer({ host: '127.0.0.1', port: 0, ...options });
  await server.start();
  const { host, port } = server.address as { host: string; port: number };
  const stop = (): Promise<void> => server.stop();
  return { server, host, port, url: `tcp://${host}:${String(port)}`, stop, [Symbol.asyncDispose]: stop };
}
