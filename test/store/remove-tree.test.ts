import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { removeTree } from '../../src/store/remove-tree.ts';
import { temporaryFolder } from './support.ts';

test('follows no symbolic link, and leaves the other names of a hard link', () => {
  using folder = temporaryFolder();
  const outside = join(folder.path, 'outside');
  mkdirSync(outside);
  writeFileSync(join(outside, 'precious'), 'x');
  const tree = join(folder.path, 'tree');
  mkdirSync(tree);
  symlinkSync(outside, join(tree, 'link'));
  symlinkSync('/nonexistent', join(tree, 'dangling'));
  symlinkSync('..', join(tree, 'up'));
  linkSync(join(outside, 'precious'), join(tree, 'hard'));
  expect(removeTree(tree)).toEqual([]);
  expect(existsSync(tree)).toBe(false);
  expect(readFileSync(join(outside, 'precious'), 'utf8')).toBe('x');
});

test('a link in the place of the tree is itself removed', () => {
  using folder = temporaryFolder();
  mkdirSync(join(folder.path, 'outside'));
  symlinkSync('outside', join(folder.path, 'tree'));
  expect(removeTree(join(folder.path, 'tree'))).toEqual([]);
  expect(readdirSync(folder.path)).toEqual(['outside']);
  expect(removeTree(join(folder.path, 'tree'))).toEqual([]);
});

test('names that are not UTF-8, modes without any permission, special files', () => {
  using folder = temporaryFolder();
  const tree = join(folder.path, 'tree');
  const closed = join(tree, 'closed');
  mkdirSync(closed, { recursive: true });
  const odd = Buffer.concat([Buffer.from(`${closed}/`), Buffer.from([0xff, 0xfe, 0x0a, 0x80])]);
  mkdirSync(odd);
  writeFileSync(Buffer.concat([odd, Buffer.from('/file')]), '');
  spawnSync('mkfifo', [join(tree, 'fifo')]);
  chmodSync(closed, 0);
  chmodSync(tree, 0);
  expect(removeTree(tree)).toEqual([]);
  expect(existsSync(tree)).toBe(false);
});

test('deeper than a path can say', () => {
  using folder = temporaryFolder();
  const tree = join(folder.path, 'tree');
  mkdirSync(tree);
  // 100 folders of 200 characters: five times PATH_MAX. Python can go down step by step, Node can't.
  const made = spawnSync('perl', [
    '-e',
    'chdir $ARGV[0] or die; for (1..100) { mkdir "d" x 200 or die; chdir "d" x 200 or die } open F, ">file" or die',
    tree,
  ]);
  expect(made.status, String(made.stderr)).toBe(0);
  expect(removeTree(tree)).toEqual([]);
  expect(readdirSync(folder.path)).toEqual([]);
});

test('30 000 entries', () => {
  using folder = temporaryFolder();
  const tree = join(folder.path, 'tree');
  for (let i = 0; i < 30; i++) {
    mkdirSync(join(tree, String(i)), { recursive: true });
    for (let j = 0; j < 1000; j++) symlinkSync('x', join(tree, String(i), String(j)));
  }
  expect(removeTree(tree)).toEqual([]);
  expect(existsSync(tree)).toBe(false);
});

test('an immutable file is reported, everything else goes', () => {
  using folder = temporaryFolder();
  const tree = join(folder.path, 'tree');
  mkdirSync(join(tree, 'a'), { recursive: true });
  for (const name of ['1', '2', '3']) writeFileSync(join(tree, 'a', name), '');
  const file = join(tree, 'a', '2');
  if (spawnSync('chattr', ['+i', file]).status !== 0) return;
  try {
    const failures = removeTree(tree);
    expect(failures).toHaveLength(1);
    expect(failures[0]).toMatch(/a\/2: .*immutable/);
    expect(readdirSync(join(tree, 'a'))).toEqual(['2']);
  } finally {
    spawnSync('chattr', ['-i', file]);
  }
  expect(removeTree(tree)).toEqual([]);
});
