/**
 * The appc PodManifest as JSON (appc 0.8.11 "Pod Manifest"), read from a pod's folder and from
 * `--pod-manifest`. Every field is checked, sizes and counts are bounded, and a field that nothing here
 * reads is an error that names it: what is asked for is honoured or refused.
 */
import { TspodError } from '../errors.ts';
import type {
  App,
  EventHandler,
  ExposedPort,
  Isolator,
  Mount,
  MountPoint,
  NameValue,
  PodManifest,
  Port,
  RuntimeApp,
  Volume,
} from '../image/appc.ts';
import { isCleanAbsolute, MAX_ID } from '../image/convert.ts';
import { readIsolation } from './isolators.ts';
import { JsonReader } from './json-reader.ts';
import { isMutable } from './mutable.ts';
import { isAcName } from './names.ts';
import { VOLUME_KINDS, whyBadTarget, whyBadVolume } from './volumes.ts';

export const POD_MANIFEST_MAX_BYTES = 4 * 1024 * 1024;
const MAX_APPS = 256;
const MAX_LIST = 10_000;
const MAX_TEXT = 128 * 1024;

/** @throws TspodError 'pod' that names the field, 'limit' for a manifest over its bounds */
export function parsePodManifest(bytes: Uint8Array): PodManifest {
  const root = JsonReader.parse(bytes, {
    what: 'pod manifest',
    maxBytes: POD_MANIFEST_MAX_BYTES,
    maxList: MAX_LIST,
    maxText: MAX_TEXT,
  });
  const top = root.object();
  const kind = top.get('acKind').text();
  if (kind !== 'PodManifest')
    throw top.get('acKind').wrong(`"${kind.slice(0, 40)}" is not PodManifest`);
  const manifest: PodManifest = {
    acVersion: top.get('acVersion').text(),
    acKind: kind,
    apps: top.get('apps').list(MAX_APPS, readRuntimeApp),
    volumes: top.get('volumes').listOrEmpty(readVolume),
    isolators: top.get('isolators').listOrEmpty(readIsolator),
    annotations: top.get('annotations').listOrEmpty(readNameValue),
    ports: top.get('ports').listOrEmpty(readExposedPort),
    ...top.optional('userAnnotations', field => field.textMap()),
    ...top.optional('userLabels', field => field.textMap()),
  };
  top.nothingElse();
  if (manifest.apps.length === 0 && !isMutable(manifest)) throw root.wrong('it has no apps');
  unique(
    manifest.apps.map(({ name }) => name),
    name => new TspodError('pod', `multiple apps with name ${name}`),
  );
  unique(
    manifest.volumes.map(({ name }) => name),
    name => new TspodError('pod', `pod manifest: there is more than one volume "${name}"`),
  );
  return manifest;
}

function readRuntimeApp(reader: JsonReader): RuntimeApp {
  const object = reader.object();
  const image = object.get('image').object();
  const app: RuntimeApp = {
    name: acName(object.get('name')),
    image: {
      ...image.optional('name', field => field.text()),
      id: image.get('id').text(),
      ...image.optional('labels', field => field.listOrEmpty(readNameValue)),
    },
    ...object.optional('app', readApp),
    ...object.optional('readOnlyRootFS', field => field.boolean()),
    ...object.optional('mounts', field => field.listOrEmpty(readMount)),
    ...object.optional('annotations', field => field.listOrEmpty(readNameValue)),
  };
  image.nothingElse();
  object.nothingElse();
  return app;
}

export function readApp(reader: JsonReader): App {
  const object = reader.object();
  const app: App = {
    exec: object.get('exec').listOrEmpty(item => item.textWithoutNul()),
    user: userOrGroup(object.get('user')),
    group: userOrGroup(object.get('group')),
    ...object.optional('supplementaryGIDs', field =>
      field.listOrEmpty(item => item.integer(0, MAX_ID)),
    ),
    ...object.optional('workingDirectory', field => {
      const path = field.textWithoutNul();
      if (path !== '' && !isCleanAbsolute(path))
        throw field.wrong(`${JSON.stringify(path)} is not an absolute path`);
      return path;
    }),
    ...object.optional('environment', field => field.listOrEmpty(readVariable)),
    ...object.optional('mountPoints', field => field.listOrEmpty(readMountPoint)),
    ...object.optional('ports', field => field.listOrEmpty(readPort)),
    ...object.optional('isolators', field => field.listOrEmpty(readIsolator)),
    ...object.optional('eventHandlers', field => field.listOrEmpty(readEventHandler)),
    ...object.optional('userAnnotations', field => field.textMap()),
    ...object.optional('userLabels', field => field.textMap()),
  };
  object.nothingElse();
  readIsolation(app.isolators ?? [], reader.path);
  return app;
}

/** A name, a number in range, or an absolute path whose owner counts. */
function userOrGroup(field: JsonReader): string {
  const text = field.textWithoutNul();
  const why = whyBadAccount(text);
  if (why !== undefined) throw field.wrong(why);
  return text;
}

/** appc's user and group; undefined: it is one. */
export function whyBadAccount(text: string): string | undefined {
  if (text.startsWith('/')) return isCleanAbsolute(text) ? undefined : 'its path has ".." in it';
  if (/^[0-9]+$/.test(text)) {
    return text.length <= 10 && Number(text) <= MAX_ID
      ? undefined
      : `${text.slice(0, 40)} is over ${MAX_ID}`;
  }
  if (/^[A-Za-z0-9_.][A-Za-z0-9_.@-]{0,254}\$?$/.test(text)) return undefined;
  return `${JSON.stringify(text.slice(0, 100))} is no name, number or absolute path`;
}

function readVolume(reader: JsonReader): Volume {
  const object = reader.object();
  const volume: Volume = {
    name: object.get('name').text(),
    kind: object.get('kind').oneOf(VOLUME_KINDS),
    ...object.optional('source', field => field.textWithoutNul()),
    ...object.optional('readOnly', field => field.boolean()),
    ...object.optional('recursive', field => field.boolean()),
    ...object.optional('propagation', field => field.oneOf(['private', 'slave', 'shared'])),
    ...object.optional('mode', field => field.text()),
    ...object.optional('uid', field => field.integer(0, MAX_ID)),
    ...object.optional('gid', field => field.integer(0, MAX_ID)),
    ...object.optional('size', field => field.integer(0, Number.MAX_SAFE_INTEGER)),
  };
  object.nothingElse();
  const why = whyBadVolume(volume);
  if (why !== undefined) throw reader.wrong(why);
  return volume;
}

function readMount(reader: JsonReader): Mount {
  const object = reader.object();
  const mount = { volume: acName(object.get('volume')), path: targetPath(object.get('path')) };
  object.nothingElse();
  return mount;
}

function readMountPoint(reader: JsonReader): MountPoint {
  const object = reader.object();
  const point = {
    name: acName(object.get('name')),
    path: targetPath(object.get('path')),
    ...object.optional('readOnly', field => field.boolean()),
  };
  object.nothingElse();
  return point;
}

function targetPath(field: JsonReader): string {
  const path = field.text();
  const why = whyBadTarget(path);
  if (why !== undefined) throw field.wrong(why);
  return path;
}

function readPort(reader: JsonReader): Port {
  const object = reader.object();
  const port = {
    name: acName(object.get('name')),
    protocol: object.get('protocol').oneOf(['tcp', 'udp', 'sctp']),
    port: object.get('port').integer(1, 65_535),
    ...object.optional('count', field => field.integer(1, 65_535)),
    ...object.optional('socketActivated', field => field.boolean()),
  };
  object.nothingElse();
  return port;
}

function readExposedPort(reader: JsonReader): ExposedPort {
  const object = reader.object();
  const port = {
    name: acName(object.get('name')),
    hostPort: object.get('hostPort').integer(0, 65_535),
    ...object.optional('hostIP', field => field.text()),
    ...object.optional('podPort', readPort),
  };
  object.nothingElse();
  return port;
}

function readIsolator(reader: JsonReader): Isolator {
  const object = reader.object();
  const isolator = { name: object.get('name').text(), value: object.get('value').value };
  object.nothingElse();
  return isolator;
}

function readEventHandler(reader: JsonReader): EventHandler {
  const object = reader.object();
  const handler = {
    name: object.get('name').oneOf(['pre-start', 'post-stop']),
    exec: object.get('exec').listOrEmpty(item => item.textWithoutNul()),
  };
  object.nothingElse();
  return handler;
}

export function readNameValue(reader: JsonReader): NameValue {
  const object = reader.object();
  const pair = { name: object.get('name').text(), value: object.get('value').text() };
  object.nothingElse();
  return pair;
}

function readVariable(reader: JsonReader): NameValue {
  const object = reader.object();
  const name = object.get('name').textWithoutNul();
  if (name === '' || name.includes('='))
    throw reader.wrong(`${JSON.stringify(name)} is not a variable's name`);
  const variable = { name, value: object.get('value').textWithoutNul() };
  object.nothingElse();
  return variable;
}

function acName(field: JsonReader): string {
  const text = field.text();
  if (!isAcName(text))
    throw field.wrong(
      `${JSON.stringify(text.slice(0, 100))} is not a name of lower-case letters, digits and single dashes`,
    );
  return text;
}

function unique(names: readonly string[], error: (name: string) => TspodError): void {
  const seen = new Set<string>();
  for (const name of names) {
    if (seen.has(name)) throw error(name);
    seen.add(name);
  }
}
