/** What of an app is in a pod, besides its names in the manifest and the runtime-config. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { TspodError } from '../../src/errors.ts';
import { STATUS_FOLDER } from '../../src/pod/folder.ts';
import { removeTree } from '../../src/store/remove-tree.ts';

const TREE = 'stage1/rootfs';

/** Removes the app's files, once nothing is mounted there. @throws TspodError 'system' */
export function removeFiles(dir: string, app: string): void {
  const paths = [
    `overlay/${app}`,
    `${TREE}/opt/stage2/${app}`,
    `${TREE}/rkt/apps/${app}`,
    `${TREE}/rkt/env/${app}`,
    ...filesOf(dir, STATUS_FOLDER, app),
    ...filesOf(dir, `${TREE}/rkt/logs`, app),
    ...filesOf(dir, `${TREE}/rkt/attach`, app),
    // Last: `image gc` keeps the app's image for as long as it is there.
    `appsinfo/${app}`,
  ];
  for (const path of paths.map(name => join(dir, name)).filter(path => existsSync(path))) {
    const [failure] = removeTree(path);
    if (failure !== undefined) {
      throw new TspodError('system', `can't remove the files of app "${app}": ${failure}`, {
        hint: 'mend that and try again',
      });
    }
  }
}

/** An app's name has no underscore or dot, but it may be the beginning of another's with a dash. */
function filesOf(dir: string, folder: string, app: string): readonly string[] {
  const suffix =
    /^(?:|-(?:created|started|pid|failed|oom|stdin|stdout|stderr|tty)|\.log(?:\.\d{1,3})?)$/;
  let names: readonly string[];
  try {
    names = readdirSync(join(dir, folder));
  } catch {
    return [];
  }
  return names
    .filter(name => name.startsWith(app) && suffix.test(name.slice(app.length)))
    .map(name => `${folder}/${name}`);
}

/** What a command that was killed has left of an app that the manifest does not have. */
export function hasRemains(dir: string, app: string): boolean {
  return [
    `overlay/${app}`,
    `${TREE}/opt/stage2/${app}`,
    `${TREE}/rkt/apps/${app}`,
    `appsinfo/${app}`,
  ].some(path => existsSync(join(dir, path)));
}
