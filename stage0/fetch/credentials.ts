/**
 * Credentials of a registry, from where users of rkt, Docker and Podman keep them, in this order: rkt's
 * `auth.d` (dockerAuth, then auth), $REGISTRY_AUTH_FILE, ${XDG_RUNTIME_DIR}/containers/auth.json,
 * $DOCKER_CONFIG/config.json or ~/.docker/config.json. Specification: containers-auth.json(5); Docker's
 * "docker login", credential helpers.
 *
 * A helper is a program of the host; it gets a small environment of ours and time and output are bounded.
 */
import { execFile } from 'node:child_process';
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { Config } from '../../src/config/config.ts';
import { errnoOf, systemError, TspodError } from '../../src/errors.ts';
import { type JsonObject, JsonReader, parseBoundedJson } from '../../src/image/json.ts';

export type Credentials =
  | { readonly kind: 'basic'; readonly user: string; readonly password: string }
  /** An OAuth2 refresh token, to be exchanged at the token server. */
  | { readonly kind: 'identity'; readonly token: string }
  /** Sent as it is. */
  | { readonly kind: 'bearer'; readonly token: string };

const MAX_FILE = 1024 * 1024;
const HELPER_TIMEOUT = 30_000;
const HELPER_OUTPUT = 64 * 1024;
/** What credential helpers use to find their own store. */
const HELPER_ENVIRONMENT = [
  'PATH',
  'HOME',
  'USER',
  'LOGNAME',
  'LANG',
  'XDG_RUNTIME_DIR',
  'XDG_CONFIG_HOME',
  'XDG_DATA_HOME',
  'DBUS_SESSION_BUS_ADDRESS',
  'GNUPGHOME',
  'PASSWORD_STORE_DIR',
  'DOCKER_CONFIG',
] as const;
/** Under which Docker Hub is kept: docker login writes the last one, rkt the second. */
const HUB_NAMES = ['docker.io', 'registry-1.docker.io', 'index.docker.io'];

/** @param registry HOST[:PORT] as in the reference; `repository` for Podman's longer keys */
export async function findCredentials(
  config: Pick<Config, 'auth' | 'dockerAuth'>,
  registry: string,
  repository: string,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<Credentials | undefined> {
  const names = registry === 'docker.io' ? HUB_NAMES : [registry];
  for (const name of names) {
    const docker = config.dockerAuth.get(name);
    if (docker !== undefined) {
      return { kind: 'basic', user: docker.user, password: docker.password };
    }
  }
  for (const name of names) {
    const auth = config.auth.get(name)?.credentials;
    if (auth?.type === 'basic') return { kind: 'basic', user: auth.user, password: auth.password };
    if (auth?.type === 'oauth') return { kind: 'bearer', token: auth.token };
  }
  for (const file of credentialFiles(environment)) {
    const found = await fromFile(file, names, repository, environment);
    if (found !== undefined) return found;
  }
  return undefined;
}

function credentialFiles(environment: NodeJS.ProcessEnv): readonly string[] {
  const files: string[] = [];
  const set = (name: string) => environment[name] || undefined;
  const explicit = set('REGISTRY_AUTH_FILE');
  if (explicit !== undefined) files.push(explicit);
  const runtime = set('XDG_RUNTIME_DIR');
  if (runtime !== undefined) files.push(join(runtime, 'containers/auth.json'));
  files.push(
    join(set('DOCKER_CONFIG') ?? join(set('HOME') ?? homedir(), '.docker'), 'config.json'),
  );
  return files;
}

async function fromFile(
  file: string,
  registries: readonly string[],
  repository: string,
  environment: NodeJS.ProcessEnv,
): Promise<Credentials | undefined> {
  const bytes = readSmallFile(file);
  if (bytes === undefined) return undefined;
  const reader: JsonReader = new JsonReader({ what: `credentials ${file}`, code: 'config' });
  const object = reader.object(parseBoundedJson(bytes, MAX_FILE, reader.kind), '');
  const helpers = reader.stringMap(object.credHelpers, 'credHelpers', 1000);
  for (const registry of registries) {
    const helper = helpers[registry];
    if (helper !== undefined) return runHelper(helper, registry, environment);
  }
  const entry = findEntry(reader, object, registries, repository);
  if (entry !== undefined) {
    const found = readEntry(reader, entry.value, `auths[${JSON.stringify(entry.key)}]`);
    if (found !== undefined) return found;
  }
  const store = reader.optionalString(object.credsStore, 'credsStore');
  if (store === undefined || store === '') return undefined;
  for (const registry of registries) {
    const server = registry === 'docker.io' ? 'https://index.docker.io/v1/' : registry;
    const found = await runHelper(store, server, environment);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Podman's keys may go down to a namespace or repository: the longest wins. Docker's may be URLs. */
function findEntry(
  reader: JsonReader,
  object: JsonObject,
  registries: readonly string[],
  repository: string,
): { readonly key: string; readonly value: unknown } | undefined {
  const auths = reader.optionalObject(object.auths, 'auths') ?? {};
  const keys = reader.keys(auths, 'auths', 10_000);
  const parts = repository.split('/');
  for (const registry of registries) {
    for (let length = parts.length; length >= 0; length -= 1) {
      const wanted = [registry, ...parts.slice(0, length)].join('/');
      if (Object.hasOwn(auths, wanted)) return { key: wanted, value: auths[wanted] };
    }
    const key = keys.find(each => /^https?:\/\//.test(each) && hostOf(each) === registry);
    if (key !== undefined) return { key, value: auths[key] };
  }
  return undefined;
}

function hostOf(url: string): string | undefined {
  return /^https?:\/\/([^/]+)(?:\/(?:v[12]\/?)?)?$/.exec(url)?.[1]?.toLowerCase();
}

function readEntry(reader: JsonReader, value: unknown, path: string): Credentials | undefined {
  const object = reader.object(value, path);
  const identity = reader.optionalString(object.identitytoken, `${path}.identitytoken`);
  if (identity) return { kind: 'identity', token: identity };
  const bearer = reader.optionalString(object.registrytoken, `${path}.registrytoken`);
  if (bearer) return { kind: 'bearer', token: bearer };
  const auth = reader.optionalString(object.auth, `${path}.auth`);
  if (auth) {
    const decoded = Buffer.from(auth, 'base64').toString('utf8').replace(/\0+$/, '');
    const colon = decoded.indexOf(':');
    if (colon < 1) reader.fail(`${path}.auth`, 'is not base64 of user:password');
    return { kind: 'basic', user: decoded.slice(0, colon), password: decoded.slice(colon + 1) };
  }
  const user = reader.optionalString(object.username, `${path}.username`);
  const password = reader.optionalString(object.password, `${path}.password`);
  return user && password ? { kind: 'basic', user, password } : undefined;
}

function readSmallFile(file: string): Uint8Array | undefined {
  let fd: number | undefined;
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
    const stat = fstatSync(fd);
    if (!stat.isFile() || stat.size > MAX_FILE) {
      throw new TspodError(
        'config',
        `credentials ${file}: not a file of at most ${MAX_FILE} bytes`,
      );
    }
    return readFileSync(fd);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    if (error instanceof TspodError) throw error;
    const { message } = systemError(`credentials ${file}: can't read it`, error);
    throw new TspodError('config', message, { cause: error });
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** `docker-credential-NAME get`: the server on its standard input, JSON on its output. */
async function runHelper(
  name: string,
  server: string,
  environment: NodeJS.ProcessEnv,
): Promise<Credentials | undefined> {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name)) {
    throw new TspodError(
      'config',
      `credential helper ${JSON.stringify(name)}: not a program's name`,
    );
  }
  const program = `docker-credential-${name}`;
  const env = Object.fromEntries(
    HELPER_ENVIRONMENT.flatMap(key => {
      const value = environment[key];
      return value === undefined ? [] : [[key, value]];
    }),
  );
  const output = await new Promise<string | undefined>((resolve, reject) => {
    const child = execFile(
      program,
      ['get'],
      { env, timeout: HELPER_TIMEOUT, killSignal: 'SIGKILL', maxBuffer: HELPER_OUTPUT, cwd: '/' },
      (error, stdout) => {
        if (error === null) resolve(stdout);
        // It says so on standard output, and that is no failure: the registry may need none.
        else if (/credentials not found in native keychain/.test(stdout)) resolve(undefined);
        else reject(helperFailed(program, error));
      },
    );
    child.stdin?.on('error', () => undefined); // it may end without reading
    child.stdin?.end(server);
  });
  if (output === undefined) return undefined;
  const reader: JsonReader = new JsonReader({ what: `answer of ${program}`, code: 'config' });
  const object = reader.object(parseBoundedJson(Buffer.from(output), MAX_FILE, reader.kind), '');
  const user = reader.string(object.Username, 'Username');
  const secret = reader.string(object.Secret, 'Secret');
  if (secret === '') return undefined;
  return user === '<token>'
    ? { kind: 'identity', token: secret }
    : { kind: 'basic', user, password: secret };
}

/** Its output may hold secrets and is not shown. */
function helperFailed(program: string, error: Error): TspodError {
  const errno = errnoOf(error);
  const killed = 'killed' in error && error.killed === true;
  let why = 'it failed';
  if (errno === 'ENOENT') why = 'it is not in the PATH';
  else if (errno === 'ERR_CHILD_PROCESS_STDIO_MAXBUFFER')
    why = `over ${HELPER_OUTPUT} bytes of output`;
  else if (killed) why = `no answer in ${HELPER_TIMEOUT / 1000} s`;
  else if ('code' in error && typeof error.code === 'number') why = `exit status ${error.code}`;
  return new TspodError('config', `credential helper ${program}: ${why}`, {
    hint: 'see credHelpers and credsStore of the docker configuration',
  });
}
