/**
 * An app's environment. Lowest to highest: the image's, --set-env-file, --set-env, --environment; the
 * caller's own (--inherit-env) only fills gaps, and PATH is always there. What belongs to the user (HOME,
 * USER, LOGNAME, SHELL) is stage2's to fill in, from the image's passwd file.
 */
import { TspodError } from '../errors.ts';
import type { NameValue } from '../image/appc.ts';

export const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** A set-env file over this is refused unread. */
export const ENV_FILE_MAX_BYTES = 1024 * 1024;

/** Belong to this process, not to the app: the pod's lock, the starter's notes. */
const PRIVATE =
  /^(?:RKT_LOCK_FD|TSPOD_LOCK_FD|TSPOD_START|LISTEN_PID|LISTEN_FDS|LISTEN_FDNAMES|NOTIFY_SOCKET)$/;

export interface EnvironmentSources {
  readonly image: readonly NameValue[];
  readonly setEnvFiles: readonly NameValue[];
  readonly setEnv: readonly NameValue[];
  readonly environment: readonly NameValue[];
  /** The caller's, when it is to be inherited. */
  readonly inherited: Readonly<Record<string, string | undefined>> | undefined;
  /** Of the caller's terminal, when there is one. */
  readonly term: string | undefined;
}

export function mergeEnvironment(sources: EnvironmentSources): readonly NameValue[] {
  const merged = new Map<string, string>();
  for (const list of [sources.image, sources.setEnvFiles, sources.setEnv, sources.environment]) {
    for (const { name, value } of list) merged.set(name, value);
  }
  for (const [name, value] of Object.entries(sources.inherited ?? {})) {
    if (value !== undefined && !merged.has(name) && !PRIVATE.test(name)) merged.set(name, value);
  }
  if (!merged.has('PATH')) merged.set('PATH', DEFAULT_PATH);
  if (sources.term !== undefined && !merged.has('TERM')) merged.set('TERM', sources.term);
  return [...merged].map(([name, value]) => ({ name, value }));
}

/** `NAME=VALUE`. @throws TspodError 'pod' naming the flag */
export function parseNameValue(text: string, flag: string): NameValue {
  const split = text.indexOf('=');
  if (split < 1 || text.includes('\0')) {
    throw new TspodError(
      'pod',
      `--${flag}=${text.slice(0, 100)}: it must be of the form NAME=VALUE`,
    );
  }
  return { name: text.slice(0, split), value: text.slice(split + 1) };
}

/**
 * A set-env file: `NAME=VALUE` lines, empty ones and those that start with # or ; passed over.
 * @throws TspodError 'pod' that names file and line
 */
export function parseEnvFile(content: string, file: string): readonly NameValue[] {
  return content.split('\n').flatMap((line, index) => {
    const text = line.replace(/\r$/, '').trimStart();
    if (text === '' || text.startsWith('#') || text.startsWith(';')) return [];
    const split = text.indexOf('=');
    if (split < 1 || text.includes('\0')) {
      throw new TspodError(
        'pod',
        `--set-env-file=${file}: line ${index + 1} is not of the form NAME=VALUE`,
      );
    }
    return [{ name: text.slice(0, split), value: text.slice(split + 1) }];
  });
}
