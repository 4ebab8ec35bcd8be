/**
 * Writes rules of trust, one file for each prefix, into `trust.d` of the folder that commands may change: the
 * user's where one is given, else the local one, so that no later folder hides what was asked for.
 */
import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fchmodSync,
  fsyncSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { errnoOf, systemError } from '../errors.ts';
import type { ConfigFolders } from './config.ts';
import { ALL_NAMES, type TrustRule, trustToJson } from './trust.ts';

const MAX_FILE_NAME = 200;

export function ownTrustFolder({ localConfig, userConfig }: ConfigFolders): string {
  return join(userConfig === '' ? localConfig : userConfig, 'trust.d');
}

/** `docker.io%2Flibrary.json`; no prefix has an underscore at its beginning. */
export function trustFile(folders: ConfigFolders, prefix: string): string {
  const plain = prefix === ALL_NAMES ? '_all' : encodeURIComponent(prefix);
  const digest = createHash('sha256').update(prefix).digest('hex').slice(0, 16);
  const name = plain.length > MAX_FILE_NAME ? `${plain.slice(0, MAX_FILE_NAME)}~${digest}` : plain;
  return join(ownTrustFolder(folders), `${name}.json`);
}

/** Aside, fsync, rename; everybody may read it, whatever the umask. @throws TspodError 'system', 'disk-full' */
export function writeTrustRule(path: string, rule: TrustRule): void {
  // Its name does not end in .json, so nobody reads it as a rule.
  const aside = `${path}.${process.pid}.new`;
  try {
    makeFolder(dirname(path));
    const fd = openSync(aside, 'w', 0o644);
    try {
      fchmodSync(fd, 0o644);
      writeFileSync(fd, `${JSON.stringify(trustToJson(rule), undefined, 2)}\n`);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(aside, path);
    syncFolder(dirname(path));
  } catch (error) {
    rmSync(aside, { force: true });
    throw explain(`can't write ${path}`, error);
  }
}

export function removeTrustFile(path: string): void {
  try {
    rmSync(path);
    syncFolder(dirname(path));
  } catch (error) {
    throw explain(`can't remove ${path}`, error);
  }
}

function makeFolder(path: string): void {
  if (existsSync(path)) return;
  mkdirSync(path, { recursive: true, mode: 0o755 });
  syncFolder(dirname(path));
}

function syncFolder(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function explain(what: string, error: unknown): Error {
  const denied = errnoOf(error) === 'EACCES';
  return systemError(
    what,
    error,
    denied ? 'run it as root, or name a folder with --user-config' : undefined,
  );
}
