/** `trace` of a logger shows the frames that come and go. */
import { expect, it } from 'vitest';
import { PREAMBLE } from '../../src/protocol/constants.js';
import { encodeOk, PING } from '../../src/protocol/frames.js';
import { FrameTracer } from '../../src/transport/frame-tracer.js';
import { recordingLogger } from '../helpers/scene.js';

it('names each frame once, also those whose header and items lie in several buffers', () => {
  const lines: unknown[] = [];
  const tracer = new FrameTracer({ ...recordingLogger(), trace: line => lines.push(line) });
  const header = Buffer.from('0a000000 10 0102030405'.replace(/ /g, ''), 'hex');
  tracer.in(encodeOk(1));
  tracer.out([PREAMBLE, PING, header, Buffer.alloc(4), Buffer.concat([encodeOk(1), encodeOk(2)])]);
  expect(lines).toEqual(['← OK 6 bytes', '→ PING 5 bytes', '→ MESSAGES 14 bytes', '→ OK 6 bytes', '→ OK 6 bytes']);
});
