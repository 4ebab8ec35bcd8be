/**
 * fly: one app in a root file system of its own and nothing else of its own. For tools of the host that
 * should come as images. README.md says what it isolates and what not.
 */
import { randomUUID } from 'node:crypto';
import { closeSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { errnoOf, systemError, TspodError } from '../../src/errors.ts';
import type { LaunchPlan, Step } from '../../src/pod/launch-plan.ts';
import type { Pod } from '../../src/pod/pod.ts';
import { native } from '../../src/sys/native.ts';
import type { EnterRequest, Flavor, RunningPod } from '../flavor.ts';
import { appPlan, identitySteps } from './app-plan.ts';
import { cgroupName } from './cgroups.ts';
import { check, onlyApp } from './check.ts';
import { CGROUPS_FILE, launchSteps } from './launch-steps.ts';

const SIGKILL = 9;
const SIGTERM = 15;
/** rkt assumes the first. */
const SHELLS = ['/bin/bash', '/bin/sh'];

export const fly: Flavor = {
  name: 'fly',
  interfaceVersion: 5,
  recursiveByDefault: false,
  check,
  plan(pod: Pod): LaunchPlan {
    check(pod);
    const app = onlyApp(pod);
    return { steps: launchSteps(pod, app), apps: new Map([[app.name, appPlan(pod, app)]]) };
  },
  enter,
  stop,
  gc,
};

function enter(pod: Pod, running: RunningPod, request: EnterRequest): LaunchPlan {
  const app = onlyApp(pod);
  if (app.name !== request.app) {
    throw new TspodError('not-found', `pod ${pod.uuid}: it has no app "${request.app}"`, {
      hint: `its app is "${app.name}"`,
    });
  }
  const environment = new Map((app.app.environment ?? []).map(({ name, value }) => [name, value]));
  for (const [name, value] of Object.entries(request.environment)) environment.set(name, value);
  const { pid, startTime } = pidFile(running);
  const steps: Step[] = [
    ['program', pod.options.program],
    ['join-cgroups', `${pid}:${startTime}`],
    ['join-namespaces', `${pid}:${startTime}`, 'mount'],
    // Of this call alone: two that enter at once must not start each other's command.
    ['start', `${running.dir}/appsinfo/${app.name}/enter-plan-${randomUUID()}`],
  ];
  const appSteps: Step[] = [
    ...identitySteps(pod, app, join(running.dir, app.root)),
    ...[...environment].map(([name, value]): Step => ['env', `${name}=${value}`]),
    ['env-from-user'],
    ['workdir', '/'],
    request.command.length === 0 ? ['exec-any', ...SHELLS] : ['exec', ...request.command],
  ];
  return { steps, apps: new Map([[app.name, appSteps]]) };
}

/** `PID STARTTIME BOOT-ID`, written by the launcher. */
function pidFile(running: RunningPod): { readonly pid: number; readonly startTime: string } {
  let text: string;
  try {
    text = readFileSync(join(running.dir, 'pid'), 'latin1');
  } catch (error) {
    throw systemError(`pod ${running.uuid}: can't read its pid file`, error);
  }
  const match = /^([1-9][0-9]{0,9}) ([0-9]{1,20}) ([0-9a-f-]{36})\n?$/.exec(text);
  const [, pid = '', startTime = '', boot = ''] = match ?? [];
  if (match === null) throw new TspodError('pod', `pod ${running.uuid}: its pid file is damaged`);
  if (boot !== readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()) {
    throw new TspodError('state', `pod ${running.uuid}: its process is of an earlier boot`);
  }
  return { pid: Number(pid), startTime };
}

/** Field 22 of /proc/PID/stat; undefined when there is no such process. The name in field 2 may hold anything. */
function startTimeOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ESRCH') return undefined;
    throw systemError(`can't read the state of process ${pid}`, error);
  }
}

/** By pidfd, and only after the start time agreed: a number that was given to another process is left alone. */
function stop(running: RunningPod, force: boolean): void {
  const { pid, startTime } = pidFile(running);
  let fd: number;
  try {
    fd = native().pidfdOpen(pid);
  } catch (error) {
    if (errnoOf(error) === 'ESRCH') return;
    throw systemError(`pod ${running.uuid}: can't open process ${pid}`, error);
  }
  try {
    if (startTimeOf(pid) !== startTime) return;
    native().pidfdSend(fd, force ? SIGKILL : SIGTERM);
  } catch (error) {
    if (errnoOf(error) !== 'ESRCH')
      throw systemError(`pod ${running.uuid}: can't signal process ${pid}`, error);
  } finally {
    closeSync(fd);
  }
}

/** Mounts and the namespace went with the pod's last process; only its cgroups are left. */
function gc({ uuid, dir }: { readonly uuid: string; readonly dir: string }): void {
  let text: string;
  try {
    text = readFileSync(join(dir, CGROUPS_FILE), 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return;
    throw systemError(`pod ${uuid}: can't read which cgroups it made`, error);
  }
  for (const folder of text.split('\n').filter(line => line !== '')) {
    if (!folder.startsWith('/') || !folder.endsWith(`/${cgroupName(uuid)}`)) {
      throw new TspodError(
        'pod',
        `pod ${uuid}: its folder names a cgroup that is not its own: ${folder}`,
      );
    }
    try {
      rmdirSync(folder);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') continue;
      throw systemError(`pod ${uuid}: can't remove cgroup ${folder}`, error);
    }
  }
}
