/**
 * The keeper of a machine against machines that say anything: in the place of QEMU stands a program that writes bytes
 * into the port. Built with sanitizers.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { encodePlan, type Step } from '../../src/pod/launch-plan.ts';
import { cases, fuzzTimeout } from '../support/fuzz.ts';

const source = (path: string) => new URL(`../../${path}`, import.meta.url).pathname;
const HELLO = 1;
const FILE = 2;
const REMOVE = 3;
const DATA = 5;
const EOF = 6;
const STATUS = 11;
const LOG = 14;
const END = 15;

let work: string;
let keeper: string;
beforeAll(() => {
  work = mkdtempSync(join(tmpdir(), 'tspod-keeper-'));
  keeper = join(work, 'vm');
  const files = ['stage2/vm', 'native/common'].flatMap(folder =>
    readdirSync(source(folder))
      .filter(name => name.endsWith('.c'))
      .map(name => join(source(folder), name)),
  );
  const built = spawnSync('cc', [
    '-g',
    '-O1',
    '-fsanitize=address,undefined',
    '-fno-sanitize-recover=all',
    '-std=gnu11',
    `-I${source('native')}`,
    '-o',
    keeper,
    ...files,
  ]);
  expect(built.stderr.toString()).toBe('');
}, 120_000);
afterAll(() => rmSync(work, { recursive: true, force: true }));

function frame(type: number, channel: number, data: Uint8Array | string, length?: number): Buffer {
  const bytes = Buffer.from(data);
  const head = Buffer.alloc(12);
  head.writeUInt32LE(channel, 0);
  head.writeUInt32LE(type, 4);
  head.writeUInt32LE(length ?? bytes.length, 8);
  return Buffer.concat([head, bytes]);
}

function number(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

const hello = frame(HELLO, 0, number(1));
const end = (status: number, text = '') =>
  frame(END, 0, Buffer.concat([number(status), Buffer.from(text)]));

/** What is in the pod's folder, by name, and what the keeper did with these bytes from its machine. */
function keep(bytes: Uint8Array, more: readonly Step[] = []) {
  const pod = mkdtempSync(join(work, 'pod-'));
  try {
    for (const folder of ['status', 'logs', 'attach'])
      mkdirSync(join(pod, 'stage1/rootfs/rkt', folder), { recursive: true });
    writeFileSync(join(pod, 'bytes'), bytes);
    const steps: readonly Step[] = [
      ['program', 'tspod'],
      ['listen', 'stage1/rootfs/rkt/control', 'rkt/control'],
      ['log', 'app', '1000', '1'],
      ['stop-timeout', '1'],
      ...more,
      [
        'qemu',
        '/bin/sh',
        '-c',
        'cat bytes >&@port@; cat <&@port@ >/dev/null & sleep 0.05; kill $!',
      ],
    ];
    writeFileSync(join(pod, 'plan'), encodePlan(steps));
    const { status, signal, stdout, stderr } = spawnSync(keeper, ['host', 'plan'], {
      cwd: pod,
      encoding: 'latin1',
      // What it takes at its start it keeps.
      env: { PATH: process.env['PATH'], ASAN_OPTIONS: 'detect_leaks=0' },
      timeout: 20_000,
      input: '',
    });
    const files = readdirSync(pod, { recursive: true, encoding: 'utf8' }).sort();
    const text = (name: string) => readFileSync(join(pod, 'stage1/rootfs/rkt', name), 'utf8');
    const contents = new Map(
      files
        .filter(name => /^stage1\/rootfs\/rkt\/(?:status|logs)\/./.test(name))
        .map(name => name.slice('stage1/rootfs/rkt/'.length))
        .map(name => [name, text(name)]),
    );
    return { status, signal, stdout, stderr, files, contents };
  } finally {
    rmSync(pod, { recursive: true, force: true });
  }
}

describe('the keeper of a machine', () => {
  test('an orderly machine: output, files, logs, status', () => {
    const kept = keep(
      Buffer.concat([
        hello,
        frame(FILE, 0, 'init-began\0'),
        frame(FILE, 0, 'status/app-started\0'),
        frame(DATA, 1, 'out\n'),
        frame(DATA, 2, 'err\n'),
        frame(LOG, 0, 'app\0a line\n'),
        frame(FILE, 0, 'status/app\x003'),
        frame(FILE, 0, 'init-ended\0'),
        frame(EOF, 1, ''),
        end(3),
      ]),
    );
    expect(kept).toMatchObject({ status: 3, stdout: 'out\n', stderr: 'err\n' });
    expect(Object.fromEntries(kept.contents)).toEqual({
      'status/app': '3',
      'status/app-started': '',
      'logs/app.log': 'a line\n',
    });
    expect(kept.files).toContain('stage1/rootfs/rkt/init-ended');
  });

  test('a log is rotated here', () => {
    const lines = Array.from({ length: 50 }, (_, at) =>
      frame(LOG, 0, `app\0${'x'.repeat(99)}${at}\n`),
    );
    const { contents } = keep(Buffer.concat([hello, ...lines, end(0)]));
    expect(contents.has('logs/app.log.1')).toBe(true);
    expect(contents.size).toBeLessThanOrEqual(2);
    for (const text of contents.values()) expect(text.length).toBeLessThan(1200);
  });

  test.each([
    ['../../../escaped', FILE],
    ['status/../../escaped', FILE],
    ['status/.hidden', FILE],
    ['status/a/b', FILE],
    ['control', FILE],
    ['status/', FILE],
    ['../logs/app.log', REMOVE],
    ['../../../bytes', REMOVE],
    ['../x', LOG],
    ['other', LOG],
  ])('a name that leads elsewhere: %s (%i)', (name, type) => {
    const before = keep(Buffer.concat([hello, end(0)])).files;
    const { files, status } = keep(Buffer.concat([hello, frame(type, 0, `${name}\0x`), end(0)]));
    expect(status).toBe(0);
    expect(files).toEqual(before);
  });

  test('another version, no hello, a frame too long, an end without words', () => {
    expect(keep(frame(HELLO, 0, number(2))).stderr).toContain('it speaks version 2');
    expect(keep(end(0)).stderr).toContain('it ended before it had booted');
    expect(keep(Buffer.concat([hello, frame(DATA, 1, '', 0xffff_ffff)])).stderr).toContain(
      'a message of 4294967295 bytes',
    );
    expect(keep(Buffer.concat([hello, frame(END, 0, 'x')])).stderr).toContain('the machine failed');
    const said = keep(Buffer.concat([hello, end(254, 'line\n\x1b[31mtwo')])).stderr;
    expect(said).toBe('tspod: the machine failed: line  [31mtwo\n');
  });

  test('more than a window, and a flood that nobody reads, are bounded', () => {
    const piece = frame(DATA, 1, Buffer.alloc(32 * 1024, 'x'));
    const { status, stdout } = keep(
      Buffer.concat([hello, ...Array.from({ length: 64 }, () => piece), end(0)]),
    );
    expect(status).toBe(0);
    expect(stdout).toMatch(/^x+$/);
  });

  test(
    'any frames',
    () => {
      const name = fc.oneof(
        fc.constantFrom('status/app', 'status/a-started', 'init-began', 'supervisor-status', 'app'),
        fc.string({ maxLength: 20 }),
      );
      const any = fc
        .tuple(
          fc.constantFrom(
            HELLO,
            FILE,
            REMOVE,
            4,
            DATA,
            EOF,
            7,
            8,
            9,
            10,
            STATUS,
            12,
            13,
            LOG,
            END,
            16,
            99,
          ),
          fc.constantFrom(0, 1, 2, 3, 4, 64, 68, 0xffff_ffff),
          fc.oneof(
            fc.uint8Array({ maxLength: 300 }),
            fc.tuple(name, fc.string({ maxLength: 50 })).map(([a, b]) => Buffer.from(`${a}\0${b}`)),
            fc.nat().map(number),
          ),
          fc.option(fc.nat({ max: 400 }), { freq: 20, nil: undefined }),
        )
        .map(([type, channel, data, length]) => frame(type, channel, data, length));
      const bytes = fc
        .tuple(fc.boolean(), fc.array(any, { maxLength: 12 }), fc.boolean())
        .map(([first, frames, last]) =>
          Buffer.concat([...(first ? [hello] : []), ...frames, ...(last ? [end(0)] : [])]),
        );
      fc.assert(
        fc.property(bytes, input => {
          const { status, signal, stderr, files } = keep(input, [['interactive']]);
          expect(signal).toBeNull();
          expect(status).not.toBeNull();
          expect(stderr).not.toMatch(/Sanitizer|runtime error/);
          const odd = files.filter(
            file =>
              !/^(?:bytes|plan|machine-commands|stage1(?:\/rootfs(?:\/rkt(?:\/(?:status|logs|attach|control|init-began|init-ended|supervisor-status|machine-failed|machine-console|(?:status|logs)\/[A-Za-z0-9_-][A-Za-z0-9._-]*))?)?)?)$/.test(
                file,
              ),
          );
          expect(odd).toEqual([]);
        }),
        { numRuns: cases(150) },
      );
    },
    fuzzTimeout(120_000),
  );
});
