/** What kvm refuses, by name, before anything is written. */
import { isMutable } from '../../src/pod/mutable.ts';
import type { Pod } from '../../src/pod/pod.ts';
import { unsupported } from '../isolation.ts';
import { checkPod } from '../nspawn/check.ts';
import { findFileServer, findQemu } from './qemu.ts';

/** @throws TspodError 'unsupported' that names the option, isolator or field */
export function check(pod: Pod): void {
  findQemu();
  findFileServer();
  const { options, manifest } = pod;
  if (options.net === 'host')
    throw unsupported("--net=host: a machine can't have the host's network", 'use --net=default');
  if (isMutable(manifest))
    throw unsupported(
      "a pod whose apps come while it runs: a machine can't get new disks",
      'use --stage1-name=nspawn',
    );
  const device = manifest.volumes.find(({ kind }) => kind === 'device');
  if (device !== undefined)
    throw unsupported(
      `volume "${device.name}": a machine can't have a device of the host`,
      'use --stage1-name=nspawn',
    );
  checkPod(pod);
}
