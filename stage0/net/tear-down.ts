/**
 * Undoes what a pod's networks have done to the host: rules, leases, interfaces, the namespace. Every step may have been
 * done before, or never: after a crash, a reboot, or by another process.
 */
import { existsSync, rmSync } from 'node:fs';
import { errnoOf, systemError } from '../../src/errors.ts';
import { netnsPath } from '../../src/pod/net-request.ts';
import { faultPoint } from '../../src/sys/fault.ts';
import { native } from '../../src/sys/native.ts';
import { deleteNetwork } from './cni.ts';
import { removeRules } from './filter.ts';
import { releasePorts } from './ports.ts';
import { forgetRecords, hasRecords, readRecords } from './records.ts';

/**
 * The pod has ended, or never came to run, and this process holds its lock.
 * @param dir the pod's folder, wherever it lies by now
 * @throws TspodError the first failure; what is left is done by the next call
 */
export function tearDownNetworks(uuid: string, dir: string): void {
  if (!hasRecords(dir)) return;
  removeRules(uuid);
  faultPoint('net-rules-removed');
  // Plugins that find no namespace only give back what they keep outside of it.
  const path = netnsPath(uuid);
  const netns = isKept(path) ? path : undefined;
  for (const [file, record] of [...readRecords(dir)].reverse()) {
    const { network, cniVersion, ifName, args, runtimeConfig, localConfig, result } = record;
    const attachment = { containerId: uuid, netns, ifName, args, runtimeConfig };
    deleteNetwork(network, cniVersion, attachment, localConfig, result);
    faultPoint('net-deleted');
    rmSync(file, { force: true });
  }
  releaseNamespace(path);
  releasePorts(uuid);
  forgetRecords(dir);
}

/** A file without a mount is what a crash between making and mounting, or another mount namespace, shows. */
function isKept(path: string): boolean {
  return existsSync(path) && native().statfsType(path) === NSFS_MAGIC;
}

/** statfs(2) */
const NSFS_MAGIC = 0x6e736673;

function releaseNamespace(path: string): void {
  try {
    if (isKept(path)) native().detachMount(path);
    rmSync(path, { force: true });
  } catch (error) {
    // Still mounted in a mount namespace that somebody has made since: it goes with that one.
    if (errnoOf(error) === 'EBUSY') return;
    throw systemError(`can't let go of ${path}`, error);
  }
}
