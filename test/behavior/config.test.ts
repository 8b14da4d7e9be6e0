/** Options: what is refused, naming the nearest, and what is read from the environment. */
import { describe, expect, it } from 'vitest';
import { buildBroadcastConfig, BroadcastTcpClient, BroadcastTcpServer, DEFAULT_LIMITS } from '../../src/index.js';

function refusal(make: () => unknown): { code?: string; message?: string } {
  try {
    make();
  } catch (error) {
    return error as { code: string; message: string };
  }
  return {};
}

const client = (config: unknown, name?: unknown) => () => new BroadcastTcpClient(config as object, name as string);
const server = (config: unknown) => () => new BroadcastTcpServer(config as object);

describe('options', () => {
  it.each<[string, () => unknown, RegExp]>([
    ['a mistyped option', client({ hots: 'x' }), /hots.*host/],
    ['a mistyped option of a server', server({ dataDri: 'x' }), /dataDri.*dataDir/],
    ['a mistyped limit', client({ limits: { mesageBytes: 5 } }), /limits\.mesageBytes.*limits\.messageBytes/],
    ['an option far from all', client({ xyzzy: 5 }), /xyzzy.*host/],
    ['a port that is a text', client({ port: '9000' }), /port/],
    ['a port out of range', server({ port: 65_536 }), /65535/],
    ['port 0 for a client', client({ port: 0 }), /port 0/],
    ['half a millisecond', client({ pingInterval: 0.5 }), /pingInterval/],
    ['no interval', client({ reconnectInterval: 0 }), /reconnectInterval.*1/],
    ['a limit beyond its ceiling', server({ limits: { messageBytes: 65 * 1024 * 1024 } }), /67108864/],
    ['a limit that is no number', server({ limits: { sessions: '5' } }), /limits\.sessions/],
    ['a time of death before the first ping', client({ pingInterval: 500, deadAfter: 500 }), /deadAfter.*pingInterval/],
    ['two addresses', client({ url: 'tcp://x:1', host: 'y' }), /url.*host/],
    ['a list and an address', client({ servers: ['tcp://x:1'], port: 5 }), /servers.*port/],
    ['an empty list', client({ servers: [] }), /servers is empty/],
    ['a list that is none', client({ servers: 'tcp://x:1' }), /servers must be an array/],
    ['an address in the list that is none', client({ servers: [5] }), /servers\[0\]/],
    ['a mistyped address in the list', client({ servers: [{ hosst: 'x' }] }), /servers\[0\]\.hosst.*host/],
    ['an unknown scheme', client({ url: 'http://x:1' }), /http/],
    ['an empty host', client({ host: '' }), /host/],
    ['a url without a socket', server({ url: 'unix:' }), /socket/],
    ['a data directory and an engine', server({ dataDir: 'x', engine: {} }), /dataDir and engine/],
    ['an empty data directory', server({ dataDir: '' }), /dataDir is empty/],
    ['a logger that cannot warn', client({ logger: { debug() {}, info() {}, error() {} } }), /logger.*warn/],
    ['a clock that stands still', server({ clock: {} }), /clock/],
    ['no object at all', client(5), /must be an object/],
    ['null', server(null), /must be an object/],
  ])('refuse %s', (_what, make, text) => {
    const error = refusal(make);
    expect(error.code).toBe('invalid-option');
    expect(error.message).toMatch(text);
  });

  it('refuse an engine that has not the shape of one', () => {
    expect(refusal(server({ engine: {} })).code).toBe('engine-invalid');
  });

  it('refuse a name that is none', () => {
    for (const name of ['a\nb', 'x'.repeat(256), 'a.>', '*', '10.0.0.1:80', 5])
      expect(refusal(client({}, name)).code).toBe('invalid-name');
    for (const name of ['__proto__', '../x', 'a b', 'ä'.repeat(127), 'x:y'])
      expect(new BroadcastTcpClient({}, name).name).toBe(name);
  });

  it('pass over what is undefined, and what is the other side’s', () => {
    expect(refusal(client({ host: undefined, limits: { targets: undefined }, dataDir: './x', storeAfter: 5 }))).toEqual(
      {},
    );
    expect(refusal(server({ port: 0, clientName: 'x', maxAttempts: 3 }))).toEqual({});
  });

  it('take the name from the second argument before that of the options, and generate one without', () => {
    expect(new BroadcastTcpClient({ clientName: 'a' }, 'b').name).toBe('b');
    expect(new BroadcastTcpClient({ clientName: 'a' }).name).toBe('a');
    expect(new BroadcastTcpClient().name).not.toBe(new BroadcastTcpClient().name);
    expect(new BroadcastTcpClient({ clientName: '' }).name).not.toBe('');
  });

  it('have limits that cannot be changed by accident', () => {
    expect(Object.isFrozen(DEFAULT_LIMITS)).toBe(true);
    expect(DEFAULT_LIMITS).toMatchObject({ messageBytes: 1024 * 1024, headerBytes: 16 * 1024, targets: 1024 });
  });
});

describe('buildBroadcastConfig', () => {
  it('reads the environment, and leaves out what is not set or empty', () => {
    expect(
      buildBroadcastConfig({
        BROADCAST_HOST: 'example.org',
        BROADCAST_PORT: '9001',
        BROADCAST_CLIENT_NAME: 'orders',
        BROADCAST_DATA_DIR: '/var/lib/x',
        BROADCAST_URL: '',
        BROADCAST_PING_INTERVAL: 'undefined',
        BROADCAST_DEAD_AFTER: 'NaN',
        BROADCAST_RECONNECT_INTERVAL: '250',
        BROADCAST_MESSAGE_BYTES: '2048',
        BROADCAST_UNKNOWN: 'x',
        HOST: 'not ours',
      }),
    ).toEqual({
      host: 'example.org',
      port: 9001,
      clientName: 'orders',
      dataDir: '/var/lib/x',
      reconnectInterval: 250,
      limits: { messageBytes: 2048 },
    });
    expect(buildBroadcastConfig({})).toEqual({});
    expect(buildBroadcastConfig({ BROADCAST_SERVERS: 'tcp://a:1, tcp://b:2' })).toEqual({
      servers: ['tcp://a:1', 'tcp://b:2'],
    });
    expect(buildBroadcastConfig({ BROADCAST_URL: 'unix:/run/x.sock' })).toEqual({ url: 'unix:/run/x.sock' });
  });

  it.each(['orders', 'ORDERS', 'orders_', 'Orders_'])('takes the prefix %s', prefix => {
    expect(buildBroadcastConfig({ ORDERS_BROADCAST_PORT: '1', BROADCAST_PORT: '2' }, prefix)).toEqual({ port: 1 });
  });

  it('reads process.env by default', () => {
    process.env['BROADCAST_HOST'] = 'from-the-process';
    try {
      expect(buildBroadcastConfig()).toMatchObject({ host: 'from-the-process' });
    } finally {
      delete process.env['BROADCAST_HOST'];
    }
  });

  it.each([
    'many',
    ' ',
    '1e',
    '0x10',
    '0b1',
    '0o17',
    '1e3',
    '-1',
    '+1',
    '1.5',
    '1_000',
    ' 9000',
    '9000 ',
    'Infinity',
    '９',
  ])('refuses the number %j, naming the variable and the value', text => {
    for (const name of ['BROADCAST_PORT', 'BROADCAST_MESSAGE_BYTES']) {
      const expected = {
        code: 'invalid-option',
        message: `${name} must be a whole number in decimal digits, not ${JSON.stringify(text)}`,
      };
      expect(refusal(() => buildBroadcastConfig({ [name]: text }))).toMatchObject(expected);
      const vars = { getStringEnv: (key: string) => (key === name ? text : ''), getNumberEnv: Number };
      expect(refusal(() => buildBroadcastConfig(vars))).toMatchObject(expected);
    }
  });

  it('reads digits as decimal ones, whatever they begin with', () => {
    expect(buildBroadcastConfig({ BROADCAST_PORT: '010', BROADCAST_STORE_AFTER: '0' })).toEqual({
      port: 10,
      storeAfter: 0,
    });
  });

  const SET: Record<string, string | undefined> = {
    BROADCAST_HOST: 'example.org',
    BROADCAST_PORT: '9001',
    BROADCAST_CLIENT_NAME: '',
    BROADCAST_STORE_AFTER: '',
  };

  it('reads the variables of the old package, for which what is not set is NaN or the text undefined', () => {
    const vars = {
      getStringEnv: (name: string) => String(SET[name]),
      getNumberEnv: (name: string) => Number(SET[name]),
    };
    expect(buildBroadcastConfig(vars)).toEqual({ host: 'example.org', port: 9001 });
  });

  it('takes numbers from getNumberEnv alone, and what throws for what is not set', () => {
    const vars = {
      getStringEnv(name: string): string {
        if (name !== 'BROADCAST_HOST') throw new Error(`${name} is not set`);
        return 'example.org';
      },
      getNumberEnv(name: string): number {
        if (name !== 'BROADCAST_PORT') throw new Error(`${name} is not set`);
        return 9001;
      },
    };
    expect(buildBroadcastConfig(vars)).toEqual({ host: 'example.org', port: 9001 });
  });

  it('serves both sides', () => {
    const config = buildBroadcastConfig({
      BROADCAST_PORT: '9001',
      BROADCAST_CLIENT_NAME: 'x',
      BROADCAST_STORE_AFTER: '5',
    });
    expect(new BroadcastTcpClient(config).name).toBe('x');
    expect(refusal(server(config))).toEqual({});
  });
});
