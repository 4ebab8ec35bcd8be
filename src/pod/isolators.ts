/**
 * Isolators (appc 0.8.11 "Isolators"): how they are made from flags, and the one place that reads their
 * JSON. Names that tspod has beyond appc: `os/linux/rlimits`, a list of {name, soft, hard};
 * `os/linux/pids-limit`, a number.
 * A flavor honours what `readIsolation` says or refuses it by name; nothing is passed over.
 */
import { TspodError } from '../errors.ts';
import type { Isolator, NameValue } from '../image/appc.ts';
import { capabilityNames } from './capabilities.ts';
import { parseQuantity } from './quantity.ts';
import { checkRlimit, type Rlimit } from './rlimits.ts';
import { type SeccompSpec, whyBadSeccomp } from './seccomp.ts';

export interface Isolation {
  /** bytes */
  readonly memory?: bigint;
  /** thousandths of a CPU */
  readonly cpuMillis?: bigint;
  /** weight, 2..262144 */
  readonly cpuShares?: number;
  /** most processes and threads at once */
  readonly pids?: number;
  readonly capabilities?: { readonly mode: 'retain' | 'remove'; readonly names: readonly string[] };
  readonly seccomp?: SeccompSpec;
  readonly oomScoreAdj?: number;
  readonly noNewPrivileges: boolean;
  readonly rlimits: readonly Rlimit[];
  /** Names that nothing here reads: the flavor's to refuse. */
  readonly others: readonly string[];
}

/** rkt refuses less: no process lives in less than a page. */
const MIN_MEMORY = 4096n;
const MIN_SHARES = 2;
const MAX_SHARES = 262_144;
/** PID_MAX_LIMIT */
const MAX_PIDS = 4_194_304;

export function memoryIsolator(text: string): Isolator {
  memoryBytes(text, '--memory');
  return { name: 'resource/memory', value: { request: text, limit: text } };
}

export function cpuIsolator(text: string): Isolator {
  cpuMillis(text, '--cpu');
  return { name: 'resource/cpu', value: { request: text, limit: text } };
}

export function cpuSharesIsolator(text: string): Isolator {
  return {
    name: 'os/linux/cpu-shares',
    value: integer(number(text), MIN_SHARES, MAX_SHARES, '--cpu-shares'),
  };
}

export function pidsIsolator(text: string): Isolator {
  return {
    name: 'os/linux/pids-limit',
    value: integer(number(text), 1, MAX_PIDS, '--pids-limit'),
  };
}

export function oomScoreAdjIsolator(text: string): Isolator {
  return {
    name: 'os/linux/oom-score-adj',
    value: integer(number(text), -1000, 1000, '--oom-score-adj'),
  };
}

export function noNewPrivilegesIsolator(on: boolean): Isolator {
  return { name: 'os/linux/no-new-privileges', value: on };
}

export function capabilitiesIsolator(
  mode: 'retain' | 'remove',
  names: readonly string[],
): Isolator {
  return {
    name: `os/linux/capabilities-${mode}-set`,
    value: { set: capabilityNames(names, `--caps-${mode}`) },
  };
}

export function seccompIsolator(spec: SeccompSpec): Isolator {
  return {
    name: `os/linux/seccomp-${spec.mode}-set`,
    value: { set: spec.set, ...(spec.errno === undefined ? {} : { errno: spec.errno }) },
  };
}

export function rlimitsIsolator(rlimits: readonly Rlimit[]): Isolator {
  return { name: 'os/linux/rlimits', value: rlimits };
}

/** On an app of a pod's manifest: the isolators that its image brought and nobody asked for, by name. */
export const FROM_IMAGE_ANNOTATION = 'tspod/isolators-of-image';

export function isFromImage(annotations: readonly NameValue[], isolator: string): boolean {
  const names = annotations.find(({ name }) => name === FROM_IMAGE_ANNOTATION)?.value;
  return names?.split(',').includes(isolator) ?? false;
}

/** Isolators of one kind exclude each other: retain and remove are two spellings of one thing. */
function kindOf(name: string): string {
  return name.replace(/-(?:retain|remove)-set$/, '-set');
}

/** `base` with what `overriding` says of the same kind put in its place. */
export function overrideIsolators(
  base: readonly Isolator[],
  overriding: readonly Isolator[],
): readonly Isolator[] {
  const kinds = new Set(overriding.map(({ name }) => kindOf(name)));
  return [...base.filter(({ name }) => !kinds.has(kindOf(name))), ...overriding];
}

/**
 * @param where whose isolators, for messages, e.g. `app "web"`
 * @throws TspodError 'pod' that names the isolator whose value is wrong or that comes twice
 */
export function readIsolation(isolators: readonly Isolator[], where: string): Isolation {
  const seen = new Set<string>();
  const others: string[] = [];
  let isolation: Omit<Isolation, 'others'> = { noNewPrivileges: false, rlimits: [] };
  for (const { name, value } of isolators) {
    const what = `${where}: isolator ${name}`;
    const kind = kindOf(name);
    if (seen.has(kind)) throw new TspodError('pod', `${what}: there is more than one of its kind`);
    seen.add(kind);
    const part = readIsolator(name, value, what);
    if (part === undefined) others.push(name);
    else isolation = { ...isolation, ...part };
  }
  return { ...isolation, others };
}

function readIsolator(name: string, value: unknown, what: string): Partial<Isolation> | undefined {
  switch (name) {
    case 'resource/memory':
      return limited(value, what, text => ({ memory: memoryBytes(text, what) }));
    case 'resource/cpu':
      return limited(value, what, text => ({ cpuMillis: cpuMillis(text, what) }));
    case 'os/linux/cpu-shares':
      return { cpuShares: integer(value, MIN_SHARES, MAX_SHARES, what) };
    case 'os/linux/pids-limit':
      return { pids: integer(value, 1, MAX_PIDS, what) };
    case 'os/linux/oom-score-adj':
      return { oomScoreAdj: integer(value, -1000, 1000, what) };
    case 'os/linux/no-new-privileges':
      if (typeof value !== 'boolean') throw wrong(what, 'is neither true nor false');
      return { noNewPrivileges: value };
    case 'os/linux/capabilities-retain-set':
      return { capabilities: { mode: 'retain', names: capabilityNames(setOf(value, what), what) } };
    case 'os/linux/capabilities-remove-set':
      return { capabilities: { mode: 'remove', names: capabilityNames(setOf(value, what), what) } };
    case 'os/linux/seccomp-retain-set':
      return { seccomp: seccompOf('retain', value, what) };
    case 'os/linux/seccomp-remove-set':
      return { seccomp: seccompOf('remove', value, what) };
    case 'os/linux/rlimits':
      return { rlimits: rlimitsOf(value, what) };
    default:
      return undefined;
  }
}

function memoryBytes(text: string, what: string): bigint {
  const bytes = parseQuantity(text, 0, what);
  if (bytes < MIN_MEMORY) throw wrong(what, `${text} is less than ${MIN_MEMORY} bytes`);
  if (bytes >= 1n << 63n) throw wrong(what, `${text} is more than a memory limit can be`);
  return bytes;
}

function cpuMillis(text: string, what: string): bigint {
  const millis = parseQuantity(text, 3, what);
  if (millis < 1n || millis > 1_000_000_000n) throw wrong(what, `${text} CPUs can't be given`);
  return millis;
}

/** `limit` is what is enforced; an isolator with a request alone asks for nothing that can be enforced. */
function limited(
  value: unknown,
  what: string,
  read: (text: string) => Partial<Isolation>,
): Partial<Isolation> {
  if (!isRecord(value)) throw wrong(what, 'is not an object with request and limit');
  const { limit, request, default: _default, ...rest } = value;
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) throw wrong(what, `has an unknown field "${unknown}"`);
  for (const text of [limit, request]) {
    if (text !== undefined && text !== null && typeof text !== 'string')
      throw wrong(what, 'has a quantity that is not text');
  }
  return typeof limit === 'string' ? read(limit) : {};
}

function setOf(value: unknown, what: string): readonly string[] {
  if (!isRecord(value) || !isStrings(value.set)) throw wrong(what, 'has no list "set"');
  return value.set;
}

function seccompOf(mode: 'retain' | 'remove', value: unknown, what: string): SeccompSpec {
  const set = setOf(value, what);
  const errno = isRecord(value) ? value.errno : undefined;
  if (errno !== undefined && typeof errno !== 'string')
    throw wrong(what, 'has an errno that is not text');
  const spec: SeccompSpec = {
    mode,
    set,
    ...(errno === undefined || errno === '' ? {} : { errno }),
  };
  const why = whyBadSeccomp(spec);
  if (why !== undefined) throw wrong(what, why);
  return spec;
}

function rlimitsOf(value: unknown, what: string): readonly Rlimit[] {
  if (!Array.isArray(value)) throw wrong(what, 'is not a list');
  return value.map((entry: unknown) => {
    if (
      isRecord(entry) &&
      typeof entry.name === 'string' &&
      typeof entry.soft === 'string' &&
      typeof entry.hard === 'string'
    ) {
      return checkRlimit(
        { name: entry.name, soft: entry.soft, hard: entry.hard },
        undefined,
        entry.name,
      );
    }
    throw wrong(what, 'has an entry without the texts name, soft and hard');
  });
}

function number(text: string): unknown {
  return /^[+-]?[0-9]{1,9}$/.test(text) ? Number(text) : text;
}

function integer(value: unknown, least: number, most: number, what: string): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most)
    return value;
  throw wrong(
    what,
    `${JSON.stringify(value)?.slice(0, 60)} is not a whole number from ${least} to ${most}`,
  );
}

function wrong(what: string, why: string): TspodError {
  return new TspodError('pod', `${what}: ${why}`);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isStrings(value: unknown): value is string[] {
  return Array.isArray(value) && value.every(item => typeof item === 'string');
}
