/** The compiled filter against its specification, number by number, and against the running kernel. */
import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  compileSeccomp,
  hostArch,
  parseSeccompFlag,
  type SeccompSpec,
} from '../../src/pod/seccomp.ts';
import { seccompSet, seccompSetNames } from '../../src/pod/seccomp-sets.ts';
import { type SeccompArch, syscallNumbers } from '../../src/pod/seccomp-syscalls.ts';
import { cases } from '../support/fuzz.ts';

const AUDIT = { x86_64: 0xc000003e, aarch64: 0xc00000b7 } as const;
const ALLOW = 0x7fff0000;
const KILL = 0x80000000;

/** Classic BPF as far as the compiler uses it; counts the instructions that one call costs. */
function interpret(
  program: Uint8Array,
  nr: number,
  arch: number,
): { verdict: number; cost: number } {
  const view = Buffer.from(program);
  let accumulator = 0;
  let cost = 0;
  for (let pc = 0; pc < view.length / 8; pc++) {
    cost++;
    const code = view.readUInt16LE(pc * 8);
    const jt = view.readUInt8(pc * 8 + 2);
    const jf = view.readUInt8(pc * 8 + 3);
    const k = view.readUInt32LE(pc * 8 + 4);
    if (code === 0x20) accumulator = k === 0 ? nr : arch;
    else if (code === 0x05) pc += k;
    else if (code === 0x15) pc += accumulator === k ? jt : jf;
    else if (code === 0x35) pc += accumulator >= k ? jt : jf;
    else if (code === 0x06) return { verdict: k, cost };
    else throw new Error(`unknown instruction ${code}`);
  }
  throw new Error('ran off the end');
}

function compiled(spec: SeccompSpec, arch: SeccompArch): Uint8Array {
  const program = compileSeccomp(spec, arch);
  if (program === undefined) throw new Error('no filter');
  return program;
}

const names = [...syscallNumbers('x86_64').keys()];
const specs = fc.record({
  mode: fc.constantFrom('retain' as const, 'remove' as const),
  set: fc.uniqueArray(fc.constantFrom(...names), { minLength: 1, maxLength: 400 }),
});

describe('compileSeccomp', () => {
  it.each(['x86_64', 'aarch64'] as const)('decides every number as the list says (%s)', arch => {
    fc.assert(
      fc.property(specs, spec => {
        const program = compiled({ ...spec, errno: 'EPERM' }, arch);
        const listed = new Set(spec.set);
        if (spec.mode === 'retain')
          for (const name of seccompSet('systemd/default-whitelist') ?? []) listed.add(name);
        const byNumber = new Map([...syscallNumbers(arch)].map(([name, number]) => [number, name]));
        for (let nr = 0; nr < 520; nr++) {
          const inList = listed.has(byNumber.get(nr) ?? '');
          const allowed = inList === (spec.mode === 'retain');
          expect(interpret(program, nr, AUDIT[arch]).verdict).toBe(allowed ? ALLOW : 0x50001);
        }
      }),
      { numRuns: cases(60) },
    );
  });

  it('costs at most 16 instructions a call and fits the kernel’s 4096 for the worst list', () => {
    const alternating = [...syscallNumbers('x86_64')]
      .filter(([, number]) => number % 2 === 0)
      .map(([name]) => name);
    for (const set of [alternating, ['@docker/default-whitelist'], ['@systemd/privileged']]) {
      const program = compiled({ mode: 'remove', set }, 'x86_64');
      expect(program.length / 8).toBeLessThan(4096);
      for (let nr = 0; nr < 520; nr++)
        expect(interpret(program, nr, AUDIT.x86_64).cost).toBeLessThanOrEqual(16);
    }
  });

  it('kills foreign architectures and the x32 ABI whatever the mode', () => {
    for (const mode of ['retain', 'remove'] as const) {
      const program = compiled({ mode, set: ['mount'], errno: 'EPERM' }, 'x86_64');
      expect(interpret(program, 39, 0x40000003).verdict).toBe(KILL);
      expect(interpret(program, 0x40000000 + 39, AUDIT.x86_64).verdict).toBe(KILL);
      expect(interpret(program, 0xffffffff, AUDIT.x86_64).verdict).toBe(KILL);
    }
  });

  it('needs no filter for retain @appc.io/all, and reads remove @appc.io/empty as the default whitelist', () => {
    expect(compileSeccomp({ mode: 'retain', set: ['@appc.io/all'] }, 'x86_64')).toBeUndefined();
    expect(compileSeccomp({ mode: 'remove', set: ['@appc.io/empty'] }, 'x86_64')).toEqual(
      compileSeccomp({ mode: 'retain', set: ['@rkt/default-whitelist'] }, 'x86_64'),
    );
  });

  it('compiles every named set for both architectures', () => {
    for (const set of seccompSetNames()) {
      if (set === '@appc.io/all') continue;
      for (const arch of ['x86_64', 'aarch64'] as const) {
        expect(compiled({ mode: 'retain', set: [set] }, arch).length).toBeGreaterThan(0);
      }
    }
  });
});

describe('parseSeccompFlag', () => {
  it('reads mode, errno and names', () => {
    expect(parseSeccompFlag('mode=retain,errno=EPERM,@rkt/default-whitelist,mount')).toEqual({
      mode: 'retain',
      errno: 'EPERM',
      set: ['@rkt/default-whitelist', 'mount'],
    });
  });

  it.each([
    ['mount', 'mode must be retain or remove'],
    ['mode=retain', 'no system call or set is named'],
    ['mode=keep,mount', 'mode must be retain or remove'],
    ['mode=retain,mode=remove,mount', 'given twice'],
    ['mode=retain,errno=EBOGUS,mount', 'not an error number'],
    ['mode=retain,bogus', '"bogus" is not a system call'],
    ['mode=retain,@rkt/bogus', '"@rkt/bogus" is not a set'],
    ['mode=retain,@__proto__', 'is not a set'],
    ['mode=remove,@appc.io/all', 'would leave no system call'],
    ['mode=retain,kind=x,mount', '"kind" is unknown'],
  ])('%s: %s', (text, message) => {
    expect(() => parseSeccompFlag(text)).toThrow(message);
  });

  it('answers any text with a spec or a TspodError', () => {
    fc.assert(
      fc.property(fc.string(), text => {
        try {
          parseSeccompFlag(text);
        } catch (error) {
          expect(error).toHaveProperty('code', 'pod');
        }
      }),
    );
  });
});

describe('the kernel', () => {
  let folder: string;
  let probe: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'tspod-seccomp-'));
    probe = join(folder, 'probe');
    execFileSync('cc', ['-O1', '-o', probe, join(import.meta.dirname, 'seccomp-probe.c')]);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  /** Calls that do nothing when given -1 as every argument. */
  const harmless = [
    'getpid',
    'getuid',
    'getppid',
    'openat',
    'mkdirat',
    'mount',
    'umount2',
    'ptrace',
    'swapon',
    'bpf',
    'acct',
    'keyctl',
    'unlinkat',
    'setns',
    'read',
    'close',
    'fchmod',
    'init_module',
    'lseek',
    'timerfd_create',
    'io_uring_setup',
    'openat2',
  ] as const;

  function run(spec: SeccompSpec): Map<string, string> {
    const table = syscallNumbers(hostArch());
    const filter = join(folder, 'filter');
    writeFileSync(filter, compiled(spec, hostArch()));
    const fd = openSync(filter, 'r');
    const numbers = harmless.map(name => table.get(name) ?? 0);
    const { stdout, status } = spawnSync(probe, numbers.map(String), {
      stdio: ['ignore', 'pipe', 'inherit', fd],
      encoding: 'utf8',
    });
    closeSync(fd);
    expect(status).toBe(0);
    const byNumber = new Map(
      stdout
        .trim()
        .split('\n')
        .map(line => [Number(line.split(' ')[0]), line.slice(line.indexOf(' ') + 1)]),
    );
    return new Map(harmless.map((name, index) => [name, byNumber.get(numbers[index] ?? -1) ?? '']));
  }

  it('ends a process that makes a removed call with SIGSYS and leaves the others alone', () => {
    const removed = new Set<string>(['mount', 'umount2', 'bpf', 'getppid']);
    for (const [name, result] of run({ mode: 'remove', set: [...removed] })) {
      if (removed.has(name)) expect([name, result]).toEqual([name, 'signal 31']);
      else expect([name, result.split(' ')[0]]).toEqual([name, 'errno']);
    }
  });

  it('answers with the error number asked for', () => {
    const retained = new Set<string>(['getpid', 'getuid', 'getppid', 'read', 'openat', 'close']);
    const results = run({ mode: 'retain', errno: 'ENETDOWN', set: [...retained] });
    for (const [name, result] of results) {
      if (!retained.has(name)) expect([name, result]).toEqual([name, 'errno 100']);
      else expect([name, result]).not.toEqual([name, 'errno 100']);
    }
  });
});
