/** The global flags, resolved: default folders by the program's name, configured data folder, insecure options. */
import { existsSync, realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { Context, InsecureOption } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import type { FlagValues } from './flags.ts';

const GROUPS: ReadonlyMap<string, readonly InsecureOption[]> = new Map([
  ['none', []],
  ['image', ['image']],
  ['tls', ['tls']],
  ['ondisk', ['ondisk']],
  ['http', ['http']],
  ['pubkey', ['pubkey']],
  ['capabilities', ['capabilities']],
  ['paths', ['paths']],
  ['seccomp', ['seccomp']],
  ['all-fetch', ['image', 'tls', 'http', 'pubkey']],
  ['all-run', ['ondisk', 'capabilities', 'paths', 'seccomp']],
  ['all', ['image', 'tls', 'ondisk', 'http', 'pubkey', 'capabilities', 'paths', 'seccomp']],
]);

/** @throws TspodError 'usage' or 'config' */
export async function globalContext(
  program: 'tspod' | 'rkt',
  command: string,
  flags: FlagValues,
): Promise<Context> {
  const folders = {
    systemConfig: resolve(flags.textOr('system-config', `/usr/lib/${program}`)),
    localConfig: resolve(flags.textOr('local-config', `/etc/${program}`)),
    userConfig: absoluteOrNone(flags.textOr('user-config', '')),
  };
  return {
    program,
    command,
    ...folders,
    dir: realPath(flags.text('dir') ?? (await configuredDir(folders)) ?? `/var/lib/${program}`),
    insecure: insecureOptions(flags.list('insecure-options')),
    trustKeysFromHttps: flags.bool('trust-keys-from-https'),
    offline: flags.bool('offline'),
    debug: flags.bool('debug'),
  };
}

/** `data` of a `paths` configuration; read only where there is a paths.d folder. */
async function configuredDir(
  folders: Pick<Context, 'systemConfig' | 'localConfig' | 'userConfig'>,
): Promise<string | undefined> {
  const present = Object.values(folders).some(
    folder => folder !== '' && existsSync(`${folder}/paths.d`),
  );
  if (!present) return undefined;
  const { loadConfig } = await import('../config.ts');
  return loadConfig(folders).paths?.data;
}

function insecureOptions(values: readonly string[]): ReadonlySet<InsecureOption> {
  const options = new Set<InsecureOption>();
  for (const name of values.flatMap(value => value.split(','))) {
    const group = GROUPS.get(name.trim());
    if (group === undefined) {
      throw new TspodError('usage', `--insecure-options: ${JSON.stringify(name)} is unknown`, {
        hint: `give some of ${[...GROUPS.keys()].join(', ')}`,
      });
    }
    for (const option of group) options.add(option);
  }
  return options;
}

/** Symbolic links resolved as far as there is something. */
function realPath(path: string): string {
  if (path === '') {
    throw new TspodError('usage', '--dir: it is empty', { hint: 'give it the path of a folder' });
  }
  const absolute = resolve(path);
  if (existsSync(absolute)) return realpathSync(absolute);
  return join(realPath(dirname(absolute)), basename(absolute));
}

function absoluteOrNone(path: string): string {
  return path === '' ? '' : resolve(path);
}
