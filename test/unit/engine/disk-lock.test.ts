/** One process owns a data directory, and nobody else may look into it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, onTestFinished } from 'vitest';
import { appendTo } from '../../../src/engine/conformance/batches.js';
import { diskEngine, isEngine, type EngineHost } from '../../../src/engine/index.js';
import { machineIdentity } from '../../../src/process-identity.js';
import { TestClock } from '../../../src/testing/test-clock.js';
import { temporaryFolder } from '../../helpers/scene.js';

function newHost(): EngineHost {
  const ignore = (): void => undefined;
  return {
    clock: new TestClock(),
    storeBytes: undefined,
    failed: ignore,
    roomAgain: ignore,
    arrived: ignore,
    damaged: ignore,
    warn: ignore,
  };
}

const LOCKED = { code: 'store-locked' };

/** A process that holds a directory until it is killed. */
async function holder(directory: string): Promise<{ pid: number; kill(): Promise<void> }> {
  const entry = fileURLToPath(new URL('../../../dist/cjs/engine/index.js', import.meta.url));
  const clock = fileURLToPath(new URL('../../../dist/cjs/clock.js', import.meta.url));
  const script = `
    const { diskEngine } = require(${JSON.stringify(entry)});
    const { systemClock } = require(${JSON.stringify(clock)});
    const ignore = () => undefined;
    const host = { clock: systemClock, storeBytes: undefined, failed: ignore, roomAgain: ignore, arrived: ignore, warn: ignore };
    diskEngine({ directory: ${JSON.stringify(directory)} }).open(host).then(() => process.stdout.write('open'));
    setInterval(ignore, 1000);`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  onTestFinished(() => void child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  return {
    pid: child.pid as number,
    async kill() {
      child.kill('SIGKILL');
      await exited;
    },
  };
}

describe('the data directory', () => {
  it('is refused to a second engine in the same process, and free again after close', async () => {
    const directory = join(await temporaryFolder(), 'deep', 'data');
    const [first, second] = [diskEngine({ directory }), diskEngine({ directory })];
    await first.open(newHost());
    await expect(second.open(newHost())).rejects.toMatchObject(LOCKED);
    await expect(first.open(newHost())).rejects.toMatchObject(LOCKED);
    await first.close();
    await second.open(newHost());
    await second.close();
  });

  it('is refused while another process has it, which is named, and taken over when that was killed', async () => {
    const directory = join(await temporaryFolder(), 'data');
    const other = await holder(directory);
    const engine = diskEngine({ directory });
    await expect(engine.open(newHost())).rejects.toMatchObject({
      ...LOCKED,
      message: expect.stringContaining(String(other.pid)),
    });
    await other.kill();
    await engine.open(newHost());
    await engine.close();
  });

  it('is refused without a name for its owner when the owner file is gone', async () => {
    const directory = join(await temporaryFolder(), 'data');
    const other = await holder(directory);
    await rm(join(directory, 'owner.lock'));
    await expect(diskEngine({ directory }).open(newHost())).rejects.toMatchObject({
      ...LOCKED,
      message: expect.stringContaining('another process'),
    });
    await other.kill();
  });

  it('is guarded by the owner file alone where the system has no abstract sockets', async () => {
    const platform = Object.getOwnPropertyDescriptor(process, 'platform') as PropertyDescriptor;
    Object.defineProperty(process, 'platform', { ...platform, value: 'darwin' });
    onTestFinished(() => void Object.defineProperty(process, 'platform', platform));
    const directory = join(await temporaryFolder(), 'data');
    await mkdir(directory);
    const owner = (pid: number, machine = machineIdentity()): Promise<void> =>
      writeFile(join(directory, 'owner.lock'), JSON.stringify({ pid, machine }));
    const engine = diskEngine({ directory });
    await owner(process.ppid);
    await expect(engine.open(newHost())).rejects.toMatchObject(LOCKED);
    const ended = spawn(process.execPath, ['-e', '']);
    await once(ended, 'exit');
    for (const write of [
      () => owner(ended.pid as number),
      () => owner(process.ppid, 'elsewhere'),
      () => owner(process.pid),
    ]) {
      await write();
      await engine.open(newHost());
      await engine.close();
    }
  });

  it('is taken over from an owner file that its process left half written', async () => {
    const directory = join(await temporaryFolder(), 'data');
    await mkdir(directory);
    await writeFile(join(directory, 'owner.lock'), '{"pid":');
    const engine = diskEngine({ directory });
    await engine.open(newHost());
    await engine.close();
  });

  it('and its files are private', async () => {
    const directory = join(await temporaryFolder(), 'data');
    const engine = diskEngine({ directory });
    await engine.open(newHost());
    expect((await stat(directory)).mode & 0o777).toBe(0o700);
    const names = await readdir(directory);
    expect(names).toHaveLength(2);
    for (const name of names) expect((await stat(join(directory, name))).mode & 0o777).toBe(0o600);
    await engine.close();
  });

  it('is refused when it is no directory, or holds other things, and left as it is', async () => {
    const folder = await temporaryFolder();
    const file = join(folder, 'file');
    await writeFile(file, 'mine');
    await expect(diskEngine({ directory: file }).open(newHost())).rejects.toMatchObject({ code: 'store-unreadable' });
    await expect(diskEngine({ directory: folder }).open(newHost())).rejects.toMatchObject({ code: 'store-foreign' });
    expect(await readdir(folder)).toEqual(['file']);
  });

  it('is unreadable when a segment is, and not locked afterwards', async () => {
    const directory = join(await temporaryFolder(), 'data');
    await mkdir(join(directory, 'segment-0000000001.log'), { recursive: true });
    const engine = diskEngine({ directory });
    for (let i = 0; i < 2; i++)
      await expect(engine.open(newHost())).rejects.toMatchObject({ code: 'store-unreadable' });
    await chmod(directory, 0o700);
  });

  it('belongs to an engine, which is known by its shape', () => {
    expect(isEngine(diskEngine({ directory: 'x' }))).toBe(true);
    for (const other of [undefined, null, 'disk', {}, { kind: 'disk' }]) expect(isEngine(other)).toBe(false);
  });

  it('gives space back on the real disk', async () => {
    const directory = join(await temporaryFolder(), 'data');
    const engine = diskEngine({ directory, segmentBytes: 64 * 1024 });
    await engine.open(newHost());
    for (let i = 0; i < 400; i++) {
      const [handle] = engine.append([appendTo(['q'], ['x'], { first: i + 1, bodyBytes: 4000 })]) as [number];
      engine.ack('q', handle, 1);
      await engine.commit();
    }
    await engine.close();
    const segments = (await readdir(directory)).filter(name => name.endsWith('.log'));
    expect(segments.length).toBeLessThanOrEqual(4);
    await engine.open(newHost());
    await engine.close();
  });
});
