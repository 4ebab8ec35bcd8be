/** A pod's own cgroups: where they lie on this host, how they are called, and their end. */
import { existsSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { errnoOf, systemError, TspodError } from '../src/errors.ts';
import { CGROUPS_FILE } from '../src/pod/folder.ts';

export interface CgroupView {
  /** /proc/self/cgroup */
  readonly own: string;
  /** /proc/self/mountinfo */
  readonly mounts: string;
  /** Content of a cgroup's file; undefined when there is none. */
  readonly read: (path: string) => string | undefined;
}

export function hostCgroups(): CgroupView {
  return {
    own: readFileSync('/proc/self/cgroup', 'utf8'),
    mounts: readFileSync('/proc/self/mountinfo', 'utf8'),
    read: path => {
      try {
        return readFileSync(path, 'utf8');
      } catch (error) {
        if (errnoOf(error) === 'ENOENT') return undefined;
        throw systemError(`can't read ${path}`, error);
      }
    },
  };
}

/** The name of a pod's folder in every hierarchy. */
export function cgroupName(uuid: string): string {
  return `tspod-${uuid}`;
}

/** Where a cgroup lies on disk: mount point plus its path below what is mounted there. */
export function locate(
  mounts: string,
  path: string,
  fits: (type: string, superOptions: readonly string[]) => boolean,
): string | undefined {
  for (const line of mounts.split('\n')) {
    const [left = '', right = ''] = line.split(' - ');
    const [, , , root = '', mountPoint = ''] = left.split(' ').map(unescapeOctal);
    const [type = '', , superOptions = ''] = right.split(' ');
    if (!fits(type, superOptions.split(','))) continue;
    const below =
      root === '/'
        ? path
        : path === root
          ? '/'
          : path.startsWith(`${root}/`)
            ? path.slice(root.length)
            : undefined;
    if (below === undefined) continue;
    return below === '/' ? mountPoint : mountPoint + below;
  }
  return undefined;
}

/** mountinfo writes space, tab, newline and backslash as \ooo. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/** Removes the cgroups that a pod made; it has ended. Idempotent. */
export function removeCgroups({
  uuid,
  dir,
}: {
  readonly uuid: string;
  readonly dir: string;
}): void {
  let text: string;
  try {
    text = readFileSync(join(dir, CGROUPS_FILE), 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return;
    throw systemError(`pod ${uuid}: can't read which cgroups it made`, error);
  }
  for (const folder of text.split('\n').filter(line => line !== '')) {
    if (!folder.startsWith('/') || basename(folder) !== cgroupName(uuid)) {
      throw new TspodError(
        'pod',
        `pod ${uuid}: its folder names a cgroup that is not its own: ${folder}`,
      );
    }
    removeTree(uuid, folder);
  }
}

/** Folders are all that can be removed of a cgroup; from the leaves up. */
function removeTree(uuid: string, folder: string): void {
  if (!existsSync(folder)) return;
  try {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      if (entry.isDirectory()) removeTree(uuid, join(folder, entry.name));
    }
    rmdirSync(folder);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return;
    throw systemError(`pod ${uuid}: can't remove cgroup ${folder}`, error);
  }
}
