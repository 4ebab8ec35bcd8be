/**
 * Seccomp: from a list of system calls to the program that the kernel runs at each call (seccomp(2),
 * Documentation/userspace-api/seccomp_filter.rst). The program is classic BPF:
 *
 *   1. The architecture must be ours; x86_64's second ABI (x32) is cut off too. Anything else is killed:
 *      the same number means another call there.
 *   2. The numbers, merged into intervals of one verdict each, are searched as a binary tree: some eight
 *      comparisons whatever the length of the list. A linear list costs hundreds at each call.
 *
 * A forbidden call gets the error number asked for, or ends the process with SIGSYS, as in rkt.
 */
import { constants } from 'node:os';
import { TspodError } from '../errors.ts';
import { seccompSet, seccompSetNames } from './seccomp-sets.ts';
import { type SeccompArch, syscallNumbers } from './seccomp-syscalls.ts';

export type { SeccompArch } from './seccomp-syscalls.ts';

export interface SeccompSpec {
  readonly mode: 'retain' | 'remove';
  /** An error number's name, e.g. "EPERM"; undefined: SIGSYS. */
  readonly errno?: string;
  /** Names of system calls, and sets with an at sign. Not empty. */
  readonly set: readonly string[];
}

const MAX_NAMES = 4096;

/**
 * `mode=retain|remove,errno=E,sys1,@set`
 * @throws TspodError 'pod' that names the word
 */
export function parseSeccompFlag(text: string): SeccompSpec {
  const bad = (why: string) =>
    new TspodError('pod', `--seccomp=${text.slice(0, 200)}: ${why}`, {
      hint: 'write mode=retain|remove[,errno=NAME],CALL|@SET,…',
    });
  let mode: string | undefined;
  let errno: string | undefined;
  const set: string[] = [];
  for (const word of text.split(',')) {
    const [key, value, ...rest] = word.split('=');
    if (value === undefined) {
      set.push(word);
      continue;
    }
    if (rest.length > 0) throw bad(`can't parse "${word}"`);
    if (key === 'mode' && mode === undefined) mode = value;
    else if (key === 'errno' && errno === undefined) errno = value;
    else
      throw bad(
        mode !== undefined || errno !== undefined
          ? `"${key}" is unknown or given twice`
          : `unknown parameter "${key}"`,
      );
  }
  if (mode !== 'retain' && mode !== 'remove') throw bad('mode must be retain or remove');
  const spec: SeccompSpec = { mode, set, ...(errno === undefined ? {} : { errno }) };
  const why = whyBadSeccomp(spec);
  if (why !== undefined) throw bad(why);
  return spec;
}

/** Why a filter can't be compiled, or undefined. */
export function whyBadSeccomp(spec: SeccompSpec): string | undefined {
  if (spec.set.length === 0) return 'no system call or set is named';
  if (spec.set.length > MAX_NAMES) return `more than ${MAX_NAMES} names`;
  if (spec.errno !== undefined && errnoNumber(spec.errno) === undefined) {
    return `"${spec.errno.slice(0, 40)}" is not an error number's name`;
  }
  const known = knownNames();
  for (const name of spec.set) {
    if (name.startsWith('@')) {
      if (isAll(name) || isEmpty(name) || seccompSet(name.slice(1)) !== undefined) continue;
      return `"${name.slice(0, 60)}" is not a set; there are ${seccompSetNames().join(' ')}`;
    }
    if (!known.has(name)) return `"${name.slice(0, 60)}" is not a system call`;
  }
  if (spec.mode === 'remove' && spec.set.some(isAll))
    return 'removing @appc.io/all would leave no system call';
  return undefined;
}

let allNames: ReadonlySet<string> | undefined;

/** Of any architecture: a name that this one lacks is no mistake, there is just nothing to filter. */
function knownNames(): ReadonlySet<string> {
  if (allNames !== undefined) return allNames;
  const names = new Set([...syscallNumbers('x86_64').keys(), ...syscallNumbers('aarch64').keys()]);
  for (const set of seccompSetNames())
    for (const name of seccompSet(set.slice(1)) ?? []) names.add(name);
  allNames = names;
  return names;
}

const isAll = (name: string) => name === '@appc.io/all';
const isEmpty = (name: string) => name === '@appc.io/empty';

function errnoNumber(name: string): number | undefined {
  const found = Object.entries(constants.errno).find(([key]) => key === name);
  return found?.[1];
}

/** The architecture of this process. @throws TspodError 'unsupported' */
export function hostArch(): SeccompArch {
  if (process.arch === 'x64') return 'x86_64';
  if (process.arch === 'arm64') return 'aarch64';
  throw new TspodError(
    'unsupported',
    `seccomp: there is no table of system calls for ${process.arch}`,
  );
}

/**
 * The names that a spec comes to. `undefined`: no filter at all (retain @appc.io/all). Two rules are
 * rkt's: `remove @appc.io/empty` means the default whitelist, and a whitelist always has what systemd
 * adds to every one (execve, exit, sigreturn, reading the clock): without them no app could start.
 */
function resolve(
  spec: SeccompSpec,
): { readonly mode: 'retain' | 'remove'; readonly names: ReadonlySet<string> } | undefined {
  if (spec.mode === 'retain' && spec.set.some(isAll)) return undefined;
  if (spec.mode === 'remove' && spec.set.some(isEmpty)) {
    return resolve({ mode: 'retain', set: ['@rkt/default-whitelist'] });
  }
  const names = new Set<string>(
    spec.mode === 'retain' ? seccompSet('systemd/default-whitelist') : [],
  );
  for (const name of spec.set) {
    if (isEmpty(name)) continue;
    if (!name.startsWith('@')) names.add(name);
    else for (const member of seccompSet(name.slice(1)) ?? []) names.add(member);
  }
  return { mode: spec.mode, names };
}

const RET_KILL_PROCESS = 0x8000_0000;
const RET_ERRNO = 0x0005_0000;
const RET_ALLOW = 0x7fff_0000;
const AUDIT_ARCH: Readonly<Record<SeccompArch, number>> = {
  x86_64: 0xc000_003e,
  aarch64: 0xc000_00b7,
};
/** Numbers from here on are the x32 ABI's. */
const X32_BIT = 0x4000_0000;

// struct sock_filter codes, linux/bpf_common.h
const LD_W_ABS = 0x20;
const JMP_JA = 0x05;
const JMP_JEQ_K = 0x15;
const JMP_JGE_K = 0x35;
const RET_K = 0x06;
/** Offsets in struct seccomp_data. */
const DATA_NR = 0;
const DATA_ARCH = 4;

interface Instruction {
  readonly code: number;
  readonly jt: number;
  readonly jf: number;
  readonly k: number;
}

const statement = (code: number, k: number): Instruction => ({ code, jt: 0, jf: 0, k });
const jump = (code: number, k: number, jt: number, jf: number): Instruction => ({
  code,
  jt,
  jf,
  k,
});

/** From `first` on (up to the next interval) every number has this verdict. */
interface Interval {
  readonly first: number;
  readonly verdict: number;
}

/**
 * The filter as an array of struct sock_filter (8 bytes each, little-endian, which both architectures
 * are); undefined when the spec lets every call through.
 * @throws TspodError 'pod' for a spec that does not hold
 */
export function compileSeccomp(spec: SeccompSpec, arch: SeccompArch): Uint8Array | undefined {
  const why = whyBadSeccomp(spec);
  if (why !== undefined) throw new TspodError('pod', `seccomp: ${why}`);
  const resolved = resolve(spec);
  if (resolved === undefined) return undefined;
  const errno = spec.errno === undefined ? undefined : errnoNumber(spec.errno);
  const deny = errno === undefined ? RET_KILL_PROCESS : RET_ERRNO | errno;
  const [listed, unlisted] = resolved.mode === 'retain' ? [RET_ALLOW, deny] : [deny, RET_ALLOW];
  const table = syscallNumbers(arch);
  const numbers = [...resolved.names].flatMap(name => table.get(name) ?? []).sort((a, b) => a - b);
  const program = [
    statement(LD_W_ABS, DATA_ARCH),
    jump(JMP_JEQ_K, AUDIT_ARCH[arch], 1, 0),
    statement(RET_K, RET_KILL_PROCESS),
    statement(LD_W_ABS, DATA_NR),
    ...(arch === 'x86_64'
      ? [jump(JMP_JGE_K, X32_BIT, 0, 1), statement(RET_K, RET_KILL_PROCESS)]
      : []),
    ...search(intervals(numbers, listed, unlisted)),
  ];
  return encode(program);
}

function intervals(
  numbers: readonly number[],
  listed: number,
  unlisted: number,
): readonly Interval[] {
  const result: Interval[] = [{ first: 0, verdict: unlisted }];
  const add = (first: number, verdict: number) => {
    if (result.at(-1)?.first === first) result.pop();
    if (result.at(-1)?.verdict !== verdict) result.push({ first, verdict });
  };
  for (const number of numbers) {
    add(number, listed);
    add(number + 1, unlisted);
  }
  return result;
}

/** A balanced tree: "at or above the middle interval's first number?" The lower half follows at once. */
function search(list: readonly Interval[]): readonly Instruction[] {
  const [only] = list;
  if (only === undefined) return [];
  if (list.length === 1) return [statement(RET_K, only.verdict)];
  const middle = list.length >> 1;
  const lower = search(list.slice(0, middle));
  const upper = list.slice(middle);
  const first = upper[0]?.first ?? 0;
  // A conditional jump reaches 255 instructions; further only an unconditional one.
  const branch =
    lower.length <= 255
      ? [jump(JMP_JGE_K, first, lower.length, 0)]
      : [jump(JMP_JGE_K, first, 0, 1), statement(JMP_JA, lower.length)];
  return [...branch, ...lower, ...search(upper)];
}

function encode(program: readonly Instruction[]): Uint8Array {
  const bytes = Buffer.alloc(program.length * 8);
  program.forEach(({ code, jt, jf, k }, index) => {
    bytes.writeUInt16LE(code, index * 8);
    bytes.writeUInt8(jt, index * 8 + 2);
    bytes.writeUInt8(jf, index * 8 + 3);
    bytes.writeUInt32LE(k >>> 0, index * 8 + 4);
  });
  return bytes;
}
