/** What the child can still do and reach while it unpacks, read from /proc. */
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { expect, it } from 'vitest';
import { DEFAULT_BOUNDS } from '../../stage0/unpack/bounds.ts';
import type { Job } from '../../stage0/unpack/message.ts';
import { testFolder } from './unpacking.ts';

const CHILD = fileURLToPath(new URL('../../stage0/unpack/child.ts', import.meta.url));

it('CVE-2014-9357: the child that decompresses and parses is confined', async () => {
  const folder = join(testFolder(), 'root');
  mkdirSync(folder);
  const job: Job = {
    job: 'unpack',
    parent: process.pid,
    folder,
    compression: 'gzip',
    algorithm: 'sha256',
    bounds: DEFAULT_BOUNDS,
    idleMs: 60_000,
  };
  const leaked = openSync('/', 'r');
  const child = spawn(process.execPath, [CHILD, JSON.stringify(job)], {
    stdio: ['pipe', 'pipe', 'inherit', leaked],
    env: {},
  });
  closeSync(leaked);
  const closed = new Promise(resolve => child.on('close', resolve));
  try {
    // an empty archive that lacks its last byte, so that the child waits
    const archive = gzipSync(Buffer.alloc(3_000_000));
    child.stdin?.write(archive.subarray(0, archive.length - 1));
    const proc = `/proc/${child.pid}`;
    await expect.poll(() => readlinkSync(`${proc}/root`), { timeout: 20_000 }).toBe(folder);
    const threads = () =>
      readdirSync(`${proc}/task`).map(id => readFileSync(`${proc}/task/${id}/status`, 'utf8'));
    // zlib's threads have been started, after the capabilities were given up
    const isWorker = (status: string) => /^Name:\s*libuv-worker/.test(status);
    await expect.poll(() => threads().some(isWorker), { timeout: 20_000 }).toBe(true);
    const main = readFileSync(`${proc}/status`, 'utf8');
    for (const status of [main, ...threads().filter(isWorker)]) {
      for (const set of ['CapPrm', 'CapEff', 'CapBnd']) {
        expect(status).toMatch(new RegExp(`^${set}:\\s*000000008820001b$`, 'm'));
      }
      expect(status).toMatch(/^CapInh:\s*0+$/m);
      expect(status).toMatch(/^NoNewPrivs:\s*1$/m);
    }
    for (const status of threads()) expect(status).toMatch(/^Seccomp:\s*2$/m);
    expect(readlinkSync(`${proc}/cwd`)).toBe(folder);
    const open = readdirSync(`${proc}/fd`).map(fd => readlinkSync(`${proc}/fd/${fd}`));
    expect(open.filter(path => path.startsWith('/') && path !== '/dev/null')).toEqual([]);
  } finally {
    child.kill('SIGKILL');
    await closed;
  }
});

it('who takes the child over gets no network, no program, no other process, no other root', () => {
  const victim = spawn('sleep', ['60'], { stdio: 'ignore' });
  try {
    const { stdout, stderr } = spawnSync(
      process.execPath,
      [fileURLToPath(new URL('taken-over.ts', import.meta.url)), String(victim.pid)],
      { encoding: 'utf8' },
    );
    expect(stderr).toBe('');
    expect(JSON.parse(stdout)).toEqual({
      chroot: 'EPERM',
      kill: 'EPERM',
      spawn: 'EPERM',
      connect: 'EPERM',
      // Threads and files are its work.
      thread: 'done',
      write: 'done',
    });
    expect(victim.exitCode ?? victim.signalCode).toBeNull();
  } finally {
    victim.kill('SIGKILL');
  }
});
