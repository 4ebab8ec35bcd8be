/**
 * Builds the C parts into dist/ with `cc` alone: no make, no node-gyp. The programs are static, because
 * the launcher and the app starter run where there is no libc (inside an image) or must not load one
 * that lies there. What is newer than its sources is left alone.
 */
import { execFile, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

const WARNINGS = ['-std=gnu11', '-Wall', '-Wextra', '-Werror', '-Wshadow', '-Wformat=2', '-Wvla'];
const HARDENING = [
  '-fstack-protector-strong',
  '-D_FORTIFY_SOURCE=2',
  '-fno-strict-aliasing',
  '-fno-delete-null-pointer-checks',
];
const LINK = ['-Wl,-z,relro,-z,now,-z,noexecstack', '-Wl,--gc-sections', '-Wl,--as-needed'];
const COMPILE = [
  ...WARNINGS,
  ...HARDENING,
  '-O2',
  '-ffunction-sections',
  '-fdata-sections',
  '-Inative',
];
const PROGRAM = [...COMPILE, ...LINK, '-static', '-s'];

interface Part {
  readonly name: string;
  /** C files, and folders whose C files all belong to it. */
  readonly sources: readonly string[];
  readonly flags: readonly string[];
}

/** @throws Error with one line that says what is missing, or the compiler's own words. */
export async function buildC(root: string): Promise<void> {
  const common = 'native/common';
  const parts: readonly Part[] = [
    {
      name: 'native.node',
      sources: [
        'native/addon.c',
        'native/digest-file.c',
        'native/net-namespace.c',
        'native/write-queue.c',
        'native/unpack-filter.c',
        `${common}/close-fds.c`,
      ],
      flags: [
        ...COMPILE,
        ...LINK,
        '-shared',
        '-Wl,-z,noseparate-code',
        '-fPIC',
        '-fvisibility=hidden',
        '-s',
        `-I${nodeHeaders(root)}`,
        '-DNAPI_VERSION=8',
      ],
    },
    { name: 'tspod', sources: ['native/starter.c', `${common}/die.c`], flags: PROGRAM },
    { name: 'launch', sources: ['stage1-flavors/launch', common], flags: PROGRAM },
    { name: 'stage2', sources: ['stage2', 'stage2/init', common], flags: PROGRAM },
    { name: 'vm', sources: ['stage2/vm', common], flags: PROGRAM },
  ];
  mkdirSync(join(root, 'dist'), { recursive: true });
  const newestHeader = Math.max(
    ...['native', common, 'stage1-flavors/launch', 'stage2', 'stage2/init', 'stage2/vm'].flatMap(
      folder => filesOf(root, folder, '.h').map(file => modified(join(root, file))),
    ),
    modified(join(root, 'scripts/build-c.ts')),
  );
  const stale = parts.filter(part => isStale(root, part, newestHeader));
  if (stale.length > 0) requireCompiler();
  await Promise.all(stale.map(part => compile(root, part)));
  linkCommand(root);
}

function isStale(root: string, part: Part, newestHeader: number): boolean {
  const target = join(root, 'dist', part.name);
  if (!existsSync(target)) return true;
  const newest = Math.max(
    newestHeader,
    ...sourcesOf(root, part).map(source => modified(join(root, source))),
  );
  return modified(target) <= newest;
}

async function compile(root: string, part: Part): Promise<void> {
  // Written aside: a part may be running, and half a file must never look like a whole one.
  const aside = `dist/.${part.name}.${process.pid}`;
  try {
    await run('cc', [...part.flags, '-o', aside, ...sourcesOf(root, part)], { cwd: root });
    renameSync(join(root, aside), join(root, 'dist', part.name));
  } catch (error) {
    rmSync(join(root, aside), { force: true });
    const text = error instanceof Error && 'stderr' in error ? String(error.stderr) : String(error);
    throw new Error(`build: can't compile ${part.name}:\n${text.trim()}`);
  }
}

function requireCompiler(): void {
  if (spawnSync('cc', ['--version'], { stdio: 'ignore' }).status !== 0) {
    throw new Error('build: there is no C compiler "cc"; install gcc and libc6-dev');
  }
}

/** Headers come with the Node that the project brings along; else with the one that runs this. */
function nodeHeaders(root: string): string {
  const arch = process.arch === 'arm64' ? 'arm64' : 'x64';
  const places = [
    join(root, 'node_modules', `node-linux-${arch}`, 'include/node'),
    join(root, '..', `node-linux-${arch}`, 'include/node'),
    join(dirname(dirname(process.execPath)), 'include/node'),
  ];
  const found = places.find(place => existsSync(join(place, 'node_api.h')));
  if (found === undefined) {
    throw new Error(
      `build: the headers of Node are missing (node_api.h, looked in ${places.join(', ')}); run npm ci, or install libnode-dev`,
    );
  }
  return found;
}

/** npm links the commands of dependencies only; this makes `npx tspod` work in a checkout too. */
function linkCommand(root: string): void {
  const bin = join(root, 'node_modules/.bin');
  if (!existsSync(bin) || existsSync(join(bin, 'tspod'))) return;
  rmSync(join(bin, 'tspod'), { force: true });
  symlinkSync('../../bin/tspod', join(bin, 'tspod'));
}

function sourcesOf(root: string, part: Part): readonly string[] {
  return part.sources.flatMap(source =>
    source.endsWith('.c') ? [source] : filesOf(root, source, '.c'),
  );
}

function filesOf(root: string, folder: string, ending: string): readonly string[] {
  return readdirSync(join(root, folder))
    .filter(name => name.endsWith(ending))
    .map(name => join(folder, name));
}

function modified(path: string): number {
  return statSync(path).mtimeMs;
}
