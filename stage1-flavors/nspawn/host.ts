/**
 * Where a pod lives on this host: with systemd in a scope that systemd-machined makes for it, or in the unit that
 * it was started by; without systemd in a cgroup of its own below the starter's.
 */
import { existsSync } from 'node:fs';
import { type CgroupView, hostCgroups } from '../cgroup-places.ts';

export type Place = 'scope' | 'unit' | 'own';

/** sd_booted(3) */
const BOOTED = '/run/systemd/system';
/** In the host's file system; systemd keeps it over restarts of the journal. */
export const JOURNAL_SOCKET = '/run/systemd/journal/socket';

export function hostPlace(): Place {
  return existsSync(BOOTED) ? placeUnderSystemd(hostCgroups()) : 'own';
}

export function hasJournal(): boolean {
  return existsSync(BOOTED) && existsSync(JOURNAL_SOCKET);
}

/** The innermost unit counts: a session's scope may lie in a user's service, and a service in a slice. */
export function placeUnderSystemd({ own }: Pick<CgroupView, 'own'>): 'scope' | 'unit' {
  const lines = own.split('\n').map(line => /^\d+:([^:]*):(.*)$/.exec(line));
  const path = lines.find(match => match?.[1] === '' || match?.[1] === 'name=systemd')?.[2];
  const unit = path?.split('/').findLast(name => /\.(service|scope|slice)$/.test(name));
  return unit?.endsWith('.service') ? 'unit' : 'scope';
}
