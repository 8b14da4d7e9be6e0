/** What the disk engine does when the disk refuses: it fails for good, waits for room, or goes on, and never lies. */
import { describe, expect, it } from 'vitest';
import { SyncFailed } from '../../../src/engine/disk/shortage.js';
import { DiskBench, settled, ticking, until } from '../../helpers/disk-bench.js';
import { SimulatedDisk, type Fault, type Inode, type Operation } from '../../helpers/simulated-files.js';

/** Work that touches everything; says which texts were promised, and the error that ended it. */
async function standardRun(bench: DiskBench): Promise<{ promised: string[]; error: unknown }> {
  const promised: string[] = [];
  try {
    await bench.open();
    for (let i = 0; i < 12; i++) {
      const text = `message ${String(i)}`;
      const handle = bench.append('q', [text], { bodyBytes: 120 });
      const gone = bench.append('other', ['gone'], { bodyBytes: 2000 });
      bench.engine.put(`key ${String(i % 3)}`, text);
      await bench.engine.commit();
      promised.push(text);
      bench.engine.ack('other', gone, 1);
      bench.engine.attempt('q', handle, 1);
      await bench.engine.commit();
    }
    return { promised, error: undefined };
  } catch (error) {
    return { promised, error };
  } finally {
    await bench.engine.close();
  }
}

const SMALL = { segmentBytes: 3000 };

/** Sends messages through a queue, each acknowledged, until something is so. */
async function through(bench: DiskBench, isSo: () => boolean): Promise<void> {
  for (let i = 0; !isSo(); i++) {
    expect(i).toBeLessThan(100);
    bench.engine.ack('q', bench.append('q', ['x'], { bodyBytes: 400 }), 1);
    await bench.engine.commit();
    await settled();
  }
}

/** From the first file on that is removed its folder cannot be synced; that has been tried when it is fulfilled. */
async function giveBackInVain(bench: DiskBench, code: string): Promise<void> {
  let isGone = false;
  bench.disk.fault = operation => {
    isGone ||= operation === 'unlink';
    return isGone && operation === 'syncDirectory' ? { code } : undefined;
  };
  await through(bench, () => isGone);
}

describe('the disk engine on a failing disk', () => {
  it('keeps what it promised whichever operation fails, and opens again', async () => {
    const whole = new DiskBench(new SimulatedDisk(), SMALL);
    expect((await standardRun(whole)).promised).toHaveLength(12);
    const operations = [...whole.disk.log];
    const files: Operation[] = ['open', 'read', 'write', 'sync', 'close', 'rename', 'unlink'];
    expect(new Set(operations)).toEqual(new Set([...files, 'makeDirectory', 'list', 'syncDirectory', 'free']));
    const outcomes = new Set<string>();
    for (let index = 0; index < operations.length; index++) {
      for (const fault of [{ code: 'EIO' }, { code: 'EIO', written: 100 }, { code: 'ENOSPC' }] satisfies Fault[]) {
        if ('written' in fault && operations[index] !== 'write') continue;
        const bench = new DiskBench(new SimulatedDisk(), SMALL);
        const { disk, clock } = bench;
        disk.fault = (_, at) => (at === index ? fault : undefined);
        // What waits for room tries again after a while.
        const { promised, error } = await ticking(clock, standardRun(bench));
        const where = `operation ${String(index)} (${String(operations[index])}), ${JSON.stringify(fault)}`;
        if (error !== undefined)
          expect(error, where).toMatchObject({ code: expect.stringMatching(/^store-(failed|unreadable|full)$/) });
        expect(bench.failures.length, where).toBeLessThanOrEqual(1);
        expect(disk.openFiles, where).toBe(0);
        outcomes.add(error === undefined ? 'went on' : (error as { code: string }).code);
        const again = new DiskBench(disk.afterKill(), SMALL);
        await again.open();
        expect(again.state.damage, where).toEqual([]);
        expect((await again.texts('q')).slice(0, promised.length), where).toEqual(promised);
        await again.engine.close();
      }
    }
    expect([...outcomes].sort()).toEqual(['store-failed', 'store-unreadable', 'went on']);
  }, 60_000);

  it('gives no receipt after a failed sync, ever, and says once why', async () => {
    const bench = new DiskBench();
    await bench.open();
    const { engine, disk } = bench;
    bench.append('q', ['a']);
    await engine.commit();
    disk.fault = operation => (operation === 'sync' ? { code: 'EIO' } : undefined);
    bench.append('q', ['b']);
    engine.put('k', 'v');
    const refused = { code: 'store-failed' };
    await expect(engine.commit()).rejects.toMatchObject(refused);
    disk.fault = () => undefined;
    await expect(engine.commit()).rejects.toMatchObject(refused);
    const calls = [
      () => bench.append('q', ['c']),
      () => engine.ack('q', 1, 1),
      () => engine.move('q', 'r'),
      () => engine.attempt('q', 1, 1),
      () => engine.drop('q'),
      () => engine.put('k', 'v'),
      () => engine.floor('0'.repeat(32), 1),
      () => engine.read('q', 0, 1, 1),
    ];
    for (const call of calls) expect(call).toThrow(expect.objectContaining(refused));
    expect(bench.failures).toHaveLength(1);
    expect(bench.failures[0]?.message).toContain('Look at the disk');
    expect(engine.usage('q').messages).toBe(2);
    bench.clock.tick(3_600_000);
    await engine.close();
    expect(bench.failures).toHaveLength(1);
    // The same object opens the store anew.
    await bench.open();
    expect((await bench.texts('q'))[0]).toBe('a');
    await bench.engine.close();
  });

  it.each([
    ['folder that has got a segment', 'syncDirectory'],
    ['segment that grows', 'sync'],
  ] as const)(
    'does not trust the next sync of the %s when one has failed, though it said that space ran out',
    async (_, kind) => {
      const bench = new DiskBench();
      await bench.open();
      let failed = 0;
      const fail = (): void => {
        bench.disk.fault = operation => (operation === kind && failed++ === 0 ? { code: 'ENOSPC' } : undefined);
      };
      if (kind === 'syncDirectory') fail();
      bench.append('q', ['fills a quarter'], { bodyBytes: 8 * 1024 });
      await bench.engine.commit();
      // The next segment is made ahead.
      await settled();
      if (kind === 'sync') {
        fail();
        bench.append('q', ['larger than a segment'], { bodyBytes: 40 * 1024 });
      }
      await expect(bench.engine.commit()).rejects.toMatchObject({ code: 'store-failed' });
      expect(bench.failures).toHaveLength(1);
      expect(failed).toBe(1);
      await bench.engine.close();
    },
  );

  it('writes a group again that it finds after its sync has failed, before it builds on it', async () => {
    const bench = new DiskBench();
    await bench.open();
    bench.append('q', ['a']);
    await bench.engine.commit();
    bench.disk.fault = operation => (operation === 'sync' ? { code: 'EIO' } : undefined);
    bench.append('q', ['b'], { bodyBytes: 9000 });
    await expect(bench.engine.commit()).rejects.toMatchObject({ code: 'store-failed' });
    await bench.engine.close();
    bench.disk.fault = () => undefined;
    // The system still holds what it could not write, and takes it for written.
    await bench.open();
    expect(await bench.texts('q')).toEqual(['a', 'b']);
    bench.append('q', ['c']);
    await bench.engine.commit();
    const after = new DiskBench(bench.disk.afterPowerCut(() => 0.999));
    await bench.engine.close();
    await after.open();
    expect(after.state.damage).toEqual([]);
    expect(await after.texts('q')).toEqual(['a', 'b', 'c']);
    await after.engine.close();
  });

  it('refuses appends when the disk is full, takes acknowledgements, and recovers by itself', async () => {
    const bench = new DiskBench(new SimulatedDisk(), { segmentBytes: 16 * 1024, reserveBytes: 40 * 1024 });
    bench.disk.capacity = 160 * 1024;
    await bench.open();
    const { engine, clock } = bench;
    const handles: number[] = [];
    let refusal: unknown;
    while (refusal === undefined) {
      try {
        handles.push(bench.append('q', [`message ${String(handles.length)}`], { bodyBytes: 500 }));
        await engine.commit();
      } catch (error) {
        refusal = error;
      }
    }
    expect(refusal).toMatchObject({ code: 'store-full' });
    expect(bench.warnings.join()).toContain('nearly full');
    expect(handles.length).toBeGreaterThan(100);
    const before = engine.usage('q');
    expect(() => bench.append('r', ['x'], { bodyBytes: 5000 })).toThrow(
      expect.objectContaining({ code: 'store-full' }),
    );
    expect(engine.usage('q')).toEqual(before);
    // Many acknowledgements, each durable.
    for (const handle of handles.slice(0, -1)) {
      engine.ack('q', handle, 1);
      await engine.commit();
    }
    for (let i = 0; bench.roomAgain === 0; i++) {
      expect(i).toBeLessThan(100);
      clock.tick(500);
      await settled();
    }
    bench.append('q', ['again']);
    await engine.commit();
    expect(await bench.texts('q')).toEqual([`message ${String(handles.length - 1)}`, 'again']);
    expect(bench.failures).toEqual([]);
    await engine.close();
    expect(bench.disk.openFiles).toBe(0);
  });

  it('waits when others have filled the disk, promising nothing meanwhile, and goes on when there is room', async () => {
    const bench = new DiskBench(new SimulatedDisk(), { segmentBytes: 8 * 1024 });
    await bench.open();
    const { engine, disk, clock } = bench;
    bench.append('q', ['a'], { bodyBytes: 3000 });
    await engine.commit();
    await settled();
    disk.capacity = disk.used;
    bench.append('q', ['b'], { bodyBytes: 20_000 });
    let isDone = false;
    const commit = engine.commit().then(() => (isDone = true));
    for (let i = 0; i < 5; i++) {
      await settled();
      clock.tick(500);
    }
    expect(isDone).toBe(false);
    expect(bench.failures).toEqual([]);
    disk.capacity = Infinity;
    clock.tick(500);
    await commit;
    expect(await bench.texts('q')).toEqual(['a', 'b']);
    await engine.close();
  });

  it('waits for room to write into what it has, as on a file system that copies on write', async () => {
    const bench = new DiskBench();
    await bench.open();
    let refusals = 3;
    bench.disk.fault = operation =>
      operation === 'write' && refusals-- > 0 ? { code: 'EDQUOT', written: 60 } : undefined;
    bench.append('q', ['a'], { bodyBytes: 300 });
    await ticking(bench.clock, bench.engine.commit());
    expect(refusals).toBeLessThanOrEqual(0);
    await bench.engine.close();
    await bench.open();
    expect(await bench.texts('q')).toEqual(['a']);
    await bench.engine.close();
  });

  it('is closed at once when the disk is full, with an error for those who wait', async () => {
    const bench = new DiskBench(new SimulatedDisk(), { segmentBytes: 8 * 1024 });
    await bench.open();
    bench.append('q', ['a']);
    await bench.engine.commit();
    bench.disk.capacity = bench.disk.used;
    bench.append('q', ['b'], { bodyBytes: 20_000 });
    const commit = bench.engine.commit();
    const refused = expect(commit).rejects.toMatchObject({ code: 'store-failed' });
    await settled();
    await bench.engine.close();
    await refused;
    expect(bench.failures).toEqual([]);
    bench.disk.capacity = Infinity;
    await bench.open();
    expect(await bench.texts('q')).toEqual(['a']);
    await bench.engine.close();
  });

  it('is closed only when a mark that was begun before is written', async () => {
    const bench = new DiskBench();
    await bench.open();
    const { engine, disk, clock } = bench;
    bench.append('q', ['a']);
    await engine.commit();
    let isSynced = false;
    const step = disk.step.bind(disk);
    const begun = new Promise<void>(resolve => {
      disk.step = async (operation, path) => {
        if (operation === 'sync') {
          resolve();
          await settled();
          isSynced = true;
        }
        return step(operation, path);
      };
    });
    clock.tick(250);
    await begun;
    await engine.close();
    expect(isSynced).toBe(true);
    expect(disk.openFiles).toBe(0);
  });

  it('keeps a segment that cannot be deleted, and those behind it, and says so once', async () => {
    const bench = new DiskBench(new SimulatedDisk(), SMALL);
    await bench.open();
    bench.disk.fault = operation => (operation === 'unlink' ? { code: 'EPERM' } : undefined);
    for (let i = 0; i < 20; i++) {
      bench.engine.ack('q', bench.append('q', ['x'], { bodyBytes: 400 }), 1);
      await bench.engine.commit();
      await settled();
    }
    const size = bench.segments.length;
    expect(size).toBeGreaterThan(3);
    expect(bench.segments[0]).toContain('0001');
    expect(bench.warnings).toEqual([expect.stringContaining('cannot be given back')]);
    bench.disk.fault = () => undefined;
    bench.engine.put('k', 'v');
    await bench.engine.commit();
    await until(() => bench.segments.length < 3);
    expect(bench.failures).toEqual([]);
    await bench.engine.close();
  });

  it('gives a segment back later when there was no descriptor to sync its folder with', async () => {
    const bench = new DiskBench(new SimulatedDisk(), SMALL);
    await bench.open();
    await giveBackInVain(bench, 'EMFILE');
    expect(bench.warnings).toEqual([expect.stringContaining('cannot be given back')]);
    expect(bench.disk.openFiles).toBe(bench.segments.length + 1);
    bench.disk.fault = () => undefined;
    await through(bench, () => bench.disk.openFiles === bench.segments.length);
    expect(bench.failures).toEqual([]);
    await bench.engine.close();
  });

  it('makes one segment at a time, whoever wants it', async () => {
    const bench = new DiskBench(new SimulatedDisk(), SMALL);
    await bench.open();
    const { disk } = bench;
    disk.capacity = disk.used;
    bench.append('q', ['fills more than a quarter'], { bodyBytes: 1000 });
    await bench.engine.commit();
    await settled();
    expect(bench.warnings).toEqual([expect.stringContaining('nearly full')]);
    disk.capacity = Infinity;
    // While one is made that is needed, it is time to look for room for one ahead.
    let isMade = false;
    disk.fault = (operation, _, path) => {
      if (operation === 'open' && path.endsWith('.new') && !isMade) {
        isMade = true;
        bench.clock.tick(500);
      }
      return undefined;
    };
    bench.engine.put('k', 'x'.repeat(3000));
    await bench.engine.commit();
    await settled();
    expect(isMade).toBe(true);
    expect(bench.failures).toEqual([]);
    await bench.engine.close();
  });

  it('stops when the folder for what is damaged cannot be made durable', async () => {
    const bench = new DiskBench(new SimulatedDisk(), SMALL);
    await bench.open();
    bench.append('q', ['one'], { bodyBytes: 600 });
    await bench.engine.close();
    await bench.open();
    const first = bench.disk.names.get(bench.segments[0] as string) as Inode;
    first.data.fill(0xff, first.data.indexOf('one'), first.data.indexOf('one') + 3);
    expect(await bench.texts('q')).toEqual([]);
    bench.disk.makeDirectory = () => Promise.reject(new SyncFailed('EIO'));
    await through(bench, () => bench.failures.length > 0);
    expect(bench.failures).toMatchObject([{ code: 'store-failed' }]);
    await bench.engine.close();
  });

  it('stops when the folder cannot be synced that a segment was given back of', async () => {
    const bench = new DiskBench(new SimulatedDisk(), SMALL);
    await bench.open();
    await giveBackInVain(bench, 'ENOSPC');
    expect(bench.failures).toMatchObject([{ code: 'store-failed' }]);
    await bench.engine.close();
  });
});
