/** What the disk engine makes of files that are not as it left them. */
import { describe, expect, it } from 'vitest';
import { DiskBench, DIRECTORY, settled, until } from '../../helpers/disk-bench.js';
import { Inode, seededRandom, SimulatedDisk } from '../../helpers/simulated-files.js';

/** A small log, closed or killed, and what is in it: ten messages, each in a commit of its own. */
async function smallLog(end: 'closed' | 'killed'): Promise<{ disk: SimulatedDisk; texts: string[] }> {
  const bench = new DiskBench();
  await bench.open();
  const texts: string[] = [];
  for (let i = 0; i < 10; i++) {
    texts.push(`message ${String(i)}`);
    bench.append('q', [texts[i] as string], { bodyBytes: 30 });
    await bench.engine.commit();
  }
  bench.engine.put('key', 'value');
  await bench.engine.commit();
  if (end === 'closed') await bench.engine.close();
  const disk = bench.disk.afterKill();
  await bench.engine.close();
  return { disk, texts };
}

const FIRST = `${DIRECTORY}/segment-0000000001.log`;

function bytesOf(disk: SimulatedDisk, name = FIRST): Buffer {
  return (disk.names.get(name) as Inode).data;
}

function lastByte(bytes: Buffer): number {
  let at = bytes.length;
  while (bytes[at - 1] === 0) at--;
  return at;
}

function isSubsequence(part: readonly string[], whole: readonly string[]): boolean {
  let at = 0;
  for (const text of whole) if (text === part[at]) at++;
  return at === part.length;
}

function nameOf(path: string): string {
  return path.slice(DIRECTORY.length + 1);
}

/** Says that the store is to be served without a segment, as an operator does. */
function giveUp(disk: SimulatedDisk, path: string): void {
  add(disk, nameOf(path).replace('.log', '.lost'), Buffer.alloc(0));
}

function add(disk: SimulatedDisk, name: string, data: Buffer): void {
  const inode = new Inode();
  inode.data = data;
  disk.addFile(`${DIRECTORY}/${name}`, inode);
}

describe('the disk engine with damaged files', () => {
  it('opens a log that was cut off at any byte, with everything before the cut', async () => {
    const { disk, texts } = await smallLog('closed');
    const end = lastByte(bytesOf(disk));
    let before = -1;
    for (let size = 1024; size <= end; size += 3) {
      const cut = disk.afterKill();
      const inode = cut.names.get(FIRST) as Inode;
      inode.data = Buffer.from(inode.data.subarray(0, size));
      const bench = new DiskBench(cut);
      await bench.open();
      const found = await bench.texts('q');
      expect(found).toEqual(texts.slice(0, found.length));
      expect(found.length).toBeGreaterThanOrEqual(before);
      before = found.length;
      const { damage } = bench.state;
      expect(damage.join()).toContain(`${nameOf(FIRST)} ends at byte ${String(size)} and was made longer`);
      bench.append('q', ['new']);
      await bench.engine.close();
      await bench.open();
      expect(bench.state.damage).toEqual(damage);
      expect(await bench.texts('q')).toEqual([...found, 'new']);
      await bench.engine.close();
    }
    expect(before).toBe(10);
  });

  it.each(['closed', 'killed'] as const)(
    'names a flipped bit in a log that was %s, and loses no more than what it hit',
    async end => {
      const { disk, texts } = await smallLog(end);
      const written = lastByte(bytesOf(disk));
      const random = seededRandom(1);
      for (let n = 0; n < 600; n++) {
        const at = n < 1024 / 8 ? n * 8 : 1024 + Math.floor(random() * (written - 1024));
        const flipped = disk.afterKill();
        const bytes = bytesOf(flipped);
        bytes[at] = (bytes[at] as number) ^ (1 << Math.floor(random() * 8));
        const bench = new DiskBench(flipped);
        await bench.open();
        const found = await bench.texts('q');
        const where = `byte ${String(at)} of ${String(written)}`;
        expect(isSubsequence(found, texts), where).toBe(true);
        expect(found.length, where).toBeGreaterThanOrEqual(9);
        const isWhole = found.length === 10 && bench.state.entries.get('key') === 'value';
        // Only the very last COMMIT, of a log that was not closed, cannot be told from a torn one; its group is cut.
        if (!isWhole && at < written - 64) {
          expect(bench.state.damage.join(), where).toContain('put aside as damaged/segment-');
          expect(bytesOf(flipped)[at], where).toBe(bytes[at]);
        }
        // What was damaged stays what it is, and what is new is safe.
        bench.append('q', ['new']);
        await bench.engine.close();
        await bench.open();
        expect(await bench.texts('q'), where).toEqual([...found, 'new']);
        await bench.engine.close();
      }
    },
    60_000,
  );

  it('reports damage that it meets when it reads, serves the rest, and keeps the file', async () => {
    const { disk } = await smallLog('closed');
    const bench = new DiskBench(disk);
    await bench.open();
    const bytes = bytesOf(disk);
    const at = bytes.indexOf('message 4');
    bytes[at] = (bytes[at] as number) ^ 1;
    expect((await bench.texts('q')).filter(text => text.endsWith('4'))).toEqual([]);
    expect(await bench.texts('q')).toHaveLength(9);
    expect(bench.warnings).toEqual([expect.stringContaining('cannot be read and left their queues')]);
    expect(bench.engine.usage('q').messages).toBe(9);
    expect(bench.damage).toEqual([{ queue: 'q', handle: 5, count: 1, bytes: expect.any(Number) as number }]);
    expect(bench.damage[0]?.bytes).toBe(bench.engine.usage('q').bytes / 9);
    bench.engine.drop('q');
    await bench.engine.commit();
    await settled();
    await bench.engine.close();
    expect([...disk.names.keys()]).toContain(`${DIRECTORY}/damaged/segment-0000000001.log`);
    expect(bench.failures).toEqual([]);
  });

  it('reports a damaged batch once, however many queues it is in, also when it meets it while space is given back', async () => {
    const bench = new DiskBench(new SimulatedDisk(), { segmentBytes: 4096 });
    await bench.open();
    const first = bench.append('q', ['one', 'two', 'three'], { bodyBytes: 100 });
    bench.engine.move('q', 'r', first + 1, 1);
    bench.append('q', ['whole'], { bodyBytes: 200 });
    await bench.engine.close();
    const bytes = bytesOf(bench.disk);
    await bench.open();
    bytes.fill(0xff, bytes.indexOf('one'), bytes.indexOf('one') + 3);
    bytesOf(bench.disk).fill(0xff, bytesOf(bench.disk).indexOf('two'), bytesOf(bench.disk).indexOf('two') + 1);
    expect(await bench.texts('r')).toEqual([]);
    for (let i = 0; i < 60; i++) {
      bench.engine.ack('x', bench.append('x', ['x'], { bodyBytes: 1000 }), 1);
      await bench.engine.commit();
      await settled();
    }
    expect(bench.warnings).toEqual([expect.stringContaining('3 stored messages cannot be read')]);
    expect(bench.damage.map(({ queue, handle, count }) => [queue, handle - first, count])).toEqual([
      ['r', 1, 1],
      ['q', 0, 1],
      ['q', 2, 1],
    ]);
    expect(bench.damage.every(({ bytes }) => bytes > 100)).toBe(true);
    expect(bench.segments[0]).not.toContain('0000000001');
    expect([...bench.disk.names.keys()]).toContain(`${DIRECTORY}/damaged/segment-0000000001.log`);
    expect(await bench.texts('q')).toEqual(['whole']);
    await bench.engine.close();
    expect(bench.failures).toEqual([]);
  });

  /** A store whose first segment holds one message, and is about to be given back: its message is read for that. */
  async function aboutToGiveBack(onRead: (bench: DiskBench, handle: number) => void): Promise<DiskBench> {
    const bench = new DiskBench(new SimulatedDisk(), { segmentBytes: 4096 });
    await bench.open();
    const handle = bench.append('q', ['one'], { bodyBytes: 1500 });
    await bench.engine.close();
    await bench.open();
    const reads = { begun: 0 };
    bench.disk.fault = (operation, _, path) => {
      if (operation === 'read' && path === FIRST && reads.begun++ === 0) {
        onRead(bench, handle);
      }
      return undefined;
    };
    for (let i = 0; reads.begun === 0; i++) {
      expect(i).toBeLessThan(100);
      bench.engine.ack('x', bench.append('x', ['x'], { bodyBytes: 1000 }), 1);
      await bench.engine.commit();
      await settled();
    }
    await until(() => !bench.segments[0]?.includes('0000000001'));
    return bench;
  }

  it('gives a segment back in which it finds nothing but damage, and reports that', async () => {
    let lost = 0;
    const bench = await aboutToGiveBack(({ disk }, handle) => {
      lost = handle;
      bytesOf(disk).fill(0xff, bytesOf(disk).indexOf('one'), bytesOf(disk).indexOf('one') + 3);
    });
    expect(bench.damage.map(({ queue, handle, count }) => [queue, handle, count])).toEqual([['q', lost, 1]]);
    expect([...bench.disk.names.keys()]).toContain(`${DIRECTORY}/damaged/segment-0000000001.log`);
    await bench.engine.close();
    // It is not missed: the log says that it is not needed.
    await bench.open();
    expect(bench.state.damage).toEqual([]);
    await bench.engine.close();
  });

  it('does not write again what is acknowledged while it is read for that', async () => {
    const bench = await aboutToGiveBack(({ engine }, handle) => engine.ack('q', handle, 1));
    expect(await bench.texts('q')).toEqual([]);
    expect(bench.damage).toEqual([]);
    await bench.engine.close();
    await bench.open();
    expect(bench.state.damage).toEqual([]);
    expect(await bench.texts('q')).toEqual([]);
    await bench.engine.close();
  });

  it('reports nothing of what a read finds after the store was closed', async () => {
    const { disk } = await smallLog('closed');
    const bench = new DiskBench(disk);
    await bench.open();
    bytesOf(disk).fill(0xff, 1024, lastByte(bytesOf(disk)));
    const reading = bench.engine.read('q', 0, 100, 100_000);
    await bench.engine.close();
    expect(await reading).toEqual([]);
    expect(bench.warnings).toEqual([]);
  });

  it('says when a queue holds nothing but damage', async () => {
    const { disk } = await smallLog('closed');
    const bench = new DiskBench(disk);
    await bench.open();
    bytesOf(disk).fill(0xff, 1024, lastByte(bytesOf(disk)));
    expect(await bench.texts('q')).toEqual([]);
    expect(bench.warnings).toHaveLength(10);
    await bench.engine.close();
  });

  it('lets the store go on when the disk cannot read one place', async () => {
    const { disk, texts } = await smallLog('closed');
    const bench = new DiskBench(disk);
    await bench.open();
    let reads = 0;
    // The stretch fails, and then the third record of it.
    disk.fault = operation => (operation === 'read' && (++reads === 1 || reads === 4) ? { code: 'EIO' } : undefined);
    expect(await bench.texts('q')).toEqual(texts.filter((_, i) => i !== 2));
    expect(bench.warnings).toHaveLength(1);
    expect(bench.failures).toEqual([]);
    disk.fault = operation => (operation === 'read' ? { code: 'ENOMEM' } : undefined);
    await expect(bench.texts('q')).rejects.toMatchObject({ code: 'ENOMEM' });
    disk.fault = () => undefined;
    expect(await bench.texts('q')).toHaveLength(9);
    await bench.engine.close();
  });

  it('refuses a log that lacks a segment, serves it with the segment back, and without it when it is given up', async () => {
    const bench = new DiskBench(new SimulatedDisk(), { segmentBytes: 2048 });
    await bench.open();
    for (let i = 0; i < 40; i++) {
      bench.append('q', [`message ${String(i)}`], { bodyBytes: 100 });
      await bench.engine.commit();
    }
    await bench.engine.close();
    const [, , third] = bench.segments;
    const size = bench.segments.length;
    expect(size).toBeGreaterThan(4);
    const inode = bench.disk.names.get(third as string) as Inode;
    bench.disk.names.delete(third as string);
    const name = nameOf(third as string);
    for (let start = 0; start < 2; start++) {
      const text = new RegExp(
        `^the store in ${DIRECTORY} is not whole: ${name} is missing; .* ${name.replace('.log', '.lost')} `,
      );
      await expect(bench.open()).rejects.toMatchObject({
        code: 'store-incomplete',
        message: expect.stringMatching(text) as string,
      });
      expect(bench.disk.openFiles).toBe(0);
    }
    bench.disk.addFile(third as string, inode);
    await bench.open();
    expect(bench.state.damage).toEqual([]);
    expect(await bench.texts('q')).toHaveLength(40);
    await bench.engine.close();
    bench.disk.names.delete(third as string);
    giveUp(bench.disk, third as string);
    await bench.open();
    expect(bench.state.damage).toEqual([
      `${(third as string).slice(DIRECTORY.length + 1)} is missing; what was in it is lost`,
    ]);
    const found = await bench.texts('q');
    expect(found.length).toBeGreaterThan(25);
    expect(found[0]).toBe('message 0');
    expect(found[found.length - 1]).toBe('message 39');
    await bench.engine.close();
  });

  it('names all segments that are missing, the oldest ones too, but none that was given back', async () => {
    const bench = new DiskBench(new SimulatedDisk(), { segmentBytes: 2048 });
    await bench.open();
    for (let i = 0; i < 40; i++) {
      const handle = bench.append('q', [`message ${String(i)}`], { bodyBytes: 100 });
      if (i < 10) bench.engine.ack('q', handle, 1);
      await bench.engine.commit();
    }
    await settled();
    await bench.engine.close();
    expect(bench.segments[0]).not.toContain('0000000001');
    await bench.open();
    expect(bench.state.damage).toEqual([]);
    await bench.engine.close();
    const gone = [0, 1, 3, 4].map(i => bench.segments[i] as string);
    const names = gone.map(nameOf);
    for (const path of gone) bench.disk.names.delete(path);
    for (const [i, named] of [`${String(names[0])} to ${String(names[1])} are`, `${String(names[0])} to`].entries()) {
      await expect(bench.open()).rejects.toMatchObject({
        code: 'store-incomplete',
        message: expect.stringContaining(`is not whole: ${named}`) as string,
      });
      // Half of what is missing is not enough.
      giveUp(bench.disk, gone[i] as string);
    }
    await expect(bench.open()).rejects.toMatchObject({
      code: 'store-incomplete',
      message: expect.stringContaining(`is not whole: ${String(names[2])} to ${String(names[3])} are`) as string,
    });
    for (const path of gone.slice(2)) giveUp(bench.disk, path);
    await bench.open();
    expect([...bench.state.damage].sort()).toEqual([
      `${String(names[0])} to ${String(names[1])} are missing; what was in them is lost`,
      `${String(names[2])} to ${String(names[3])} are missing; what was in them is lost`,
    ]);
    await bench.engine.close();
  });

  it('names a segment that ends too early, and one without a readable header, which it leaves alone', async () => {
    const bench = new DiskBench(new SimulatedDisk(), { segmentBytes: 2048 });
    await bench.open();
    for (let i = 0; i < 20; i++) {
      bench.append('q', [`message ${String(i)}`], { bodyBytes: 100 });
      await bench.engine.commit();
    }
    await bench.engine.close();
    const [first, , third] = bench.segments as [string, string, string];
    const short = bench.disk.names.get(first) as Inode;
    short.data = Buffer.from(short.data.subarray(0, 1400));
    bytesOf(bench.disk, third).fill(0, 0, 1024);
    await bench.open();
    expect(bench.state.damage).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/^segment-0000000001\.log ends at byte 1400/),
        expect.stringMatching(/^segment-0000000003\.log has no readable header; it is left as it is/),
      ]),
    );
    expect((await bench.texts('q')).at(-1)).toBe('message 19');
    await bench.engine.close();
    expect(bench.segments).toContain(third);
  });

  it('refuses what is not its own by name: foreign files, foreign segments, another store’s, a newer version’s', async () => {
    const { disk } = await smallLog('closed');
    const refused = async (name: string, data: Buffer): Promise<unknown> => {
      const other = disk.afterKill();
      add(other, name, data);
      const bench = new DiskBench(other);
      const error: unknown = await bench.open().catch((reason: unknown) => reason);
      expect(other.openFiles).toBe(0);
      expect((other.names.get(`${DIRECTORY}/${name}`) as Inode).data.equals(data)).toBe(true);
      return error;
    };
    expect(await refused('photo.jpg', Buffer.from('x'))).toMatchObject({ code: 'store-foreign' });
    expect(await refused('segment-0000000002.log', Buffer.alloc(4096, 1))).toMatchObject({ code: 'store-foreign' });
    const { disk: another } = await smallLog('closed');
    expect(await refused('segment-0000000002.log', bytesOf(another))).toMatchObject({ code: 'store-foreign' });
    const newer = Buffer.from(bytesOf(disk));
    newer.writeUInt32LE(2, 8);
    const { crc32 } = await import('node:zlib');
    newer.writeUInt32LE(crc32(newer.subarray(0, 60)), 60);
    newer.copy(newer, 512, 0, 64);
    expect(await refused('segment-0000000002.log', newer)).toMatchObject({ code: 'store-newer' });
  });

  it('removes a segment that was being made, and leaves one without content, also when it is the only one', async () => {
    for (const data of [Buffer.alloc(0), Buffer.alloc(10), Buffer.alloc(4096)]) {
      const { disk, texts } = await smallLog('closed');
      add(disk, 'segment-0000000002.new', data);
      const bench = new DiskBench(disk);
      await bench.open();
      expect(bench.state.damage).toEqual([]);
      expect(disk.names.has(`${DIRECTORY}/segment-0000000002.new`)).toBe(false);
      expect(await bench.texts('q')).toEqual(texts);
      await bench.engine.close();
      for (const path of bench.segments) (disk.names.get(path) as Inode).data = data;
      const names = [...disk.names.keys()];
      if (data.length === 0) {
        for (const path of names) {
          await expect(bench.open()).rejects.toMatchObject({
            code: 'store-incomplete',
            message: expect.stringContaining(`is not whole: ${nameOf(path)} is empty`) as string,
          });
          expect(disk.openFiles).toBe(0);
          giveUp(disk, path);
        }
      }
      await bench.open();
      expect(bench.state.damage).toEqual(
        names.map(path => expect.stringMatching(`^${nameOf(path)} has no readable header`) as string),
      );
      for (const name of names) expect((disk.names.get(name) as Inode).data).toEqual(data);
      bench.append('q', ['new']);
      await bench.engine.close();
      await bench.open();
      expect(await bench.texts('q')).toEqual(['new']);
      expect(bench.state.damage).toHaveLength(names.length);
      await bench.engine.close();
    }
  });

  it('names the newest segment when it is missing, at each start until the one before it is given back', async () => {
    const bench = new DiskBench(new SimulatedDisk(), { segmentBytes: 4096 });
    await bench.open();
    const handles: number[] = [];
    while (bench.segments.length < 3) {
      handles.push(bench.append('q', [`message ${String(handles.length)}`], { bodyBytes: 900 }));
      await bench.engine.commit();
      await settled();
    }
    // The last one that was written to, and the one that was made ahead.
    await bench.engine.close();
    const [, newest, ahead] = bench.segments as [string, string, string];
    for (const path of [newest, ahead]) bench.disk.names.delete(path);
    await expect(bench.open()).rejects.toMatchObject({ code: 'store-incomplete' });
    giveUp(bench.disk, newest);
    for (let start = 0; start < 3; start++) {
      await bench.open();
      expect(bench.state.damage).toEqual([`${nameOf(newest)} is missing; what was in it is lost`]);
      expect((await bench.texts('q')).length).toBeGreaterThan(0);
      await bench.engine.close();
    }
    await bench.open();
    for (const handle of handles) bench.engine.ack('q', handle, 1);
    await bench.engine.commit();
    await settled();
    await bench.engine.close();
    await bench.open();
    expect(bench.state.damage).toEqual([]);
    await bench.engine.close();
  });

  it('does not miss what went in good order when the segment that would say so cannot be read', async () => {
    const bench = new DiskBench(new SimulatedDisk(), { segmentBytes: 4096 });
    await bench.open();
    let named = 0;
    for (let i = 0; i < 150; i++) {
      bench.engine.put(`key ${String(i % 20)}`, 'x'.repeat(200));
      await bench.engine.commit();
      await settled();
      const disk = bench.disk.afterKill();
      const written = bench.segments.filter(path => lastByte(bytesOf(disk, path)) > 1024);
      const newest = written.at(-1);
      if (newest === undefined || written.length < 2) continue;
      bytesOf(disk, newest).fill(0, 0, 1024);
      const damaged = new DiskBench(disk, { segmentBytes: 4096 });
      const { damage } = await damaged.open();
      expect(damage.join()).toContain(`${nameOf(newest)} has no readable header`);
      if (damage.some(text => text.includes('missing'))) named++;
      await damaged.engine.close();
    }
    expect(bench.segments[0]).not.toContain('0000000001');
    expect(named).toBeGreaterThan(0);
    await bench.engine.close();
  });

  it('mends a damaged header from its copy, and says so once', async () => {
    const { disk, texts } = await smallLog('closed');
    bytesOf(disk).fill(0, 0, 512);
    const bench = new DiskBench(disk);
    await bench.open();
    expect(bench.state.damage).toEqual([expect.stringContaining('its copy served')]);
    expect(await bench.texts('q')).toEqual(texts);
    await bench.engine.close();
    await bench.open();
    expect(bench.state.damage).toEqual([]);
    await bench.engine.close();
  });
});

describe('a read of a queue that ends meanwhile', () => {
  it.each(['whole', 'damaged'])('brings nothing, and tells of no loss, when what was there is %s', async how => {
    const { disk } = await smallLog('closed');
    const bench = new DiskBench(disk.afterKill());
    await bench.open();
    if (how === 'damaged') {
      const bytes = bytesOf(bench.disk);
      const at = bytes.indexOf('message 3');
      bytes[at] = (bytes[at] as number) ^ 1;
    }
    const reading = bench.engine.read('q', 0, 100, 100_000);
    expect(reading).toBeInstanceOf(Promise);
    bench.engine.drop('q');
    expect(await reading).toEqual([]);
    expect(bench.damage).toEqual([]);
    await bench.engine.close();
  });
});
