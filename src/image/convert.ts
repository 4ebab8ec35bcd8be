/**
 * What an OCI image's config says about its app, in appc's words (image-spec 1.1 config.md; appc 0.8.11
 * "Image Manifest"). Names are those that docker2aci gave, because scripts written for rkt use them:
 * port `80/tcp` is `80-tcp`, volume `/var/lib/x` is `volume-var-lib-x`.
 *
 * Everything here comes from the image and is only ever data: labels and the stop signal become
 * annotations below a prefix of their own, so that no image can set an option of the runtime
 * (CVE-2026-53488).
 */
import { posix } from 'node:path';
import { TspodError } from '../errors.ts';
import type { App, MountPoint, NameValue, Port } from './appc.ts';
import { type Digest, digestHex } from './digest.ts';
import type { ImageConfig } from './oci.ts';
import { parseRegistryReference } from './reference.ts';

export const LABEL_PREFIX = 'oci/label/';
/** docker2aci's. */
const DOCKER_PREFIX = 'appc.io/docker/';
export const STOP_SIGNAL_ANNOTATION = 'oci/stop-signal';
/** Its JSON as in the config. Kept for whoever looks; nothing here runs it. */
export const HEALTHCHECK_ANNOTATION = 'oci/healthcheck';

/** Bound on each list of a config: ports, volumes, environment, labels. */
const MAX_ENTRIES = 10_000;
/** (uid_t)-1 means "no change" to the kernel; CVE-2024-40635. */
export const MAX_ID = 0xffff_fffe;

export interface ConvertedImage {
  readonly app: App;
  /** The config names a user and no group: the user's groups in the image's own files count. */
  readonly groupsOfUser: boolean;
  readonly annotations: readonly NameValue[];
}

/**
 * @param image its name, for messages
 * @throws TspodError 'protocol' that names the field, 'limit' for a list over its bound
 */
export function appFromImageConfig(config: ImageConfig, image: string): ConvertedImage {
  const { User, Env, Entrypoint, Cmd, WorkingDir, ExposedPorts, Volumes, Labels, StopSignal } =
    config.config;
  const { Healthcheck } = config.config;
  const bad = (field: string, why: string) =>
    new TspodError('protocol', `image ${image}: its config's ${field} is wrong: ${why}`);
  const bounded = (field: string, count: number) => {
    if (count > MAX_ENTRIES) {
      throw new TspodError(
        'limit',
        `image ${image}: its config has ${count} entries in ${field}: the limit is ${MAX_ENTRIES}`,
      );
    }
  };
  bounded('Env', Env.length);
  bounded('ExposedPorts', ExposedPorts.length);
  bounded('Volumes', Volumes.length);
  bounded('Labels', Object.keys(Labels).length);

  const { user, group } = parseUser(User, why => bad('User', why));
  if (WorkingDir !== '' && !isCleanAbsolute(WorkingDir)) {
    throw bad('WorkingDir', `${JSON.stringify(WorkingDir)} is not an absolute path`);
  }
  const app: App = {
    exec: [...Entrypoint, ...Cmd],
    user,
    group: group ?? '0',
    ...(WorkingDir === '' ? {} : { workingDirectory: WorkingDir }),
    environment: environmentOf(Env, why => bad('Env', why)),
    mountPoints: mountPointsOf(Volumes, why => bad('Volumes', why)),
    ports: ExposedPorts.map(text => parsePort(text, why => bad('ExposedPorts', why))).sort(byName),
  };
  const annotations = Object.entries(Labels).map(([name, value]) => ({
    name: LABEL_PREFIX + name,
    value,
  }));
  // What programs that make pod manifests read of an image that docker2aci converted.
  const { author = '', created = '' } = config;
  const known: readonly (readonly [string, string])[] = [
    ['author', author],
    ['created', created],
    [`${DOCKER_PREFIX}entrypoint`, Entrypoint.length === 0 ? '' : JSON.stringify(Entrypoint)],
    [`${DOCKER_PREFIX}cmd`, Cmd.length === 0 ? '' : JSON.stringify(Cmd)],
  ];
  for (const [name, value] of known) if (value !== '') annotations.push({ name, value });
  if (Healthcheck !== undefined) {
    annotations.push({ name: HEALTHCHECK_ANNOTATION, value: JSON.stringify(Healthcheck) });
  }
  if (StopSignal !== '') annotations.push({ name: STOP_SIGNAL_ANNOTATION, value: StopSignal });
  return { app, groupsOfUser: group === undefined && user !== '0', annotations };
}

/** docker2aci's annotations that say where an image of a registry came from. */
export function originAnnotations(name: string, id: Digest): readonly NameValue[] {
  if (!name.startsWith('docker://')) return [];
  const { registry, repository, tag, digest } = parseRegistryReference(
    name.slice('docker://'.length),
  );
  const known: readonly (readonly [string, string | undefined])[] = [
    ['registryurl', registry],
    ['repository', repository],
    ['tag', tag],
    ['manifesthash', digest],
    ['imageid', digestHex(id)],
    ['originalname', name.slice('docker://'.length)],
  ];
  return known.flatMap(([key, value]) =>
    value === undefined ? [] : [{ name: DOCKER_PREFIX + key, value }],
  );
}

/**
 * `user[:group]`, each a name or a number; nothing else (CVE-2026-30892). All digits is always a number
 * (CVE-2016-3697). Empty: root.
 */
function parseUser(
  text: string,
  bad: (why: string) => TspodError,
): { readonly user: string; readonly group: string | undefined } {
  if (text === '') return { user: '0', group: undefined };
  const parts = text.split(':');
  const [user = '', group] = parts;
  if (parts.length > 2) throw bad(`${JSON.stringify(text)} is not user[:group]`);
  for (const part of parts) {
    const why = badUserOrGroup(part);
    if (why !== undefined) throw bad(why);
  }
  return { user, group };
}

const ACCOUNT_NAME = /^[A-Za-z0-9_.][A-Za-z0-9_.@-]{0,254}\$?$/;

/** Why the text is neither an account's name nor a number; undefined when it is one. */
export function badUserOrGroup(text: string): string | undefined {
  if (/^[0-9]+$/.test(text)) {
    return text.length <= 10 && Number(text) <= MAX_ID
      ? undefined
      : `${text.slice(0, 40)} is over ${MAX_ID}`;
  }
  return ACCOUNT_NAME.test(text)
    ? undefined
    : `${JSON.stringify(text.slice(0, 100))} is not a name or number`;
}

/** The last value of a name wins, in the place of the first, as with every exec that sees the list. */
function environmentOf(
  env: readonly string[],
  bad: (why: string) => TspodError,
): readonly NameValue[] {
  const values = new Map<string, string>();
  for (const entry of env) {
    const split = entry.indexOf('=');
    const name = split === -1 ? entry : entry.slice(0, split);
    if (name === '' || entry.includes('\0'))
      throw bad(`${JSON.stringify(entry.slice(0, 100))} is not NAME=VALUE`);
    values.set(name, split === -1 ? '' : entry.slice(split + 1));
  }
  return [...values].map(([name, value]) => ({ name, value }));
}

function mountPointsOf(
  volumes: readonly string[],
  bad: (why: string) => TspodError,
): readonly MountPoint[] {
  const byPath = new Map<string, MountPoint>();
  const names = new Set<string>();
  for (const text of volumes) {
    if (!isCleanAbsolute(text))
      throw bad(`${JSON.stringify(text.slice(0, 100))} is not an absolute path without ".."`);
    const path = normalized(text);
    if (path === '/') throw bad('"/" can not be a volume');
    if (byPath.has(path)) continue;
    const stem = `volume${path}`
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, '-')
      .replace(/-$/, '');
    let name = stem;
    for (let n = 1; names.has(name); n++) name = `${stem}-${n}`;
    names.add(name);
    byPath.set(path, { name, path });
  }
  return [...byPath.values()].sort(byName);
}

function byName(a: { readonly name: string }, b: { readonly name: string }): number {
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
}

/** `80/tcp`, `80/udp` or `80`, which is tcp. */
function parsePort(text: string, bad: (why: string) => TspodError): Port {
  const match = /^([0-9]{1,5})(?:\/(tcp|udp|sctp))?$/.exec(text);
  const port = Number(match?.[1]);
  if (match === null || port < 1 || port > 65_535) {
    throw bad(`${JSON.stringify(text.slice(0, 100))} is not PORT[/tcp|udp|sctp]`);
  }
  const protocol = match[2] ?? 'tcp';
  return { name: `${port}-${protocol}`, protocol, port };
}

/** Absolute, without NUL, and never climbing. The launcher resolves it inside the root all the same. */
export function isCleanAbsolute(path: string): boolean {
  return path.startsWith('/') && !path.includes('\0') && !path.split('/').includes('..');
}

/** Without doubled or final slashes. */
export function normalized(path: string): string {
  const clean = posix.normalize(path);
  return clean.length > 1 && clean.endsWith('/') ? clean.slice(0, -1) : clean;
}
