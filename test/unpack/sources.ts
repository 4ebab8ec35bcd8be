/** Trees to pack, and GNU tar packing them. */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  ftruncateSync,
  linkSync,
  mkdirSync,
  openSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { native } from '../../src/sys/native.ts';

/** A tree with everything that a format may or may not keep. */
export function makeTree(root: string): void {
  mkdirSync(join(root, 'a/b'), { recursive: true });
  writeFileSync(join(root, 'a/file'), 'content');
  writeFileSync(join(root, 'a/large'), Buffer.alloc(3_000_001, 'large '));
  writeFileSync(join(root, 'empty'), '');
  writeFileSync(join(root, 'exactly'), 'x'.repeat(512));
  linkSync(join(root, 'a/file'), join(root, 'a/b/hard'));
  symlinkSync('../nowhere/$x', join(root, 'a/b/soft'));
  linkSync(join(root, 'a/b/soft'), join(root, 'soft-hard'));
  const { lchown, mknod, lutimes } = native();
  lchown(join(root, 'a/b/soft'), 12, 34);
  lutimes(join(root, 'a/b/soft'), 5, 6, 1_000_000_007, 0);
  lchown(join(root, 'a/file'), 1234, 65_534);
  execFileSync('chmod', ['6755', join(root, 'a/file')]);
  execFileSync('chmod', ['1777', join(root, 'a/b')]);
  execFileSync('chmod', ['0000', join(root, 'empty')]);
  mknod(join(root, 'fifo'), 0o010640, 0, 0);
  mknod(join(root, 'char'), 0o020660, 5, 1);
  mknod(join(root, 'block'), 0o060600, 259, 70);
  lutimes(join(root, 'a'), 0, 0, 123_456_789, 0);
}

export function addWhatPaxKeeps(root: string): void {
  const { lsetxattr, lutimes } = native();
  const deep = join(root, 'd'.repeat(120), 'e'.repeat(120), 'f'.repeat(120));
  mkdirSync(deep, { recursive: true });
  writeFileSync(join(deep, 'g'.repeat(200)), 'deep');
  symlinkSync('t'.repeat(300), join(deep, 'long-link'));
  writeFileSync(
    Buffer.concat([Buffer.from(root), Buffer.from('/caf\xe9 \xff\n', 'latin1')]),
    'bytes',
  );
  lsetxattr(join(root, 'a/file'), 'user.with=equals', Buffer.from([0, 1, 10, 255]));
  lsetxattr(join(root, 'a/file'), 'user.empty', Buffer.alloc(0));
  lsetxattr(join(root, 'a'), 'trusted.folder', Buffer.from('yes'));
  lsetxattr(join(root, 'a/b/soft'), 'trusted.link', Buffer.from('yes'));
  // cap_net_raw=ep, version 2
  const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex');
  lsetxattr(join(root, 'a/large'), 'security.capability', capability);
  lutimes(join(root, 'a/large'), 0, 0, 1_234_567_890, 123_456_789);
  lutimes(join(root, 'a/b/soft'), 0, 0, -5, 250_000_000);
  lutimes(join(root, 'a'), 0, 0, 1_600_000_000, 1);
}

export function makeSparse(root: string): void {
  const file = (name: string, size: number, at: readonly number[]) => {
    const fd = openSync(join(root, name), 'w');
    for (const position of at) writeSync(fd, Buffer.alloc(4096, name), 0, 4096, position);
    ftruncateSync(fd, size);
    closeSync(fd);
  };
  file('hole-only', 10_000_000, []);
  file('hole-first', 1_000_000, [999_424 - 4096]);
  file(
    'holes',
    50_000_001,
    Array.from({ length: 60 }, (_, index) => index * 819_200),
  );
}

export function pack(root: string, ...flags: string[]): Buffer {
  return execFileSync('tar', [...flags, '-cf', '-', '-C', root, '.'], {
    maxBuffer: 1 << 30,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
}
