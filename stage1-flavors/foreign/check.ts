/**
 * What a stage1 image is not asked for, because the version of its interface has no word for it (rkt-1.30,
 * stage0/interface: each version's options), or because the words for it are tspod's own.
 */
import { isMutable } from '../../src/pod/mutable.ts';
import type { Pod } from '../../src/pod/pod.ts';
import type { Stage1Image } from '../../src/pod/stage1-image.ts';
import { unsupported } from '../isolation.ts';

/** What it takes for apps to come and go. */
const MUTABLE = ['enter', 'app/add', 'app/rm', 'app/start', 'app/stop'] as const;

/** @throws TspodError 'unsupported' that names the option, volume or isolator */
export function check(pod: Pod): void {
  const stage1 = stage1Of(pod);
  const { manifest, options } = pod;
  refuseByVersion(pod, stage1);
  if (isMutable(manifest)) {
    const missing = MUTABLE.find(kind => stage1.entryPoints[kind] === undefined);
    if (missing !== undefined)
      throw unsupported(
        `stage1 ${stage1.name} does not support mutable pods: it has no ${missing}`,
      );
  }
  if (options.privateUsers)
    throw unsupported(`--private-users: not in this version with a stage1 image`);
  if (options.mdsRegister) throw unsupported('--mds-register: there is no metadata service');
  for (const volume of manifest.volumes) {
    const beyond = (['propagation', 'size'] as const).find(key => volume[key] !== undefined);
    if (!['host', 'empty'].includes(volume.kind) || beyond !== undefined) {
      const what = beyond ?? `kind=${volume.kind}`;
      throw unsupported(`volume "${volume.name}": stage1 images know no ${what}`);
    }
  }
  for (const { name, app } of pod.apps) {
    const own = app.isolators?.find(isolator => isolator.name === 'os/linux/rlimits');
    if (own !== undefined)
      throw unsupported(`isolator ${own.name} of app "${name}": stage1 images do not know it`);
  }
}

function refuseByVersion(
  { options, manifest }: Pod,
  { name, interfaceVersion }: Stage1Image,
): void {
  const needs = (version: number, asked: boolean, flag: string) => {
    if (!asked || interfaceVersion >= version) return;
    throw unsupported(
      `${flag}: stage1 ${name} has interface version ${interfaceVersion}, which has no word for it`,
      `it takes version ${version}`,
    );
  };
  const { insecure, dns, hosts } = options;
  needs(2, options.hostname !== undefined, '--hostname');
  needs(3, insecure.capabilities, '--insecure-options=capabilities');
  needs(3, insecure.paths, '--insecure-options=paths');
  needs(3, insecure.seccomp, '--insecure-options=seccomp');
  needs(4, dns.mode === 'host' || dns.mode === 'none', `--dns=${dns.mode}`);
  needs(4, hosts.mode === 'host', '--hosts-entry=host');
  needs(5, isMutable(manifest), 'app sandbox');
  needs(6, options.ipc !== undefined && options.ipc !== 'auto', `--ipc=${options.ipc}`);
}

/** @throws Error for a pod that a built-in flavor runs */
export function stage1Of({ uuid, options }: Pick<Pod, 'uuid' | 'options'>): Stage1Image {
  if (options.stage1 === undefined) throw unsupported(`pod ${uuid}: it has no stage1 image`);
  return options.stage1;
}
