import { describe, expect, it } from 'vitest';
import { CLI, inTerminal, linesOf, run, serve, start } from '../helpers/cli.js';

const numbers = (from: number, to: number): string =>
  Array.from({ length: to - from + 1 }, (_, i) => `${String(from + i)}\n`).join('');

function reportOf(stderr: string): Record<string, unknown> {
  return JSON.parse(linesOf(stderr).find(line => line.includes('"sent"')) as string) as Record<string, unknown>;
}

describe('pub', () => {
  it('sends text, JSON in its tagged form, a name, to a channel or a client', async () => {
    const { reach } = await serve();
    await run(['pub', 'room', '{"a":1}', ...reach]);
    await run(['pub', 'room', '{"a":{"$bigint":"12345678901234567890"}}', '--json-data', '--name', 'order', ...reach]);
    await run(['pub', '--to', 'user1', '--as', 'user2', 'for you', ...reach]);
    const room = await run(['sub', 'room', '--count', '2', '--envelope', ...reach]);
    const [text, json] = linesOf(room.stdout).map(line => JSON.parse(line) as object);
    expect(text).toMatchObject({
      channel: 'room',
      data: '{"a":1}',
      persistent: true,
      subscription: 'room',
      attempt: 1,
    });
    expect(json).toMatchObject({ name: 'order', data: { a: { $bigint: '12345678901234567890' } }, redelivered: false });
    const own = await run(['sub', '--as', 'user1', '--count', '1', '--envelope', ...reach]);
    expect(JSON.parse(own.stdout)).toMatchObject({
      client: 'user1',
      sender: 'user2',
      data: 'for you',
      subscription: null,
    });
  });

  it('takes lines of any length, end and cut, and skips empty ones', async () => {
    const { reach } = await serve();
    const long = 'é'.repeat(200_000);
    const publisher = start(['pub', 'room', ...reach]);
    const { stdin } = publisher.child;
    // A byte order mark, a Windows line end, an empty line, U+2028 inside a string, no end at the end; cut in a character.
    const bytes = Buffer.from(`\ufeff{"n":1}\r\n\n  \n"a\u2028b"\n${JSON.stringify(long)}\n[4]`);
    const cut = bytes.indexOf(Buffer.from('é')) + 1;
    stdin?.write(bytes.subarray(0, cut));
    stdin?.end(bytes.subarray(cut));
    expect((await publisher.ended).stderr).toContain('4 sent: 0 delivered, 4 stored (memory), 0 failed');
    const { stdout } = await run(['sub', 'room', '--count', '4', ...reach]);
    expect(linesOf(stdout).map(line => JSON.parse(line) as unknown)).toEqual([{ n: 1 }, 'a\u2028b', long, [4]]);
  });

  it('sends lines of text as they are, empty ones too', async () => {
    const { reach } = await serve();
    await run(['pub', 'room', '--format', 'text', ...reach], { input: 'one\n\n{"three":3}\n' });
    const { stdout } = await run(['sub', 'room', '--count', '3', '--format', 'text', ...reach]);
    expect(stdout).toBe('one\n\n{"three":3}\n');
  });

  it.each([
    ['that is no JSON', '{"a":\n', 'line 3 is not valid JSON'],
    [
      'with a tag that has no such value',
      '{"$bigint":"x"}\n',
      'line 3 is not valid JSON: $bigint has a value that does not fit',
    ],
    ['that is no UTF-8', Buffer.from([0x22, 0xff, 0x22, 0x0a]), 'line 3 is not valid UTF-8'],
    [
      'that is nested too deep',
      `${'['.repeat(100_000)}${']'.repeat(100_000)}\n`,
      'line 3 is not valid JSON: it is nested too deep',
    ],
  ])(
    'a line %s is an error with its number; those before it are safe and counted, none after it is sent',
    async (_what, bad, text) => {
      const { reach } = await serve();
      const publisher = start(['pub', 'room', ...reach]);
      const { stdin } = publisher.child;
      stdin?.write('1\n2\n');
      stdin?.write(bad);
      stdin?.write('4\n'); // the pipe stays open: the error ends it all the same
      const { code, stderr } = await publisher.ended;
      expect(stderr).toContain('2 sent: 0 delivered, 2 stored (memory), 0 failed');
      expect(stderr).toContain(text);
      expect(stderr).toContain('the lines before it were sent, none after it');
      expect(code).toBe(7);
      expect((await run(['sub', 'room', '--count', '3', '--timeout', '300', ...reach])).stdout).toBe('1\n2\n');
    },
  );

  it('is not done well when a message is not safe, and says which was the first', async () => {
    const { reach } = await serve(['--memory', '--message-bytes', '1000']);
    const input = `"fits"\n${JSON.stringify('x'.repeat(2000))}\n"fits too"\n`;
    const { code, stderr } = await run(['pub', 'room', ...reach], { input });
    expect(stderr).toContain('3 sent: 0 delivered, 2 stored (memory), 1 failed');
    expect(stderr).toContain('1 of 3 messages are not safe; the first: line 2: ');
    expect(code).toBe(3);
    const transient = await run(['pub', 'nobody', 'x', '--no-persistent', '--json', ...reach]);
    expect(reportOf(transient.stderr)).toMatchObject({ sent: 1, failed: 1 });
    expect(transient.stderr).toContain('no-subscribers');
    expect(transient.code).toBe(3);
  });

  it('sends no faster than its outbox has room for', async () => {
    const { reach } = await serve();
    for (const env of [{ BROADCAST_OUTBOX_MESSAGES: '10' }, { BROADCAST_OUTBOX_BYTES: '400' }]) {
      const { code, stderr } = await run(['pub', 'room', ...reach], { input: numbers(1, 500), env });
      expect(stderr).toBe('500 sent: 0 delivered, 500 stored (memory), 0 failed\n');
      expect(code).toBe(0);
    }
  });

  it('counts what was routed apart, as nobody says that it arrived', async () => {
    const { reach } = await serve();
    const subscriber = start(['sub', 'room', ...reach]);
    await subscriber.says('is listening');
    const { code, stderr } = await run(['pub', 'room', 'x', '--no-persistent', ...reach]);
    expect(stderr).toContain('1 sent: 0 delivered, 0 stored, 1 routed, 0 failed');
    expect(code).toBe(0);
    await subscriber.prints('"x"\n');
  });

  it('--until delivered waits until everybody has handled it', async () => {
    const { reach } = await serve();
    await run(['sub', 'room', '--as', 'w', '--count', '1', '--timeout', '200', ...reach]);
    const publisher = start(['pub', 'room', '--until', 'delivered', '--json', ...reach]).input(numbers(1, 2000));
    const first = await run(['sub', 'room', '--as', 'w', '--count', '1999', ...reach]);
    expect(first.stdout).toBe(numbers(1, 1999));
    expect(publisher.child.exitCode).toBeNull();
    const last = await run(['sub', 'room', '--as', 'w', '--count', '1', ...reach]);
    expect(last.stdout).toBe('2000\n');
    const { code, stderr } = await publisher.ended;
    expect(reportOf(stderr)).toMatchObject({ sent: 2000, delivered: 2000, stored: 0, failed: 0 });
    expect(code).toBe(0);
  });

  it('waits for a server that is not there yet, with a word about it, and gives up when it is told to', async () => {
    const { server, reach, port } = await serve();
    await server.signal('SIGKILL');
    const given = await run(['pub', 'room', 'x', '--timeout', '300', ...reach]);
    expect(given.stderr).toContain(`no server at 127.0.0.1:${String(port)}`);
    expect(given.stderr).toContain('1 sent: 0 delivered, 0 stored, 0 failed, 1 unknown');
    expect(given.stderr).toContain('not everything was safe within 300 ms');
    expect(given.code).toBe(3);
    const patient = start(['pub', 'room', 'x', ...reach]);
    await patient.says('no server at');
    await serve(['--memory', '--port', String(port)]);
    expect((await patient.ended).code).toBe(0);
  });

  it('does not call failed what was stored and waits to be handled', async () => {
    const { reach } = await serve();
    const given = await run(['pub', '--to', 'away', 'x', '--until', 'delivered', '--timeout', '300', ...reach]);
    expect(given.stderr).toContain('1 sent: 0 delivered, 0 stored, 0 failed, 1 unknown');
    expect(given.stderr).toContain('not everything was handled within 300 ms');
    expect(given.code).toBe(3);
    expect((await run(['sub', '--as', 'away', '--count', '1', ...reach])).stdout).toBe('"x"\n');
  });

  it('a signal ends the reading; what was sent is made safe and counted', async () => {
    const { reach } = await serve();
    const publisher = start(['pub', 'room', ...reach]);
    publisher.child.stdin?.write('1\n2\n');
    await run(['sub', 'room', '--count', '2', ...reach]);
    const { code, stderr } = await publisher.signal('SIGINT');
    expect(stderr).toMatch(/2 sent: \d delivered, \d stored(?: \(memory\))?, 0 failed/);
    expect(stderr).toContain('SIGINT came before everything was sent and safe');
    expect(code).toBe(130);
  });

  it.each([
    [['pub'], 'give a channel, or a client with --to'],
    [['pub', '--to', 'a', 'room', 'x'], 'give a channel or --to, not both'],
    [['pub', 'room', 'x', '--until', 'tomorrow'], '--until is safe or delivered, not "tomorrow"'],
    [['pub', 'room', '--format', 'xml'], '--format is ndjson or text, not "xml"'],
    [['pub', 'room', 'x', '--timeout', '3s'], '--timeout takes a whole number of milliseconds from 1 to'],
    [['pub', 'room', '{', '--json-data'], 'the data is not valid JSON'],
    [['pub', 'room', '--json-data'], '--json-data is for data on the command line'],
    [['pub', 'a\u001b[2J', 'x'], 'the channel "a\\u001b[2J" has a control character'],
    [['pub', 'room.*', 'x'], 'reserved for patterns'],
    [['pub', 'room', 'x', '--as', 'host:80'], 'looks like the address of a connection'],
    [['pub', 'room', 'x', '--url', 'ftp://x'], 'the scheme "ftp" is not known'],
    [['pub', 'room', 'x', 'y'], 'too many arguments'],
    [['pbu', 'room', 'x'], 'Did you mean pub?'],
  ])('refuses %j', async (args, text) => {
    const { code, stdout, stderr } = await run(args);
    expect(stderr).toContain(text);
    expect([code, stdout]).toEqual([2, '']);
  });

  it('shows a bar in a terminal while it sends, and takes it away', async () => {
    const { reach } = await serve();
    const command = `(seq 1 5000; read go; echo 5001) | ${process.execPath} ${CLI} pub room ${reach.join(' ')}`;
    const terminal = inTerminal(command);
    await terminal.prints(/[█░]+ 5000 of 5000 settled, \d+\/s/);
    terminal.child.stdin?.write('7\n');
    const { code, stdout } = await terminal.ended;
    // The line of the bar is cleared before the count is written.
    expect(stdout).toMatch(/\u001b\[2K(?:\u001b\[32m)?5001 sent(?:\u001b\[39m)?: 0 delivered, 5001 stored/);
    expect(code).toBe(0);
  });
});
