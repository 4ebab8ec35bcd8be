/** Resource limits of a process (getrlimit(2)), as `--rlimit NAME=SOFT[:HARD]` and the isolator `os/linux/rlimits` say them. */
import { TspodError } from '../errors.ts';

const NAMES: ReadonlySet<string> = new Set(
  'as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack'.split(
    ' ',
  ),
);

export interface Rlimit {
  readonly name: string;
  /** A decimal number, `infinity`, or `-` to keep the one there is. */
  readonly soft: string;
  readonly hard: string;
}

/** @throws TspodError 'pod' */
export function parseRlimit(text: string): Rlimit {
  const [key = '', value = '', ...rest] = text.split('=');
  const [soft = '', hard = soft, ...more] = value.split(':');
  return checkRlimit(
    { name: key.toLowerCase().replace(/^rlimit_/, ''), soft: limit(soft), hard: limit(hard) },
    rest.length + more.length === 0 ? undefined : 'it is not NAME=SOFT[:HARD]',
    text,
  );
}

/** @throws TspodError 'pod' when a name is unknown, a value no limit, or soft over hard */
export function checkRlimit(rlimit: Rlimit, why: string | undefined, text: string): Rlimit {
  const problem = why ?? problemOf(rlimit);
  if (problem === undefined) return rlimit;
  throw new TspodError('pod', `rlimit ${JSON.stringify(text.slice(0, 100))}: ${problem}`, {
    hint: 'write for example nofile=1024:4096 or core=infinity',
  });
}

function limit(text: string): string {
  return text === 'unlimited' ? 'infinity' : text;
}

function problemOf({ name, soft, hard }: Rlimit): string | undefined {
  if (!NAMES.has(name)) return `there is no limit "${name}", only ${[...NAMES].join(' ')}`;
  for (const value of [soft, hard])
    if (!isLimit(value)) return `"${value}" is not a number, infinity or -`;
  if (soft === '-' || hard === '-' || hard === 'infinity') return undefined;
  if (soft === 'infinity' || BigInt(soft) > BigInt(hard))
    return 'the soft limit is over the hard one';
  return undefined;
}

function isLimit(text: string): boolean {
  if (text === 'infinity' || text === '-') return true;
  return /^[0-9]{1,19}$/.test(text) && BigInt(text) < 1n << 63n;
}
