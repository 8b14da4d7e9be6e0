/** The parser: however a stream is cut, the same frames come out of it (docs/protocol.md, 2.5). */
import fc from 'fast-check';
import { createServer, connect, type Socket } from 'node:net';
import { once } from 'node:events';
import { describe, expect, it, onTestFinished } from 'vitest';
import { FRAME, FRAME_HEADER, frameName, PREAMBLE } from '../../src/protocol/constants.js';
import { FrameParser, type FrameSink } from '../../src/protocol/parser.js';
import { startProxy } from '../helpers/proxy.js';
import { ROWS } from './frame-table.js';

const OPENING = 4096;

/** What a parser has said, with copies of the frames. */
class Recorder implements FrameSink {
  preambles = 0;
  readonly frames: string[] = [];
  onPreamble(): void {
    this.preambles++;
  }
  onFrame(type: number, frame: Buffer): void {
    expect(frame[FRAME_HEADER - 1]).toBe(type);
    this.frames.push(frame.toString('hex'));
  }
}

function opened(sink: FrameSink = new Recorder(), maxFrame = 1024 * 1024): FrameParser {
  const parser = new FrameParser(sink, OPENING);
  parser.push(PREAMBLE);
  parser.setMaxFrame(maxFrame);
  return parser;
}

const frameOf = (type: number, size: number): Buffer => {
  const frame = Buffer.alloc(FRAME_HEADER + size, 0x2a);
  frame.writeUInt32LE(1 + size);
  frame[4] = type;
  return frame;
};

const examples = ROWS.flatMap(row => {
  const { type, examples: values, encode } = row;
  return values.map(value => [frameName(type), encode(value as never)] as const);
});

const thrown = (code: string): unknown => expect.objectContaining({ name: 'BroadcastError', code }) as unknown;

describe('however a stream is cut', () => {
  it.each(examples)('%s comes out whole, cut in two at every byte', (_name, frame) => {
    const stream = Buffer.concat([PREAMBLE, frame, frame]);
    for (let cut = 0; cut <= stream.length; cut++) {
      const sink = new Recorder();
      const parser = new FrameParser(sink, OPENING);
      parser.push(stream.subarray(0, cut));
      parser.push(stream.subarray(cut));
      expect(sink.preambles).toBe(1);
      expect(sink.frames).toEqual([frame.toString('hex'), frame.toString('hex')]);
      expect(parser.pending).toBe(0);
    }
  });

  it.each(examples)('%s comes out whole, byte by byte', (_name, frame) => {
    const sink = new Recorder();
    const parser = new FrameParser(sink, OPENING);
    for (const byte of Buffer.concat([PREAMBLE, frame, frame])) parser.push(Buffer.from([byte]));
    expect(sink.frames).toEqual([frame.toString('hex'), frame.toString('hex')]);
  });

  it.each(examples)('a thousand of %s come out of one chunk', (_name, frame) => {
    const sink = new Recorder();
    opened(sink).push(Buffer.concat(new Array<Buffer>(1000).fill(frame)));
    expect(sink.frames).toEqual(new Array<string>(1000).fill(frame.toString('hex')));
  });

  it('all frames in a row come out the same, whatever the pieces', () => {
    const stream = Buffer.concat([...examples.map(([, frame]) => frame), frameOf(0x81, 3000), frameOf(0x82, 0)]);
    const whole = new Recorder();
    opened(whole).push(stream);
    expect(whole.frames).toHaveLength(examples.length + 2);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: stream.length }), { maxLength: 100 }), cuts => {
        const sink = new Recorder();
        const parser = opened(sink);
        const sorted = [0, ...cuts.sort((a, b) => a - b), stream.length];
        for (let i = 1; i < sorted.length; i++) parser.push(stream.subarray(sorted[i - 1], sorted[i]));
        expect(sink.frames).toEqual(whole.frames);
      }),
    );
  });

  it.each([
    ['one byte at a time', 1],
    ['in random pieces', 0],
    ['in chunks', Infinity],
  ])('all frames come out the same through a real proxy, %s', async (_how, piece) => {
    const sent = piece === 1 ? examples : new Array<typeof examples>(piece === 0 ? 5 : 1000).fill(examples).flat();
    const stream = Buffer.concat([PREAMBLE, ...sent.map(([, frame]) => frame)]);
    const sink = new Recorder();
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    onTestFinished(() => void server.close());
    const proxy = await startProxy((server.address() as { port: number }).port, 7);
    if (piece !== Infinity) proxy.slice('up', piece, 0);
    const sender = connect(proxy.port, '127.0.0.1');
    const [socket] = (await once(server, 'connection')) as [Socket];
    const parser = new FrameParser(sink, Infinity);
    socket.on('data', chunk => parser.push(chunk));
    sender.end(stream);
    await once(socket, 'end');
    socket.end();
    await once(sender.resume(), 'close');
    expect(sink.frames).toEqual(sent.map(([, frame]) => frame.toString('hex')));
  });
});

describe('the preamble', () => {
  it.each([
    ['HTTP', Buffer.from('GET / HTTP/1.1\r\n\r\n'), 'not-broadcast'],
    ['SSH', Buffer.from('SSH-2.0-OpenSSH_9.2\r\n'), 'not-broadcast'],
    ['a TLS hello', Buffer.from('160301020001000001fc0303', 'hex'), 'not-broadcast'],
    ['a wrong fourth byte', Buffer.from('89424354', 'hex'), 'not-broadcast'],
    ['reserved bytes that are not zero', Buffer.from('8942435301010100', 'hex'), 'not-broadcast'],
    ['a newer version that does not speak ours', Buffer.from('8942435302020000', 'hex'), 'protocol-version'],
    ['a version 0', Buffer.from('8942435300000000', 'hex'), 'protocol-version'],
  ])('%s is refused', (_what, bytes, code) => {
    const whole = new FrameParser(new Recorder(), OPENING);
    expect(() => whole.push(bytes)).toThrow(thrown(code));
    expect(whole.isStopped).toBe(true);
    const slow = new FrameParser(new Recorder(), OPENING);
    expect(() => {
      for (const byte of bytes.subarray(0, 8)) slow.push(Buffer.from([byte]));
    }).toThrow(thrown(code));
  });

  it('of a newer version that speaks ours too is taken', () => {
    const sink = new Recorder();
    const parser = new FrameParser(sink, OPENING);
    parser.push(Buffer.from('8942435307010000', 'hex'));
    expect(sink.preambles).toBe(1);
    expect(parser.pending).toBe(0);
  });

  it('is refused at the first wrong byte, not at the eighth', () => {
    const parser = new FrameParser(new Recorder(), OPENING);
    parser.push(Buffer.from([0x89]));
    expect(parser.pending).toBe(1);
    expect(() => parser.push(Buffer.from('P'))).toThrow(thrown('not-broadcast'));
  });
});

describe('lengths', () => {
  it.each([
    ['0', 0, 'protocol-error'],
    ['−1', 0xffffffff, 'frame-too-large'],
    ['2³¹', 2 ** 31, 'frame-too-large'],
    ['one beyond the limit', 1001, 'frame-too-large'],
  ])('%s is refused before anything is allocated', (_what, length, code) => {
    for (const step of [1, 4]) {
      const parser = opened(new Recorder(), 1000);
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32LE(length);
      expect(() => {
        for (let at = 0; at < 4; at += step) parser.push(bytes.subarray(at, at + step));
      }).toThrow(thrown(code));
      expect(parser.allocated).toBe(0);
    }
  });

  it('of exactly the limit is taken', () => {
    const sink = new Recorder();
    opened(sink, 1000).push(frameOf(1, 999));
    expect(sink.frames).toHaveLength(1);
  });

  it('before the opening is done are bounded, one by one and together', () => {
    const one = new FrameParser(new Recorder(), 100);
    one.push(PREAMBLE);
    expect(() => one.push(frameOf(1, 96))).toThrow(thrown('handshake-too-large'));
    const many = new FrameParser(new Recorder(), 100);
    many.push(Buffer.concat([PREAMBLE, frameOf(1, 45), frameOf(1, 45)]));
    expect(() => many.push(frameOf(1, 0))).toThrow(thrown('handshake-too-large'));
  });

  it('grow at once when the opening is done, in the chunk that is at hand too', () => {
    const sink = new (class extends Recorder {
      override onFrame(type: number, frame: Buffer): void {
        super.onFrame(type, frame);
        if (this.frames.length === 1) parser.setMaxFrame(10_000);
      }
    })();
    const parser = new FrameParser(sink, 100);
    parser.push(Buffer.concat([PREAMBLE, frameOf(1, 20), frameOf(2, 5000)]));
    expect(sink.frames).toHaveLength(2);
  });
});

describe('memory', () => {
  it('for an unfinished frame grows with the bytes that have come, not with those announced', () => {
    const parser = opened(new Recorder(), 64 * 1024 * 1024);
    const frame = frameOf(1, 1_000_000);
    parser.push(frame.subarray(0, 5));
    expect(parser.allocated).toBeLessThanOrEqual(512);
    let sent = 5;
    for (const size of [1, 100, 1000, 10_000, 100_000]) {
      parser.push(frame.subarray(sent, sent + size));
      sent += size;
      expect(parser.pending).toBe(sent);
      expect(parser.allocated).toBeLessThanOrEqual(Math.max(512, 2 * sent));
    }
    parser.push(frame.subarray(sent));
    expect(parser.allocated).toBe(0);
    expect(parser.pending).toBe(0);
  });

  it('for a frame of known length is never more than it', () => {
    const parser = opened();
    const frame = frameOf(1, 600);
    parser.push(frame.subarray(0, 400));
    parser.push(frame.subarray(400, 590));
    expect(parser.allocated).toBeLessThanOrEqual(frame.length);
  });

  it('is a view of the chunk for a frame that lies within it', () => {
    const chunk = frameOf(1, 10);
    let seen: Buffer | undefined;
    opened({ onPreamble: () => undefined, onFrame: (_type, frame) => (seen = frame) }).push(chunk);
    expect(seen?.buffer).toBe(chunk.buffer);
  });
});

describe('a sink', () => {
  it('may stop the parser in the middle of a chunk', () => {
    let frames = 0;
    const parser = opened({
      onPreamble: () => undefined,
      onFrame: () => {
        frames++;
        parser.stop();
      },
    });
    parser.push(Buffer.concat([frameOf(1, 3), frameOf(2, 3), frameOf(3, 3).subarray(0, 6)]));
    parser.push(frameOf(4, 3));
    expect(frames).toBe(1);
    expect(parser.isStopped).toBe(true);
    expect(parser.pending).toBe(0);
  });

  it('may stop the parser at the preamble, and while a frame is put together', () => {
    const sink = new Recorder();
    const early = new FrameParser({ onPreamble: () => early.stop(), onFrame: sink.onFrame.bind(sink) }, OPENING);
    early.push(Buffer.concat([PREAMBLE, frameOf(1, 3)]));
    expect(sink.frames).toHaveLength(0);
    const parser = opened(sink);
    parser.push(frameOf(1, 10).subarray(0, 8));
    parser.stop();
    parser.push(frameOf(1, 10).subarray(8));
    expect(sink.frames).toHaveLength(0);
    expect(parser.allocated).toBe(0);
  });

  it('may push more while it is called; the order stays', () => {
    const types: number[] = [];
    const parser = opened({
      onPreamble: () => undefined,
      onFrame: type => {
        types.push(type);
        if (type === 1) {
          parser.push(frameOf(5, 0));
          parser.push(frameOf(6, 0).subarray(0, 3));
        }
        if (type === 5) parser.push(Buffer.concat([frameOf(6, 0).subarray(3), frameOf(7, 0)]));
      },
    });
    parser.push(Buffer.concat([frameOf(1, 0), frameOf(2, 0)]));
    expect(types).toEqual([1, 2, 5, 6, 7]);
  });

  it('whose error comes out of push has stopped the parser', () => {
    const parser = opened({
      onPreamble: () => undefined,
      onFrame: () => {
        throw new Error('not mine');
      },
    });
    expect(() => parser.push(frameOf(FRAME.PING, 0))).toThrow('not mine');
    expect(parser.isStopped).toBe(true);
    parser.push(frameOf(FRAME.PING, 0));
  });
});
