/**
 * `auth.d`: credentials of HTTP servers (kind `auth`) and of registries (kind `dockerAuth`), in rkt's
 * fields. Nothing of a value is ever part of a message.
 */
import type { JsonObject, JsonReader } from '../image/json.ts';
import type { Entry } from './config.ts';

export interface Auth {
  readonly kind: 'auth';
  readonly domain: string;
  readonly credentials: AuthCredentials;
}

export type AuthCredentials =
  | { readonly type: 'basic'; readonly user: string; readonly password: string }
  | { readonly type: 'oauth'; readonly token: string }
  | {
      readonly type: 'aws';
      readonly accessKeyID: string;
      readonly secretAccessKey: string;
      readonly awsRegion?: string;
    };

export interface DockerAuth {
  readonly kind: 'dockerAuth';
  /** HOST[:PORT] as configured */
  readonly registry: string;
  readonly user: string;
  readonly password: string;
}

const MAX_DOMAINS = 1000;

export function readAuth(reader: JsonReader, object: JsonObject): readonly Entry<Auth>[] {
  const domains = names(reader, object, 'domains');
  const credentials = readCredentials(reader, object);
  return domains.map(domain => ({ key: domain, value: { kind: 'auth', domain, credentials } }));
}

export function readDockerAuth(
  reader: JsonReader,
  object: JsonObject,
): readonly Entry<DockerAuth>[] {
  const registries = names(reader, object, 'registries');
  const credentials = reader.object(object.credentials, 'credentials');
  const user = reader.nonEmptyString(credentials.user, 'credentials.user');
  const password = reader.nonEmptyString(credentials.password, 'credentials.password');
  return registries.map(registry => ({
    key: registry,
    value: { kind: 'dockerAuth', registry, user, password },
  }));
}

function names(reader: JsonReader, object: JsonObject, key: string): readonly string[] {
  const list = reader.array(object[key], key, MAX_DOMAINS);
  if (list.length === 0) reader.fail(key, 'is empty');
  return list.map((item, index) => reader.nonEmptyString(item, `${key}[${index}]`).toLowerCase());
}

function readCredentials(reader: JsonReader, object: JsonObject): AuthCredentials {
  const type = reader.nonEmptyString(object.type, 'type');
  const credentials = reader.object(object.credentials, 'credentials');
  const text = (key: string) => reader.nonEmptyString(credentials[key], `credentials.${key}`);
  switch (type) {
    case 'basic':
      return { type, user: text('user'), password: text('password') };
    case 'oauth':
      return { type, token: text('token') };
    case 'aws': {
      const awsRegion = reader.optionalString(credentials.awsRegion, 'credentials.awsRegion');
      return {
        type,
        accessKeyID: text('accessKeyID'),
        secretAccessKey: text('secretAccessKey'),
        ...(awsRegion === undefined ? {} : { awsRegion }),
      };
    }
    default:
      return reader.fail('type', `${JSON.stringify(type)} is not basic, oauth or aws`);
  }
}
