/** The addon against the system calls' own promises; what ends the process runs in a child. */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { errnoOf } from '../../src/errors.ts';
import { artifact } from '../../src/sys/artifacts.ts';
import { openDigestFile } from '../../src/sys/digest-file.ts';
import { native } from '../../src/sys/native.ts';

const root = process.getuid?.() === 0;
let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'tspod-native-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const LOAD = `const n=require(${JSON.stringify(artifact('native.node'))});`;
const child = (script: string, env: NodeJS.ProcessEnv = {}) =>
  spawnSync(process.execPath, ['-e', LOAD + script], {
    encoding: 'utf8',
    env: { PATH: process.env.PATH, ...env },
  });

function errorOf(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  return undefined;
}

describe('locks and files', () => {
  test("flock: an open file of one's own is another holder", () => {
    const path = join(dir, 'lock');
    const a = openSync(path, 'w');
    const b = openSync(path, 'r');
    expect(native().flock(a, 'exclusive', false)).toBe(true);
    expect(native().flock(b, 'shared', false)).toBe(false);
    expect(native().flock(a, 'unlock', false)).toBe(true);
    expect(native().flock(b, 'shared', false)).toBe(true);
    closeSync(a);
    closeSync(b);
  });

  test.runIf(root)('writeFile: bytes, owner, setuid, nanoseconds; never over what is there', () => {
    const path = Buffer.concat([Buffer.from(join(dir, 'f')), Buffer.from([0xff])]);
    native().writeFile(path, Buffer.from('hi'), 0o4755, 5, 6, 1_234_567_890, 123_456_789);
    const st = statSync(path, { bigint: true });
    expect([st.mode & 0o7777n, st.uid, st.gid, st.mtimeNs]).toEqual([
      0o4755n,
      5n,
      6n,
      1_234_567_890_123_456_789n,
    ]);
    const error = errorOf(() => native().writeFile(path, Buffer.from('no'), 0o644, 0, 0, 0, 0));
    expect(errnoOf(error)).toBe('EEXIST');
  });

  test("errors look like Node's", () => {
    const path = join(dir, 'missing');
    expect(errorOf(() => native().open(path, constants.O_RDONLY, 0))).toMatchObject({
      code: 'ENOENT',
      errno: -2,
      syscall: 'open',
      path,
      message: `ENOENT: no such file or directory, open '${path}'`,
    });
  });

  test("arguments that can't be right are refused", () => {
    expect(() => native().open('a\0b', 0, 0)).toThrow('NUL');
    expect(() => native().lchown(dir, -1, 0)).toThrow('integer');
    expect(() => native().mkdir(dir, 1.5)).toThrow('integer');
    expect(errnoOf(errorOf(() => native().open('x'.repeat(5000), 0, 0)))).toBe('ENAMETOOLONG');
  });

  test('openInRoot: links stay within', () => {
    symlinkSync('/etc/passwd', join(dir, 'out'));
    symlinkSync('../../../../../in', join(dir, 'up'));
    writeFileSync(join(dir, 'in'), 'inside');
    const fd = openSync(dir, 'r');
    expect(errnoOf(errorOf(() => native().openInRoot(fd, 'out', constants.O_RDONLY, 0)))).toBe(
      'ENOENT',
    );
    const file = native().openInRoot(fd, 'up', constants.O_RDONLY, 0);
    expect(readFileSync(file, 'utf8')).toBe('inside');
    closeSync(file);
    closeSync(fd);
  });

  test.runIf(root)('extended attributes, times of a link', () => {
    const path = join(dir, 'x');
    writeFileSync(path, '');
    native().lsetxattr(path, 'trusted.a', Buffer.from([0, 255]));
    expect(native().llistxattr(path).map(String)).toContain('trusted.a');
    expect([...native().lgetxattr(path, 'trusted.a')]).toEqual([0, 255]);
    native().lutimes(path, -5, 1, 7, 999_999_999);
    expect(statSync(path, { bigint: true }).mtimeNs).toBe(7_999_999_999n);
  });
});

describe('a file that a thread writes and hashes', () => {
  test('the bytes and their digest, whatever is collected meanwhile', () => {
    for (const algorithm of ['sha256', 'sha512'] as const) {
      const path = join(dir, algorithm);
      const fd = openSync(path, 'w');
      const output = openDigestFile(fd, algorithm);
      const hash = createHash(algorithm);
      for (let i = 0; i < 200; i++) {
        const piece = Buffer.alloc(i * 777, i);
        hash.update(piece);
        output.write(piece);
      }
      expect(output.end()).toBe(hash.digest('hex'));
      output.close();
      closeSync(fd);
      expect(createHash(algorithm).update(readFileSync(path)).digest('hex')).toBe(
        createHash(algorithm)
          .update(Buffer.concat(Array.from({ length: 200 }, (_, i) => Buffer.alloc(i * 777, i))))
          .digest('hex'),
      );
    }
  });

  test('nothing is the digest of nothing', () => {
    const fd = openSync(join(dir, 'empty'), 'w');
    const output = openDigestFile(fd, 'sha256');
    expect(output.end()).toBe(createHash('sha256').digest('hex'));
    closeSync(fd);
  });

  test('the disk is full: told at the end', () => {
    const fd = openSync('/dev/full', 'w');
    const output = openDigestFile(fd, 'sha256');
    for (let i = 0; i < 50; i++) output.write(Buffer.alloc(100_000));
    expect(errnoOf(errorOf(() => output.end()))).toBe('ENOSPC');
    closeSync(fd);
  });

  test('one that has ended, and what is none, are refused', () => {
    const fd = openSync(join(dir, 'ended'), 'w');
    const { digestFile, digestFileEnd, digestFileWrite } = native();
    const file = digestFile(fd, 'sha256');
    digestFileEnd(file);
    expect(() => digestFileEnd(file)).toThrow(TypeError);
    expect(() => digestFileWrite(file, Buffer.alloc(1))).toThrow(TypeError);
    expect(() => Reflect.apply(digestFileEnd, undefined, [{}])).toThrow(TypeError);
    expect(() => Reflect.apply(digestFile, undefined, [fd, 'md5'])).toThrow(TypeError);
    closeSync(fd);
    expect(errnoOf(errorOf(() => digestFile(fd, 'sha256')))).toBe('EBADF');
  });
});

describe('exec', () => {
  const STATUS =
    'grep -E "^Sig(Blk|Ign)" /proc/self/status | cut -f2; ulimit -Sn; ls /proc/self/fd | wc -l';

  test('undoes Node: SIGPIPE, RLIMIT_NOFILE, descriptors', () => {
    const script = `n.exec('/bin/sh',['sh','-c',${JSON.stringify(STATUS)}],['PATH='+process.env.PATH,'TSPOD_START=x'],[])`;
    expect(child(script, { TSPOD_START: '1:0:0:200:0' }).stdout.split('\n').slice(0, 4)).toEqual([
      '0'.repeat(16),
      '0'.repeat(16),
      '512',
      '4',
    ]);
  });

  test('restores what the caller ignored and blocked', () => {
    const script = `n.exec('/bin/sh',['sh','-c',${JSON.stringify(STATUS)}],['PATH='+process.env.PATH],[])`;
    const [blocked, ignored] = child(script, { TSPOD_START: '1:1001:200:400:0' }).stdout.split(
      '\n',
    );
    expect([blocked, ignored]).toEqual(['0000000000000200', '0000000000001001']);
  });

  test('keeps the descriptors that are named, and the environment that is given', () => {
    const script = `const fd=require('fs').openSync('/etc','r');require('fs').openSync('/','r');n.exec('/bin/sh',['sh','-c','readlink /proc/$$/fd/'+fd+'; env | grep -v PWD'],['A=1','TSPOD_START=y'],[fd])`;
    expect(child(script).stdout).toMatch(/^\/etc\nA=1\n(_=.*\n)?$/);
  });

  test('a missing program is an exception, and Node goes on', () => {
    expect(child(`try{n.exec('/no',['x'],[],[])}catch(e){console.log(e.code)}`).stdout).toBe(
      'ENOENT\n',
    );
  });
});

describe.runIf(root)('confinement', () => {
  test('chroot and confine', () => {
    const script = `n.confine(1n);console.log(require('fs').readFileSync('/proc/thread-self/status','utf8').match(/(Cap|NoNew).*/g).join(' '))`;
    expect(child(script).stdout.replace(/\t/g, '')).toBe(
      'CapInh:0000000000000000 CapPrm:0000000000000001 CapEff:0000000000000001 CapBnd:0000000000000001 CapAmb:0000000000000000 NoNewPrivs:1\n',
    );
  });

  test('dieWithParent: a wrong parent is gone already', () => {
    expect(
      child(
        `try{n.dieWithParent(1)}catch(e){console.log(e.code)};n.dieWithParent(process.ppid);console.log('ok')`,
      ).stdout,
    ).toBe('ESRCH\nok\n');
  });

  test('pidfd', async () => {
    const sleeper = spawn('sleep', ['60']);
    const fd = native().pidfdOpen(sleeper.pid ?? 0);
    const ended = new Promise(resolve => sleeper.on('exit', (_, signal) => resolve(signal)));
    native().pidfdSend(fd, 15);
    expect(await ended).toBe('SIGTERM');
    closeSync(fd);
  });
});

test('sealing by fs-verity: done, or refused as what the file system has not', () => {
  const file = join(dir, 'sealed');
  writeFileSync(file, 'content');
  expect(native().hasVerity(file)).toBe(false);
  const error = errorOf(() => native().enableVerity(file));
  if (error === undefined) {
    expect(native().hasVerity(file)).toBe(true);
    expect(errnoOf(errorOf(() => openSync(file, 'r+')))).toBe('EPERM');
    expect(errnoOf(errorOf(() => native().enableVerity(file)))).toBe('EEXIST');
  } else expect(['ENOTTY', 'ENOTSUP']).toContain(errnoOf(error));
  symlinkSync(file, join(dir, 'link-to-sealed'));
  expect(errnoOf(errorOf(() => native().enableVerity(join(dir, 'link-to-sealed'))))).toBe('ELOOP');
  expect(errnoOf(errorOf(() => native().hasVerity(join(dir, 'nothing'))))).toBe('ENOENT');
});
