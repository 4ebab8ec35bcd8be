/** What of an app is in a pod, besides its names in the manifest and the runtime-config. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { TspodError } from '../../src/errors.ts';
import { STATUS_FOLDER } from '../../src/pod/folder.ts';
import type { Pod } from '../../src/pod/pod.ts';
import { removeTree } from '../../src/store/remove-tree.ts';
import { faultPoint } from '../../src/sys/fault.ts';
import { ask } from '../../stage1-flavors/nspawn/control.ts';
import { unmountSteps } from '../../stage1-flavors/nspawn/mutable.ts';
import type { ChangedPod } from './change.ts';
import { appStates } from './init.ts';
import { runPlan } from './run-plan.ts';

const TREE = 'stage1/rootfs';

/** Stops the app, and takes it out of the running pod's init and mounts. Nothing of it need be there. */
export async function removeFromRunning(
  pod: Pod,
  running: NonNullable<ChangedPod['running']>,
  app: string,
): Promise<void> {
  if ((await appStates(running.dir)).has(app)) {
    await ask(running.dir, ['stop', app], { timeoutMs: Number.POSITIVE_INFINITY });
    faultPoint('app-rm-stopped');
    await ask(running.dir, ['remove', app]);
  }
  faultPoint('app-rm-removed');
  const steps = unmountSteps(pod.options.program, app, running);
  runPlan(running.dir, running.lockFd, `can't unmount app "${app}"`, steps);
  faultPoint('app-rm-unmounted');
}

/** Removes the app's files, once nothing is mounted there. @throws TspodError 'system' */
export function removeFiles(dir: string, app: string): void {
  const paths = [
    `overlay/${app}`,
    `${TREE}/opt/stage2/${app}`,
    `${TREE}/rkt/apps/${app}`,
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
    /^(?:|-(?:created|started|pid|failed|stdin|stdout|stderr|tty)|\.log(?:\.\d{1,3})?)$/;
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
